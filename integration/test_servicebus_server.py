"""The Service Bus test server holds what other tests build on: shown with Azure's own SDK."""

import asyncio
import gc
import json
import socket
import threading
import time
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta

import pytest
from azure.servicebus import (
    NEXT_AVAILABLE_SESSION,
    AutoLockRenewer,
    ServiceBusClient,
    ServiceBusMessage,
    ServiceBusMessageState,
    ServiceBusReceiveMode,
    ServiceBusSubQueue,
    aio,
)
from azure.servicebus.exceptions import (
    MessageAlreadySettled,
    MessageLockLostError,
    MessageNotFoundError,
    MessageSizeExceededError,
    MessagingEntityNotFoundError,
    OperationTimeoutError,
    ServiceBusAuthenticationError,
    ServiceBusConnectionError,
    ServiceBusError,
    ServiceBusServerBusyError,
    SessionCannotBeLockedError,
    SessionLockLostError,
)

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from integration.servers import ServerUnavailable, ServiceBus, machine
from integration.servers.servicebus import ServiceBusTestServer
from integration.servers.servicebus.config import create_all
from integration.servers.servicebus.control import ask

# The SDK leaves the socket open of a connection that the other side ended.
pytestmark = pytest.mark.filterwarnings(
    "ignore:unclosed <socket:ResourceWarning", "ignore:.*<socket:pytest.PytestUnraisableExceptionWarning"
)

CANARY = b"canary 4111 1111 1111 1111, in clear"
REMOVE = ServiceBusReceiveMode.RECEIVE_AND_DELETE
DEAD = ServiceBusSubQueue.DEAD_LETTER


@pytest.fixture(scope="module")
def server():
    with ServiceBusTestServer() as server:
        yield server
    # Here, where its warnings are expected, not in a test of somebody else's.
    gc.collect()


@pytest.fixture(autouse=True)
def healed(server):
    yield
    server.heal()


@pytest.fixture(scope="module")
def client(server):
    with connected(server) as client:
        yield client


@pytest.fixture
def queue(server, fresh):
    return server.create_queue(fresh("orders"), lock_duration=30)


def connected(server, **options):
    return connected_to(server.connection_string, **options)


def connected_to(address, **options):
    return ServiceBusClient.from_connection_string(
        address, retry_backoff_factor=0.01, retry_mode="fixed", **options
    )


# Without the SDK's thread for keeping alive, which each close waits for.
@contextmanager
def sending(client, queue, **options):
    with client.get_queue_sender(queue, keep_alive=None, **options) as sender:
        yield sender


@contextmanager
def receiving(client, queue, **options):
    with client.get_queue_receiver(queue, keep_alive=None, **options) as receiver:
        yield receiver


def send(client, queue, *bodies, **options):
    with sending(client, queue) as sender:
        for body in bodies:
            sender.send_messages(ServiceBusMessage(body, **options))


def read(receiver, count=1, wait=5):
    """The next *count* messages."""
    found = []
    while len(found) < count:
        more = receiver.receive_messages(count - len(found), max_wait_time=wait)
        if not more:
            break
        found += more
    return found


def bodies(messages):
    return [b"".join(message.body) for message in messages]


def test_messages_arrive_as_they_were_sent(client, queue):
    sent = ServiceBusMessage(
        b"order 7",
        application_properties={"text": "t", "number": 3, "large": 2**31 - 1, "flag": True, "none": None},
        content_type="application/json",
        correlation_id="c",
        message_id="m",
        partition_key="p",
        reply_to="r",
        reply_to_session_id="rs",
        subject="s",
        time_to_live=timedelta(minutes=5),
        to="t",
    )
    with sending(client, queue) as sender, receiving(client, queue) as receiver:
        sender.send_messages(sent)
        (got,) = read(receiver)

        assert bodies([got]) == [b"order 7"]
        assert got.application_properties == {
            b"text": b"t",
            b"number": 3,
            b"large": 2**31 - 1,
            b"flag": True,
            b"none": None,
        }
        for name in ("content_type", "correlation_id", "message_id", "partition_key", "reply_to"):
            assert getattr(got, name) == getattr(sent, name)
        for name in ("reply_to_session_id", "subject", "time_to_live", "to"):
            assert getattr(got, name) == getattr(sent, name)
        assert (got.delivery_count, got.sequence_number, got.state) == (0, 1, ServiceBusMessageState.ACTIVE)
        assert got.enqueued_time_utc <= datetime.now(UTC) < got.locked_until_utc
        receiver.complete_message(got)


