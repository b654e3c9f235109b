"""When the ledger is told that a message is settled, and when not."""

import pytest
from azure.servicebus import ServiceBusReceiveMode
from azure.servicebus.exceptions import MessageLockLostError

from postseal.core import LedgerUnavailable, Verdict
from tests.ledgers import Noting
from tests.servicebus.test_receiving import body, send


@pytest.fixture
def ledger():
    return Noting()


@pytest.fixture
def sealer(ends, queue, ledger):
    return ends.sealer(ends.policy(queue), ledger=ledger)


def test_completing_settles_and_nothing_else_does(ends, queue, sealer, ledger):
    send(ends, queue, sealer, "one", "two", "three", "four")
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=0.3) as receiver:
        one, two, three, four = receiver.receive_messages(4, max_wait_time=1)
        receiver.abandon_message(one)
        receiver.dead_letter_message(two)
        receiver.defer_message(three)
        assert ledger.settled == set()
        receiver.complete_message(four)
        assert len(ledger.settled) == 1
        [deferred] = receiver.receive_deferred_messages([three.sequence_number])
        receiver.complete_message(deferred)
        assert len(ledger.settled) == 2
    assert ends.events == []


def test_what_the_broker_does_not_complete_is_taken_back(ends, queue, sealer, ledger):
    send(ends, queue, sealer, "one")
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=0.3) as receiver:
        [one] = receiver.receive_messages(1, max_wait_time=1)
        receiver.abandon_message(one)
        with pytest.raises((MessageLockLostError, ValueError)):
            receiver.complete_message(one)
    assert ledger.settled == set()


def test_what_the_ledger_does_not_take_is_not_completed(ends, queue, sealer, ledger):
    send(ends, queue, sealer, "one")
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=0.3) as receiver:
        [one] = receiver.receive_messages(1, max_wait_time=1)
        ledger.away = True
        with pytest.raises(LedgerUnavailable):
            receiver.complete_message(one)
        ledger.away = False
        receiver.complete_message(one)
    assert len(ledger.settled) == 1


def test_what_is_received_and_deleted_is_settled_as_it_is_handed_on(ends, queue, sealer, ledger):
    send(ends, queue, sealer, "one", "two", "three")
    deleting = {"receive_mode": ServiceBusReceiveMode.RECEIVE_AND_DELETE, "max_wait_time": 0.3}
    with ends.client(sealer).get_queue_receiver(queue, **deleting) as receiver:
        ledger.away = True
        with pytest.raises(LedgerUnavailable):
            receiver.receive_messages(1, max_wait_time=1)
        assert ledger.settled == set()
        ledger.away = False
        assert [body(message) for message in receiver.receive_messages(1, max_wait_time=1)] == [b"one"]
        assert len(ledger.settled) == 1
        assert [body(message) for message in receiver] == [b"two", b"three"]
    assert len(ledger.settled) == 3
    assert ends.events == []


def test_looking_is_no_delivery(ends, queue, sealer, ledger):
    """A peeked message may be settled already, or never: the ledger is not asked."""
    send(ends, queue, sealer, "one")
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=0.3) as receiver:
        for _ in range(2):
            assert len(receiver.peek_messages(1, sequence_number=1)) == 1
        assert len(ledger) == 0
        [one] = receiver.receive_messages(1, max_wait_time=1)
        receiver.complete_message(one)
    assert ends.events == []


def test_each_subscription_is_a_place_of_its_own(ends, server, ledger):
    topic = server.new_topic("first", "second")
    sealer = ends.sealer(ends.policy(topic), ledger=ledger)
    client = ends.client(sealer)
    with client.get_topic_sender(topic) as sender:
        from azure.servicebus import ServiceBusMessage

        sender.send_messages(ServiceBusMessage("one"))
    for subscription in ("first", "second"):
        with client.get_subscription_receiver(topic, subscription, max_wait_time=0.3) as receiver:
            [message] = receiver.receive_messages(1, max_wait_time=1)
            receiver.complete_message(message)
    assert len(ledger.settled) == 2
    assert Verdict.DUPLICATE not in [event.verdict for event in ends.events]
