"""Consumers that open, on the mock cluster: what is handed on, what is settled, and where they go on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.error import ValueDeserializationError
from confluent_kafka.serialization import SerializationError

from postseal.core import ConfigError, Policy, Refused, Sealer, Verdict
from postseal.kafka import Consumer, DeserializingConsumer, Producer, RefusedMessage, _opening
from postseal.kafka._partitions import Troubles
from tests.contract import Raw, World
from tests.kafka.lines import ClientLine

Take = Callable[..., list[bytes | None]]


@pytest.fixture
def line(cluster, make_topic) -> ClientLine:
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


@contextmanager
def consuming(
    line: ClientLine,
    sealer: Sealer,
    topic: str,
    *,
    quarantine: Any = None,
    subscribes: bool = True,
    **conf: Any,
) -> Iterator[Consumer]:
    consumer = Consumer(line.consuming(topic, **conf), sealer=sealer, quarantine=quarantine)
    try:
        if subscribes:
            consumer.subscribe([topic])
        yield consumer
    finally:
        consumer.close()


def until(done: Callable[[], object], step: Callable[[], object]) -> None:
    """Go on with *step* until *done*; the time only ends what would fail anyway."""
    end = time.monotonic() + 30
    while not done():
        assert time.monotonic() < end, "never came"
        step()


def take(consumer: Any, count: int, by: str = "poll") -> list[bytes | None]:
    """Receive *count* bodies."""
    bodies: list[bytes | None] = []

    def step() -> None:
        if by == "poll":
            message = consumer.poll(0.2)
            messages = [] if message is None else [message]
        else:
            messages = consumer.consume(count, 0.2)
        assert [message.error() for message in messages] == [None] * len(messages)
        bodies.extend(message.value() for message in messages)

    until(lambda: len(bodies) >= count, step)
    return bodies


def refusal(consumer: Any, by: str = "poll") -> RefusedMessage:
    """Receive until a refusal is raised, nothing handed on before."""
    found: list[RefusedMessage] = []

    def step() -> None:
        try:
            got = consumer.poll(0.2) if by == "poll" else consumer.consume(10, 0.2)
        except RefusedMessage as refused:
            found.append(refused)
        else:
            assert not got

    until(lambda: found, step)
    return found[0]


def stored(consumer: Consumer) -> int | None:
    """Commit what is stored; return the offset committed for partition 0, None if there is none."""
    try:
        consumer.commit(asynchronous=False)
    except KafkaException as error:
        if error.args[0].code() != KafkaError._NO_OFFSET:
            raise
    [partition] = consumer.committed([TopicPartition(consumer.assignment()[0].topic, 0)], 10)
    return partition.offset if partition.offset >= 0 else None


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


def test_it_is_a_consumer(world: World, line: ClientLine) -> None:
    sealer = world.sealer(world.policy("orders"))
    with Consumer(line.consuming("orders"), sealer=sealer) as consumer:
        assert isinstance(consumer, confluent_kafka.Consumer)
    with DeserializingConsumer(line.consuming("orders"), sealer=sealer) as deserializing:
        assert isinstance(deserializing, confluent_kafka.DeserializingConsumer)


class TestOffsets:
    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_an_offset_is_stored_once_a_message_was_opened(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", None, b"")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3, by) == [b"1", None, b""]
            assert stored(consumer) == 3

    @pytest.mark.parametrize("by", ["poll", "consume"])
    @pytest.mark.parametrize("no", [False, "false", "F", 0])
    def test_storing_is_left_to_whoever_wants_it(
        self, world: World, line: ClientLine, by: str, no: object
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        with consuming(line, world.sealer(policy), topic, **{"enable.auto.offset.store": no}) as consumer:
            assert take(consumer, 2, by) == [b"1", b"2"]
            assert stored(consumer) is None

    def test_the_option_may_be_a_name_of_its_own(self, world: World, line: ClientLine) -> None:
        """As in the client, where a keyword overrides the dict."""
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        conf = line.consuming(topic) | {"enable.auto.offset.store": True}
        keyword: dict[str, Any] = {"enable.auto.offset.store": False}
        with Consumer(conf, sealer=world.sealer(policy), **keyword) as consumer:
            consumer.subscribe([topic])
            assert take(consumer, 1) == [b"1"]
            assert stored(consumer) is None
        assert conf["enable.auto.offset.store"] is True

    def test_the_callers_configuration_stays_as_it_was(self, world: World, line: ClientLine) -> None:
        conf = line.consuming("orders")
        before = dict(conf)
        Consumer(conf, sealer=world.sealer(world.policy("orders"))).close()
        assert conf == before

    @pytest.mark.parametrize("wrong", [{"enable.auto.offset.store": "maybe"}, {"nonsense": "x"}])
    def test_a_wrong_option_is_refused_by_the_client(
        self, world: World, line: ClientLine, wrong: dict[str, str]
    ) -> None:
        with pytest.raises(KafkaException, match=next(iter(wrong))):
            Consumer(line.consuming("orders", **wrong), sealer=world.sealer(world.policy("orders")))

    @pytest.mark.parametrize("conf", [None, 5])
    def test_what_is_no_configuration_is_a_type_error(self, world: World, conf: Any) -> None:
        with pytest.raises(TypeError):
            Consumer(conf, sealer=world.sealer(world.policy("orders")))

    def test_a_message_can_be_committed(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        manual = {"enable.auto.commit": False, "enable.auto.offset.store": False}
        with consuming(line, world.sealer(policy), topic, **manual) as consumer:
            messages: list[Any] = []
            until(lambda: len(messages) >= 2, lambda: messages.extend(consumer.consume(2, 0.2)))
            [committed] = consumer.commit(message=messages[0], asynchronous=False)
            assert committed.offset == 1
        with consuming(line, world.sealer(policy), topic, **manual) as consumer:
            assert take(consumer, 1) == [b"2"]

    def test_events_of_the_client_are_handed_on(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        with consuming(line, world.sealer(policy), topic, **{"enable.partition.eof": True}) as consumer:
            ends: list[Any] = []

            def step() -> None:
                message = consumer.poll(0.2)
                if message is not None and message.error() is not None:
                    ends.append(message.error().code())
                ends.extend(m.error().code() for m in consumer.consume(1, 0.1) if m.error() is not None)

            until(lambda: len(ends) >= 4, step)
            assert set(ends) == {KafkaError._PARTITION_EOF}


def _close(consumer: Consumer) -> None:
    consumer.close()


def _leave(consumer: Consumer) -> None:
    with consumer:
        pass


def _unsubscribe(consumer: Consumer) -> None:
    consumer.unsubscribe()
    until(lambda: not consumer.assignment(), lambda: consumer.poll(0.1))


def _have_it_revoked(consumer: Consumer) -> None:
    consumer.subscribe(["^no-such-topic"])
    until(lambda: not consumer.assignment(), lambda: consumer.poll(0))


class TestOffsetsOfMany:
    """`poll` stores one offset for many messages: late, and never too late."""

    @pytest.fixture(autouse=True)
    def _late(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(_opening, "_UNSTORED_FOR", 3600)

    @pytest.fixture
    def calls(self, monkeypatch: pytest.MonkeyPatch) -> list[Any]:
        """What the client was told to store."""
        calls: list[Any] = []
        store = confluent_kafka.Consumer.store_offsets

        def counting(consumer: Consumer, **arguments: Any) -> None:
            calls.append(arguments)
            store(consumer, **arguments)

        monkeypatch.setattr(Consumer, "_client_store", counting)
        return calls

    def test_one_is_stored_for_many_messages(self, world: World, line: ClientLine, calls: list[Any]) -> None:
        topic = line.place()
        bodies = [b"%d" % number for number in range(50)]
        policy = fill(world, line, topic, *bodies)
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 50) == bodies
            assert len(calls) < 25
            assert stored(consumer) == 50
            assert consumer.poll(0.2) is None
            assert len(calls) < 25

    def test_none_waits_for_longer_than_it_may(
        self, world: World, line: ClientLine, calls: list[Any], monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(_opening, "_UNSTORED_FOR", 0)
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3) == [b"1", b"2", b"3"]
            assert len(calls) == 2

    def test_whoever_waits_for_a_message_has_stored_the_last(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        often = {"auto.commit.interval.ms": 50}
        with consuming(line, world.sealer(policy), topic, **often) as consumer:
            assert take(consumer, 2) == [b"1", b"2"]
            partition = TopicPartition(topic, 0)
            until(lambda: consumer.committed([partition], 10)[0].offset == 2, lambda: consumer.poll(0.2))

    @pytest.mark.parametrize("end", [_close, _leave, _unsubscribe, _have_it_revoked])
    def test_whatever_ends_it_commits_what_was_handed_on_last(
        self, world: World, line: ClientLine, end: Callable[[Consumer], object]
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        seldom = {"auto.commit.interval.ms": 600_000}
        consumer = Consumer(line.consuming(topic, **seldom), sealer=world.sealer(policy))
        consumer.subscribe([topic])
        assert take(consumer, 3) == [b"1", b"2", b"3"]
        end(consumer)
        with consuming(line, world.sealer(policy), topic, subscribes=False) as other:
            place = TopicPartition(topic, 0)
            until(lambda: other.committed([place], 10)[0].offset == 3, lambda: other.poll(0.1))
        consumer.close()

    def test_giving_partitions_back_commits_what_was_handed_on_last(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        seldom = {"auto.commit.interval.ms": 600_000}
        with consuming(line, world.sealer(policy), topic, subscribes=False, **seldom) as consumer:
            place = TopicPartition(topic, 0, 0)
            consumer.assign([place])
            assert take(consumer, 3) == [b"1", b"2", b"3"]
            consumer.unassign()
            until(lambda: consumer.committed([place], 10)[0].offset == 3, lambda: consumer.poll(0.1))

    def test_what_the_user_stores_counts(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3) == [b"1", b"2", b"3"]
            consumer.store_offsets(offsets=[TopicPartition(topic, 0, 1)])
            assert stored(consumer) == 1

    def test_a_revoke_callback_may_commit(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        committed: list[int] = []

        def on_revoke(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            committed.extend(
                each.offset for each in consumer.commit(asynchronous=False) if not each.partition
            )

        with consuming(
            line, world.sealer(policy), topic, subscribes=False, **{"enable.auto.commit": False}
        ) as consumer:
            consumer.subscribe([topic], on_revoke=on_revoke)
            assert take(consumer, 2) == [b"1", b"2"]
            consumer.unsubscribe()
            until(lambda: committed, lambda: consumer.poll(0.1))
        assert committed == [2]

    def test_what_comes_again_is_stored_anew(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3) == [b"1", b"2", b"3"]
            consumer.seek(TopicPartition(topic, 0, 0))
            assert take(consumer, 1) == [b"1"]
            assert stored(consumer) == 1

    def test_what_is_committed_by_name_is_committed(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3) == [b"1", b"2", b"3"]
            [committed] = consumer.commit(offsets=[TopicPartition(topic, 0, 1)], asynchronous=False)
            assert committed.offset == 1
            assert stored(consumer) == 3


class TestWhileTheKeyServiceIsAway:
    """B14: a passing fault settles nothing, loses nothing, and stops nothing else."""

    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_nothing_is_stored_and_a_restart_finds_all(self, world: World, line: ClientLine, by: str) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            until(lambda: world.keys.calls["unwrap"] >= 2, lambda: self._nothing(consumer, by))
            assert stored(consumer) is None
        world.keys.unavailable.clear()
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 3, by) == [b"1", b"2", b"3"]

    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_other_partitions_go_on_and_the_order_stays(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        ours = world.sealer(policy)
        with line.producer(ours) as producer:
            producer.produce(topic, b"known", partition=1)
            producer.flush(20)
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 1, by) == [b"known"]  # its data key is in the cache now
            world.keys.unavailable.set()
            world.keys.calls.clear()
            other = world.sealer(policy, keys={"main": _Answering(world)})
            with line.producer(other) as producer:
                for body in (b"1", b"2", b"3"):
                    producer.produce(topic, body, partition=0)
                producer.flush(20)
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: self._nothing(consumer, by))
            with line.producer(ours) as producer:
                for body in (b"a", b"b", b"c"):
                    producer.produce(topic, body, partition=1)
                producer.flush(20)
            assert take(consumer, 3, by) == [b"a", b"b", b"c"]
            world.keys.unavailable.clear()
            assert take(consumer, 3, by) == [b"1", b"2", b"3"]
            assert stored(consumer) == 3
        assert world.events == []

    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_a_batch_hands_on_what_comes_before_and_stops_there(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        fill(world, line, topic, b"3", b"4")  # by another process, with another data key
        with consuming(line, _Failing(world, policy, after=1).sealer, topic) as consumer:
            assert take(consumer, 2, by) == [b"1", b"2"]
            until(lambda: world.keys.calls["unwrap"] >= 2, lambda: self._nothing(consumer, by))
            assert stored(consumer) == 2
            [position] = consumer.position([TopicPartition(topic, 0)])
            assert position.offset == 2
            world.keys.unavailable.clear()
            assert take(consumer, 2, by) == [b"3", b"4"]
            [position] = consumer.position([TopicPartition(topic, 0)])
            assert position.offset == 4

    def test_the_consumer_stays_in_its_group(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        world.keys.unavailable.set()
        changes: list[str] = []
        with consuming(line, world.sealer(policy), topic, subscribes=False) as consumer:
            consumer.subscribe(
                [topic],
                on_assign=lambda *_: changes.append("assigned"),
                on_revoke=lambda *_: changes.append("revoked"),
            )
            until(lambda: world.keys.calls["unwrap"] >= 3, lambda: consumer.poll(0.2))
            assert changes == ["assigned"]
            assert len(consumer.assignment()) == 4

    def test_poll_returns_in_its_time(self, world: World, line: ClientLine) -> None:
        """The wait for the key service is no reason to keep the caller."""
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0))
            assert consumer.poll(0) is None
            assert consumer.consume(5, 0) == []

    def test_poll_without_end_returns_when_the_key_service_is_back(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        sealer = _Failing(world, policy, after=0, recovers_after=2).sealer
        with consuming(line, sealer, topic) as consumer:
            message = consumer.poll()
            assert message is not None
            assert message.value() == b"1"

    def test_consume_without_end_returns_when_the_key_service_is_back(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        sealer = _Failing(world, policy, after=0, recovers_after=2).sealer
        with consuming(line, sealer, topic) as consumer:
            assert [m.value() for m in consumer.consume(2)] == [b"1", b"2"]

    def test_a_partition_that_comes_back_is_not_paused(self, world: World, line: ClientLine) -> None:
        """librdkafka keeps a partition paused over a rebalance."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        world.keys.unavailable.set()
        seen: list[str] = []
        callbacks: dict[str, Any] = {
            "on_assign": lambda c, ps: seen.append(f"assigned {type(c).__name__} {len(ps)}"),
            "on_revoke": lambda c, ps: seen.append(f"revoked {type(c).__name__} {len(ps)}"),
        }
        with consuming(line, world.sealer(policy), topic, subscribes=False) as consumer:
            consumer.subscribe([topic], **callbacks)
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            consumer.unsubscribe()
            until(lambda: not consumer.assignment(), lambda: consumer.poll(0.1))
            assert seen == ["assigned Consumer 4", "revoked Consumer 4"]
            world.keys.unavailable.clear()
            consumer.subscribe([topic], **callbacks)
            assert take(consumer, 2) == [b"1", b"2"]

    def test_a_callback_may_assign_by_itself(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        world.keys.unavailable.set()

        def from_the_second(consumer: Consumer, partitions: list[TopicPartition]) -> None:
            for partition in partitions:
                partition.offset = 1 if partition.partition == 0 else partition.offset
            consumer.incremental_assign(partitions)

        with consuming(line, world.sealer(policy), topic, subscribes=False) as consumer:
            consumer.subscribe([topic], from_the_second, lambda c, ps: c.incremental_unassign(ps))
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            consumer.unsubscribe()
            until(lambda: not consumer.assignment(), lambda: consumer.poll(0.1))
            world.keys.unavailable.clear()
            consumer.subscribe([topic], from_the_second)
            assert take(consumer, 2) == [b"2", b"3"]

    @pytest.mark.parametrize("incremental", [False, True])
    def test_a_partition_assigned_anew_is_not_paused(
        self, world: World, line: ClientLine, incremental: bool
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic, subscribes=False) as consumer:
            first = TopicPartition(topic, 0, 0)
            if incremental:
                consumer.incremental_assign([first])
            else:
                consumer.assign([first])
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            world.keys.unavailable.clear()
            if incremental:
                consumer.incremental_unassign([first])
                consumer.incremental_assign([TopicPartition(topic, 0, 1)])
            else:
                consumer.unassign()
                consumer.assign([TopicPartition(topic, 0, 1)])
            assert take(consumer, 1) == [b"2"]

    def test_what_the_user_paused_stays_paused(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            partition = [TopicPartition(topic, 0)]
            consumer.pause(partition)
            world.keys.unavailable.clear()
            until(lambda: not consumer._waits((topic, 0)), lambda: consumer.poll(0.1))
            assert consumer.poll(0.5) is None
            consumer.resume(partition)
            assert take(consumer, 1) == [b"1"]

    def test_a_partition_that_waits_is_not_fetched_from(self, world: World, line: ClientLine) -> None:
        """D8: a key service in trouble is not driven further into it, not even by a user who resumes."""
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            consumer._troubles = Troubles(first_wait=1000, longest_wait=1000)
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            assert consumer.poll(0.3) is None
            consumer.resume([TopicPartition(topic, 0)])
            assert consumer.consume(5, 0.3) == []
            assert world.keys.calls["unwrap"] == 1

    def test_a_seek_ends_the_wait(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            consumer._troubles = Troubles(first_wait=1000, longest_wait=1000)
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            world.keys.unavailable.clear()
            consumer.seek(TopicPartition(topic, 0, 1))
            assert take(consumer, 1) == [b"2"]

    @staticmethod
    def _nothing(consumer: Consumer, by: str) -> None:
        assert not (consumer.poll(0.2) if by == "poll" else consumer.consume(5, 0.2))


class TestRaise:
    def test_a_refusal_names_its_message_and_the_next_call_goes_on(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", b"2")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 1) == [b"1"]
            refused = refusal(consumer)
            assert isinstance(refused, Refused)
            assert refused.verdict is Verdict.UNPROTECTED
            assert (refused.kafka_message.offset(), refused.kafka_message.value()) == (1, b"bad")
            assert stored(consumer) == 1
            assert take(consumer, 1) == [b"2"]
            assert stored(consumer) == 3
        [event] = world.events
        assert event.coordinates == {"topic": topic, "partition": 0, "offset": 1}

    def test_a_restart_after_a_refusal_meets_it_again(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad")
        for expected in ([b"1"], []):
            with consuming(line, world.sealer(policy), topic) as consumer:
                assert take(consumer, len(expected)) == expected
                refusal(consumer)

    def test_it_can_be_settled_by_hand(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"bad")
        with consuming(line, world.sealer(policy), topic) as consumer:
            consumer.store_offsets(message=refusal(consumer).kafka_message)
            assert stored(consumer) == 1

    @pytest.mark.parametrize("bad", [0, 1, 2, 3])
    def test_consume_hands_on_the_others_and_raises_between(
        self, world: World, line: ClientLine, bad: int
    ) -> None:
        """A9, E5: one refused message never costs the others, and is not passed over before it was raised."""
        topic = line.place()
        bodies = [b"0", b"1", b"2", b"3"]
        policy = fill(world, line, topic, *[b"bad" if at == bad else body for at, body in enumerate(bodies)])
        with consuming(line, world.sealer(policy), topic) as consumer:
            if bad:
                assert take(consumer, bad, "consume") == bodies[:bad]
                assert stored(consumer) == bad
                [position] = consumer.position([TopicPartition(topic, 0)])
                assert position.offset == bad
            assert refusal(consumer, "consume").kafka_message.offset() == bad
            [position] = consumer.position([TopicPartition(topic, 0)])
            assert position.offset == bad + 1
            if bad < 3:
                assert take(consumer, 3 - bad, "consume") == bodies[bad + 1 :]
                assert stored(consumer) == 4
        assert world.verdicts() == [Verdict.UNPROTECTED]

    def test_refusals_of_several_partitions_are_raised_one_by_one(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        with line.producer(world.sealer(policy)) as producer:
            for partition in range(3):
                line.bare.produce(topic, b"bad", partition=partition)
                line.bare.flush(20)
                producer.produce(topic, b"good", partition=partition)
            producer.flush(20)
        refused: set[int | None] = set()
        bodies: list[bytes | None] = []
        with consuming(line, world.sealer(policy), topic) as consumer:

            def step() -> None:
                try:
                    bodies.extend(message.value() for message in consumer.consume(10, 0.5))
                except RefusedMessage as error:
                    refused.add(error.kafka_message.partition())

            until(lambda: len(bodies) >= 3 and len(refused) >= 3, step)
        assert bodies == [b"good"] * 3
        assert refused == {0, 1, 2}
        assert len(world.events) == 3

    def test_a_refusal_held_back_is_forgotten_with_its_partition(
        self, world: World, line: ClientLine
    ) -> None:
        """Whoever gets the partition meets the message again."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"bad", b"2")
        with consuming(line, world.sealer(policy), topic, subscribes=False) as consumer:
            consumer.assign([TopicPartition(topic, 0, 0)])
            got: list[Any] = []
            until(lambda: len(world.events) >= 1, lambda: got.extend(consumer.consume(3, 0.2)))
            assert [message.value() for message in got] == [b"1"]
            consumer.assign([TopicPartition(topic, 0, 2)])
            assert take(consumer, 1) == [b"2"]


class TestDiscard:
    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_a_discarded_message_is_passed_over_and_settled(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"bad", b"1", b"bad", on_refused="discard")
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 1, by) == [b"1"]
            until(lambda: len(world.events) >= 2, lambda: consumer.poll(0.1))
            assert stored(consumer) == 3
        assert world.verdicts() == [Verdict.UNPROTECTED] * 2


class _TooSmall:
    """A producer whose broker takes no record of more than a thousand bytes."""

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def produce(self, topic: str, *, value: bytes, on_delivery: Any, **options: Any) -> None:
        if len(value) > 1000:
            on_delivery(KafkaError(KafkaError.MSG_SIZE_TOO_LARGE), None)
        else:
            self._producer.produce(topic, value=value, on_delivery=on_delivery, **options)

    def poll(self, timeout: float) -> int:
        return self._producer.poll(timeout)


class TestQuarantine:
    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_a_refused_message_goes_there_as_it_came_and_is_settled(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        """A10."""
        topic, bad = line.place(), line.place()
        policy = fill(world, line, topic, b"1", on_refused="quarantine", quarantine=f"kafka:{bad}")
        headers = [("a", b"1"), ("a", None), ("postseal-verdict", b"ok")]
        line.bare.produce(topic, b"bad", "key", 0, timestamp=1_700_000_000_000, headers=headers)
        line.bare.flush(20)
        fill(world, line, topic, b"2")
        with consuming(line, world.sealer(policy), topic, quarantine=line.bare) as consumer:
            assert take(consumer, 2, by) == [b"1", b"2"]
            assert stored(consumer) == 3
        [message] = line.messages(bad, 1)
        assert (message.value(), message.key(), message.timestamp()[1]) == (b"bad", b"key", 1_700_000_000_000)
        assert message.headers() == [
            ("a", b"1"),
            ("a", None),
            ("postseal-verdict", b"unprotected"),
            ("postseal-topic", topic.encode()),
            ("postseal-partition", b"0"),
            ("postseal-offset", b"1"),
        ]
        assert len(world.events) == 1

    def test_dead_letters_go_to_a_topic_named_after_theirs(
        self, world: World, line: ClientLine, make_topic
    ) -> None:
        topic = line.place()
        make_topic(f"{topic}.refused")
        policy = fill(world, line, topic, b"bad", b"1", on_refused="dead-letter")
        with consuming(line, world.sealer(policy), topic, quarantine=line.bare) as consumer:
            assert take(consumer, 1) == [b"1"]
        assert [message.value() for message in line.messages(f"{topic}.refused", 1)] == [b"bad"]

    @pytest.mark.parametrize("fault", ["queue full", "closed", "not delivered", "no report"])
    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_nothing_is_settled_until_it_is_there(
        self, world: World, line: ClientLine, by: str, fault: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """A10, E6: nothing lost, nothing handed on, and one event, however often it is tried."""
        monkeypatch.setattr("postseal.kafka._quarantine._LONGEST_WAIT", 0.2)
        topic, bad = line.place(), line.place()
        policy = fill(
            world, line, topic, b"1", b"bad", b"2", on_refused="quarantine", quarantine=f"kafka:{bad}"
        )
        quarantine = _Unwilling(line.bare, fault)
        with consuming(line, world.sealer(policy), topic, quarantine=quarantine) as consumer:
            assert take(consumer, 1, by) == [b"1"]
            until(
                lambda: quarantine.refused >= 2, lambda: TestWhileTheKeyServiceIsAway._nothing(consumer, by)
            )
            assert stored(consumer) == 1
            quarantine.fault = ""
            assert take(consumer, 1, by) == [b"2"]
            assert stored(consumer) == 3
        assert [message.value() for message in line.messages(bad, 1)] == [b"bad"]
        assert world.verdicts() == [Verdict.UNPROTECTED]

    @pytest.mark.parametrize("by", ["poll", "consume"])
    @pytest.mark.parametrize("where", ["at once", "by its report"])
    def test_one_that_is_too_large_for_it_holds_up_nothing(
        self, world: World, line: ClientLine, by: str, where: str, caplog: pytest.LogCaptureFixture
    ) -> None:
        """E6: its place is noted there, one event is made, and a log line says what to do."""
        topic, bad, large = line.place(), line.place(), b"x" * 2000
        policy = fill(world, line, topic, b"1", on_refused="quarantine", quarantine=f"kafka:{bad}")
        line.put(topic, Raw(large))
        fill(world, line, topic, b"2")
        producer: Any = confluent_kafka.Producer(line.conf(**{"message.max.bytes": 1500}))
        if where == "by its report":
            producer = _TooSmall(line.bare)
        with consuming(line, world.sealer(policy), topic, quarantine=producer) as consumer:
            assert take(consumer, 2, by) == [b"1", b"2"]
            assert stored(consumer) == 3
        [message] = line.messages(bad, 1)
        assert message.value() == b""
        assert dict(message.headers())["postseal-offset"] == b"1"
        assert dict(message.headers())["postseal-size"] == b"2000"
        assert world.verdicts() == [Verdict.UNPROTECTED]
        assert "offset 1, 2000 bytes" in caplog.text
        assert "larger message.max.bytes" in caplog.text

    def test_what_is_refused_in_quarantine_stays_there(self, world: World, line: ClientLine) -> None:
        """A10: it would go round for ever."""
        topic, bad = line.place(), line.place()
        policy = world.policy(
            topic, accept_from=[f"kafka:{bad}"], on_refused="quarantine", quarantine=f"kafka:{bad}"
        )
        line.put(bad, Raw(b"bad"))
        with consuming(line, world.sealer(policy), bad, quarantine=line.bare) as consumer:
            refusal(consumer)
        assert len(line.messages(bad, 1)) == 1

    @pytest.mark.parametrize(
        "options", [{"on_refused": "dead-letter"}, {"on_refused": "quarantine", "quarantine": "kafka:bad"}]
    )
    def test_without_a_producer_for_it_there_is_no_consumer(
        self, world: World, line: ClientLine, options: dict[str, str]
    ) -> None:
        sealer = world.sealer(world.policy("orders", **options))
        with pytest.raises(ConfigError, match=r"quarantine=confluent_kafka\.Producer"):
            Consumer(line.consuming("orders"), sealer=sealer)

    def test_a_policy_of_another_broker_needs_none(self, world: World, line: ClientLine) -> None:
        theirs = Policy(name="q", destinations=["sqs:q"], keys=["main"], on_refused="dead-letter")
        Consumer(line.consuming("orders"), sealer=world.sealer(world.policy("orders"), theirs)).close()

    def test_a_quarantine_of_another_broker_is_a_mistake(self, world: World, line: ClientLine) -> None:
        sealer = world.sealer(world.policy("orders", on_refused="quarantine", quarantine="sqs:bad"))
        with pytest.raises(ConfigError, match="'sqs:bad'"):
            Consumer(line.consuming("orders"), sealer=sealer, quarantine=line.bare)

    def test_a_producer_that_would_change_it_is_refused(self, world: World, line: ClientLine) -> None:
        sealer = world.sealer(world.policy("orders"))
        wrong = [
            Producer(line.conf(), sealer=sealer),
            confluent_kafka.SerializingProducer(line.conf()),
            {"bootstrap.servers": "x"},
        ]
        for producer in wrong:
            with pytest.raises(ConfigError, match=r"quarantine must be a (plain )?confluent_kafka\.Producer"):
                Consumer(line.consuming("orders"), sealer=sealer, quarantine=producer)


class TestMistakes:
    def test_a_topic_without_a_policy_is_refused_before_any_message_moves(
        self, world: World, line: ClientLine
    ) -> None:
        with consuming(line, world.sealer(world.policy("orders")), "orders", subscribes=False) as consumer:
            for wrong in (
                lambda: consumer.subscribe(["order"]),
                lambda: consumer.assign([TopicPartition("order", 0)]),
                lambda: consumer.incremental_assign([TopicPartition("order", 0)]),
            ):
                with pytest.raises(ConfigError, match="did you mean 'kafka:orders'"):
                    wrong()

    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_a_topic_found_by_pattern_without_a_policy_loses_nothing(
        self, world: World, line: ClientLine, by: str
    ) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2")
        with consuming(line, world.sealer(world.policy("orders")), topic, subscribes=False) as consumer:
            consumer.subscribe([f"^{topic}"])
            for _ in range(2):
                with pytest.raises(ConfigError, match=topic):
                    take(consumer, 1, by)
        with consuming(line, world.sealer(policy), topic) as consumer:
            assert take(consumer, 2, by) == [b"1", b"2"]

    @pytest.mark.parametrize("at", [1, 2, 3], ids=["at first", "the whole way", "at once"])
    @pytest.mark.parametrize("by", ["poll", "consume"])
    def test_an_interruption_loses_nothing(
        self, world: World, line: ClientLine, by: str, at: int, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """Each message is tried at once, and goes the whole way where that does not do."""
        topic = line.place()
        policy = fill(world, line, topic, b"1", b"2", b"3")
        sealer = world.sealer(policy)
        body_at_hand = sealer.body_at_hand
        calls: list[int] = []

        def interrupted(call: Any) -> Any:
            def opening(*args: Any, **kwargs: Any) -> Any:
                calls.append(1)
                if len(calls) == at:
                    raise KeyboardInterrupt
                return call(*args, **kwargs)

            return opening

        monkeypatch.setattr(sealer, "open", interrupted(sealer.open))
        monkeypatch.setattr(
            sealer, "body_at_hand", lambda *args, **kwargs: interrupted(body_at_hand(*args, **kwargs))
        )
        bodies: list[bytes | None] = []
        with consuming(line, sealer, topic) as consumer:

            def step() -> None:
                try:
                    bodies.extend(take(consumer, 1, by))
                except KeyboardInterrupt:
                    calls.extend([1] * 10)

            until(lambda: len(bodies) >= 3, step)
            assert stored(consumer) == 3
        assert bodies == [b"1", b"2", b"3"]
        assert len(calls) > 10

    def test_callbacks_that_are_none_are_refused_by_the_client(self, world: World, line: ClientLine) -> None:
        with consuming(line, world.sealer(world.policy("orders")), "orders", subscribes=False) as consumer:
            for name in ("on_assign", "on_revoke", "on_lost"):
                with pytest.raises(TypeError):
                    consumer.subscribe(["orders"], **{name: 5})
            with pytest.raises(TypeError):
                consumer.subscribe("orders")

    def test_a_closed_consumer_says_so(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1")
        world.keys.unavailable.set()
        with consuming(line, world.sealer(policy), topic) as consumer:
            until(lambda: world.keys.calls["unwrap"] >= 1, lambda: consumer.poll(0.2))
            consumer.close()
            with pytest.raises(RuntimeError, match="closed"):
                consumer.poll(0)

    def test_a_header_name_that_is_no_text_is_refused_like_any_changed_header(
        self, world: World, line: ClientLine
    ) -> None:
        """A9: the client cannot show such headers; a forger who writes them must not stop the consumer."""
        policy = world.policy("orders", bind_headers=["tenant"])
        sealer = world.sealer(policy)
        envelope = sealer.seal(b"1", destination="kafka:orders", headers=[("tenant", b"x")])
        with (
            consuming(line, sealer, "orders", subscribes=False) as consumer,
            pytest.raises(RefusedMessage) as refused,
        ):
            consumer._open(_Unreadable("orders", 0, 5, value=envelope))
        assert refused.value.verdict is Verdict.FORGED


class TestDeserializing:
    def test_it_opens_before_its_deserializers_see_anything(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"1", None, b"bad", b"2")
        seen: list[bytes | None] = []

        def deserializer(value: bytes | None, _: object) -> object:
            seen.append(value)
            return value and int(value)

        conf = line.consuming(topic, **{"value.deserializer": deserializer})
        with DeserializingConsumer(conf, sealer=world.sealer(policy)) as consumer:
            consumer.subscribe([topic])
            assert take(consumer, 2) == [1, None]
            refusal(consumer)
            assert take(consumer, 1) == [2]
        assert seen == [b"1", None, b"2"]

    def test_what_does_not_deserialize_is_the_clients_own_error(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = fill(world, line, topic, b"x")

        def deserializer(value: bytes | None, _: object) -> object:
            raise SerializationError("no")

        conf = line.consuming(topic, **{"value.deserializer": deserializer})
        with DeserializingConsumer(conf, sealer=world.sealer(policy)) as consumer:
            consumer.subscribe([topic])
            with pytest.raises(ValueDeserializationError):
                take(consumer, 1)


class _Unreadable(confluent_kafka.Message):
    """A received message with a header whose name is no UTF-8."""

    def headers(self) -> Any:
        return b"\xff".decode()


class _Answering:
    """Key provider of *world* that answers even while it is unavailable: that of another process."""

    def __init__(self, world: World) -> None:
        self._inner = world.keys._inner

    def __getattr__(self, name: str) -> Any:
        return getattr(self._inner, name)


class _Failing:
    """A sealer whose keys become unavailable after some calls to unwrap, and available again after some failures."""

    def __init__(
        self, world: World, policy: Policy, *, after: int, recovers_after: int | None = None
    ) -> None:
        self._keys = world.keys
        self._after = after
        self._recovers = None if recovers_after is None else after + recovers_after
        self.sealer = world.sealer(policy, keys={"main": self})

    def generate(self, context):
        return self._keys.generate(context)

    def wrap(self, data_key, context):
        return self._keys.wrap(data_key, context)

    def unwrap(self, recipients, context):
        calls = self._keys.calls["unwrap"]
        if calls == self._after:
            self._keys.unavailable.set()
        if calls == self._recovers:
            self._keys.unavailable.clear()
        return self._keys.unwrap(recipients, context)


class _Unwilling:
    """A producer that does not take messages as long as it has a fault."""

    def __init__(self, inner: confluent_kafka.Producer, fault: str) -> None:
        self._inner = inner
        self.fault = fault
        self.refused = 0
        self._reports: list[Callable[[], None]] = []

    def produce(self, *args: Any, on_delivery: Any, **kwargs: Any) -> None:
        self.refused += bool(self.fault)
        match self.fault:
            case "":
                self._inner.produce(*args, on_delivery=on_delivery, **kwargs)
            case "queue full":
                raise BufferError("Local: Queue full")
            case "closed":
                raise RuntimeError("Producer has been closed")
            case "not delivered":
                self._reports.append(lambda: on_delivery(KafkaError(KafkaError._MSG_TIMED_OUT), None))

    def poll(self, timeout: float) -> int:
        while self._reports:
            self._reports.pop()()
        return self._inner.poll(timeout)
