"""When the ledger is told that a record is settled, and when not: committed, never stored alone."""

import asyncio

import pytest
from confluent_kafka import TopicPartition

from postseal.core import Policy, Sealer, Verdict
from postseal.kafka import Consumer, open_records
from postseal.kafka.aio import AIOConsumer
from tests.contract import World
from tests.fakes import FakeKeys
from tests.kafka.lines import ClientLine
from tests.kafka.test_consumer import until
from tests.kafka.test_records import event_of, record_of
from tests.ledgers import Noting


@pytest.fixture
def line(cluster, make_topic):
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line):
    return World(line)


@pytest.fixture
def ledger():
    return Noting()


@pytest.fixture
def consumer(line, world, ledger):
    """A consumer that was handed three records and has committed none."""
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    for number in range(3):
        line.send(sealer, place, b"%d" % number)
    told = []
    conf = line.consuming(place, **{"enable.auto.commit": False})
    consumer = Consumer(conf, sealer=sealer, on_commit=lambda *args: told.append(args))
    consumer.subscribe([place])
    consumer.told, consumer.place = told, place
    came = []
    until(lambda: len(came) == 3, lambda: came.extend(consumer.consume(3, 0.2)))
    yield consumer
    consumer.close()


def test_a_stored_offset_settles_nothing(consumer, ledger):
    """It is committed some seconds later, or never."""
    assert consumer.poll(0.2) is None
    assert ledger.settled == set()


def test_a_commit_that_is_waited_for_settles(consumer, ledger):
    consumer.commit(offsets=[TopicPartition(consumer.place, 0, 2)], asynchronous=False)
    assert len(ledger.settled) == 2
    consumer.commit(asynchronous=False)
    assert len(ledger.settled) == 3
    assert consumer.told == []  # as without us


def test_a_commit_that_is_not_waited_for_settles_when_the_broker_has_confirmed_it(consumer, ledger):
    consumer.commit()
    until(lambda: consumer.told, lambda: consumer.poll(0.05))
    assert len(ledger.settled) == 3
    [(error, _)] = consumer.told
    assert error is None


def test_what_a_transaction_commits_is_told_by_hand(consumer, ledger):
    consumer.note_committed(consumer.position([TopicPartition(consumer.place, 0)]))
    assert len(ledger.settled) == 3


def test_what_the_ledger_does_not_take_is_told_again_before_anything_is_handed_on(
    consumer, ledger, line, world
):
    ledger.away = True
    consumer.commit(asynchronous=False)
    line.send(world.sealer(world.policy(consumer.place)), consumer.place, b"later")
    assert consumer.poll(1) is None
    assert ledger.settled == set()
    ledger.away, came = False, []
    until(lambda: any(came), lambda: came.append(consumer.poll(0.2)))
    assert len(ledger.settled) == 3
    assert world.events == []


def test_groups_are_places_of_their_own(line, world, ledger):
    """Each group gets every record, also in one process."""
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send(sealer, place, b"one")
    for group in ("billing", "audit"):
        consumer = Consumer(line.consuming(place) | {"group.id": group}, sealer=sealer)
        consumer.subscribe([place])
        until(lambda: consumer.poll(0.2), lambda: None)  # noqa: B023 - called at once
        consumer.close()
    assert len(ledger.settled) == 2
    assert world.events == []


def test_an_offset_that_is_set_back_is_known_for_what_it_is(consumer, ledger, world):
    """Each record comes again as a duplicate, by default with an event; what a window admits, without."""
    consumer.commit(asynchronous=False)
    consumer.seek(TopicPartition(consumer.place, 0, 0))
    came = []
    until(lambda: len(came) == 3, lambda: came.extend(consumer.consume(3, 0.2)))
    assert world.verdicts() == [Verdict.DUPLICATE] * 3


def test_asyncio_settles_too(line, world, ledger):
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send(sealer, place, b"one")
    told = []

    async def on_commit(error, partitions):
        told.append(error)

    async def run():
        conf = line.consuming(place, **{"enable.auto.commit": False, "on_commit": on_commit})
        async with AIOConsumer(conf, sealer=sealer) as consumer:
            await consumer.subscribe([place])
            while await consumer.poll(0.2) is None:
                pass
            await consumer.poll(0.1)
            assert ledger.settled == set()
            await consumer.commit(asynchronous=True)
            while not told:
                await consumer.poll(0.05)
            assert len(ledger.settled) == 1
            await consumer.note_committed([TopicPartition(place, 0, 1)])

    asyncio.run(run())
    assert told == [None]


def test_a_lambda_function_tells_when_it_is_done(ledger):
    keys, events = FakeKeys(), []
    policy = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    sealer = Sealer(
        sender="shop", policies=[policy], keys={"main": keys}, on_audit=events.append, ledger=ledger
    )
    event = event_of(record_of(sealer.seal(b"one", destination="kafka:orders")))
    records = open_records(event, sealer)
    assert ledger.settled == set()
    records.settled()
    assert len(ledger.settled) == 1
    open_records(event, sealer)
    assert [told.verdict for told in events] == [Verdict.DUPLICATE]