@pytest.mark.parametrize("size", [0, 1, 900_000])
def test_a_body_of_any_size_arrives(client, queue, size):
    send(client, queue, b"x" * size)

    with receiving(client, queue, receive_mode=REMOVE) as receiver:
        assert bodies(read(receiver)) == [b"x" * size]


def test_a_batch_and_a_list_arrive_one_by_one(client, queue):
    with sending(client, queue) as sender, receiving(client, queue, receive_mode=REMOVE) as receiver:
        batch = sender.create_message_batch()
        for number in range(20):
            batch.add_message(ServiceBusMessage(b"%d" % number, message_id=str(number)))
        sender.send_messages(batch)
        sender.send_messages([ServiceBusMessage(b"20"), ServiceBusMessage(b"21")])

        assert bodies(read(receiver, 22)) == [b"%d" % number for number in range(22)]


def test_bodies_of_values_and_sequences_arrive(client, queue):
    from azure.servicebus.amqp import AmqpAnnotatedMessage

    with sending(client, queue) as sender, receiving(client, queue, receive_mode=REMOVE) as receiver:
        sender.send_messages(AmqpAnnotatedMessage(value_body={"a": 1}))
        sender.send_messages(AmqpAnnotatedMessage(sequence_body=[[1, 2], [3]]))
        sender.send_messages(AmqpAnnotatedMessage(data_body=[b"one", b"two"]))

        value, sequence, data = read(receiver, 3)
        assert value.body == {b"a": 1}
        assert list(sequence.body) == [[1, 2], [3]]
        assert list(data.body) == [b"one", b"two"]


