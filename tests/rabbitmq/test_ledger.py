"""When the ledger is told that a message is settled, and when not: pika and aio-pika."""

import pika
import pytest

from postseal.core import LedgerUnavailable, Sealer, Verdict
from postseal.rabbitmq import protect
from tests.contract import Raw
from tests.ledgers import Noting
from tests.rabbitmq.aio_pika_world import World as AioWorld
from tests.rabbitmq.aio_pika_world import on_loop
from tests.rabbitmq.line import SelectLine
from tests.rabbitmq.test_receiving import until


@pytest.fixture
def ledger():
    return Noting()


@pytest.fixture
def consuming(world, line, ledger):
    """Send some messages to a queue, and hand out a channel that got all of them."""
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    for number in range(4):
        line.send(sealer, place, b"%d" % number)
    with line.connect(sealer) as connection:
        channel, tags = connection.channel(), []
        channel.basic_consume(line.queue(place), lambda _, method, *__: tags.append(method.delivery_tag))
        until(connection, lambda: len(tags) == 4)
        yield channel, tags


def test_an_acknowledgement_settles(consuming, ledger):
    channel, tags = consuming
    channel.basic_ack(tags[1])
    assert len(ledger.settled) == 1
    channel.basic_ack(tags[2], multiple=True)
    assert len(ledger.settled) == 3
    channel.basic_ack(0, multiple=True)
    assert len(ledger.settled) == 4


def test_what_is_given_back_is_not_settled(consuming, ledger):
    channel, tags = consuming
    channel.basic_nack(tags[0], requeue=False)
    channel.basic_reject(tags[1], requeue=False)
    channel.basic_nack(tags[3], multiple=True, requeue=False)
    assert ledger.settled == set()
    channel.basic_ack(0, multiple=True)
    assert ledger.settled == set()


def test_what_the_ledger_does_not_take_is_not_acknowledged(consuming, ledger, broker):
    channel, tags = consuming
    ledger.away = True
    for multiple in (False, True):
        with pytest.raises(LedgerUnavailable):
            channel.basic_ack(tags[1], multiple=multiple)
    ledger.away = False
    channel.basic_ack(tags[3], multiple=True)
    assert len(ledger.settled) == 4


def test_what_the_client_does_not_send_is_taken_back(consuming, ledger):
    channel, tags = consuming
    channel.connection.close()
    with pytest.raises(pika.exceptions.AMQPError):
        channel._impl.basic_ack(tags[0])
    assert ledger.settled == set()


def test_what_comes_acknowledged_is_settled_as_it_is_handed_on(world, line, ledger):
    place = line.place()
    policy = world.policy(place)
    sealer = world.sealer(policy, ledger=ledger)
    line.send(sealer, place, b"one")
    line.send(sealer, place, b"two")
    seen = []
    with line.connect(sealer) as connection:
        connection.channel().basic_consume(
            line.queue(place), lambda *_: seen.append(len(ledger.settled)), auto_ack=True
        )
        until(connection, lambda: len(seen) == 2)
    assert seen[0] >= 1
    assert seen[1] == 2


def test_what_comes_acknowledged_waits_for_the_ledger(world, line, ledger):
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send(sealer, place, b"one")
    ledger.away, came = True, []
    with line.connect(sealer) as connection:
        channel = connection.channel()
        channel.basic_consume(line.queue(place), lambda *args: came.append(args[3]), auto_ack=True)
        until(connection, lambda: not line.has_message(place))
        assert came == []
        ledger.away = False
        until(connection, lambda: came == [b"one"])
    assert world.events == []


def test_the_copies_of_a_fan_out_are_no_duplicates(world, parameters, ledger):
    """Each queue of an exchange has its own, and one process may consume both."""
    line = SelectLine(parameters)
    place = line.place()
    name = place.partition("/")[2]
    with line.bare() as channel:
        channel.queue_declare(f"{name}.audit", durable=True)
        channel.queue_bind(f"{name}.audit", "shop", name)
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send_batch(sealer, place, line.batch(place, [b"one"]))
    with line.connected(sealer) as running:
        running.consume(name, settles=True)
        running.consume(f"{name}.audit", settles=True)
        running.until(lambda: len(running.bodies) == 2)
    assert len(ledger.settled) == 2
    assert world.events == []


@on_loop
async def test_aio_pika_settles_by_acknowledging_alone(broker):
    async with AioWorld.at(broker) as world:
        await world.queue()
        ledger = Noting()
        connection = protect(await world.connected(_connect), noted(world, ledger))
        for _ in range(5):
            await world.publish(connection, b"one")
        async with connection.channel() as channel:
            queue = await channel.get_queue("orders")
            first, second, third, fourth, fifth = [await queue.get() for _ in range(5)]
            await first.nack(requeue=False)
            await second.reject(requeue=False)
            assert ledger.settled == set()
            async with third.process():
                assert ledger.settled == set()
            assert len(ledger.settled) == 1
            ledger.away = True
            with pytest.raises(LedgerUnavailable):
                await fourth.ack()
            ledger.away = False
            await fifth.channel.basic_ack(fifth.delivery_tag, multiple=True)
            assert len(ledger.settled) == 3
        assert not await world.take(world.bare)


@on_loop
async def test_aio_pika_settles_what_comes_acknowledged(broker):
    async with AioWorld.at(broker) as world:
        await world.queue()
        ledger = Noting()
        connection = protect(await world.connected(_connect), noted(world, ledger))
        await world.publish(connection, b"one")
        raw = await world.raw()
        await world.publish(world.bare, raw.body)
        async with connection.channel() as channel:
            queue = await channel.get_queue("orders")
            assert (await queue.get(no_ack=True)).body == b"one"
            assert len(ledger.settled) == 1
            await world.publish(world.bare, raw.body)
            assert (await queue.get(no_ack=True)).body == b"one"
        assert [event.verdict for event in world.events] == [Verdict.DUPLICATE]


async def _connect(url):
    import aio_pika

    return await aio_pika.connect(url)


def noted(world, ledger):
    return Sealer(
        sender="shop",
        policies=[world.policy],
        keys={"main": world.keys},
        on_audit=world.events.append,
        ledger=ledger,
    )


def test_a_header_of_the_broker_makes_no_message_new(world, line, ledger):
    """A9: a copy with other headers, none of them bound, is a copy."""
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send(sealer, place, b"one")
    [raw] = line.held(place, 1)
    with line.receiving(sealer, place) as receiving:
        receiving.take(1)
        line.put(place, Raw(raw.body, {"x-other": "1"}))
        receiving.take(2)
    assert world.verdicts() == [Verdict.DUPLICATE]
