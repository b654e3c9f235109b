"""What only a real broker shows: transactions, rebalances, crashes, and that it never held a clear byte."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import sys
import textwrap
import time
import uuid
from collections.abc import Callable
from pathlib import Path
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from integration.capture import Recorder
from integration.kafka.conftest import topics_of
from integration.scan import scan, scan_memory
from integration.servers import Kafka
from postseal.core import Verdict
from postseal.kafka import Consumer, RefusedMessage
from postseal.kafka.aio import AIOConsumer, AIOProducer
from tests.contract import Raw, World, flipped
from tests.kafka.lines import ClientLine


@pytest.fixture
def line(kafka: Kafka, make_topic: Callable[[str], None]) -> ClientLine:
    return ClientLine(kafka.address, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


def until(done: Callable[[], object], step: Callable[[], object], seconds: float = 60) -> None:
    """Go on with *step* until *done*; the time only ends what would fail anyway."""
    end = time.monotonic() + seconds
    while not done():
        assert time.monotonic() < end, "never came"
        step()


def poll_into(bodies: list[bytes | None], consumer: Any) -> None:
    message = consumer.poll(0.2)
    if message is not None:
        assert message.error() is None, message.error()
        bodies.append(message.value())


class TestTransactions:
    def test_an_aborted_transaction_is_not_seen_and_a_committed_one_opens(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        with line.producer(world.sealer(policy), **{"transactional.id": topic}) as producer:
            producer.init_transactions(30)
            for body, ends in (
                (b"aborted", producer.abort_transaction),
                (b"kept", producer.commit_transaction),
            ):
                producer.begin_transaction()
                producer.produce(topic, body, partition=0)
                producer.produce_batch(topic, [{"value": body + b" too"}], 0)
                producer.flush(30)
                ends(30)
        with line.receiving(world.sealer(policy), topic) as receiving:
            assert receiving.take(2) == [b"kept", b"kept too"]

    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_each_message_passes_exactly_once_through_outages_and_refusals(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """B14, E5: consume, transform, produce; offsets travel in the transaction."""
        source, target = line.place(), line.place()
        policy = world.policy(source, target)
        # Three processes, three data keys; between them somebody injects clear text.
        expected = [b"%d" % number for number in range(30)]
        for at in range(0, 30, 10):
            with line.producer(world.sealer(policy)) as producer:
                for body in expected[at : at + 10]:
                    producer.produce(source, body, partition=0)
                producer.flush(30)
            line.put(source, Raw(b"injected"))
        sealer = world.sealer(policy)
        conf = line.consuming(source, **{"enable.auto.commit": False, "isolation.level": "read_committed"})
        refused: list[int | None] = []
        with (
            Consumer(conf, sealer=sealer) as consumer,
            line.producer(world.sealer(policy), **{"transactional.id": source}) as producer,
        ):
            consumer.subscribe([source])
            producer.init_transactions(30)
            moved = outages = 0

            def step() -> None:
                nonlocal moved, outages
                producer.begin_transaction()
                try:
                    if by == "poll":
                        message = consumer.poll(0.2)
                        messages = [] if message is None else [message]
                    else:
                        messages = consumer.consume(7, 0.2)
                except RefusedMessage as error:
                    refused.append(error.kafka_message.offset())
                    messages = []
                for message in messages:
                    producer.produce(target, message.value(), partition=0)
                producer.send_offsets_to_transaction(
                    consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30
                )
                producer.commit_transaction(30)
                moved += len(messages)
                # Away until it was missed, again and again.
                if world.keys.unavailable.is_set():
                    if world.keys.calls["unwrap"]:
                        world.keys.unavailable.clear()
                        outages += 1
                elif moved % 10 == 0 and not messages:
                    world.keys.calls.clear()
                    world.keys.unavailable.set()

            until(lambda: moved >= 30 and len(refused) >= 3, step)
            world.keys.unavailable.clear()
            committed = consumer.committed([TopicPartition(source, 0)], 30)[0].offset
        assert outages >= 2
        assert committed == 33
        assert refused == [10, 21, 32]
        with line.receiving(world.sealer(policy), target) as receiving:
            assert receiving.take(30) == expected
        assert world.verdicts() == [Verdict.UNPROTECTED] * 3

    def test_positions_commit_what_was_handed_on_before_an_outage(
        self, world: World, line: ClientLine
    ) -> None:
        """The client alone knows no position after a seek, and a transaction would then commit nothing."""
        source = line.place()
        policy = world.policy(source)
        for body in (b"1", b"2"):
            line.send(world.sealer(policy), source, body)  # a data key each
        keys = world.keys
        conf = line.consuming(source, **{"enable.auto.commit": False})
        with (
            Consumer(conf, sealer=world.sealer(policy)) as consumer,
            confluent_kafka.Producer(line.conf(**{"transactional.id": source})) as producer,
        ):
            consumer.subscribe([source])
            producer.init_transactions(30)
            bodies: list[bytes | None] = []
            until(lambda: bodies, lambda: poll_into(bodies, consumer))
            keys.unavailable.set()
            until(lambda: keys.calls["unwrap"] >= 2, lambda: consumer.poll(0.2))
            producer.begin_transaction()
            producer.send_offsets_to_transaction(
                consumer.position(consumer.assignment()), consumer.consumer_group_metadata(), 30
            )
            producer.commit_transaction(30)
            assert consumer.committed([TopicPartition(source, 0)], 30)[0].offset == 1


class TestGroups:
    @pytest.mark.parametrize("protocol", ["consumer", "classic"])
    def test_a_rebalance_during_an_outage_loses_nothing_and_keeps_the_order(
        self, world: World, line: ClientLine, protocol: str
    ) -> None:
        """B14: partitions change hands while they wait."""
        topic = line.place()
        policy = world.policy(topic)
        with line.producer(world.sealer(policy)) as producer:
            for number in range(20):
                producer.produce(topic, b"%02d" % number, partition=number % 2)
            producer.flush(30)
        world.keys.unavailable.set()
        conf = line.consuming(topic, **{"group.protocol": protocol})
        if protocol == "classic":
            conf |= {"session.timeout.ms": 6000, "heartbeat.interval.ms": 500}
        first = Consumer(conf, sealer=world.sealer(policy))
        second = Consumer(conf, sealer=world.sealer(policy))
        bodies: dict[str, list[bytes | None]] = {"first": [], "second": []}

        def step() -> None:
            poll_into(bodies["first"], first)
            poll_into(bodies["second"], second)

        try:
            first.subscribe([topic])
            until(lambda: world.keys.calls["unwrap"] >= 2, lambda: poll_into(bodies["first"], first))
            assert len(first.assignment()) == 2
            second.subscribe([topic])
            until(lambda: len(first.assignment()) == len(second.assignment()) == 1, step)
            # Away again, so that a partition also comes back to whom it was taken from.
            calls = world.keys.calls["unwrap"]
            until(lambda: world.keys.calls["unwrap"] >= calls + 2, step)
            second.unsubscribe()
            until(lambda: len(first.assignment()) == 2 and not second.assignment(), step)
            assert bodies == {"first": [], "second": []}
            world.keys.unavailable.clear()
            until(lambda: len(bodies["first"]) >= 20, step)
        finally:
            first.close()
            second.close()
        assert bodies["second"] == []
        came = [body or b"" for body in bodies["first"]]
        for parity in (0, 1):
            assert [b for b in came if int(b) % 2 == parity] == [b"%02d" % n for n in range(parity, 20, 2)]

    def test_a_consumer_of_the_classic_protocol_comes_back_unpaused(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        line.send(world.sealer(policy), topic, b"1")
        world.keys.unavailable.set()
        calls: list[str] = []
        conf = line.consuming(topic, **{"group.protocol": "classic"})
        with Consumer(conf, sealer=world.sealer(policy)) as consumer:

            def assigned(consumer: Consumer, partitions: list[TopicPartition]) -> None:
                calls.append("assigned")
                consumer.assign(partitions)

            def revoked(consumer: Consumer, _: list[TopicPartition]) -> None:
                calls.append("revoked")
                consumer.unassign()

            consumer.subscribe([topic], assigned, revoked)
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            consumer.unsubscribe()
            until(lambda: not consumer.assignment(), lambda: consumer.poll(0.1))
            world.keys.unavailable.clear()
            consumer.subscribe([topic], assigned, revoked)
            bodies: list[bytes | None] = []
            until(lambda: bodies, lambda: poll_into(bodies, consumer))
        assert bodies == [b"1"]
        assert calls == ["assigned", "revoked", "assigned", "revoked"]

    def test_a_crash_after_receiving_delivers_again(
        self, world: World, line: ClientLine, tmp_path: Path
    ) -> None:
        """A message that was handed on and not committed comes again to the next process, and opens there."""
        topic = line.place()
        key = tmp_path / "keys.toml"
        program = tmp_path / "crash.py"
        program.write_text(
            textwrap.dedent(
                f"""
                import os, sys, warnings
                from confluent_kafka import TopicPartition
                from postseal.core import Policy, Sealer, UnsafeLocalKeys
                from postseal.kafka import Consumer, Producer

                warnings.simplefilter("ignore")
                if sys.argv[1] == "send":
                    UnsafeLocalKeys.create_file({str(key)!r})
                policy = Policy(name="orders", destinations=["kafka:{topic}"], keys=["main"])
                keys = UnsafeLocalKeys.from_file({str(key)!r})
                sealer = Sealer(sender="shop", policies=[policy], keys={{"main": keys}})
                if sys.argv[1] == "send":
                    with Producer({{"bootstrap.servers": {line.address!r}}}, sealer=sealer) as producer:
                        for body in (b"1", b"2", b"3"):
                            producer.produce({topic!r}, body, partition=0)
                    os._exit(0)
                consumer = Consumer(
                    {{"bootstrap.servers": {line.address!r}, "group.id": {topic!r}, "auto.offset.reset": "earliest"}},
                    sealer=sealer,
                )
                consumer.assign([TopicPartition({topic!r}, 0)])
                for _ in range(int(sys.argv[2])):
                    print(consumer.poll(30).value().decode(), flush=True)
                    if sys.argv[1] == "commit":
                        consumer.commit(asynchronous=False)
                os._exit(9)  # as a crash: nothing is closed, nothing committed
                """
            )
        )

        def run(*arguments: str) -> list[str]:
            done = subprocess.run(
                [sys.executable, program, *arguments], capture_output=True, text=True, timeout=60, check=False
            )
            assert done.returncode == (0 if arguments == ("send",) else 9), done.stderr
            return done.stdout.split()

        run("send")
        assert run("crash", "2") == ["1", "2"]
        assert run("commit", "1") == ["1"]
        assert run("crash", "2") == ["2", "3"]


class TestCanary:
    """A1, A2: no clear byte in the broker's files, in its memory, or on an unencrypted connection."""

    @pytest.fixture
    def line(self, own_kafka: Kafka) -> ClientLine:
        return ClientLine(own_kafka.address, topics_of(own_kafka))

    def test_a_sealed_canary_is_found_in_the_consumer_only(
        self, world: World, own_kafka: Kafka, line: ClientLine, tmp_path: Path
    ) -> None:
        if own_kafka.pid is None or own_kafka.data_dir is None:
            pytest.skip("the broker is not ours to look into")
        topic, bad = line.place(), line.place()
        policy = world.policy(topic, on_refused="quarantine", quarantine=f"kafka:{bad}")
        canary = f"canary {uuid.uuid4()} 4111 1111 1111 1111".encode()
        with Recorder(own_kafka.route, tmp_path) as recorder:
            through = ClientLine(recorder.address, line._make_topic)
            with through.producer(world.sealer(policy), **{"compression.type": "gzip"}) as producer:
                for _ in range(50):
                    producer.produce(topic, canary, key="k", partition=0)
                producer.flush(30)
            # One is damaged on the way, so that the quarantine is looked into as well.
            through.put(topic, flipped(through, through.held(topic, 50)[0]))
            with through.receiving(world.sealer(policy), topic) as receiving:
                assert receiving.take(50) == [canary] * 50
                receiving.until(lambda: through.has_message(bad))
            assert recorder.connections > 1
        assert scan(canary, own_kafka.data_dir) == []
        assert scan(canary, tmp_path) == []
        assert scan_memory(canary, own_kafka.pid) == []
        # The same scan does find what is there: the topic's name, in all three.
        name = topic.encode()
        assert scan(name, own_kafka.data_dir)
        assert scan(name, tmp_path)
        assert scan_memory(name, own_kafka.pid)

    def test_a_clear_canary_is_found_everywhere(
        self, own_kafka: Kafka, line: ClientLine, tmp_path: Path
    ) -> None:
        """The control: without us it lies open in all three."""
        if own_kafka.pid is None or own_kafka.data_dir is None:
            pytest.skip("the broker is not ours to look into")
        topic = line.place()
        canary = f"canary {uuid.uuid4()} 4111 1111 1111 1111".encode()
        with Recorder(own_kafka.route, tmp_path) as recorder:
            through = ClientLine(recorder.address, line._make_topic)
            through.put(topic, *[Raw(canary)] * 50)
            assert [raw.body for raw in through.held(topic, 50)] == [canary] * 50
        assert scan(canary, own_kafka.data_dir)
        assert scan(canary, tmp_path)
        assert scan_memory(canary, own_kafka.pid)


