"""What leaves a protected sender: sealed, whole, once; and nothing else."""

import copy
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType
from azure.servicebus.exceptions import MessageSizeExceededError, ServiceBusError

from postseal.core import ConfigError, DataKeyLimits, KeyUnavailable, Refused
from postseal.core.wire import decode, looks_sealed
from postseal.servicebus._message import CONTENT_TYPE

CARD = "4111 1111 1111 1111"


def held(ends, queue, count):
    """Return what the broker holds: *count* messages, settling nothing."""
    with ends.bare.get_queue_receiver(queue) as receiver:
        found = receiver.peek_messages(100)
    assert len(found) == count
    return found


def body(message):
    return b"".join(message.body)


def taken(ends, queue, sealer, count=1, **options):
    """Receive and complete *count* messages through the adapter."""
    with ends.client(sealer).get_queue_receiver(queue, **options) as receiver:
        came = []
        while len(came) < count:
            messages = receiver.receive_messages(count, max_wait_time=5)
            assert messages
            came += messages
            for message in messages:
                receiver.complete_message(message)
    return came


# -- every way to send -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "message",
    [
        ServiceBusMessage(CARD),
        AmqpAnnotatedMessage(data_body=CARD),
        {"body": CARD},
        [ServiceBusMessage(CARD)],
        (ServiceBusMessage(text) for text in [CARD]),
        ({"body": CARD},),
    ],
    ids=["message", "annotated", "mapping", "list", "generator", "tuple"],
)
def test_whatever_a_sender_takes_is_sealed(server, ends, message):
    """A1: the generator serves one of the two clients only, so each gets a queue and what is left of it."""
    queue = server.new_queue()
    if ends.is_asyncio and not isinstance(
        message, (list, tuple, dict, ServiceBusMessage, AmqpAnnotatedMessage)
    ):
        message = (ServiceBusMessage(text) for text in [CARD])
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        sender.send_messages(message)
    [raw] = held(ends, queue, 1)
    assert looks_sealed(body(raw))
    assert raw.content_type == CONTENT_TYPE
    assert CARD.encode() not in body(raw)
    [came] = taken(ends, queue, ends.sealer(ends.policy(queue)))
    assert str(came) == CARD


def test_a_batch_counts_what_travels(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        assert isinstance(batch, ServiceBusMessageBatch)
        empty = batch.size_in_bytes
        batch.add_message(ServiceBusMessage(CARD))
        bare = ServiceBusMessageBatch()
        bare.add_message(ServiceBusMessage(CARD))
        assert batch.size_in_bytes - empty > bare.size_in_bytes - empty + 200
        batch.add_message({"body": CARD})
        batch.add_message(AmqpAnnotatedMessage(data_body=CARD))
        assert len(batch) == 3
        sender.send_messages(batch)
    assert all(looks_sealed(body(raw)) for raw in held(ends, queue, 3))


def test_a_batch_is_full_by_its_sealed_size(ends, queue):
    """The loop of the client's own README: fill, and send when it says that it is full."""
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch(max_size_in_bytes=2000)
        count = 0
        while True:
            try:
                batch.add_message(ServiceBusMessage("x" * 100))
            except ValueError:
                break
            count += 1
        assert count == len(batch) < 2000 // 300
        sender.send_messages(batch)
    assert len(taken(ends, queue, ends.sealer(ends.policy(queue)), count)) == count


def test_a_batch_can_be_sent_again(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD))
        sender.send_messages(batch)
        sender.send_messages(batch)
    assert {body(raw) for raw in held(ends, queue, 2)} == {body(held(ends, queue, 2)[0])}
    assert [str(m) for m in taken(ends, queue, ends.sealer(ends.policy(queue)), 2)] == [CARD, CARD]


def test_with_a_data_key_for_each_message_a_batch_is_sealed_too(ends, queue):
    """A7: filling a batch of the asyncio client cannot wait for a key, so sealing is put off until it is sent."""
    policy = ends.policy(queue, data_key=DataKeyLimits(max_messages=1))
    with ends.client(ends.sealer(policy)).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        before = ends.keys.calls["generate"]
        for number in range(3):
            batch.add_message(ServiceBusMessage(f"order {number}", content_type="text/plain"))
        size = batch.size_in_bytes
        sender.send_messages(batch)
        assert ends.keys.calls["generate"] - before == 3
    raws = held(ends, queue, 3)
    assert all(looks_sealed(body(raw)) for raw in raws)
    assert size >= sum(len(body(raw)) for raw in raws)
    came = taken(ends, queue, ends.sealer(policy), 3)
    assert [(str(m), m.content_type) for m in came] == [(f"order {n}", "text/plain") for n in range(3)]


def test_a_batch_that_outlives_its_data_key_is_sealed_whole(ends, queue):
    policy = ends.policy(queue, data_key=DataKeyLimits(max_messages=3))
    with ends.client(ends.sealer(policy)).get_queue_sender(queue) as sender:
        batch = sender.create_message_batch()
        for number in range(8):
            batch.add_message(ServiceBusMessage(f"order {number}"))
        sender.send_messages(batch)
        sender.send_messages(batch)
    assert all(looks_sealed(body(raw)) for raw in held(ends, queue, 16))
    came = taken(ends, queue, ends.sealer(policy), 16)
    assert [str(m) for m in came] == [f"order {n}" for n in range(8)] * 2


