"""What aio-pika hands on was opened, in its order; what waits for its key waits here, and the loop goes on."""

import asyncio

import aio_pika
import pytest
from aio_pika.exceptions import AMQPError, ChannelInvalidStateError, QueueEmpty

from postseal.core import KeyUnavailable
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"


class Handler:
    """A callback that notes what it is given, and settles it where told to."""

    def __init__(self, *, settles=True):
        self.bodies = []
        self.messages = []
        self._settles = settles

    async def __call__(self, message):
        self.bodies.append(message.body)
        self.messages.append(message)
        if self._settles:
            await message.ack()


async def started(connection, handler, **options):
    """Consume the queue with *handler*; return the channel, the queue and the consumer's tag."""
    channel = await connection.channel()
    queue = await channel.get_queue("orders")

    async def handle(message):
        await handler(message)

    return channel, queue, await queue.consume(handle, **options)


@on_loop
async def test_the_content_type_that_was_sealed_is_the_one_that_is_handed_on(broker):
    """A2, A9: what a broker makes of the property is not believed."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY, content_type="application/json")
        raw = await world.raw()
        await world.publish(world.bare, raw.body, content_type="application/x-python-pickle")
        message = await world.take(world.connection)
        assert (message.body, message.content_type) == (BODY, "application/json")


@on_loop
async def test_a_message_whose_key_is_here_does_not_overtake_one_whose_key_is_not(broker):
    """D6."""
    async with World.at(broker) as world:
        await world.queue()
        known, unknown = await world.protected(), await world.protected()
        await world.publish(unknown, b"hello")  # it has a key from now on
        await world.raw()
        handler = Handler()
        await started(world.connection, handler)
        await world.publish(known, b"known")
        await until(lambda: handler.bodies == [b"known"])

        world.keys.slow.set()
        await world.publish(unknown, b"first")
        await until(world.keys.waiting.is_set)
        await world.publish(known, b"second")
        for _ in range(100):
            await asyncio.sleep(0)
        assert handler.bodies == [b"known"]
        world.keys.unblock()
        await until(lambda: len(handler.bodies) == 3)
        assert handler.bodies == [b"known", b"first", b"second"]


@on_loop
async def test_while_the_key_service_is_away_all_wait_in_their_order(broker):
    """B14: nothing is requeued, so no queue counts a delivery."""
    async with World.at(broker) as world:
        await world.queue()
        senders = [await world.protected() for _ in range(3)]
        bodies = [b"order %d" % number for number in range(9)]
        for number, body in enumerate(bodies):
            await world.publish(senders[number % 3], body)
        world.keys.unavailable.set()
        handler = Handler()
        await started(world.connection, handler)
        await until(lambda: world.keys.calls["unwrap"] >= 2)
        assert handler.bodies == []
        assert not {"Basic.Nack", "Basic.Reject", "Basic.Ack"} & set(broker.seen)

        world.keys.unavailable.clear()
        await until(lambda: len(handler.bodies) == 9)
        assert handler.bodies == bodies
        assert not {"Basic.Nack", "Basic.Reject"} & set(broker.seen)
        assert not any(message.redelivered for message in handler.messages)


@on_loop
async def test_one_consumer_that_waits_holds_up_no_other(broker):
    """D6: the loop goes on while a key is fetched."""
    async with World.at(broker) as world:
        await world.queue()
        await world.queue("others")
        await world.publish(world.connection, BODY)
        await world.publish(world.connection, BODY, "others")
        channel = await world.connection.channel()
        others = await channel.get_queue("others")
        assert (await others.get()).body == BODY
        world.keys.slow.set()
        handler = Handler()
        await started(world.connection, handler)
        await until(world.keys.waiting.is_set)
        await world.publish(world.connection, b"meanwhile", "others")
        assert (await others.get()).body == b"meanwhile"
        assert handler.bodies == []
        world.keys.unblock()
        await until(lambda: handler.bodies == [BODY])


@on_loop
async def test_what_waits_too_long_is_requeued_for_another(broker):
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        world.keys.unavailable.set()
        waiting = await world.protected(give_back_after=0)
        handler = Handler()
        channel, _, _ = await started(waiting, handler)
        await until(lambda: broker.seen.count("Basic.Nack") >= 1)
        await until(lambda: world.keys.calls["unwrap"] >= 2)  # it came again at once, and waits again
        await channel.close()
        world.keys.unavailable.clear()
        assert (await world.take(world.connection)).body == BODY
        assert handler.bodies == []


@on_loop
async def test_what_waits_when_its_consumer_is_cancelled_is_requeued(broker):
    async with World.at(broker) as world:
        await world.queue()
        for body in (b"one", b"two"):
            await world.publish(world.connection, body)
        world.keys.unavailable.set()
        handler = Handler()
        _, queue, tag = await started(await world.protected(), handler)
        await until(lambda: world.keys.calls["unwrap"] >= 1)
        await queue.cancel(tag)
        await until(lambda: broker.seen.count("Basic.Nack") == 2)
        world.keys.unavailable.clear()
        assert [(await world.take(world.connection)).body for _ in range(2)] == [b"one", b"two"]
        await asyncio.sleep(0.6)  # longer than it pauses
        assert handler.bodies == []


@on_loop
async def test_what_is_refused_after_its_consumer_was_cancelled_is_requeued(broker):
    """It is no longer that consumer's to settle."""
    async with World.at(broker, on_refused="discard") as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        sealed = await world.raw()
        await world.publish(
            world.bare, sealed.body[:-1] + bytes([sealed.body[-1] ^ 1])
        )  # another wrapped key
        world.keys.slow.set()
        handler = Handler()
        channel, _, tag = await started(await world.protected(), handler)
        await until(world.keys.waiting.is_set)
        underlay = await channel.get_underlay_channel()
        del underlay.consumers[tag]  # as when the broker cancels it
        world.keys.unblock()
        await until(lambda: len(world.events) == 1)
        await until(lambda: "Basic.Nack" in broker.seen)
        assert handler.bodies == []


