"""What aio-pika publishes is sealed, and what the broker sends back is shown as it was published."""

import asyncio

import aio_pika
import pytest
from aio_pika.exceptions import PublishError
from pamqp.commands import Basic

from postseal.core import ConfigError, KeyUnavailable
from postseal.core.wire import looks_sealed
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"
FAULTS = [
    (method, fault)
    for method in ["Basic.Publish", "Channel.Open", "Confirm.Select", "Channel.Close"]
    for fault in ["cut", "close", "channel"]
    if (method, fault) != ("Channel.Open", "channel")  # there is none yet
]


@pytest.mark.parametrize("kind", ["direct", "fanout", "topic"])
@on_loop
async def test_every_kind_of_exchange_seals(broker, kind):
    async with World.at(broker) as world:
        await world.queue()
        channel = await world.connection.channel()
        exchange = await channel.declare_exchange("shop", kind)
        queue = await channel.get_queue("orders")
        await queue.bind(exchange, "orders.new")

        await exchange.publish(aio_pika.Message(BODY, content_type="text/plain"), "orders.new")
        message = await queue.get()
        assert (message.body, message.content_type) == (BODY, "text/plain")
        await message.nack()
        assert looks_sealed((await world.raw()).body)


@on_loop
async def test_a_destination_without_a_policy_is_not_published_to(broker):
    async with World.at(broker, destinations=["rabbitmq:/orders"]) as world:
        await world.queue("others")
        with pytest.raises(ConfigError, match="rabbitmq:/others"):
            await world.publish(world.connection, BODY, "others")
        assert "Basic.Publish" not in broker.seen


@on_loop
async def test_without_a_key_nothing_is_published_and_the_channel_goes_on(broker):
    """B14."""
    async with World.at(broker) as world:
        await world.queue()
        world.keys.unavailable.set()
        channel = await world.connection.channel()
        with pytest.raises(KeyUnavailable):
            await channel.default_exchange.publish(aio_pika.Message(BODY), "orders")
        assert "Basic.Publish" not in broker.seen

        world.keys.unavailable.clear()
        await channel.default_exchange.publish(aio_pika.Message(BODY), "orders")
        assert (await world.take(world.connection)).body == BODY


@on_loop
async def test_the_loop_goes_on_while_a_key_is_fetched_and_nothing_is_overtaken(broker):
    """D4, D6: the second needs no key of its own, and waits for the first all the same."""
    async with World.at(broker) as world:
        await world.queue()
        channel = await world.connection.channel()
        exchange = await channel.declare_exchange("shop", "fanout")
        queue = await channel.get_queue("orders")
        await queue.bind(exchange)
        await exchange.publish(aio_pika.Message(b"warm"), "warm")
        world.keys.slow.set()

        first = asyncio.create_task(exchange.publish(aio_pika.Message(b"first"), "cold"))
        await until(world.keys.waiting.is_set)
        second = asyncio.create_task(exchange.publish(aio_pika.Message(b"second"), "warm"))
        for _ in range(100):
            await asyncio.sleep(0)
        assert broker.seen.count("Basic.Publish") == 1
        assert not second.done()

        world.keys.unblock()
        await asyncio.gather(first, second)
        assert [(await queue.get(no_ack=True)).body for _ in range(3)] == [b"warm", b"first", b"second"]


@on_loop
async def test_a_publish_that_was_given_up_while_it_waited_for_its_key_sends_nothing(broker):
    async with World.at(broker) as world:
        await world.queue()
        channel = await world.connection.channel()
        publish = channel.default_exchange.publish
        world.keys.slow.set()
        with pytest.raises(TimeoutError):
            await publish(aio_pika.Message(b"late"), "orders", timeout=0.05)
        cancelled = asyncio.create_task(publish(aio_pika.Message(b"cancelled"), "orders"))
        await until(world.keys.waiting.is_set)
        behind = asyncio.create_task(publish(aio_pika.Message(b"behind it"), "orders"))
        await asyncio.sleep(0)
        for task in (behind, cancelled):
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
        world.keys.unblock()

        await publish(aio_pika.Message(BODY), "orders")
        assert broker.seen.count("Basic.Publish") == 1
        assert (await world.take(world.connection)).body == BODY