def test_a_compacted_topic_keeps_its_tombstones(world: World, line: ClientLine) -> None:
    """Null is what deletes: the broker takes our messages and tombstones into a compacted topic by their keys."""
    topic = f"t-{uuid.uuid4().hex[:12]}"
    admin = AdminClient(line.conf())
    admin.create_topics([NewTopic(topic, 1, config={"cleanup.policy": "compact"})])[topic].result(20)
    policy = world.policy(topic)
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(topic, b"1", key="k", partition=0)
        producer.produce(topic, None, key="k", partition=0)
        producer.flush(30)
    assert [(m.key(), m.value() is None) for m in line.messages(topic, 2)] == [(b"k", False), (b"k", True)]
    with line.receiving(world.sealer(policy), topic) as receiving:
        assert receiving.take(2) == [b"1", None]


class TestAsyncio:
    """What asyncio adds, on a real broker."""

    def test_each_message_passes_exactly_once_though_calls_are_cancelled(
        self, world: World, line: ClientLine
    ) -> None:
        """B14, E5: consume, transform, produce; whoever waits is cancelled again and again, and the key service is away in between."""
        source, target = line.place(), line.place()
        policy = world.policy(source, target)
        expected = [b"%d" % number for number in range(30)]
        for at in range(0, 30, 10):
            with line.producer(world.sealer(policy)) as producer:
                for body in expected[at : at + 10]:
                    producer.produce(source, body, partition=0)
                producer.flush(30)
            line.put(source, Raw(b"injected"))
        refused: list[int | None] = []

        async def main() -> int:
            conf = line.consuming(source, **{"enable.auto.commit": False})
            moved = turns = 0
            async with (
                AIOConsumer(conf, sealer=world.sealer(policy)) as consumer,
                AIOProducer(
                    line.conf(**{"transactional.id": source}), sealer=world.sealer(policy)
                ) as producer,
                asyncio.timeout(100),
            ):
                await consumer.subscribe([source])
                await producer.init_transactions(30)
                while moved < 30 or len(refused) < 3:
                    turns += 1
                    world.keys.unavailable.clear() if turns % 3 else world.keys.unavailable.set()
                    messages: list[Any] = []
                    # Every other call gets too little time, so that it is cancelled, at whatever point it is.
                    with contextlib.suppress(TimeoutError):
                        try:
                            async with asyncio.timeout(0.003 * (turns % 7) if turns % 2 else 5):
                                messages = await consumer.consume(3, 0.3)
                        except RefusedMessage as error:
                            refused.append(error.kafka_message.offset())
                    await producer.begin_transaction()
                    for message in messages:
                        await producer.produce(target, message.value(), partition=0)
                    await producer.send_offsets_to_transaction(
                        await consumer.position(await consumer.assignment()),
                        await consumer.consumer_group_metadata(),
                        30,
                    )
                    await producer.commit_transaction(30)
                    moved += len(messages)
                world.keys.unavailable.clear()
                [committed] = await consumer.committed([TopicPartition(source, 0)], 30)
                return committed.offset

        assert asyncio.run(main()) == 33
        assert sorted(refused) == [10, 21, 32]
        with line.receiving(world.sealer(policy), target) as receiving:
            assert receiving.take(30) == expected

    def test_a_rebalance_hands_over_what_was_fetched_and_not_handed_on(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        with line.producer(world.sealer(policy)) as producer:
            for number in range(20):
                producer.produce(topic, b"%02d" % number, partition=number % 2)
            producer.flush(30)
        bodies: list[bytes | None] = []

        async def main() -> None:
            conf = line.consuming(topic)
            async with asyncio.timeout(100), AIOConsumer(conf, sealer=world.sealer(policy)) as first:
                world.keys.slow.set()
                await first.subscribe([topic])
                fetching = asyncio.create_task(first.consume(20, 30))
                await asyncio.to_thread(world.keys.waiting.wait, 30)
                fetching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await fetching
                world.keys.unblock()
            async with asyncio.timeout(100), AIOConsumer(conf, sealer=world.sealer(policy)) as second:
                await second.subscribe([topic])
                while len(bodies) < 20:
                    bodies.extend(message.value() for message in await second.consume(20, 0.3))

        asyncio.run(main())
        assert sorted(body or b"" for body in bodies) == [b"%02d" % number for number in range(20)]