@on_loop
async def test_what_waits_when_its_queue_is_deleted_is_not_handed_on(broker):
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        world.keys.unavailable.set()
        handler = Handler()
        channel, _, _ = await started(await world.protected(), handler)
        underlay = await channel.get_underlay_channel()
        await until(lambda: world.keys.calls["unwrap"] >= 1)
        async with world.bare.channel() as admin:
            await admin.queue_delete("orders")
        await until(lambda: not underlay.consumers)
        world.keys.unavailable.clear()
        await until(lambda: "Basic.Nack" in broker.seen)
        assert handler.bodies == []


@on_loop
async def test_acknowledging_all_up_to_a_message_spares_what_was_not_handed_on(broker):
    """B14: the application cannot settle what it never got."""
    async with World.at(broker) as world:
        await world.queue()
        other = await world.protected()
        await world.publish(other, b"hello")  # it has a key from now on
        await world.raw()
        handler = Handler(settles=False)
        channel, _, _ = await started(await world.protected(), handler)
        await world.publish(world.connection, b"known")
        await until(lambda: handler.bodies == [b"known"])
        await world.publish(world.bare, b"in clear")
        await until(lambda: len(world.events) == 1)
        world.keys.unavailable.set()
        asked = world.keys.calls["unwrap"]
        await world.publish(other, b"waits")
        await until(lambda: world.keys.calls["unwrap"] > asked)

        await (await channel.get_underlay_channel()).basic_ack(0, multiple=True)
        world.keys.unavailable.clear()
        await until(lambda: handler.bodies == [b"known", b"waits"])
        assert "Basic.Nack" not in broker.seen
        await handler.messages[1].ack(multiple=True)
        await channel.close()
        assert (await world.raw()).body == b"in clear"
        assert await world.take(world.bare) is None


@on_loop
async def test_a_single_message_whose_key_is_away_is_back_in_its_queue(broker):
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        receiver = await world.protected()
        world.keys.unavailable.set()
        with pytest.raises(KeyUnavailable):
            await world.take(receiver)
        world.keys.unavailable.clear()
        assert (await world.take(receiver)).body == BODY
        async with receiver.channel() as channel:
            with pytest.raises(QueueEmpty):
                await (await channel.get_queue("orders")).get()


