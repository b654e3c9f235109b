"""aio-pika on RabbitMQ: what the broker in the process of the tests has not."""

import asyncio
import contextlib
import os

import aio_pika
import pytest
from aio_pika.patterns import RPC, Master

from integration.servers import RabbitMq
from postseal.core.wire import looks_sealed
from postseal.rabbitmq import protect
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"


@on_loop
async def test_a_headers_exchange_routes_by_headers_that_stay_in_clear(rabbitmq, fresh):
    async with World(rabbitmq.url, bind_headers=["tenant"]) as world:
        name = await world.queue(fresh("orders"))
        channel = await world.connection.channel()
        exchange = await channel.declare_exchange(fresh("shop"), aio_pika.ExchangeType.HEADERS)
        queue = await channel.get_queue(name)
        await queue.bind(exchange, arguments={"x-match": "all", "tenant": "north"})
        for tenant in ("north", "south"):
            await exchange.publish(aio_pika.Message(BODY, headers={"tenant": tenant}), "", mandatory=False)
        message = await queue.get()
        assert (message.body, message.headers) == (BODY, {"tenant": "north"})
        assert await queue.get(fail=False) is None


@on_loop
async def test_a_transaction_publishes_all_or_nothing_sealed(rabbitmq, fresh):
    async with World(rabbitmq.url) as world:
        name = await world.queue(fresh("orders"))
        async with world.connection.channel(publisher_confirms=False) as channel:
            with contextlib.suppress(ZeroDivisionError):
                async with channel.transaction():
                    await channel.default_exchange.publish(aio_pika.Message(b"never"), name)
                    raise ZeroDivisionError
            async with channel.transaction():
                await channel.default_exchange.publish(aio_pika.Message(BODY), name)
            assert (await world.take(world.connection, name)).body == BODY
            assert await world.take(world.connection, name) is None


@on_loop
async def test_a_consumer_in_a_transaction_quarantines_all_the_same(rabbitmq, fresh):
    """E5: the copy goes by a channel of its own, which waits for its confirmation."""
    refused = fresh("refused")
    async with World(rabbitmq.url, on_refused="quarantine", quarantine=f"rabbitmq:/{refused}") as world:
        name = await world.queue(fresh("orders"))
        await world.queue(refused)
        await world.publish(world.bare, b"in clear", name)
        async with world.connection.channel(publisher_confirms=False) as channel, channel.transaction():
            assert await (await channel.get_queue(name)).get(fail=False) is None
        assert (await world.raw(refused)).body == b"in clear"
        assert await world.take(world.bare, name) is None


@on_loop
async def test_procedures_are_called_and_answer_sealed(rabbitmq, fresh):
    """Requests and replies, and replies to callers that are gone."""
    async with World(rabbitmq.url) as world:
        procedure = fresh("double")
        seen = []

        async def double(*, number):
            seen.append(number)
            return number * 2

        async with (
            world.connection.channel() as serving,
            (await world.protected()).channel() as calling,
        ):
            server, client = await RPC.create(serving), await RPC.create(calling)
            await server.register(procedure, double, auto_delete=True)
            assert await client.call(procedure, {"number": 21}) == 42
            assert await getattr(client.proxy, procedure)(number=4) == 8
            await server.close()
            await client.close()
        assert seen == [21, 4]
        assert world.events == []


@on_loop
async def test_a_call_in_clear_is_not_answered(rabbitmq, fresh):
    """A9: pickled arguments of nobody we know are never decoded."""
    async with World(rabbitmq.url, on_refused="dead-letter") as world:
        procedure = fresh("double")
        seen = []

        async def double(*, number):
            seen.append(number)

        async with world.connection.channel() as serving, world.bare.channel() as calling:
            server, client = await RPC.create(serving), await RPC.create(calling)
            await server.register(procedure, double, auto_delete=True)
            # aio-pika itself dead-letters calls that nobody took, back to their caller.
            with pytest.raises(TimeoutError):
                await client.call(procedure, {"number": 21})
            await server.close()
            await client.close()
        assert seen == []
        assert len(world.events) == 1


