"""What becomes of a refused message in aio-pika: it is never handed on, and settled as its policy says."""

import asyncio
import logging
import struct

import aio_pika
import pika
import pytest

from postseal.core import KeyUnavailable, Refused, Verdict
from tests.rabbitmq.aio_pika_world import World, on_loop, until

BODY = b"4111 1111 1111 1111"
CLEAR = b"in clear, by nobody we know"
DEAD_LETTERS = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"}
QUARANTINE = {"on_refused": "quarantine", "quarantine": "rabbitmq:/refused"}


async def consuming(connection, **options):
    """Consume the queue; return what will have been handed on, and the channel."""
    bodies = []
    channel = await connection.channel()

    async def handle(message):
        bodies.append(message.body)
        if not options.get("no_ack"):
            await message.ack()

    await (await channel.get_queue("orders")).consume(handle, **options)
    return bodies, channel


@on_loop
async def test_raised_out_of_an_iterator_which_goes_on_behind_it(broker):
    """A9: what was refused is left unsettled, and lies there still when the channel is closed."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.connection, b"one")
        await world.publish(world.bare, CLEAR)
        await world.publish(world.connection, b"two")
        channel = await world.connection.channel()
        queue = await channel.get_queue("orders")
        bodies, refused = [], []
        async with queue.iterator() as messages:
            while len(bodies) < 2:
                try:
                    async for message in messages:
                        bodies.append(message.body)
                        await message.ack()
                        if len(bodies) == 2:
                            break
                except Refused as error:
                    refused.append(error.verdict)
        assert (bodies, refused) == ([b"one", b"two"], [Verdict.UNPROTECTED])
        assert len(world.events) == 1
        await channel.close()
        assert (await world.raw()).body == CLEAR
        assert await world.take(world.bare) is None


@on_loop
async def test_an_iterator_that_is_closed_before_it_could_raise_gives_the_rest_back(broker):
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.bare, CLEAR)
        for body in (b"one", b"two"):
            await world.publish(world.connection, body)
        channel = await world.connection.channel()
        async with (await channel.get_queue("orders")).iterator():
            await until(lambda: len(world.events) == 1)
            await asyncio.sleep(0.05)
        await channel.close()
        assert (await world.raw()).body == CLEAR
        assert [(await world.take(world.connection)).body for _ in range(2)] == [b"one", b"two"]


@on_loop
async def test_raised_in_the_place_of_a_callback_and_said_in_the_log(broker, caplog):
    async with World.at(broker) as world:
        await world.queue()
        bodies, channel = await consuming(world.connection)
        await world.publish(world.bare, CLEAR)
        await world.publish(world.connection, BODY)
        await until(lambda: bodies == [BODY])
        assert "left to its consumer, which is told" in caplog.text
        assert any(isinstance(r.exc_info and r.exc_info[1], Refused) for r in caplog.records)
        assert CLEAR.decode() not in caplog.text
        await channel.close()
        assert (await world.raw()).body == CLEAR


@on_loop
async def test_raised_out_of_get(broker):
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.bare, CLEAR)
        await world.publish(world.connection, BODY)
        async with world.connection.channel() as channel:
            queue = await channel.get_queue("orders")
            with pytest.raises(Refused) as caught:
                await queue.get()
            assert caught.value.verdict is Verdict.UNPROTECTED
            message = await queue.get()
            await message.ack(multiple=True)  # the refused one is not concerned
            assert message.body == BODY
        assert (await world.raw()).body == CLEAR


@pytest.mark.parametrize("way", ["consume", "get"])
@on_loop
async def test_dead_lettered_where_the_queue_has_an_exchange_for_it(broker, way):
    """A10."""
    async with World.at(broker, on_refused="dead-letter") as world:
        await world.queue("dead")
        await world.queue(**DEAD_LETTERS)
        await world.publish(world.bare, CLEAR, headers={"tenant": "north"})
        if way == "consume":
            bodies, _ = await consuming(world.connection)
        else:
            assert await world.take(world.connection) is None
            bodies = []
        letter = await world.raw("dead")
        assert letter.body == CLEAR
        assert letter.headers["tenant"] == "north"
        assert letter.headers["x-death"][0]["reason"] == "rejected"
        assert (bodies, len(world.events)) == ([], 1)


@pytest.mark.parametrize("no_ack", [False, True])
@pytest.mark.parametrize("way", ["consume", "get"])
@on_loop
async def test_quarantined_as_it_came_with_its_verdict(broker, way, no_ack):
    """E5: the copy is confirmed before the message is settled."""
    async with World.at(broker, **QUARANTINE) as world:
        await world.queue()
        await world.queue("refused")
        headers = {"tenant": "north", "postseal-verdict": "ok", "CC": ["orders"]}
        await world.publish(world.bare, CLEAR, headers=headers, message_id="7", expiration=3600)
        await world.publish(world.connection, BODY)
        if way == "consume":
            bodies, _ = await consuming(world.connection, no_ack=no_ack)
            await until(lambda: bodies == [BODY])
        else:
            async with world.connection.channel() as channel:
                assert (await (await channel.get_queue("orders")).get(no_ack=no_ack)).body == BODY
        copy = await world.raw("refused")
        assert (copy.body, copy.message_id, copy.expiration) == (CLEAR, "7", None)
        assert copy.headers == {
            "tenant": "north",
            "postseal-verdict": "unprotected",
            "postseal-exchange": "",
            "postseal-routing-key": "orders",
        }
        assert len(world.events) == 1


@on_loop
async def test_a_message_that_cc_puts_into_another_queue_lies_there_and_not_where_it_was_sent(broker):
    """A9: whoever may publish to the default exchange could else have one queue's messages handed on by another's handler."""
    async with World.at(broker, on_refused="discard") as world:
        await world.queue()
        await world.queue("refunds")
        await world.publish(world.connection, BODY)
        sealed = await world.raw()
        await world.publish(world.bare, sealed.body, headers={"BCC": ["refunds"]})
        assert (await world.take(world.connection)).body == BODY
        assert await world.take(world.connection, "refunds") is None
        assert [event.verdict for event in world.events] == [Verdict.WRONG_DESTINATION]


class Crafted(pika.BasicProperties):
    """Properties whose only header is a number that aiormq reads, and cannot write."""

    def encode(self):
        table = b"\x01xd" + struct.pack(">d", 1e300)
        return [struct.pack(">HI", self.FLAG_HEADERS, len(table)), table]


@pytest.mark.parametrize(
    "properties",
    [pika.BasicProperties(headers={"big": ["x" * 1000] * 130 + ["x" * 350]}), Crafted()],
    ids=["almost a frame", "a number"],
)
@on_loop
async def test_headers_that_cannot_be_copied_do_not_keep_a_message_out_of_quarantine(broker, properties):
    """E5: whoever may publish could else stop a consumer with them, or have its connection closed for a frame too large."""
    async with World.at(broker, **QUARANTINE) as world:
        await world.queue()
        await world.queue("refused")
        with pika.BlockingConnection(pika.ConnectionParameters("127.0.0.1", broker.port)) as connection:
            connection.channel().basic_publish("", "orders", CLEAR, properties)
        bodies, _ = await consuming(world.connection)
        copy = await world.raw("refused")
        assert (copy.body, bodies) == (CLEAR, [])
        assert copy.headers == {
            "postseal-verdict": "unprotected",
            "postseal-exchange": "",
            "postseal-routing-key": "orders",
        }


@on_loop
async def test_a_quarantine_that_takes_nothing_leaves_the_message_where_it_was(broker):
    """E5: no queue is there to take the copy, so nothing is acknowledged; when there is one, it is tried again."""
    async with World.at(broker, **QUARANTINE) as world:
        await world.queue()
        await world.publish(world.bare, CLEAR)
        with pytest.raises(Refused):
            await world.take(world.connection)
        assert "Basic.Nack" in broker.seen
        bodies, _ = await consuming(world.connection)
        await until(lambda: broker.seen.count("Basic.Publish") >= 4)
        assert "Basic.Ack" not in broker.seen
        await world.queue("refused")
        assert (await world.raw("refused")).body == CLEAR
        assert bodies == []


@on_loop
async def test_a_quarantine_whose_exchange_is_missing_costs_the_channel_nothing(broker):
    async with World.at(broker, on_refused="quarantine", quarantine="rabbitmq:refused/all") as world:
        await world.queue()
        bodies, channel = await consuming(world.connection)
        await world.publish(world.bare, CLEAR)
        await until(lambda: broker.seen.count("Basic.Publish") >= 3)
        await channel.default_exchange.publish(*_message(BODY))
        await until(lambda: bodies == [BODY])

        await channel.declare_exchange("refused", "fanout")
        await world.queue("refused")
        await (await channel.get_queue("refused")).bind("refused")
        assert (await world.raw("refused")).body == CLEAR


@on_loop
async def test_discarded(broker):
    async with World.at(broker, on_refused="discard") as world:
        await world.queue()
        await world.publish(world.bare, CLEAR)
        await world.publish(world.connection, BODY)
        assert (await world.take(world.connection)).body == BODY
        assert await world.take(world.bare) is None
        assert len(world.events) == 1


@on_loop
async def test_dropped_where_nothing_is_to_be_acknowledged(broker):
    async with World.at(broker, on_refused="dead-letter") as world:
        await world.queue("dead")
        await world.queue(**DEAD_LETTERS)
        bodies, _ = await consuming(world.connection, no_ack=True)
        await world.publish(world.bare, CLEAR)
        await world.publish(world.connection, BODY)
        await until(lambda: bodies == [BODY])
        assert len(world.events) == 1
        assert await world.take(world.bare, "dead") is None


@on_loop
async def test_what_no_policy_speaks_of_is_refused_too(broker):
    """A9: whoever may publish to the default exchange can put such a message into any queue."""
    async with World.at(broker, destinations=["rabbitmq:/orders"], on_refused="dead-letter") as world:
        await world.queue("dead")
        await world.queue(**DEAD_LETTERS)
        async with world.bare.channel() as channel:
            exchange = await channel.declare_exchange("others", "fanout")
            await (await channel.get_queue("orders")).bind(exchange)
            await exchange.publish(*_message(CLEAR))
        bodies, _ = await consuming(world.connection)
        assert (await world.raw("dead")).body == CLEAR
        assert bodies == []
        assert [event.verdict for event in world.events] == [Verdict.WRONG_DESTINATION]


@on_loop
async def test_a_fault_that_no_verdict_fits_settles_nothing(broker, caplog):
    """Its text may quote anything, and is not logged by us."""

    async def fail(*_, **__):
        raise ValueError("4111")

    async with World.at(broker, on_refused="discard") as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        receiver = await world.protected()
        receiver._postseal.sealer.aopen = fail
        async with receiver.channel() as channel:
            with pytest.raises(ValueError, match="4111"):
                await (await channel.get_queue("orders")).get()
        assert (await world.take(world.connection)).body == BODY
        ours = [r for r in caplog.records if r.name.startswith("postseal") and r.levelno >= logging.WARNING]
        assert not any("4111" in r.getMessage() for r in ours)
        assert any("ValueError" in r.getMessage() for r in ours)


@on_loop
async def test_each_delivery_of_a_refused_message_makes_one_event(broker):
    """E6."""
    async with World.at(broker) as world:
        await world.queue()
        await world.publish(world.bare, CLEAR)
        for count in (1, 2):
            with pytest.raises(Refused):
                await world.take(world.connection)
            assert len(world.events) == count
        [first, second] = world.events
        assert first.coordinates["queue"] == "orders"
        assert (first.coordinates["redelivered"], second.coordinates["redelivered"]) == (False, True)


@on_loop
async def test_a_passing_fault_is_no_refusal(broker):
    """B14: not even where refused messages are discarded."""
    async with World.at(broker, on_refused="discard") as world:
        await world.queue()
        await world.publish(world.connection, BODY)
        receiver = await world.protected()
        world.keys.unavailable.set()
        with pytest.raises(KeyUnavailable):
            await world.take(receiver)
        assert world.events == []
        world.keys.unavailable.clear()
        assert (await world.take(receiver)).body == BODY


def _message(body):
    return aio_pika.Message(body), "orders"
