"""What aio-pika, aiormq and this adapter log, at any level: never a body in clear. (aio-pika itself logs headers, at DEBUG.)"""

import asyncio
import contextlib
import logging

import aio_pika
import pytest
from aio_pika.exceptions import PublishError

from postseal.core import Refused
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    records = caplog.get_records("call")
    assert {"aio_pika", "aiormq"} <= {record.name.partition(".")[0] for record in records}
    text = "".join(record.getMessage() + str(record.__dict__) for record in records)
    assert BODY.decode() not in text


@on_loop
async def test_there_and_back(broker, logged):
    async with World.at(broker) as world:
        await world.queue()
        world.keys.unavailable.set()
        with contextlib.suppress(Exception):
            await world.publish(world.connection, BODY)
        world.keys.unavailable.clear()
        await world.publish(world.connection, BODY)
        receiver = await world.protected(aio_pika.connect_robust)
        world.keys.unavailable.set()
        channel = await receiver.channel()
        queue = await channel.get_queue("orders")
        async with queue.iterator() as messages:
            await until(lambda: world.keys.calls["unwrap"] >= 2)
            world.keys.unavailable.clear()
            async for message in messages:
                assert message.body == BODY
                await message.reject(requeue=True)
                break
        assert (await queue.get(no_ack=True)).body == BODY
        taken = asyncio.Queue()
        await queue.consume(taken.put)
        await world.publish(world.connection, BODY)
        assert (await taken.get()).body == BODY


@on_loop
async def test_what_comes_back(broker, logged):
    async with World.at(broker) as world:
        await world.publish(world.connection, BODY, "nowhere")
        channel = await world.connection.channel(on_return_raises=True)
        with pytest.raises(PublishError):
            await channel.default_exchange.publish(aio_pika.Message(BODY), "nowhere")


@on_loop
async def test_what_is_refused(broker, logged):
    """Whoever forged it put it there in clear; it is not ours to spread."""
    async with World.at(broker) as world:
        await world.queue()
        async with world.bare.channel() as channel:
            underlay = await channel.get_underlay_channel()
            logging.disable(logging.DEBUG)  # the bare client's own frame
            await underlay.basic_publish(BODY, routing_key="orders")
            logging.disable(logging.NOTSET)
        with pytest.raises(Refused):
            await world.take(world.connection)
        channel = await world.connection.channel()
        await (await channel.get_queue("orders")).consume(asyncio.Queue().put)
        await until(lambda: len(world.events) == 2)