def test_what_is_settled_is_settled_once(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        receiver.complete_message(message)
        assert server.count(queue) == 0
        with pytest.raises(MessageAlreadySettled):
            receiver.complete_message(message)


def test_what_is_abandoned_comes_back_and_at_last_is_dead(client, server, fresh):
    queue = server.create_queue(fresh("orders"), max_delivery_count=2)
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        for count in range(2):
            (message,) = read(receiver)
            assert message.delivery_count == count
            receiver.abandon_message(message)
    with receiving(client, queue, sub_queue=DEAD) as receiver:
        (message,) = read(receiver)
        assert message.dead_letter_reason == "MaxDeliveryCountExceeded"
        receiver.complete_message(message)


def test_a_dead_letter_has_reason_and_description(client, server, queue):
    send(client, queue, b"one", application_properties={"a": 1})
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        receiver.dead_letter_message(message, reason="forged", error_description="signature")
    with receiving(client, queue, sub_queue=DEAD) as receiver:
        (message,) = read(receiver)
        assert (message.dead_letter_reason, message.dead_letter_error_description) == ("forged", "signature")
        assert message.application_properties[b"a"] == 1
        receiver.complete_message(message)
    assert server.count(f"{queue}/$DeadLetterQueue") == 0


def test_a_deferred_message_is_had_by_its_number(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        receiver.defer_message(message)
        assert [peeked.state for peeked in receiver.peek_messages(sequence_number=1)] == [
            ServiceBusMessageState.DEFERRED
        ]
        with pytest.raises(MessageNotFoundError):
            receiver.receive_deferred_messages([99])

        (deferred,) = receiver.receive_deferred_messages([message.sequence_number])
        assert bodies([deferred]) == [b"one"]
        receiver.renew_message_lock(deferred)
        receiver.dead_letter_message(deferred, reason="late", error_description="too late")
    assert server.count(queue) == 0
    assert server.count(f"{queue}/$DeadLetterQueue") == 1


def test_peeking_takes_nothing(client, queue):
    send(client, queue, b"one", b"two")
    with receiving(client, queue) as receiver:
        assert bodies(receiver.peek_messages(10)) == [b"one", b"two"]
        assert bodies(receiver.peek_messages(10, sequence_number=2)) == [b"two"]
        assert receiver.peek_messages(10, sequence_number=3) == []
        assert bodies(read(receiver, 2)) == [b"one", b"two"]


def test_a_scheduled_message_comes_in_time_unless_cancelled(client, queue):
    with sending(client, queue) as sender, receiving(client, queue, receive_mode=REMOVE) as receiver:
        later = datetime.now(UTC) + timedelta(seconds=1.5)
        _, cancelled = sender.schedule_messages([ServiceBusMessage(b"one"), ServiceBusMessage(b"two")], later)
        sender.send_messages(ServiceBusMessage(b"three", scheduled_enqueue_time_utc=later))
        sender.cancel_scheduled_messages(cancelled)
        with pytest.raises(MessageNotFoundError):
            sender.cancel_scheduled_messages(cancelled)

        assert bodies(read(receiver, 2)) == [b"one", b"three"]
        assert datetime.now(UTC) >= later


def test_a_lock_that_ended_settles_nothing(client, server, fresh):
    queue = server.create_queue(fresh("orders"), lock_duration=0.5)
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        time.sleep(0.6)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
        (message,) = read(receiver)
        assert message.delivery_count == 1
        receiver.complete_message(message)


def test_a_renewed_lock_lasts(client, server, fresh):
    queue = server.create_queue(fresh("orders"), lock_duration=2)
    send(client, queue, b"one")
    with receiving(client, queue) as receiver, AutoLockRenewer() as renewer:
        (message,) = read(receiver)
        before = message.locked_until_utc
        assert receiver.renew_message_lock(message) > before
        renewer.register(receiver, message, max_lock_renewal_duration=60)
        time.sleep(3)
        receiver.complete_message(message)
    assert server.count(queue) == 0


def test_what_was_received_and_deleted_is_gone(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue, receive_mode=REMOVE) as receiver:
        assert bodies(read(receiver)) == [b"one"]
        assert server.count(queue) == 0


def test_two_receivers_share_a_queue(client, queue):
    with receiving(client, queue) as first, receiving(client, queue) as second:
        send(client, queue, b"one", b"two")
        got = []
        threads = [
            threading.Thread(target=lambda each=each: got.extend(bodies(each.receive_messages(1))))
            for each in (first, second)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert sorted(got) == [b"one", b"two"]


def test_a_message_waits_for_nobody_who_left(client, queue):
    send(client, queue, b"one")
    with receiving(client, queue, prefetch_count=10) as receiver:
        receiver.peek_messages()
    with receiving(client, queue) as receiver:
        assert bodies(read(receiver)) == [b"one"]


def test_what_is_too_large_is_refused(client, server, fresh):
    queue = server.create_queue(fresh("orders"), max_message_size=10_000)
    with sending(client, queue) as sender:
        assert sender.create_message_batch().max_size_in_bytes == 10_000
        with pytest.raises(MessageSizeExceededError):
            sender.send_messages(ServiceBusMessage(b"x" * 10_000))
        sender.send_messages(ServiceBusMessage(b"x" * 9_000))
    assert server.count(queue) == 1


def test_what_does_not_exist_is_not_found(server):
    with connected(server, retry_total=0) as client:
        with sending(client, "nowhere") as sender, pytest.raises(MessagingEntityNotFoundError):
            sender.send_messages(ServiceBusMessage(b"one"))
        with receiving(client, "nowhere") as receiver, pytest.raises(MessagingEntityNotFoundError):
            receiver.receive_messages(max_wait_time=1)
        with receiving(client, "nowhere") as receiver, pytest.raises(MessagingEntityNotFoundError):
            receiver.peek_messages()


def test_a_stranger_is_refused(server, queue):
    stranger = server.connection_string.replace("SharedAccessKey=", "SharedAccessKey=not")
    with (
        ServiceBusClient.from_connection_string(stranger, retry_total=0) as client,
        pytest.raises(ServiceBusAuthenticationError),
    ):
        send(client, queue, b"one")
    assert server.count(queue) == 0


# Topics


def test_each_subscription_gets_its_own_copy(client, server, fresh):
    topic = server.create_topic(fresh("events"))
    for name in ("first", "second"):
        server.create_subscription(topic, name)
    with client.get_topic_sender(topic, keep_alive=None) as sender:
        sender.send_messages(ServiceBusMessage(b"one"))
    for name in ("first", "second"):
        with client.get_subscription_receiver(topic, name, keep_alive=None) as receiver:
            (message,) = read(receiver)
            receiver.dead_letter_message(message, reason="bad")
        with client.get_subscription_receiver(topic, name, sub_queue=DEAD, keep_alive=None) as receiver:
            (message,) = read(receiver)
            assert message.dead_letter_reason == "bad"
            receiver.complete_message(message)


def test_a_subscription_gets_what_its_rules_let_through(client, server, fresh):
    topic = server.create_topic(fresh("events"))
    server.create_subscription(topic, "red", rules=[{"sql": "colour = 'red'"}])
    server.create_subscription(topic, "big", rules=[{"correlation": {"subject": "big"}}])
    with client.get_topic_sender(topic, keep_alive=None) as sender:
        for body, colour, subject in [(b"1", "red", "small"), (b"2", "blue", "big"), (b"3", "red", "big")]:
            sender.send_messages(
                ServiceBusMessage(body, application_properties={"colour": colour}, subject=subject)
            )
    for name, expected in [("red", [b"1", b"3"]), ("big", [b"2", b"3"])]:
        with client.get_subscription_receiver(topic, name, receive_mode=REMOVE, keep_alive=None) as receiver:
            assert bodies(read(receiver, 3, wait=1)) == expected


# Sessions


@pytest.fixture
def sessions(server, fresh):
    return server.create_queue(fresh("orders"), requires_session=True, lock_duration=30)


def test_a_session_keeps_its_order_and_state(client, sessions):
    for number in range(4):
        send(client, sessions, b"%d" % number, session_id="ab"[number % 2])
    with receiving(client, sessions, session_id="b") as receiver:
        assert receiver.session.session_id == "b"
        assert bodies(read(receiver, 2)) == [b"1", b"3"]
        receiver.session.set_state(b"half done")
        assert receiver.session.get_state() == b"half done"
        assert receiver.session.renew_lock() > datetime.now(UTC) + timedelta(seconds=25)
    with receiving(client, sessions, session_id="b") as receiver:
        assert receiver.session.get_state() == b"half done"
        for message in read(receiver, 2):
            assert message.delivery_count == 1
            receiver.complete_message(message)
        receiver.session.set_state(None)
        assert receiver.session.get_state() is None


def test_sessions_are_listed(client, server, sessions):
    for name in ("b", "a"):
        send(client, sessions, b"one", session_id=name)

    assert list(client.list_queue_sessions(sessions)) == ["a", "b"]


def test_the_next_session_is_given_when_there_is_one(client, sessions):
    send(client, sessions, b"one", session_id="a")
    with receiving(client, sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
        assert receiver.session.session_id == "a"
        (message,) = read(receiver)
        assert message.session_id == "a"
        receiver.complete_message(message)


def test_a_receiver_waits_for_a_session(client, sessions):
    later = threading.Timer(0.5, send, (client, sessions, b"one"), {"session_id": "a"})
    later.start()
    with receiving(client, sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=20) as receiver:
        assert bodies(read(receiver)) == [b"one"]
    later.join()


def test_no_session_in_time_is_an_error(server, sessions):
    with (
        connected(server, retry_total=0) as client,
        receiving(client, sessions, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=1) as receiver,
        pytest.raises(OperationTimeoutError),
    ):
        receiver.receive_messages()


def test_a_session_is_one_receivers(server, sessions):
    with connected(server, retry_total=0) as client, receiving(client, sessions, session_id="a") as holder:
        assert holder.session.session_id == "a"
        with (
            receiving(client, sessions, session_id="a") as other,
            pytest.raises(SessionCannotBeLockedError),
        ):
            other.receive_messages(max_wait_time=1)


def test_with_its_session_a_message_is_lost(server, client, fresh):
    queue = server.create_queue(fresh("orders"), requires_session=True, lock_duration=1)
    send(client, queue, b"one", session_id="a")
    with connected(server, retry_total=0) as other, receiving(other, queue, session_id="a") as receiver:
        (message,) = read(receiver)
        time.sleep(1.1)
        with pytest.raises(SessionLockLostError):
            receiver.complete_message(message)
    assert server.count(queue) == 1


# Faults


def test_a_sender_whose_connection_is_cut_sends_again(client, server, queue):
    server.inject("send", "drop", entity=queue)
    send(client, queue, b"one")

    assert server.count(queue) == 1


def test_a_sender_that_never_hears_sends_twice(client, server, queue):
    server.inject("sent", "drop", entity=queue)
    send(client, queue, b"one")

    assert server.count(queue) == 2


@pytest.mark.parametrize("point", ["attach", "send"])
def test_a_busy_server_says_so(server, queue, point):
    server.inject(point, "refuse", entity=queue, times=9)
    with (
        connected(server, retry_total=0) as client,
        sending(client, queue) as sender,
        pytest.raises(ServiceBusServerBusyError),
    ):
        sender.send_messages(ServiceBusMessage(b"one"))
    assert server.count(queue) == 0


def test_a_receiver_whose_link_ends_attaches_again(client, server, queue):
    send(client, queue, b"one")
    server.inject("attach", "detach", entity=queue, condition="amqp:link:detach-forced")
    with receiving(client, queue) as receiver:
        assert bodies(read(receiver)) == [b"one"]


def test_a_message_whose_delivery_was_cut_comes_again(client, server, fresh):
    queue = server.create_queue(fresh("orders"), lock_duration=1)
    send(client, queue, b"one")
    server.inject("delivered", "drop", entity=queue)
    with receiving(client, queue) as receiver:
        found = read(receiver, 1)
        time.sleep(1.1)
        found = read(receiver, 1)
        assert (bodies(found), found[0].delivery_count) == ([b"one"], 1)
        receiver.complete_message(found[0])


def test_a_settlement_that_was_cut_is_made_by_management(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        server.inject("settle", "drop", entity=queue)
        receiver.complete_message(message)
    assert server.count(queue) == 0


def test_a_settlement_whose_answer_was_cut_is_made_once(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        server.inject("settled", "drop", entity=queue)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
    assert server.count(queue) == 0


def test_a_schedule_whose_answer_was_cut_is_kept(server, queue):
    server.inject("managed", "drop", entity=queue)
    with (
        connected(server, retry_total=0) as client,
        sending(client, queue) as sender,
        pytest.raises(ServiceBusConnectionError),
    ):
        sender.schedule_messages(ServiceBusMessage(b"one"), datetime.now(UTC) + timedelta(minutes=5))
    assert server.count(queue) == 1


def test_a_message_whose_link_ends_before_it_goes_is_not_counted(client, server, queue):
    send(client, queue, b"one")
    server.inject("deliver", "detach", entity=queue, condition="amqp:link:detach-forced")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        assert message.delivery_count == 0
        receiver.complete_message(message)


def test_a_refused_token_is_an_error(server, queue):
    server.inject("token", "refuse", entity=queue, condition="amqp:unauthorized-access")
    with connected(server, retry_total=0) as client, pytest.raises(ServiceBusAuthenticationError):
        send(client, queue, b"one")
    assert server.count(queue) == 0


def test_a_lock_is_lost_when_a_test_says_so(client, server, queue):
    send(client, queue, b"one")
    with receiving(client, queue) as receiver:
        (message,) = read(receiver)
        server.inject("settle", "lose-lock", entity=queue)
        with pytest.raises(MessageLockLostError):
            receiver.complete_message(message)
    assert server.count(queue) == 1


def test_a_refused_request_is_an_error(server, queue):
    server.inject("manage", "refuse", entity=queue, times=9)
    with (
        connected(server, retry_total=0) as client,
        receiving(client, queue) as receiver,
        pytest.raises(ServiceBusServerBusyError),
    ):
        receiver.peek_messages()


def test_a_slow_server_is_waited_for(client, server, queue):
    server.inject("send", "slow", entity=queue, seconds=0.5)
    before = time.monotonic()
    send(client, queue, b"one")

    assert time.monotonic() - before >= 0.5
    assert server.count(queue) == 1


def test_a_silent_server_is_given_up(server, queue):
    server.inject("send", "silent", entity=queue)
    with (
        connected(server, retry_total=0) as client,
        sending(client, queue) as sender,
        pytest.raises(OperationTimeoutError),
    ):
        sender.send_messages(ServiceBusMessage(b"one"), timeout=1)


def test_after_an_outage_everything_is_still_there(client, server, queue):
    with sending(client, queue) as sender, receiving(client, queue) as receiver:
        sender.send_messages([ServiceBusMessage(b"one"), ServiceBusMessage(b"two")])
        (message,) = read(receiver)
        server.outage(0.3)
        time.sleep(0.5)

        receiver.complete_message(message)
        sender.send_messages(ServiceBusMessage(b"three"))
        assert bodies(read(receiver, 2)) == [b"two", b"three"]


def test_while_it_is_away_there_is_an_error(server, queue):
    with connected(server, retry_total=0) as client, sending(client, queue) as sender:
        server.outage(1)
        with pytest.raises((ServiceBusConnectionError, ServiceBusError)):
            sender.send_messages(ServiceBusMessage(b"one"), timeout=5)
    time.sleep(1.1)
    assert server.count(queue) == 0


@pytest.mark.parametrize(
    "nonsense", [b"GET / HTTP/1.1\r\n\r\n", b"AMQP\x03\x01\x00\x00" + b"\xff" * 500, b""]
)
def test_nonsense_harms_nobody_else(client, server, queue, nonsense):
    address = server.connection_string.split("://")[1].split(";")[0].split(":")
    with socket.create_connection((address[0], int(address[1]))) as connection:
        connection.sendall(nonsense)
        send(client, queue, b"one")

    assert server.count(queue) == 1


# asyncio


def test_asyncio_is_served_as_well(server, queue):
    async def everything():
        async with aio.ServiceBusClient.from_connection_string(server.connection_string) as client:
            async with client.get_queue_sender(queue) as sender:
                await sender.send_messages([ServiceBusMessage(b"%d" % number) for number in range(3)])
                await sender.schedule_messages(ServiceBusMessage(b"3"), datetime.now(UTC))
            async with client.get_queue_receiver(queue, max_wait_time=1) as receiver:
                found = []
                async for message in receiver:
                    found.append(message)
                    await receiver.renew_message_lock(message)
                    await receiver.complete_message(message)
                return bodies(found)

    assert asyncio.run(everything()) == [b"0", b"1", b"2", b"3"]
    assert server.count(queue) == 0


def test_another_process_may_make_entities_and_faults(client, server, fresh):
    queue = ask(server.control_url, "create_queue", name=fresh("orders"), lock_duration=5)
    ask(server.control_url, "inject", point="send", action="drop", entity=queue)
    send(client, queue, b"one")

    assert ask(server.control_url, "count", path=queue) == 1


def test_a_stopped_server_leaves_no_port_open(fresh):
    server = ServiceBusTestServer().start()
    client = connected(server, retry_total=0)
    queue = fresh("orders")
    server.stop()

    with pytest.raises(ServiceBusConnectionError):
        send(client, queue, b"one")
    with ServiceBusTestServer(port=int(server.connection_string.split(":")[2].split(";")[0])) as again:
        queue = again.create_queue(queue)
        send(client, queue, b"two")
        assert again.count(queue) == 1
    client.close()


# In a process of its own


def test_the_program_serves_what_the_tests_ask_for(servicebus):
    queue = servicebus.new_queue(lock_duration=30)
    topic = servicebus.new_topic("first", "second")
    with connected_to(servicebus.address) as client:
        send(client, queue, b"one")
        with receiving(client, queue) as receiver:
            (message,) = read(receiver)
            receiver.complete_message(message)
        with client.get_topic_sender(topic, keep_alive=None) as sender:
            sender.send_messages(ServiceBusMessage(b"two"))
        with client.get_subscription_receiver(topic, "second", keep_alive=None) as receiver:
            assert bodies(read(receiver)) == [b"two"]


def test_the_program_makes_faults():
    with ServiceBus() as alone:  # an outage would be one for all other tests, too
        queue = alone.new_queue()
        alone.inject("send", "drop", entity=queue)
        with connected_to(alone.address) as client:
            send(client, queue, b"one")
            alone.outage(0.2)
            time.sleep(0.3)
            send(client, queue, b"two")

        assert alone.count(queue) == 2


def test_one_that_runs_already_is_used_as_microsofts_emulator_would_be(monkeypatch):
    config = json.loads((machine.REPOSITORY / "docker" / "servicebus" / "Config.json").read_text())
    with ServiceBusTestServer() as running:
        create_all(running, config)
        monkeypatch.setenv("POSTSEAL_TEST_SERVICEBUS", running.connection_string)
        with connected_to(running.connection_string) as client:
            for queue in config["UserConfig"]["Namespaces"][0]["Queues"]:
                if queue["Name"].startswith("short"):
                    send(client, queue["Name"], b"left by an earlier run")
            with ServiceBus() as given:
                queue = given.new_queue(lock_duration=5, max_delivery_count=3)
                send(client, queue, b"one")
                with receiving(client, queue, receive_mode=REMOVE) as receiver:
                    assert bodies(read(receiver, 2, wait=1)) == [b"one"]
                with pytest.raises(ServerUnavailable):
                    given.kill()
        assert running.count(queue) == 0


def test_a_recorder_sees_what_travels(servicebus, tmp_path):
    queue = servicebus.new_queue()
    with Recorder(servicebus.route, tmp_path) as recorder:
        port = int(recorder.address.rpartition(":")[2])
        with connected_to(servicebus.address_at(port)) as client:
            send(client, queue, CANARY)
            with receiving(client, queue, receive_mode=REMOVE) as receiver:
                assert bodies(read(receiver)) == [CANARY]

    assert {hit.place[-4:] for hit in scan(CANARY, tmp_path)} == {"sent", "ived"}
    assert "raw" in {hit.form for hit in scan_memory(CANARY, servicebus.pid)}