def test_a_list_that_does_not_fit_is_refused_as_ever_and_whole(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender, pytest.raises(MessageSizeExceededError):
        sender.send_messages([ServiceBusMessage("x" * 200_000) for _ in range(10)])
    held(ends, queue, 0)


def test_nothing_to_send_is_nothing_sent(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        sender.send_messages([])
        sender.send_messages(sender.create_message_batch())
    held(ends, queue, 0)


def test_what_no_sender_takes_is_not_taken_and_not_shown(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        for wrong in (4111, CARD, [CARD], None):
            with pytest.raises(TypeError) as failed:
                sender.send_messages(wrong)
            assert "4111" not in str(failed.value)
    held(ends, queue, 0)


# -- scheduled ---------------------------------------------------------------------------------------------------------


def test_scheduled_messages_are_sealed_and_can_be_cancelled(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    later = datetime.now(UTC) + timedelta(hours=1)
    messages = [ServiceBusMessage(CARD), ServiceBusMessage("other")]
    with ends.client(sealer).get_queue_sender(queue) as sender:
        numbers = sender.schedule_messages(messages, later)
        [alone] = sender.schedule_messages(messages[0], later)
        assert all(looks_sealed(body(raw)) for raw in held(ends, queue, 3))
        sender.cancel_scheduled_messages([*numbers, alone])
    held(ends, queue, 0)
    assert messages[0].scheduled_enqueue_time_utc is None


def test_a_scheduled_message_arrives_opened(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        sender.schedule_messages(ServiceBusMessage(CARD), datetime.now(UTC) + timedelta(seconds=1))
    [came] = taken(ends, queue, ends.sealer(ends.policy(queue)))
    assert str(came) == CARD
    assert came.scheduled_enqueue_time_utc is not None


# -- what stays as it was ----------------------------------------------------------------------------------------------


def test_messages_stay_as_they_were_and_can_be_sent_again(ends, queue):
    """A message object sent twice is sealed twice from its clear body, never from a sealed one."""
    message = ServiceBusMessage(CARD, application_properties={"tenant": b"north"}, content_type="text/plain")
    before = copy.deepcopy(vars(message.raw_amqp_message))
    policy = ends.policy(queue, bind_headers=["tenant"])
    with ends.client(ends.sealer(policy)).get_queue_sender(queue) as sender:
        sender.send_messages(message)
        sender.send_messages([message])
        batch = sender.create_message_batch()
        batch.add_message(message)
        sender.send_messages(batch)
    assert vars(message.raw_amqp_message) == before
    first, second, third = held(ends, queue, 3)
    assert len({body(first), body(second), body(third)}) == 3
    assert [str(m) for m in taken(ends, queue, ends.sealer(policy), 3)] == [CARD] * 3


def test_a_received_message_can_be_sent_on(server, ends, queue):
    there = server.new_queue()
    policy = ends.policy(queue)
    onwards = ends.sealer(
        policy, type(policy)(name="there", destinations=[f"servicebus:{there}"], keys=["main"])
    )
    client = ends.client(onwards)
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage(CARD, content_type="text/plain", subject="new"))
    with client.get_queue_receiver(queue) as receiver, client.get_queue_sender(there) as sender:
        [message] = receiver.receive_messages(max_wait_time=5)
        sender.send_messages(message)
        receiver.complete_message(message)
    assert looks_sealed(body(held(ends, there, 1)[0]))
    [came] = taken(ends, there, onwards)
    assert (str(came), came.content_type, came.subject) == (CARD, "text/plain", "new")


# -- what is not sent --------------------------------------------------------------------------------------------------


def test_a_batch_of_an_unprotected_sender_is_refused(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.bare.get_queue_sender(queue) as bare, ends.client(sealer).get_queue_sender(queue) as sender:
        batch = bare.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD))
        with pytest.raises(ConfigError, match="not made by a protected sender"):
            sender.send_messages(batch)
    held(ends, queue, 0)


def test_a_batch_of_another_queue_is_refused(server, ends, queue):
    there = server.new_queue()
    both = ends.sealer(ends.policy("*"))
    client = ends.client(both)
    with client.get_queue_sender(queue) as sender, client.get_queue_sender(there) as other:
        batch = other.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD))
        with pytest.raises(ConfigError, match="not made by a protected sender"):
            sender.send_messages(batch)
    held(ends, queue, 0)


def test_what_only_looks_sealed_is_not_sent_in_a_batch_either(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage(CARD))
        envelope = body(held(ends, queue, 1)[0])
        payload = decode(envelope).payload
        forged = envelope.replace(payload, bytes([payload[0] ^ 1]) + payload[1:])
        batch = sender.create_message_batch()
        with pytest.raises(Refused):
            batch.add_message(ServiceBusMessage(forged))
        assert len(batch) == 0
        with pytest.raises(Refused):
            sender.schedule_messages(ServiceBusMessage(forged), datetime.now(UTC))
    held(ends, queue, 1)


def test_without_a_key_no_way_to_send_sends(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    ends.keys.unavailable.set()
    later = datetime.now(UTC)
    with ends.client(sealer).get_queue_sender(queue) as sender:
        with pytest.raises(KeyUnavailable):
            sender.send_messages([ServiceBusMessage(CARD)])
        with pytest.raises(KeyUnavailable):
            sender.schedule_messages(ServiceBusMessage(CARD), later)
        with pytest.raises(KeyUnavailable):
            sender.create_message_batch().add_message(ServiceBusMessage(CARD))
    held(ends, queue, 0)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_mode_that_seals_nothing_sends_what_it_is_given(ends, queue, mode):
    sealer = ends.sealer(ends.policy(queue, mode=mode))
    with ends.client(sealer).get_queue_sender(queue) as sender, ends.bare.get_queue_sender(queue) as bare:
        sender.send_messages(ServiceBusMessage(CARD, content_type="text/plain"))
        batch = bare.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD, content_type="text/plain"))
        sender.send_messages(batch)
        batch = sender.create_message_batch()
        batch.add_message(ServiceBusMessage(CARD, content_type="text/plain"))
        sender.send_messages(batch)
    assert [(str(m), m.content_type) for m in held(ends, queue, 3)] == [(CARD, "text/plain")] * 3


