"""What becomes of messages that are not handed on: refused ones by their policy, waiting ones kept and given back."""

import logging
import uuid

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.amqp import AmqpAnnotatedMessage
from azure.servicebus.exceptions import ServiceBusError

from postseal.core import KeyUnavailable, Refused, Verdict
from postseal.core.wire import looks_sealed
from postseal.servicebus import VERDICT_PROPERTY

CARD = "4111 1111 1111 1111"
DELETE = ServiceBusReceiveMode.RECEIVE_AND_DELETE


def body(message):
    return b"".join(message.body)


def send(ends, queue, sealer, *texts, **options):
    with ends.client(sealer).get_queue_sender(queue) as sender:
        for text in texts:
            sender.send_messages(ServiceBusMessage(text, **options))


def inject(ends, queue, *bodies, **options):
    with ends.bare.get_queue_sender(queue) as sender:
        for one in bodies:
            sender.send_messages(
                one if isinstance(one, AmqpAnnotatedMessage) else ServiceBusMessage(one, **options)
            )


def peeked(ends, queue, **options):
    with ends.bare.get_queue_receiver(queue, **options) as receiver:
        return receiver.peek_messages(100)


@pytest.fixture
def refused(server):
    """A queue for refused messages."""
    return server.new_queue()


def drained(receiver):
    """Receive and complete until nothing comes, as the loops of the client's samples do; return what came."""
    came = []
    while messages := receiver.receive_messages(10, max_wait_time=0.5):
        for message in messages:
            came.append(str(message))
            receiver.complete_message(message)
    return came


# -- refused, by policy ------------------------------------------------------------------------------------------------


def test_dead_lettered_with_the_verdict_as_reason(ends, queue):
    """A9: and with a description that says nothing of it."""
    sealer = ends.sealer(ends.policy(queue, on_refused="dead-letter"))
    inject(ends, queue, CARD)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == ["good"]
    [letter] = peeked(ends, queue, sub_queue="deadletter")
    assert letter.dead_letter_reason == "unprotected"
    assert letter.dead_letter_error_description == f"message refused at servicebus:{queue}: unprotected"
    assert peeked(ends, queue) == []
    assert ends.verdicts() == [Verdict.UNPROTECTED]


def test_a_flood_of_refused_messages_does_not_look_like_an_empty_queue(ends, queue):
    """A loop that ends when nothing comes would end at the attacker's first message."""
    sealer = ends.sealer(ends.policy(queue, on_refused="dead-letter"))
    inject(ends, queue, *["clear"] * 12)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=10)
        assert str(message) == "good"
        receiver.complete_message(message)
    assert ends.verdicts() == [Verdict.UNPROTECTED] * 12


def test_quarantined_as_it_came_and_completed(ends, queue, refused):
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    sealer = ends.sealer(policy)
    other = ends.sealer(ends.policy(refused))
    send(ends, refused, other, CARD)
    [moved] = peeked(ends, refused)
    inject(
        ends, queue, body(moved), application_properties={"tenant": "north"}, message_id="m-1", subject="new"
    )
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == ["good"]
    _, copy = peeked(ends, refused)
    assert body(copy) == body(moved)
    assert copy.application_properties == {
        b"tenant": b"north",
        VERDICT_PROPERTY.encode(): b"wrong-destination",
        b"postseal-destination": f"servicebus:{queue}".encode(),
    }
    assert (copy.message_id, copy.subject) == ("m-1", "new")
    assert peeked(ends, queue) == []
    assert peeked(ends, queue, sub_queue="deadletter") == []


def test_what_the_quarantine_did_not_confirm_is_not_completed(ends, queue):
    policy = ends.policy(queue, on_refused="quarantine", quarantine="servicebus:nowhere")
    sealer = ends.sealer(policy)
    inject(ends, queue, CARD)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert [str(m) for m in receiver.receive_messages(2, max_wait_time=5)] == ["good"]
    assert CARD.encode() in [body(m) for m in peeked(ends, queue)]


def test_a_quarantine_that_is_the_queue_itself_makes_no_circle(ends, queue):
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{queue}")
    inject(ends, queue, CARD)
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(10, max_wait_time=0.5) == []
    assert [body(m) for m in peeked(ends, queue)] == [CARD.encode()]
    assert len(ends.events) == 1


def test_discarded(ends, queue):
    sealer = ends.sealer(ends.policy(queue, on_refused="discard"))
    inject(ends, queue, CARD)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == ["good"]
    assert peeked(ends, queue) == []
    assert peeked(ends, queue, sub_queue="deadletter") == []


