"""Quarantine topics. Kafka deletes from the beginning alone; what was sent back stays, and is sent again by who asks for it again."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from postseal.core.cli._held import Held, Quarantine, named
from postseal.core.errors import ConfigError

__all__ = ["connect"]

_PATIENCE: Final = 20.0
_OURS: Final = "postseal-"


def connect(name: str, address: str | None) -> KafkaQuarantine:
    """Connect to the topic *name*."""
    return KafkaQuarantine(name, str(address))


class KafkaQuarantine(Quarantine):
    """A quarantine topic."""

    def __init__(self, topic: str, address: str) -> None:
        self._topic = topic
        self._conf: dict[str, Any] = {"bootstrap.servers": address, "log_level": 0}
        self._producer: Any = None
        self._group: str | None = None
        """Keeps how far an earlier run has moved records."""
        self._notes: Any = None

    def go_on(self, destination: str) -> None:
        """Begin behind what was moved to that topic before: the offsets of a consumer group say what was."""
        self._group = f"postseal-rewrap-{named(destination, 'kafka')}"

    def each(self, *, taking: bool) -> Iterator[Held]:
        """Read each partition from its beginning to its end as it is now."""
        del taking
        consumer: Any = confluent_kafka.Consumer(
            {**self._conf, "group.id": self._group or "postseal-quarantine", "enable.auto.commit": False}
        )
        try:
            found = consumer.list_topics(self._topic, _PATIENCE).topics[self._topic]
            if found.error is not None:
                raise ConfigError(f"there is no topic {self._topic!r}: {found.error.str()}")
            for number in sorted(found.partitions):
                partition = TopicPartition(self._topic, number)
                low, high = consumer.get_watermark_offsets(partition, _PATIENCE)
                if self._group is not None:
                    low = max(low, consumer.committed([partition], _PATIENCE)[0].offset)
                if low < high:
                    consumer.assign([TopicPartition(self._topic, number, low)])
                    yield from self._partition(consumer, high)
        except KafkaException as error:
            raise ConfigError(f"Kafka does not answer: {error.args[0].str()}") from error
        finally:
            consumer.close()

    def _partition(self, consumer: Any, high: int) -> Iterator[Held]:
        end = time.monotonic() + _PATIENCE
        while time.monotonic() < end:
            message = consumer.poll(0.5)
            if message is not None and message.error() is None:
                end = time.monotonic() + _PATIENCE
                yield _held(message)
                if message.offset() >= high - 1:
                    return
            elif message is None and consumer.position(consumer.assignment())[0].offset >= high:
                return  # markers of transactions are no messages
        raise ConfigError("Kafka stopped to answer")

    def send_back(self, held: Held, destination: str) -> None:
        """Produce it to its topic, to the partition it lay in if there is still one, and wait for the report."""
        message = held.native
        ours = {n: v for n, v in message.headers() or [] if n.startswith(_OURS)}
        if "postseal-size" in ours:
            offset = _text(ours.get("postseal-offset"))
            raise ConfigError(
                f"{held.id} was too large for the quarantine: it lies in its topic at offset {offset}"
            )
        headers = [(n, v) for n, v in message.headers() or [] if not n.startswith(_OURS)]
        before = int(ours.get("postseal-partition") or b"-1")
        self._produce(held, message.value(), destination, before, headers)

    def move(self, held: Held, body: bytes, destination: str) -> None:
        """Produce it to that topic, with its key, headers, time and partition, and wait for the report."""
        message = held.native
        value = None if message.value() is None else body  # what deletes a key stays what it is
        at = message.timestamp()[1]
        self._produce(held, value, destination, message.partition(), message.headers() or [], timestamp=at)

    def _produce(
        self,
        held: Held,
        value: bytes | None,
        destination: str,
        partition: int,
        headers: list[tuple[str, bytes | None]],
        **more: Any,
    ) -> None:
        if self._producer is None:
            self._producer = confluent_kafka.Producer({**self._conf, "linger.ms": 0})
        reports: list[KafkaError | None] = []
        topic = named(destination, "kafka")
        partitions = self._producer.list_topics(topic, _PATIENCE).topics[topic].partitions
        self._producer.produce(
            topic,
            value,
            held.native.key(),
            partition if partition in partitions else -1,
            headers=headers,
            on_delivery=lambda error, _: reports.append(error),
            **more,
        )
        self._producer.flush(_PATIENCE)
        if not reports or reports[0] is not None:
            raise ConfigError(
                f"Kafka did not take {held.id}: {reports[0].str() if reports and reports[0] else 'no report'}"
            )

    def sent_back(self, held: Held) -> None:
        """Nothing: a record stays until its topic's retention ends, or until it is dropped."""

    def moved(self, held: Held) -> None:
        """Note in the consumer group that it was moved."""
        if self._notes is None:
            self._notes = confluent_kafka.Consumer(
                {**self._conf, "group.id": str(self._group), "enable.auto.commit": False}
            )
        where = TopicPartition(self._topic, held.native.partition(), held.native.offset() + 1)
        self._notes.commit(offsets=[where], asynchronous=False)

    def take_out(self, messages: Sequence[Held]) -> None:
        """Delete all records up to the last of *messages*, which must be all that there are up to it."""
        upto: dict[int, int] = {}
        chosen = {held.id for held in messages}
        for held in messages:
            partition, offset = held.native.partition(), held.native.offset()
            upto[partition] = max(upto.get(partition, 0), offset + 1)
        for held in self.each(taking=True):
            if held.native.offset() < upto.get(held.native.partition(), 0) and held.id not in chosen:
                raise ConfigError(
                    f"Kafka deletes records from the beginning alone, and {held.id} lies before others that are to go: drop it, too"
                )
        admin = AdminClient(self._conf)
        wanted = [TopicPartition(self._topic, partition, offset) for partition, offset in upto.items()]
        for future in admin.delete_records(wanted).values():
            future.result(_PATIENCE)

    def close(self) -> None:
        """Close what notes how far it is; nothing else is held open."""
        if self._notes is not None:
            self._notes.close()


def _held(message: Any) -> Held:
    ours = {n: v for n, v in message.headers() or [] if n.startswith(_OURS) and v is not None}
    topic = ours.get("postseal-topic")
    return Held(
        id=f"{message.partition()}:{message.offset()}",
        body=message.value() or b"",
        verdict=_text(ours.get("postseal-verdict")),
        source=None if topic is None else f"kafka:{_text(topic)}",
        at=datetime.fromtimestamp(message.timestamp()[1] / 1000, UTC),
        native=message,
    )


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")
