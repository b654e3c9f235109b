"""What goes wrong on the way: connections that end in each call, queues that do not exist, a loop that must not stop."""

import asyncio
import gc

import pytest
from azure.servicebus import ServiceBusMessage, aio
from azure.servicebus.exceptions import MessagingEntityNotFoundError, ServiceBusError

from postseal.core import KeyUnavailable
from postseal.core.wire import looks_sealed
from postseal.servicebus import protect

CARD = "4111 1111 1111 1111"

pytestmark = [
    # The asyncio client leaves the sockets of connections that ended to the garbage collector.
    pytest.mark.filterwarnings("ignore::ResourceWarning"),
    pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning"),
]


@pytest.fixture(autouse=True)
def collected():
    """Have those sockets collected where it is known whose they are."""
    yield
    gc.collect()


def body(message):
    return b"".join(message.body)


def send(ends, queue, sealer, *texts):
    with ends.client(sealer).get_queue_sender(queue) as sender:
        for text in texts:
            sender.send_messages(ServiceBusMessage(text))


def peeked(ends, queue):
    with ends.bare.get_queue_receiver(queue) as receiver:
        return [body(message) for message in receiver.peek_messages(100)]


# -- connections that end ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("point", ["token", "attach", "send"])
def test_a_connection_that_ends_while_sending_is_made_again_and_the_message_sent_once(
    server, ends, queue, point
):
    sealer = ends.sealer(ends.policy(queue))
    server.inject(point, "drop", entity="*" if point == "token" else queue)
    send(ends, queue, sealer, CARD)
    [held] = peeked(ends, queue)
    assert looks_sealed(held)


def test_what_arrived_before_the_connection_ended_is_sent_again_as_the_same_envelope(server, ends, queue):
    """The client library cannot know; the retry is its own, and seals nothing anew."""
    server.inject("sent", "drop", entity=queue)
    send(ends, queue, ends.sealer(ends.policy(queue)), CARD)
    held = peeked(ends, queue)
    assert len(held) == 2
    assert len(set(held)) == 1


@pytest.mark.parametrize("point", ["attach", "deliver", "delivered"])
def test_a_connection_that_ends_while_receiving_loses_nothing(server, ends, point):
    queue = server.new_queue(lock_duration=1)
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, "one", "two")
    server.inject(point, "drop", entity=queue)
    came = set()
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        for _ in range(20):
            try:
                for message in receiver.receive_messages(10, max_wait_time=1):
                    came.add(str(message))
                    receiver.complete_message(message)
            except ServiceBusError:
                continue  # as it does bare
            if came == {"one", "two"}:
                break
    assert came == {"one", "two"}
    assert ends.events == []


@pytest.mark.parametrize("point", ["settle", "settled"])
def test_a_connection_that_ends_while_a_refused_message_is_settled_costs_the_others_nothing(
    server, ends, queue, point
):
    sealer = ends.sealer(ends.policy(queue, on_refused="discard"))
    with ends.bare.get_queue_sender(queue) as bare:
        bare.send_messages(ServiceBusMessage("clear"))
    send(ends, queue, sealer, "good")
    server.inject(point, "drop", entity=queue)
    came = []
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        while "good" not in came:
            came += [str(message) for message in receiver.receive_messages(10, max_wait_time=5)]
    assert set(came) == {"good"}
    assert {event.verdict for event in ends.events} == {"unprotected"}


@pytest.mark.parametrize("point", ["manage", "managed"])
def test_a_connection_that_ends_while_peeking_is_made_again(server, ends, queue, point):
    sealer = ends.sealer(ends.policy(queue))
    send(ends, queue, sealer, CARD)
    server.inject(point, "drop")
    with ends.client(sealer).get_queue_receiver(queue) as receiver:
        assert [str(message) for message in receiver.peek_messages(10)] == [CARD]


def test_after_an_outage_everything_goes_on(server, ends, queue):
    sealer = ends.sealer(ends.policy(queue))
    client = ends.client(sealer)
    with client.get_queue_sender(queue) as sender, client.get_queue_receiver(queue) as receiver:
        sender.send_messages(ServiceBusMessage("before"))
        server.outage()
        sender.send_messages(ServiceBusMessage("after"))
        came = []
        while len(came) < 2:
            for message in receiver.receive_messages(10, max_wait_time=2):
                came.append(str(message))
                receiver.complete_message(message)
    assert came == ["before", "after"]


# -- what does not exist -----------------------------------------------------------------------------------------------


def test_a_queue_that_does_not_exist_is_told_as_ever(ends):
    sealer = ends.sealer(ends.policy("nowhere"))
    client = ends.client(sealer)
    sender, receiver = client.get_queue_sender("nowhere"), client.get_queue_receiver("nowhere")
    message = ServiceBusMessage(CARD)
    with pytest.raises(MessagingEntityNotFoundError) as failed:
        sender.send_messages(message)
    assert "4111" not in str(failed.value)
    with pytest.raises(MessagingEntityNotFoundError):
        receiver.receive_messages(max_wait_time=1)
    with pytest.raises(MessagingEntityNotFoundError):
        next(receiver)
    assert body(message) == CARD.encode()


def test_a_closed_sender_and_receiver_say_so_as_ever(ends, queue):
    client = ends.client(ends.sealer(ends.policy(queue)))
    sender, receiver = client.get_queue_sender(queue), client.get_queue_receiver(queue)
    with sender, receiver:
        pass
    receiver.close()
    with pytest.raises(ValueError, match="shutdown"):
        sender.send_messages(ServiceBusMessage(CARD))
    with pytest.raises(ValueError, match="shutdown"):
        receiver.receive_messages()