def test_raised_where_nothing_good_stands_beside_it(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    inject(ends, queue, CARD)
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=1) as receiver:
        with pytest.raises(Refused) as failed:
            receiver.receive_messages(10)
        assert failed.value.verdict is Verdict.UNPROTECTED
        assert "4111" not in str(failed.value)
        send(ends, queue, sealer, "good")
        assert [str(m) for m in receiver.receive_messages(10)] == ["good"]


def test_raised_by_iteration_which_goes_on_behind_it(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one")
    inject(ends, queue, CARD)
    send(ends, queue, sealer, "two")
    came = []
    with ends.client(sealer).get_queue_receiver(queue, max_wait_time=0.5) as receiver:
        messages = iter(receiver)
        came.append(str(next(messages)))
        with pytest.raises(Refused):
            next(messages)
        came += [str(message) for message in receiver]
    assert came == ["one", "two"]
    assert ends.verdicts() == [Verdict.UNPROTECTED]


def test_what_is_raised_ends_among_the_dead_letters_by_the_brokers_own_count(server, ends):
    queue = server.new_queue(lock_duration=0.5, max_delivery_count=2)
    sealer = ends.sealer(ends.policy(queue))
    inject(ends, queue, CARD)
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        for _ in range(2):
            with pytest.raises(Refused):
                receiver.receive_messages(10, max_wait_time=5)
        assert receiver.receive_messages(10, max_wait_time=1) == []
    assert [body(m) for m in peeked(ends, queue, sub_queue="deadletter")] == [CARD.encode()]
    assert len(ends.events) == 2


def test_who_only_observes_settles_nothing(ends, queue):
    policy = ends.policy(queue, mode="observe", on_refused="dead-letter")
    send(ends, queue, ends.sealer(ends.policy(queue)), "sealed")
    envelope = body(peeked(ends, queue)[0])
    inject(ends, queue, "clear", envelope[:-1])
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue) as receiver:
        assert [str(m) for m in receiver.receive_messages(3, max_wait_time=5)] == ["sealed", "clear"]
    assert ends.verdicts() == [Verdict.UNPROTECTED, Verdict.MALFORMED]
    assert len(peeked(ends, queue)) == 3


def test_with_its_mode_off_everything_passes(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "sealed")
    inject(ends, queue, "clear")
    with ends.client(ends.sealer(ends.policy(queue, mode="off"))).get_queue_receiver(queue) as receiver:
        sealed, clear = receiver.receive_messages(2, max_wait_time=5)
    assert looks_sealed(body(sealed))
    assert str(clear) == "clear"
    assert ends.events == []


def test_a_dead_letter_is_not_dead_lettered_again(ends, queue):
    sealer = ends.sealer(ends.policy(queue, on_refused="dead-letter"))
    inject(ends, queue, CARD)
    client = ends.client(sealer)
    with client.get_queue_receiver(queue) as receiver:
        assert drained(receiver) == []
    with client.get_queue_receiver(queue, sub_queue="deadletter") as receiver:
        assert receiver.receive_messages(10, max_wait_time=0.5) == []
    assert len(peeked(ends, queue, sub_queue="deadletter")) == 1


@pytest.mark.parametrize(
    "raw",
    [
        AmqpAnnotatedMessage(value_body=CARD),
        AmqpAnnotatedMessage(value_body={"card": CARD}),
        AmqpAnnotatedMessage(value_body=None),
        AmqpAnnotatedMessage(sequence_body=[CARD]),
    ],
    ids=["text", "map", "nothing", "sequence"],
)
def test_a_body_that_is_no_bytes_is_refused(ends, queue, refused, raw):
    """A9: and kept as it came."""
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    inject(ends, queue, raw)
    [bare] = peeked(ends, queue)
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == []
    assert ends.verdicts() == [Verdict.UNPROTECTED]
    [copy] = peeked(ends, refused)
    assert (copy.body_type, str(copy)) == (bare.body_type, str(bare))


def test_an_envelope_in_two_sections_is_one(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "good")
    envelope = body(peeked(ends, queue)[0])
    inject(ends, queue, AmqpAnnotatedMessage(data_body=[envelope[:10], envelope[10:]]))
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == ["good", "good"]