@on_loop
async def test_a_master_hands_tasks_to_workers(rabbitmq, fresh):
    async with World(rabbitmq.url) as world:
        name = fresh("tasks")
        done = []

        async def work(*, task_id):
            done.append(task_id)

        async with world.connection.channel() as channel:
            master = Master(channel)
            worker = await master.create_worker(name, work, auto_delete=True)
            for task_id in range(3):
                await master.create_task(name, {"task_id": task_id})
            await until(lambda: len(done) == 3)
            await worker.close()
        assert done == [0, 1, 2]


@on_loop
async def test_what_waits_for_its_key_is_not_counted_by_a_quorum_queue(rabbitmq, fresh):
    """B14: requeued again and again, it would soon be dropped."""
    async with World(rabbitmq.url) as world:
        name = fresh("orders")
        await world.queue(name, **{"x-queue-type": "quorum", "x-delivery-limit": 1})
        await world.publish(world.connection, BODY, name)
        world.keys.unavailable.set()
        channel = await (await world.protected()).channel()
        messages = asyncio.Queue()
        await (await channel.get_queue(name)).consume(messages.put)
        await until(lambda: world.keys.calls["unwrap"] >= 3)
        world.keys.unavailable.clear()
        message = await messages.get()
        assert (message.body, message.redelivered) == (BODY, False)
        await message.ack()


@on_loop
async def test_tags_that_are_acknowledged_together_are_acknowledged_once(rabbitmq, fresh):
    """B14: with one among them that was refused and stays."""
    async with World(rabbitmq.url) as world:
        name = await world.queue(fresh("orders"))
        for body in (b"one", b"two"):
            await world.publish(world.connection, body, name)
        await world.publish(world.bare, b"in clear", name)
        await world.publish(world.connection, b"three", name)
        messages = []
        async with world.connection.channel() as channel:

            async def handle(message):
                messages.append(message)

            await (await channel.get_queue(name)).consume(handle)
            await until(lambda: len(messages) == 3)
            await messages[-1].ack(multiple=True)
            await channel.set_qos(1)  # answered after the broker has seen all before it
        assert (await world.raw(name)).body == b"in clear"
        assert await world.take(world.bare, name) is None


@pytest.mark.parametrize("connect", [aio_pika.connect, aio_pika.connect_robust])
@on_loop
async def test_nothing_is_in_clear_and_nothing_lost_when_the_broker_is_killed(connect, fresh):
    """A8, A10: a power cut while a message is in hand; a robust connection goes on by itself, protected."""
    if os.environ.get("POSTSEAL_TEST_RABBITMQ"):
        pytest.skip("the broker is not ours to kill")
    broker = RabbitMq()
    await asyncio.to_thread(broker.start)
    try:
        async with World(broker.url) as world:
            name = await world.queue(fresh("orders"))
            connection = protect(await connect(broker.url), world.sealer)
            connection.reconnect_interval = 0.2
            taken = asyncio.Queue()
            channel = await connection.channel()
            queue = await channel.get_queue(name)
            await queue.consume(taken.put)
            message = aio_pika.Message(BODY, delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, name)
            assert (await taken.get()).body == BODY

            await asyncio.to_thread(broker.flush)
            await asyncio.to_thread(broker.kill)
            await asyncio.to_thread(broker.start)
            if connect is aio_pika.connect:
                connection = protect(await connect(broker.url), world.sealer)
                channel = await connection.channel()
                await (await channel.get_queue(name)).consume(taken.put)
            else:
                await channel.ready()
            again = await taken.get()
            assert again.body == BODY
            await again.ack()
            await world.connected(aio_pika.connect)
            await channel.default_exchange.publish(message, name)
            assert (await taken.get()).body == BODY
            await connection.close()
            world.bare = await world.connected(aio_pika.connect)
            assert looks_sealed((await world.raw(name)).body)
    finally:
        await asyncio.to_thread(broker.stop)