@on_loop
async def test_a_returned_message_is_shown_as_it_was_published(broker):
    """A2: in the answer, to callbacks, and in what is raised."""
    async with World.at(broker) as world:
        channel = await world.connection.channel()
        returned = []
        channel.return_callbacks.add(lambda _, message: returned.append(message.body))

        answer = await channel.default_exchange.publish(aio_pika.Message(BODY), "nowhere")
        assert answer.body == BODY
        assert returned == [BODY]

        raising = await world.connection.channel(on_return_raises=True)
        with pytest.raises(PublishError) as caught:
            await raising.default_exchange.publish(aio_pika.Message(BODY), "nowhere")
        assert caught.value.message.body == BODY

        # Nothing of it is kept.
        for one in (channel, raising):
            underlay = await one.get_underlay_channel()
            assert vars(underlay)["_postseal"]._sent == {}


@on_loop
async def test_a_publish_is_confirmed_as_before(broker):
    async with World.at(broker) as world:
        await world.queue()
        assert isinstance(await world.publish(world.connection, BODY), Basic.Ack)
        async with world.connection.channel(publisher_confirms=False) as channel:
            assert await channel.default_exchange.publish(aio_pika.Message(BODY), "orders") is None


@on_loop
async def test_every_property_can_be_bound(broker):
    """A9: the message id that the client makes up, and what is empty and so not sent, too."""
    bound = [
        *["content_type", "content_encoding", "type", "message_id", "correlation_id", "reply_to", "app_id"],
        *["priority", "tenant", "absent"],
    ]
    async with World.at(broker, bind_headers=bound) as world:
        await world.queue()
        full = {
            "content_type": "application/json",
            "content_encoding": "gzip",
            "type": "order",
            "message_id": "7",
            "correlation_id": "8",
            "reply_to": "answers",
            "app_id": "shop",
            "priority": 3,
            "headers": {"tenant": "north", "other": [1, "x", None, {"deep": True}]},
        }
        empty = {"content_type": "", "content_encoding": "", "reply_to": ""}
        for properties in (full, {}, empty):
            await world.publish(world.connection, BODY, **properties)
            message = await world.take(world.connection)
            assert message.body == BODY
            for name, value in properties.items():
                assert (getattr(message, name) or "") == value
        assert world.events == []


@on_loop
async def test_a_message_of_the_caller_stays_as_it_was(broker):
    async with World.at(broker) as world:
        await world.queue()
        message = aio_pika.Message(BODY, headers={"tenant": "north"}, content_type="text/plain")
        before = dict(message.info())
        for _ in range(2):
            async with world.connection.channel() as channel:
                await channel.default_exchange.publish(message, "orders")
            assert (await world.take(world.connection)).body == BODY
        assert (message.body, dict(message.info())) == (BODY, before)


@on_loop
async def test_text_is_no_body(broker):
    async with World.at(broker) as world:
        channel = await (await world.connection.channel()).get_underlay_channel()
        with pytest.raises(TypeError, match="bytes"):
            await channel.basic_publish("4111", routing_key="orders")
        assert "Basic.Publish" not in broker.seen


@pytest.mark.parametrize(("method", "fault"), FAULTS)
@on_loop
async def test_a_broker_that_gives_up_costs_no_more_than_without_us(broker, method, fault):
    """Bad input: whatever breaks, the caller hears of it, and all that lies in the queue is sealed and opens."""
    async with World.at(broker) as world:
        await world.queue()
        broker.faults[method] = fault
        failed = None
        try:
            await world.publish(world.connection, BODY)
        except Exception as error:  # noqa: BLE001 - what it is, is aiormq's
            failed = error
        assert failed is not None or method == "Channel.Close"

        again = await world.protected()
        await world.publish(again, BODY)
        bodies = []
        while (message := await world.take(again)) is not None:
            bodies.append(message.body)
        assert bodies in ([BODY], [BODY, BODY])
        assert world.events == []