@on_loop
async def test_a_single_message_that_nobody_waits_for_any_more_is_back_in_its_queue(broker):
    """A get that was cancelled while it waited for the key has handed nothing on, so it keeps nothing."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        world.keys.slow.set()
        async with (await world.protected()).channel() as channel:
            asked = asyncio.create_task((await channel.get_queue("orders")).get())
            await until(world.keys.waiting.is_set)
            asked.cancel()
            with pytest.raises(asyncio.CancelledError):
                await asked
            assert (await world.raw()).body  # while the channel is open
        world.keys.unblock()


@on_loop
async def test_a_single_message_that_needs_no_acknowledgement_waits_for_its_key(broker):
    """B14: the broker has it no longer."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        world.keys.unavailable.set()
        async with (await world.protected()).channel() as channel:
            queue = await channel.get_queue("orders")
            asked = asyncio.create_task(queue.get(no_ack=True))
            await until(lambda: world.keys.calls["unwrap"] >= 2)
            assert not asked.done()
            world.keys.unavailable.clear()
            assert (await asked).body == BODY


@on_loop
async def test_a_consumer_that_acknowledges_nothing_gets_all_in_order(broker):
    async with World.at(broker) as world:
        await world.queue()
        bodies = [b"order %d" % number for number in range(5)]
        for body in bodies:
            await world.publish(world.connection, body)
        world.keys.unavailable.set()
        handler = Handler(settles=False)
        await started(await world.protected(), handler, no_ack=True)
        await until(lambda: world.keys.calls["unwrap"] >= 2)
        world.keys.unavailable.clear()
        await until(lambda: handler.bodies == bodies)


@on_loop
async def test_a_message_that_was_in_hand_when_the_connection_was_cut_comes_again(broker):
    """A10: crash between receive and settle, with a robust connection, by callback and by iterator."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        connection = await world.protected(aio_pika.connect_robust)
        connection.reconnect_interval = 0.05
        channel = await connection.channel()
        queue = await channel.get_queue("orders")
        seen = []
        async with queue.iterator() as messages:
            async for message in messages:
                assert message.body == BODY
                seen.append(message.redelivered)
                if len(seen) == 1:
                    broker.cut()
                    continue
                await message.ack()
                break
        assert seen == [False, True]
        assert world.events == []


@on_loop
async def test_recovered_messages_come_again(broker):
    async with World.at(broker) as world:
        await world.queue()
        for body in (b"one", b"two"):
            await world.publish(world.connection, body)
        world.keys.unavailable.set()
        handler = Handler(settles=False)
        channel, _, _ = await started(await world.protected(), handler)
        await until(lambda: world.keys.calls["unwrap"] >= 1)
        await (await channel.get_underlay_channel()).basic_recover(requeue=True)
        world.keys.unavailable.clear()
        # At least once: what was about to be handed on when its broker took it back comes again.
        await until(lambda: set(handler.bodies) == {b"one", b"two"})


@pytest.mark.parametrize(
    ("method", "fault"),
    [
        (method, fault)
        for method in ["Basic.Consume", "Basic.Get", "Basic.Ack", "Basic.Nack"]
        for fault in ["cut", "close", "channel"]
    ],
)
@on_loop
async def test_a_broker_that_gives_up_loses_nothing(broker, method, fault):
    """Bad input: whatever breaks, what was not settled is still there, sealed, and opens."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        receiver = await world.protected()
        broker.faults[method] = fault
        try:
            channel = await receiver.channel()
            queue = await channel.get_queue("orders")
            if method == "Basic.Consume":
                await queue.consume(Handler(settles=False).__call__)
            else:
                message = await queue.get()
                assert message.body == BODY
                await (message.nack() if method == "Basic.Nack" else message.ack())
                await (await channel.get_underlay_channel()).closing
        except (AMQPError, ChannelInvalidStateError, ConnectionError):
            pass  # what it is, is aiormq's
        again = await world.protected()
        bodies = []
        while (message := await world.take(again)) is not None:
            bodies.append(message.body)
        assert bodies == [BODY]
        assert world.events == []