# -- asyncio -----------------------------------------------------------------------------------------------------------


@pytest.fixture
def slow(server, queue):
    """Ends of the asyncio client whose key service dawdles until told otherwise."""
    from tests.servicebus.ends import Ends

    ends = Ends(server, "asyncio")
    yield ends
    ends.keys.unblock()
    ends.close()


async def begun(ends, call):
    """Begin *call*, and return it when it waits for the key service, or is done."""
    ends.keys.waiting.clear()
    task = asyncio.ensure_future(call)
    while not ends.keys.waiting.is_set() and not task.done():  # noqa: ASYNC110 - what is waited for happens in a thread
        await asyncio.sleep(0.001)
    return task


def test_the_loop_runs_on_while_a_key_is_fetched(slow, queue):
    """The loop itself lets the key service go on: were it blocked, this would never end."""
    policy = slow.policy(queue)
    sealer, opener = slow.sealer(policy), slow.sealer(policy)
    sending, receiving = slow.client(sealer).inner, slow.client(opener).inner

    async def beside(call):
        slow.keys._go_on.clear()
        slow.keys.slow.set()
        task = await begun(slow, call)
        assert slow.keys.waiting.is_set()
        slow.keys.unblock()
        return await task

    async def main():
        async with sending.get_queue_sender(queue) as sender, receiving.get_queue_receiver(queue) as receiver:
            await beside(sender.send_messages(ServiceBusMessage(CARD)))
            sealer.close()  # forgets its data key
            batch = await beside(sender.create_message_batch())
            batch.add_message(ServiceBusMessage(CARD))
            await sender.send_messages(batch)
            return [str(message) for message in await beside(receiver.receive_messages(1, max_wait_time=5))]

    assert slow._runner.run(main()) == [CARD]


def test_a_batch_is_filled_without_waiting_for_a_key(slow, queue):
    """`add_message` is no coroutine, so it must not wait: the loop would."""
    sealer = slow.sealer(slow.policy(queue))
    client = slow.client(sealer).inner

    async def main():
        async with client.get_queue_sender(queue) as sender:
            batch = await sender.create_message_batch()
            sealer.close()  # forgets the key that was at hand
            slow.keys.slow.set()
            batch.add_message(ServiceBusMessage(CARD))  # were it to wait, nobody could end that
            slow.keys.unblock()
            await sender.send_messages(batch)

    slow._runner.run(main())
    [held] = peeked(slow, queue)
    assert looks_sealed(held)


def test_a_batch_whose_key_does_not_come_is_not_sent(slow, queue):
    sealer = slow.sealer(slow.policy(queue))
    client = slow.client(sealer).inner

    async def main():
        async with client.get_queue_sender(queue) as sender:
            batch = await sender.create_message_batch()
            sealer.close()
            slow.keys.unavailable.set()
            batch.add_message(ServiceBusMessage(CARD))
            with pytest.raises(KeyUnavailable):
                await sender.send_messages(batch)
            assert peeked_count(slow, queue) == 0
            slow.keys.unavailable.clear()
            await sender.send_messages(batch)

    def peeked_count(ends, name):
        return ends.server.count(name)

    slow._runner.run(main())
    [held] = peeked(slow, queue)
    assert looks_sealed(held)


@pytest.mark.parametrize("mode", ["peeklock", "receiveanddelete"])
def test_a_receive_that_is_cancelled_loses_nothing(slow, queue, mode):
    policy = slow.policy(queue)
    send(slow, queue, slow.sealer(policy), "one", "two")
    client = slow.client(slow.sealer(policy)).inner

    async def main():
        async with client.get_queue_receiver(queue, receive_mode=mode) as receiver:
            slow.keys.slow.set()
            receiving = await begun(slow, receiver.receive_messages(2, max_wait_time=30))
            receiving.cancel()
            with pytest.raises(asyncio.CancelledError):
                await receiving
            slow.keys.unblock()
            came = []
            while len(came) < 2:
                for message in await receiver.receive_messages(2, max_wait_time=5):
                    came.append(str(message))
                    if mode == "peeklock":
                        await receiver.complete_message(message)
            return came

    assert slow._runner.run(main()) == ["one", "two"]
    assert slow.events == []


def test_several_tasks_share_one_call_for_the_key(slow, queue):
    """D4."""
    sealer = slow.sealer(slow.policy(queue))
    client = slow.client(sealer).inner

    async def one(number):
        async with client.get_queue_sender(queue) as sender:
            await sender.send_messages(ServiceBusMessage(f"order {number}"))

    async def main():
        await asyncio.gather(*(one(number) for number in range(5)))

    slow._runner.run(main())
    assert slow.keys.calls["generate"] == 1
    assert slow.server.count(queue) == 5


def test_a_client_of_another_loop_library_is_not_loaded_for_the_blocking_one():
    """Who has no loop need not load it."""
    import subprocess
    import sys

    code = "import sys, postseal.servicebus; print('azure.servicebus.aio' in sys.modules, 'asyncio' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.split()[0] == "False"


def test_protecting_while_a_loop_runs_is_one_line(slow, queue):
    async def main():
        client = aio.ServiceBusClient.from_connection_string(slow.server.address)
        async with protect(client, slow.sealer(slow.policy(queue))) as opened:
            async with opened.get_queue_sender(queue) as sender:
                await sender.send_messages(ServiceBusMessage(CARD))
            async with opened.get_queue_receiver(queue, max_wait_time=1) as receiver:
                return [str(message) async for message in receiver]

    assert slow._runner.run(main()) == [CARD]
