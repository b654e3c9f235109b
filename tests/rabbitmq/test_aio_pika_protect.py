"""`protect` on connections of aio-pika: which it takes, what it covers, and that they stay so."""

import asyncio

import aio_pika
import pytest

from postseal.core import ConfigError
from postseal.core.wire import looks_sealed
from postseal.rabbitmq import protect, unprotect
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"


@on_loop
async def test_a_connection_keeps_its_type_and_name(broker):
    async with World.at(broker) as world:
        bare = await world.connected(aio_pika.connect_robust)
        before = repr(bare)

        assert protect(bare, world.sealer) is bare
        assert isinstance(bare, aio_pika.RobustConnection)
        assert repr(bare) == before
        assert isinstance(await bare.channel(), aio_pika.RobustChannel)


@on_loop
async def test_protected_twice_is_protected_once(broker):
    async with World.at(broker) as world:
        await world.queue()
        connection = protect(await world.connected(aio_pika.connect), world.sealer)
        assert protect(connection, world.sealer) is connection
        with pytest.raises(ConfigError, match="another sealer"):
            protect(connection, world.new_sealer())
        with pytest.raises(ConfigError, match="other options"):
            protect(connection, world.sealer, give_back_after=1)

        await world.publish(connection, BODY)
        assert (await world.take(world.connection)).body == BODY


@on_loop
async def test_unprotect_undoes_it(broker):
    async with World.at(broker) as world:
        await world.queue()
        kind = type(world.bare)
        channel = await world.connection.channel()

        assert unprotect(world.connection) is world.connection
        assert type(world.connection) is kind
        for one in (channel, await world.connection.channel()):
            await one.default_exchange.publish(aio_pika.Message(BODY), "orders")
            assert (await world.raw()).body == BODY
        unprotect(world.connection)
        protect(world.connection, world.sealer)
        await channel.default_exchange.publish(aio_pika.Message(BODY), "orders")
        assert looks_sealed((await world.raw()).body)


@on_loop
async def test_what_comes_after_unprotect_is_handed_on_as_it_lies(broker):
    async with World.at(broker) as world:
        await world.queue()
        seen = []
        channel = await world.connection.channel()

        async def handle(message):
            seen.append(message.body)

        await (await channel.get_queue("orders")).consume(handle)
        unprotect(world.connection)
        await world.publish(world.bare, BODY)
        await until(lambda: seen == [BODY])


@pytest.mark.parametrize("target", [None, object(), "amqp://localhost", asyncio.Queue])
def test_anything_else_is_refused(target):
    with pytest.raises(ConfigError, match="connection of pika or aio-pika"):
        protect(target, World("").sealer)


@on_loop
async def test_channels_that_were_open_or_made_before_are_protected(broker):
    async with World.at(broker) as world:
        await world.queue()
        for connect in (aio_pika.connect, aio_pika.connect_robust):
            connection = await world.connected(connect)
            opened, made = await connection.channel(), connection.channel()
            protect(connection, world.sealer)
            await made

            for channel in (opened, made):
                await channel.default_exchange.publish(aio_pika.Message(BODY), "orders")
                assert looks_sealed((await world.raw()).body)


@on_loop
async def test_a_connection_that_consumes_already_is_refused_and_left_as_it_was(broker):
    async with World.at(broker) as world:
        await world.queue()
        connection = await world.connected(aio_pika.connect)
        first, second = await connection.channel(), await connection.channel()

        async def handle(message):
            await message.ack()

        await (await second.get_queue("orders")).consume(handle)

        with pytest.raises(ConfigError, match="consumes already"):
            protect(connection, world.sealer)
        await world.queue("clear")
        await first.default_exchange.publish(aio_pika.Message(BODY), "clear")
        assert (await world.raw("clear")).body == BODY


@on_loop
async def test_what_is_published_from_inside_a_callback_is_sealed_whichever_way(broker):
    """A9: by the channel that consumes, by that of the message, and by the transport's own."""
    async with World.at(broker) as world:
        await world.queue()
        await world.queue("replies")
        channel = await world.connection.channel()

        async def answer(message):
            await channel.default_exchange.publish(aio_pika.Message(BODY), "replies")
            await message.channel.basic_publish(BODY, routing_key="replies")
            beneath = await world.connection.transport.connection.channel()
            await beneath.basic_publish(BODY, routing_key="replies")
            await message.ack()

        await (await channel.get_queue("orders")).consume(answer)
        await world.publish(world.connection, BODY)
        for _ in range(3):
            assert looks_sealed((await world.raw("replies")).body)


@on_loop
async def test_a_robust_connection_stays_protected_after_it_was_cut(broker):
    """A8: its channels, those made before it was protected too, and its consumers."""
    async with World.at(broker) as world:
        await world.queue()
        connection = await world.connected(aio_pika.connect_robust, reconnect_interval=0.05)
        before = await connection.channel()
        protect(connection, world.new_sealer())
        channel = await connection.channel()
        seen = []

        async def handle(message):
            seen.append(message.body)
            await message.ack()

        await (await channel.get_queue("orders")).consume(handle)
        back = asyncio.Event()
        connection.reconnect_callbacks.add(lambda *_: back.set())
        broker.cut()
        await back.wait()
        await asyncio.gather(channel.ready(), before.ready())
        world.bare = await world.connected(aio_pika.connect)
        await world.queue("copies")

        for one in (before, channel, await connection.channel()):
            await one.default_exchange.publish(aio_pika.Message(BODY), "copies")
            assert looks_sealed((await world.raw("copies")).body)
        await channel.default_exchange.publish(aio_pika.Message(BODY), "orders")
        await until(lambda: seen == [BODY])
        # Sealed by hand of nobody: what is not is refused still.
        await world.publish(world.bare, BODY)
        await until(lambda: len(world.events) == 1)
        assert seen == [BODY]


@on_loop
async def test_a_connection_that_is_not_connected_yet_can_be_protected(broker):
    async with World.at(broker) as world:
        await world.queue()
        connection = protect(aio_pika.RobustConnection(world.bare.url), world.sealer)
        await connection.connect()
        async with connection:
            await world.publish(connection, BODY)
        assert looks_sealed((await world.raw()).body)


def test_an_aio_pika_that_we_do_not_know_is_refused():
    class Other(aio_pika.Connection):
        def __init__(self):
            """Keep nothing."""

        def __del__(self):
            """Close nothing."""

    with pytest.raises(ConfigError, match="version of aio-pika"):
        protect(Other(), World("").sealer)
