"""The asyncio consumer that opens, on the mock cluster: what the event loop, tasks and cancellation add to the sync one."""

from __future__ import annotations

import asyncio
import threading
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager
from typing import Any

import confluent_kafka.aio
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from postseal.core import ConfigError, Policy, Sealer, Verdict
from postseal.kafka import RefusedMessage
from postseal.kafka.aio import AIOConsumer
from tests.contract import Raw, World
from tests.kafka.lines import ClientLine


@pytest.fixture
def line(cluster, make_topic) -> ClientLine:
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


def go(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine*; the time only ends what would fail anyway."""

    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(limited())


@asynccontextmanager
async def consuming(
    line: ClientLine, sealer: Sealer, topic: str, *, quarantine: Any = None, **conf: Any
) -> AsyncIterator[AIOConsumer]:
    async with AIOConsumer(line.consuming(topic, **conf), sealer=sealer, quarantine=quarantine) as consumer:
        await consumer.subscribe([topic])
        yield consumer


async def until(done: Callable[[], object], step: Callable[[], Awaitable[object]]) -> None:
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "never came"
        await step()


async def take(consumer: Any, count: int, by: str = "poll") -> list[bytes | None]:
    """Receive *count* bodies."""
    bodies: list[bytes | None] = []

    async def step() -> None:
        if by == "poll":
            message = await consumer.poll(0.2)
            messages = [] if message is None else [message]
        else:
            messages = await consumer.consume(count, 0.2)
        assert [message.error() for message in messages] == [None] * len(messages)
        bodies.extend(message.value() for message in messages)

    await until(lambda: len(bodies) >= count, step)
    return bodies


async def refusal(consumer: Any, by: str = "poll") -> RefusedMessage:
    """Receive until a refusal is raised, nothing handed on before."""
    found: list[RefusedMessage] = []

    async def step() -> None:
        try:
            got = await (consumer.poll(0.2) if by == "poll" else consumer.consume(10, 0.2))
        except RefusedMessage as refused:
            found.append(refused)
        else:
            assert not got

    await until(lambda: found, step)
    return found[0]


async def stored(consumer: AIOConsumer, topic: str) -> int | None:
    """Commit what is stored; return the offset committed for partition 0, None if there is none."""
    try:
        await consumer.commit(asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._NO_OFFSET:
            raise
    [partition] = await consumer.committed([TopicPartition(topic, 0)], 10)
    return partition.offset if partition.offset >= 0 else None


async def begun(consumer: AIOConsumer, call: Coroutine[Any, Any, Any]) -> asyncio.Task[Any]:
    """Make *call* in a task; return when its thread is at it."""
    before = consumer._consumer._handing
    task = asyncio.create_task(call)
    while consumer._consumer._handing is before:  # noqa: ASYNC110 - the thread tells nobody
        await asyncio.sleep(0)
    return task


async def caught_between(consumer: AIOConsumer, call: Coroutine[Any, Any, Any]) -> None:
    """Cancel *call* at the worst time: its thread has fetched, and the loop has not handed on yet."""
    task = await begun(consumer, call)
    while not consumer._consumer._handing.made:
        time.sleep(0.001)  # noqa: ASYNC251 - holds the loop, so that it hears nothing of the end of the call
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task


def fill(world: World, line: ClientLine, topic: str, *bodies: bytes | None, **options: Any) -> Policy:
    """Seal *bodies* into partition 0 of *topic*; b"bad" is put there in clear."""
    policy = world.policy(topic, **options)
    with line.producer(world.sealer(policy)) as producer:
        for body in bodies:
            if body == b"bad":
                producer.flush(20)
                line.put(topic, Raw(body))
            else:
                producer.produce(topic, body, key="k", partition=0)
        producer.flush(20)
    return policy


BY = pytest.mark.parametrize("by", ["poll", "consume"])


def receive(consumer: AIOConsumer, by: str, timeout: float = 10) -> Coroutine[Any, Any, Any]:
    return consumer.poll(timeout) if by == "poll" else consumer.consume(2, timeout)


class TestLikeTheSyncOne:
    def test_it_is_an_aio_consumer_and_leaves_its_configuration_alone(
        self, world: World, line: ClientLine
    ) -> None:
        async def main() -> None:
            async def on_error(error: KafkaError) -> None: ...

            conf = line.consuming("orders", error_cb=on_error)
            before = dict(conf)
            async with AIOConsumer(conf, 5, sealer=world.sealer(world.policy("orders"))) as consumer:
                assert isinstance(consumer, confluent_kafka.aio.AIOConsumer)
            assert conf == before

        go(main())

    @BY
    def test_an_offset_is_stored_once_its_message_arrived(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", None, b"")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 3, by) == [b"1", None, b""]
                assert await stored(consumer, topic) == 3

        go(main())

    @BY
    def test_closing_stores_what_was_handed_on_last(self, world: World, line: ClientLine, by: str) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1, by) == [b"1"]
            line.send(world.sealer(policy), topic, b"2")
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1, by) == [b"2"]

        go(main())

    @BY
    def test_storing_is_left_to_whoever_wants_it(self, world: World, line: ClientLine, by: str) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")

        async def main() -> None:
            manual = {"enable.auto.offset.store": False}
            async with consuming(line, world.sealer(policy), topic, **manual) as consumer:
                assert await take(consumer, 2, by) == [b"1", b"2"]
                assert await stored(consumer, topic) is None
                await consumer.store_offsets(offsets=[TopicPartition(topic, 0, 1)])
                assert await stored(consumer, topic) == 1

        go(main())

    @BY
    def test_an_absent_key_service_stores_nothing_and_a_restart_finds_all(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """B14."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")

        async def main() -> None:
            world.keys.unavailable.set()
            async with consuming(line, world.sealer(policy), topic) as consumer:
                await until(lambda: world.keys.calls["unwrap"] >= 2, lambda: receive(consumer, by, 0.2))
                assert await stored(consumer, topic) is None
                [position] = await consumer.position([TopicPartition(topic, 0)])
                assert position.offset == 0
            world.keys.unavailable.clear()
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 2, by) == [b"1", b"2"]

        go(main())

    @BY
    def test_a_refusal_is_raised_and_the_next_call_goes_on(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """E5, E6."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", b"2")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1, by) == [b"1"]
                refused = await refusal(consumer, by)
                assert (refused.verdict, refused.kafka_message.offset()) == (Verdict.UNPROTECTED, 1)
                assert await stored(consumer, topic) == 1
                assert await take(consumer, 1, by) == [b"2"]
                assert await stored(consumer, topic) == 3

        go(main())
        assert world.verdicts() == [Verdict.UNPROTECTED]

    @BY
    def test_a_refused_message_goes_to_the_quarantine_and_is_settled(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """A10."""
        topic, bad = line.place(), line.place()
        policy = fill(
            world, line, topic, b"bad", b"1", b"bad", on_refused="quarantine", quarantine=f"kafka:{bad}"
        )

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic, quarantine=line.bare) as consumer:
                assert await take(consumer, 1, by) == [b"1"]
                await until(lambda: len(world.events) >= 2, lambda: consumer.poll(0.1))
                assert await stored(consumer, topic) == 3

        go(main())
        assert [message.value() for message in line.messages(bad, 2)] == [b"bad", b"bad"]

    def test_an_asyncio_producer_is_no_quarantine(self, world: World, line: ClientLine) -> None:
        """It would put each refused message into a coroutine that nobody awaits."""

        async def main() -> None:
            sealer = world.sealer(world.policy("orders"))
            async with confluent_kafka.aio.AIOProducer(line.conf()) as producer:
                with pytest.raises(
                    ConfigError, match=r"quarantine must be a plain confluent_kafka\.Producer"
                ):
                    AIOConsumer(line.consuming("orders"), sealer=sealer, quarantine=producer)

        go(main())

    def test_topics_without_a_policy_are_told_before_any_message_moves(
        self, world: World, line: ClientLine
    ) -> None:
        async def main() -> None:
            async with AIOConsumer(
                line.consuming("orders"), sealer=world.sealer(world.policy("orders"))
            ) as consumer:
                for wrong in (
                    consumer.subscribe(["order"]),
                    consumer.assign([TopicPartition("order", 0)]),
                    consumer.incremental_assign([TopicPartition("order", 0)]),
                ):
                    with pytest.raises(ConfigError, match="did you mean 'kafka:orders'"):
                        await wrong
            with pytest.raises(ConfigError, match="sealer must be"):
                AIOConsumer(line.consuming("orders"), sealer=None)
            with pytest.raises(TypeError):
                AIOConsumer(None, sealer=world.sealer(world.policy("orders")))

        go(main())

    def test_the_other_verbs_are_the_clients(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")

        async def main() -> None:
            async with AIOConsumer(line.consuming(topic), sealer=world.sealer(policy)) as consumer:
                here = TopicPartition(topic, 0, 1)
                await consumer.assign([here])
                assert await consumer.assignment() == [here]
                assert await take(consumer, 1) == [b"2"]
                await consumer.pause([here])
                assert await consumer.poll(0.3) is None
                await consumer.resume([here])
                assert await take(consumer, 1) == [b"3"]
                await consumer.seek(TopicPartition(topic, 0, 0))
                assert await take(consumer, 3, "consume") == [b"1", b"2", b"3"]
                await consumer.incremental_unassign([here])
                await consumer.incremental_assign([TopicPartition(topic, 0, 2)])
                assert await take(consumer, 1) == [b"3"]
                await consumer.unassign()
                assert await consumer.assignment() == []
                assert (await consumer.list_topics(topic, timeout=10)).topics
                assert await consumer.get_watermark_offsets(TopicPartition(topic, 0), 10) == (0, 3)

        go(main())

    def test_callbacks_are_coroutines_and_get_this_consumer(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        seen: list[tuple[str, bool]] = []

        async def main() -> None:
            async def on_assign(consumer: AIOConsumer, partitions: list[TopicPartition]) -> None:
                seen.append(("assigned", isinstance(consumer, AIOConsumer)))
                for partition in partitions:
                    partition.offset = 1 if partition.partition == 0 else partition.offset
                await consumer.incremental_assign(partitions)

            async def on_revoke(consumer: AIOConsumer, partitions: list[TopicPartition]) -> None:
                seen.append(("revoked", isinstance(consumer, AIOConsumer)))
                await consumer.incremental_unassign(partitions)

            async with AIOConsumer(line.consuming(topic), sealer=world.sealer(policy)) as consumer:
                await consumer.subscribe([topic], on_assign=on_assign, on_revoke=on_revoke)
                assert await take(consumer, 1) == [b"2"]

        go(main())
        assert seen == [("assigned", True), ("revoked", True)]


class TestTheLoop:
    @BY
    def test_a_slow_key_service_never_holds_it(self, world: World, line: ClientLine, by: str) -> None:
        """D6: other tasks, and other calls of the same consumer, go on while a data key is unwrapped."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        world.keys.slow.set()

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                receiving = asyncio.create_task(receive(consumer, by, 20))
                await asyncio.to_thread(world.keys.waiting.wait, 30)
                for _ in range(1000):
                    await asyncio.sleep(
                        0
                    )  # the ticking task: each turn of the loop while the key service dawdles
                assert await consumer.assignment()
                assert not receiving.done()
                world.keys.unblock()
                got = await receiving
                if by == "poll":
                    assert got.value() == b"1"
                else:
                    assert [message.value() for message in got] == [b"1", b"2"]

        go(main())

    def test_tasks_that_receive_at_once_share_the_messages_out(self, world: World, line: ClientLine) -> None:
        """None is lost, none is handed on twice, and the offset of each is stored."""
        topic = line.place()
        sent = [b"%d" % number for number in range(40)]
        policy = fill(world, line, topic, *sent)
        got: list[bytes | None] = []

        async def worker(consumer: AIOConsumer, by: str) -> None:
            while len(got) < len(sent):
                found = await receive(consumer, by, 0.2)
                found = found if isinstance(found, list) else [] if found is None else [found]
                got.extend(message.value() for message in found)

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                async with asyncio.TaskGroup() as group:
                    for by in ("poll", "consume", "poll", "consume"):
                        group.create_task(worker(consumer, by))
                assert await stored(consumer, topic) == 40

        go(main())
        assert sorted(got, key=lambda body: int(body or b"0")) == sent


class TestCancellation:
    """Whoever is cancelled while waiting for messages has not got them: they come again, here or after a restart."""

    @BY
    def test_an_idle_call_that_was_cancelled_takes_nothing_with_it(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1, by) == [b"1"]
                waiting = await begun(consumer, receive(consumer, by, -1))
                waiting.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await waiting
                await asyncio.to_thread(line.send, world.sealer(policy), topic, b"2")
                assert await take(consumer, 1, by) == [b"2"]
                assert await stored(consumer, topic) == 2

        go(main())

    def test_a_call_without_end_that_was_cancelled_does_not_hold_up_closing(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                for by in ("poll", "consume"):
                    with pytest.raises(TimeoutError):
                        async with asyncio.timeout(0.1):
                            await receive(consumer, by, -1)

        go(main())

    @BY
    @pytest.mark.parametrize("restarts", [False, True])
    def test_what_was_fetched_and_not_handed_on_comes_again(
        self, world: World, line: ClientLine, by: str, restarts: bool
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1) == [b"1"]
                await caught_between(consumer, receive(consumer, by))
                assert await stored(consumer, topic) == 1
                [position] = await consumer.position([TopicPartition(topic, 0)])
                assert position.offset == 1
                if not restarts:
                    assert await take(consumer, 2, by) == [b"2", b"3"]
                    assert await stored(consumer, topic) == 3
            if restarts:
                async with consuming(line, world.sealer(policy), topic) as consumer:
                    assert await take(consumer, 2, by) == [b"2", b"3"]

        go(main())
        assert world.events == []

    @BY
    def test_a_call_cancelled_while_a_key_is_fetched_loses_nothing(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        world.keys.slow.set()

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                receiving = asyncio.create_task(receive(consumer, by, 20))
                await asyncio.to_thread(world.keys.waiting.wait, 30)
                receiving.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await receiving
                world.keys.unblock()
                assert await take(consumer, 2, by) == [b"1", b"2"]

        go(main())

    def test_a_consume_that_gathers_sets_back_what_it_has(self, world: World, line: ClientLine) -> None:
        """Fetched, not even opened."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                fetched = threading.Event()
                bare = consumer._consumer.bare

                class Telling:
                    def consume(self, *args: Any) -> list[Any]:
                        found = bare.consume(*args)
                        if found:
                            fetched.set()
                        return found

                    def __getattr__(self, name: str) -> Any:
                        return getattr(bare, name)

                consumer._consumer.bare = Telling()
                gathering = asyncio.create_task(consumer.consume(1000, -1))
                await asyncio.to_thread(fetched.wait, 30)
                gathering.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await gathering
                assert await take(consumer, 2) == [b"1", b"2"]

        go(main())

    @BY
    def test_a_refusal_that_nobody_saw_is_raised_again_and_audited_once(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """E6."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", b"2")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1) == [b"1"]
                await caught_between(consumer, receive(consumer, by))
                assert len(world.events) == 1
                assert await stored(consumer, topic) == 1
                assert (await refusal(consumer, by)).kafka_message.offset() == 1
                assert await take(consumer, 1, by) == [b"2"]
                assert await stored(consumer, topic) == 3

        go(main())
        assert world.verdicts() == [Verdict.UNPROTECTED]

    def test_a_refusal_behind_what_was_lost_is_not_raised_before_it(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", b"2")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                await caught_between(consumer, consumer.consume(3, 10))
                assert await take(consumer, 1, "consume") == [b"1"]
                assert (await refusal(consumer, "consume")).kafka_message.offset() == 1
                assert await take(consumer, 1, "consume") == [b"2"]
                assert await stored(consumer, topic) == 3

        go(main())

    @BY
    def test_what_was_discarded_stays_settled(self, world: World, line: ClientLine, by: str) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", on_refused="discard")

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                assert await take(consumer, 1) == [b"1"]
                await caught_between(consumer, receive(consumer, by, 2))
                assert await stored(consumer, topic) == 2

        go(main())
        assert world.verdicts() == [Verdict.UNPROTECTED]

    @BY
    def test_an_event_of_the_client_comes_again(self, world: World, line: ClientLine, by: str) -> None:
        topic = line.place()
        policy = world.policy(topic)

        async def main() -> None:
            conf = {"enable.partition.eof": True}
            ends: list[Any] = []

            async def step() -> None:
                found = await receive(consumer, by, 0.2)
                found = found if isinstance(found, list) else [] if found is None else [found]
                ends.extend(message.partition() for message in found)

            async with consuming(line, world.sealer(policy), topic, **conf) as consumer:
                await caught_between(consumer, receive(consumer, by))
                await until(lambda: len(ends) >= 4, step)
            assert sorted(ends) == [0, 1, 2, 3]

        go(main())

    def test_a_task_that_waits_for_its_turn_can_be_cancelled(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = world.policy(topic)

        async def main() -> None:
            async with consuming(line, world.sealer(policy), topic) as consumer:
                first = asyncio.create_task(consumer.poll(20))
                second = asyncio.create_task(consumer.poll(20))
                for _ in range(5):
                    await asyncio.sleep(0)
                second.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await second
                await asyncio.to_thread(line.send, world.sealer(policy), topic, b"1")
                message = await first
                assert message is not None
                assert message.value() == b"1"

        go(main())