@pytest.mark.parametrize("wrong", [5, True, 1.5, uuid.UUID(int=1), None], ids=repr)
def test_a_bound_property_of_another_type_is_refused(ends, queue, wrong):
    policy = ends.policy(queue, bind_headers=["tenant"], on_refused="discard")
    send(ends, queue, ends.sealer(policy), CARD, application_properties={"tenant": "5"})
    [raw] = peeked(ends, queue)
    inject(ends, queue, body(raw), application_properties={"tenant": wrong})
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == [CARD]
    assert ends.verdicts() == [Verdict.FORGED]


def test_nothing_logged_shows_a_message(ends, queue, refused, caplog):
    caplog.set_level(logging.INFO)
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    sealer = ends.sealer(policy)
    inject(ends, queue, CARD, application_properties={"secret": "swordfish"})
    send(ends, queue, sealer, CARD, application_properties={"secret": "swordfish"})
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert drained(receiver) == [CARD]
    ours = [r for r in caplog.records if r.name.startswith("postseal")]
    assert ours
    assert not [r for r in caplog.records if "4111" in r.getMessage() or "swordfish" in r.getMessage()]


# -- refused, received and deleted -------------------------------------------------------------------------------------


@pytest.mark.parametrize("on_refused", ["quarantine", "dead-letter", "raise"])
def test_what_was_deleted_goes_to_the_quarantine_if_there_is_one(ends, queue, refused, on_refused):
    policy = ends.policy(queue, on_refused=on_refused, quarantine=f"servicebus:{refused}")
    sealer = ends.sealer(policy)
    inject(ends, queue, CARD)
    send(ends, queue, sealer, "good")
    with ends.client(sealer).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert [str(m) for m in receiver.receive_messages(2, max_wait_time=5)] == ["good"]
    [copy] = peeked(ends, refused)
    assert body(copy) == CARD.encode()
    assert copy.application_properties == {
        VERDICT_PROPERTY.encode(): b"unprotected",
        b"postseal-destination": f"servicebus:{queue}".encode(),
    }
    assert len(ends.events) == 1


def test_what_was_deleted_is_kept_until_the_quarantine_answers(server, ends, queue, refused):
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    sealer = ends.sealer(policy)
    inject(ends, queue, CARD)
    server.inject("send", "refuse", entity=refused, times=6, condition="amqp:not-allowed")
    with ends.client(sealer).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        assert peeked(ends, refused) == []
        send(ends, queue, sealer, "good")
        with pytest.raises(ServiceBusError):
            receiver.receive_messages(1, max_wait_time=0.2)
        server.heal()
        assert [str(m) for m in receiver.receive_messages(1, max_wait_time=5)] == ["good"]
    assert [body(m) for m in peeked(ends, refused)] == [CARD.encode()]
    assert len(ends.events) == 1


def test_what_was_deleted_is_saved_when_the_receiver_closes(server, ends, queue, refused):
    policy = ends.policy(queue, on_refused="quarantine", quarantine=f"servicebus:{refused}")
    inject(ends, queue, CARD)
    server.inject("send", "refuse", entity=refused, times=2, condition="amqp:not-allowed")
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.5) == []
        server.heal()
    assert [body(m) for m in peeked(ends, refused)] == [CARD.encode()]


# -- waiting for the key service ---------------------------------------------------------------------------------------


def test_a_short_outage_does_not_count_as_a_delivery(ends, queue):
    """B14: the message is kept, not abandoned, so the broker's count of deliveries stays where it was."""
    send(ends, queue, ends.sealer(ends.policy(queue)), "one", "two")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        for _ in range(5):
            assert receiver.receive_messages(10, max_wait_time=0.1) == []
        asked = ends.keys.calls["unwrap"]
        ends.keys.unavailable.clear()
        came = receiver.receive_messages(10, max_wait_time=5)
        assert [(str(m), m.delivery_count) for m in came] == [("one", 0), ("two", 0)]
        assert 1 <= asked <= 10
        for message in came:
            receiver.complete_message(message)
    assert ends.events == []
    assert peeked(ends, queue) == []


def test_iteration_waits_out_an_outage(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one", "two", "three")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(
        queue, max_wait_time=0.3
    ) as receiver:
        assert [str(message) for message in receiver] == []
        ends.keys.unavailable.clear()
        assert [(str(m), m.delivery_count) for m in receiver] == [("one", 0), ("two", 0), ("three", 0)]


