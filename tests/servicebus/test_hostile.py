"""Somebody who may write anything into the queue, a programmer who is careless, and what ends at the worst time."""

import asyncio

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.amqp import AmqpAnnotatedMessage

from postseal.core import ConfigError, Refused, Verdict
from postseal.core.wire import looks_sealed
from postseal.servicebus import _settling, unprotect
from postseal.servicebus._copies import copy_of
from postseal.servicebus._message import envelope_of
from postseal.servicebus._sdk import encode_sections

CARD = "4111 1111 1111 1111"
DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE


def body(message):
    return b"".join(message.body)


def send(ends, queue, sealer, *texts, **options):
    with ends.client(sealer).get_queue_sender(queue) as sender:
        for text in texts:
            sender.send_messages(ServiceBusMessage(text, **options))


def inject(ends, queue, one, **options):
    with ends.bare.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage(one, **options))


def peeked(ends, queue, **options):
    with ends.bare.get_queue_receiver(queue, **options) as receiver:
        return receiver.peek_messages(100)


@pytest.fixture
def refused(server):
    """A queue for refused messages."""
    return server.new_queue()


# -- received and deleted ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kept", [True, False], ids=["quarantine", "no quarantine"])
def test_what_was_opened_and_not_handed_on_goes_back_sealed(ends, queue, refused, monkeypatch, kept):
    """A1: the call that was to return it was interrupted, and then the receiver closed."""
    options = {"on_refused": "quarantine", "quarantine": f"servicebus:{refused}"} if kept else {}
    sealer = ends.sealer(ends.policy(queue, **options))
    send(ends, queue, sealer, CARD)
    inject(ends, queue, "clear")

    def interrupted(*_):
        raise asyncio.CancelledError

    receiver = ends.client(sealer).get_queue_receiver(queue, receive_mode=DELETE)
    with receiver, monkeypatch.context() as patch:
        patch.setattr(_settling.Settling, "settle", interrupted)
        for _ in range(2):  # the other one may not be here yet
            with pytest.raises(asyncio.CancelledError):
                receiver.receive_messages(2, max_wait_time=5)
    there = [body(message) for message in peeked(ends, refused if kept else queue)]
    assert not [one for one in there if CARD.encode() in one]
    assert [one for one in there if looks_sealed(one)]
    assert {m.content_type for m in peeked(ends, refused if kept else queue) if looks_sealed(body(m))} == {
        "application/cose"
    }


def test_what_was_peeked_is_not_kept_as_if_it_was_received(ends, queue, refused):
    """It still lies there: a copy for each look would fill the quarantine."""
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    inject(ends, queue, CARD)
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert receiver.peek_messages(10) == []
        assert receiver.peek_messages(10) == []
    assert peeked(ends, refused) == []
    assert len(peeked(ends, queue)) == 1


def test_unprotecting_does_not_lose_what_waits(ends, queue):
    policy = ends.policy(queue)
    send(ends, queue, ends.sealer(policy), "one")
    client = ends.client(ends.sealer(policy))
    ends.keys.unavailable.set()
    with client.get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.1) == []
        with pytest.raises(ConfigError, match="received and deleted"):
            unprotect(getattr(client, "inner", client))
        ends.keys.unavailable.clear()
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert str(message) == "one"
    unprotect(getattr(client, "inner", client))


# -- session state -----------------------------------------------------------------------------------------------------


def test_the_state_of_a_session_cannot_come_as_a_message(server, ends):
    """A9: whoever can read it at the broker could put it into the queue, with what it is bound to as its content encoding."""
    queue = server.new_queue(requires_session=True)
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_receiver(queue, session_id="s-1") as receiver:
        receiver.session.set_state(b"the state")
    with ends.bare.get_queue_receiver(queue, session_id="s-1") as receiver:
        held = receiver.session.get_state()
    inject(ends, queue, held, session_id="s-1", content_type="application/cose")
    message = AmqpAnnotatedMessage(
        data_body=held,
        properties={"content_encoding": "postseal session state s-1", "group_id": "s-1"},
    )
    with ends.bare.get_queue_sender(queue) as sender:
        sender.send_messages(message)
    with ends.client(sealer).get_queue_receiver(queue, session_id="s-1") as receiver:
        with pytest.raises(Refused):
            receiver.receive_messages(10, max_wait_time=1)
        assert receiver.session.get_state() == b"the state"
    assert len(ends.events) == 2
    assert set(ends.verdicts()) == {Verdict.FORGED}


def test_no_producer_makes_a_message_that_would_be_the_state_of_a_session(server, ends):
    queue = server.new_queue(requires_session=True)
    message = AmqpAnnotatedMessage(
        data_body=b"x", properties={"content_encoding": "postseal session state s-1", "group_id": "s-1"}
    )
    sender = ends.client(ends.sealer(ends.policy(queue))).get_queue_sender(queue)
    with sender, pytest.raises(ValueError, match="content_encoding"):
        sender.send_messages(message)
    assert peeked(ends, queue, session_id="s-1") == []


# -- bodies that are none ----------------------------------------------------------------------------------------------


class Raw(AmqpAnnotatedMessage):
    """As it is decoded from a data section that holds something else than bytes."""

    def __init__(self, value):
        super().__init__(data_body=b"")
        self._data_body = [value]


@pytest.mark.parametrize("value", [5, None, [], {}])
def test_a_data_section_without_bytes_is_no_envelope(value):
    assert envelope_of(Raw(value)) == b""


@pytest.mark.parametrize("value", [5, None, [], {}])
def test_a_data_section_without_bytes_can_be_kept(value):
    assert encode_sections(copy_of(Raw(value), "malformed"))


def test_what_shows_a_body_that_cannot_be_sent_is_not_larger_than_it():
    """Else whoever sends one stops a receiver that deletes: its copy would be refused by the broker for ever."""
    size = 200_000
    raw = AmqpAnnotatedMessage(value_body={b"n": 2**40, b"\xff": b"\xfe" * size})
    with pytest.raises(Exception):  # noqa: B017, PT011 - whatever the encoder says
        encode_sections(raw)
    assert len(encode_sections(copy_of(raw, "unprotected"))) < size


def test_a_refused_message_too_large_for_a_copy_holds_up_nobody(server, ends, queue):
    """Whoever fills a message to the limit leaves no room for the verdict on its copy."""
    kept = server.new_queue(max_message_size=100_000)
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{kept}")
    sealer = ends.sealer(policy)
    inject(ends, queue, b"x" * 100_000)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert str(message) == "good"
    [copy] = peeked(ends, kept)
    assert copy.application_properties == {
        b"postseal-verdict": b"unprotected",
        b"postseal-destination": f"servicebus:{queue}".encode(),
    }
    assert body(copy).startswith(b"{'data_body': [b'xxx")