# -- what is handed on -------------------------------------------------------------------------------------------------


def test_everything_of_a_message_comes_back(ends, queue):
    message = ServiceBusMessage(
        b'{"order": 4711}',
        application_properties={"text": "grün", "number": 7, "flag": True, "float": 1.5},
        content_type="application/json",
        correlation_id="c-1",
        subject="new",
        to="there",
        reply_to="replies",
        reply_to_session_id="s-2",
        message_id="m-1",
        time_to_live=timedelta(minutes=5),
    )
    policy = ends.policy(queue, bind_headers=["text", "float", "correlation-id", "subject", "message-id"])
    with ends.client(ends.sealer(policy)).get_queue_sender(queue) as sender:
        sender.send_messages(message)
    [came] = taken(ends, queue, ends.sealer(policy))
    assert body(came) == b'{"order": 4711}'
    assert came.body_type is AmqpMessageBodyType.DATA
    assert came.content_type == "application/json"
    assert came.application_properties == {
        b"text": "grün".encode(),
        b"number": 7,
        b"flag": True,
        b"float": 1.5,
    }
    assert (came.correlation_id, came.subject, came.to) == ("c-1", "new", "there")
    assert (came.reply_to, came.reply_to_session_id, came.message_id) == ("replies", "s-2", "m-1")
    assert came.time_to_live == timedelta(minutes=5)
    assert came.sequence_number is not None
    assert came.enqueued_time_utc is not None


@pytest.mark.parametrize(
    "raw",
    [
        AmqpAnnotatedMessage(value_body={"card": CARD, "list": [1, 2.5, None, True]}),
        AmqpAnnotatedMessage(value_body=None),
        AmqpAnnotatedMessage(value_body=CARD),
        AmqpAnnotatedMessage(sequence_body=[[1, CARD], [b"x"]]),
        AmqpAnnotatedMessage(data_body=[b"one", CARD]),
    ],
    ids=["map", "nothing", "text", "sequence", "sections"],
)
def test_bodies_of_every_kind_come_back_as_they_would_bare(server, ends, queue, raw):
    bare_queue = server.new_queue()
    with ends.bare.get_queue_sender(bare_queue) as sender:
        sender.send_messages(raw)
    [bare] = held(ends, bare_queue, 1)
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        sender.send_messages(raw)
    [inside] = held(ends, queue, 1)
    assert looks_sealed(body(inside))
    assert CARD.encode() not in body(inside)
    [came] = taken(ends, queue, ends.sealer(ends.policy(queue)))
    assert came.body_type is bare.body_type
    as_list = bare.body_type is not AmqpMessageBodyType.VALUE
    assert (list(came.body) if as_list else came.body) == (list(bare.body) if as_list else bare.body)
    assert str(came) == str(bare)
    assert came.content_type is None


def test_what_the_client_cannot_send_is_not_sent(ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    with ends.client(sealer).get_queue_sender(queue) as sender:
        with pytest.raises(ValueError, match="cannot send") as failed:
            sender.send_messages(AmqpAnnotatedMessage(value_body=2**40))
        assert str(2**40) not in str(failed.value)
        with pytest.raises(ServiceBusError, match="int invalid"):  # as it does bare
            sender.send_messages(ServiceBusMessage("x", application_properties={"number": 2**40}))
        with pytest.raises(UnicodeDecodeError):  # likewise
            sender.send_messages(ServiceBusMessage("x", application_properties={"raw": b"\xff"}))
    held(ends, queue, 0)