def test_what_opens_with_keys_at_hand_is_handed_on_past_what_waits(ends, queue):
    """B14: an outage stops nobody whose key is cached."""
    policy = ends.policy(queue)
    warm, cold, opener = ends.sealer(policy), ends.sealer(policy), ends.sealer(policy)
    client = ends.client(opener)
    send(ends, queue, warm, "warm")
    with client.get_queue_receiver(queue) as receiver:
        assert drained(receiver) == ["warm"]
        send(ends, queue, cold, "cold")
        send(ends, queue, warm, "one", "two")
        ends.keys.unavailable.set()
        came = []
        while len(came) < 2:
            came += [str(m) for m in receiver.receive_messages(10, max_wait_time=5)]
        assert came == ["one", "two"]
        ends.keys.unavailable.clear()
        assert [str(m) for m in receiver.receive_messages(10, max_wait_time=5)] == ["cold"]


def test_no_more_is_returned_than_was_asked_for(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "1", "2", "3")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(3, max_wait_time=0.2) == []
        ends.keys.unavailable.clear()
        for number in ("1", "2", "3"):
            assert [str(m) for m in receiver.receive_messages(1, max_wait_time=5)] == [number]


def test_a_lock_is_renewed_while_its_message_waits(server, ends):
    queue = server.new_queue(lock_duration=2)
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(1, max_wait_time=3) == []
        ends.keys.unavailable.clear()
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert message.delivery_count == 0
        receiver.complete_message(message)
    assert peeked(ends, queue) == []


def test_a_lock_that_ended_meanwhile_brings_the_message_again_once(server, ends):
    queue = server.new_queue(lock_duration=1)
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.05) == []
        ends.nap(1.2)
        ends.keys.unavailable.clear()
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert message.delivery_count >= 1
        receiver.complete_message(message)
        assert receiver.receive_messages(1, max_wait_time=0.3) == []
    assert peeked(ends, queue) == []


def test_what_waited_too_long_is_abandoned(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    ends.keys.unavailable.set()
    client = ends.client(ends.sealer(ends.policy(queue)), give_back_after=0.1)
    with client.get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(1, max_wait_time=1) == []
        ends.keys.unavailable.clear()
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert message.delivery_count >= 1
        receiver.complete_message(message)


def test_what_waits_is_given_back_when_the_receiver_closes(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.1) == []
    ends.keys.unavailable.clear()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(queue) as receiver:
        [message] = receiver.receive_messages(1, max_wait_time=5)
        assert str(message) == "one"
        receiver.complete_message(message)


@pytest.mark.parametrize("kept", [True, False], ids=["quarantine", "no quarantine"])
def test_what_was_deleted_and_waits_is_not_lost_when_the_receiver_closes(ends, queue, refused, kept):
    options = {"quarantine": f"servicebus:{refused}"} if kept else {}
    policy = ends.policy(queue, **options)
    send(ends, queue, ends.sealer(policy), "one", application_properties={"a": "b"})
    [sent] = peeked(ends, queue)
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(policy)).get_queue_receiver(queue, receive_mode=DELETE) as receiver:
        assert receiver.receive_messages(1, max_wait_time=0.1) == []
        assert peeked(ends, queue) == []
    [copy] = peeked(ends, refused if kept else queue)
    assert body(copy) == body(sent)
    place = f"servicebus:{queue}".encode()
    ours = {VERDICT_PROPERTY.encode(): b"key-unavailable", b"postseal-destination": place} if kept else {}
    assert copy.application_properties == {b"a": b"b"} | ours
    assert ends.events == []


def test_what_was_deleted_and_waits_is_handed_on_when_the_key_is_back(ends, queue):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one", "two")
    ends.keys.unavailable.set()
    with ends.client(ends.sealer(ends.policy(queue))).get_queue_receiver(
        queue, receive_mode=DELETE
    ) as receiver:
        assert receiver.receive_messages(2, max_wait_time=0.3) == []
        ends.keys.unavailable.clear()
        came = []
        while len(came) < 2:
            came += [str(m) for m in receiver.receive_messages(2, max_wait_time=5)]
        assert came == ["one", "two"]


def test_a_fault_of_the_key_provider_is_raised_and_loses_nothing(ends, queue, monkeypatch):
    send(ends, queue, ends.sealer(ends.policy(queue)), "one")

    def broken(*_):
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(ends.keys, "unwrap", broken)
    client = ends.client(ends.sealer(ends.policy(queue)))
    with client.get_queue_receiver(queue) as receiver, pytest.raises(ZeroDivisionError):
        receiver.receive_messages(1, max_wait_time=5)
    assert len(peeked(ends, queue)) == 1
    assert ends.events == []


def test_sending_says_that_the_key_service_is_away(ends, queue):
    ends.keys.unavailable.set()
    with pytest.raises(KeyUnavailable):
        send(ends, queue, ends.sealer(ends.policy(queue)), "one")
