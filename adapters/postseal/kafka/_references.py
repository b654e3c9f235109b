"""Records of data keys in a compacted topic: what messages carry by reference."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, Final

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, TopicPartition

from postseal.core import ConfigError, KeyRefused, KeyUnavailable
from postseal.core.forking import ForkSafeLock, begin_again_in_child

__all__ = ["KafkaReferences"]

_DENIED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.CLUSTER_AUTHORIZATION_FAILED,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError._UNKNOWN_TOPIC,  # noqa: SLF001 - librdkafka's own name for the same
        KafkaError._AUTHENTICATION,  # noqa: SLF001
    }
)

_left_behind: Final[list[object]] = []
"""Clients of a parent process: never used, never ended."""


class KafkaReferences:
    """In a topic with ``cleanup.policy=compact``, or ``compact,delete`` with a retention longer than that of all messages.

    Who only seals reads nothing. Who opens reads the whole topic once, and then what is new: about 700 bytes of memory for each record, and
    a data key makes one or few.

    Args:
        conf: Of librdkafka, as a producer and a consumer take it; ``group.id`` and the like are ours.
        topic: Made by you. Writing it needs the rights of a producer alone.
        timeout: Seconds for which a store may let a caller wait.
    """

    def __init__(self, conf: Mapping[str, Any], topic: str, *, timeout: float = 10.0) -> None:
        if not isinstance(topic, str) or not topic:
            raise ConfigError("KafkaReferences needs the name of a topic")
        if not timeout > 0:
            raise ConfigError(f"timeout must be over 0 seconds: {timeout!r}")
        self._conf = dict(conf)
        self._topic = topic
        self._timeout = timeout
        self._lock = ForkSafeLock()
        self.begin_again()
        begin_again_in_child(self)

    def __repr__(self) -> str:
        return f"<KafkaReferences {self._topic}>"

    def begin_again(self) -> None:
        """Have no clients: in a forked child their threads do not exist, and to end them there would wait for those."""
        _left_behind.extend(getattr(self, client, None) for client in ("_producer", "_consumer"))
        self._producer: confluent_kafka.Producer | None = None
        self._consumer: confluent_kafka.Consumer | None = None
        self._forget()

    def _forget(self) -> None:
        self._read: dict[int, int] = {}
        """The next offset, by partition."""
        self._records: dict[bytes, bytes] = {}

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record, having read all that was in the topic when this was called."""
        if (record := self._records.get(reference)) is not None:
            return record
        with self._lock:
            try:
                self._read_on(time.monotonic() + self._timeout)
            except KafkaException as error:
                raise self._told(error.args[0]) from error
        return self._records.get(reference)

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*. Returns when all replicas in sync have it."""
        told: list[KafkaError | None] = []
        with self._lock:
            try:
                if self._producer is None:
                    self._producer = confluent_kafka.Producer(
                        {
                            **self._conf,
                            "acks": "all",
                            "enable.idempotence": True,
                            "message.timeout.ms": int(self._timeout * 1000),
                        }
                    )
                self._producer.produce(
                    self._topic, record, reference, on_delivery=lambda error, _: told.append(error)
                )
                self._producer.flush(self._timeout + 1)
            except (KafkaException, BufferError) as error:
                raise self._told(error.args[0]) from error
        if not told:
            raise KeyUnavailable(f"topic {self._topic}: no answer in {self._timeout:g} seconds")
        if told[0] is not None:
            raise self._told(told[0])

    def close(self) -> None:
        """End the clients. The next call makes new ones."""
        with self._lock:
            if self._consumer is not None:
                self._consumer.close()
            self._producer = self._consumer = None
            self._forget()

    def _read_on(self, until: float) -> None:
        """Read up to where the topic ends now."""
        consumer = self._consumer
        if consumer is None:
            consumer = self._consumer = confluent_kafka.Consumer(
                {
                    **self._conf,
                    "group.id": "postseal-references",  # named, as it must be, and never joined
                    "enable.auto.commit": False,
                    "auto.offset.reset": "earliest",
                    # What asks where the topic ends waits behind a fetch that waits for more.
                    "fetch.wait.max.ms": 50,
                }
            )
        ends = self._ends(consumer, until)
        for partition, end in ends.items():
            if self._read.get(partition, 0) > end:  # the topic was made anew
                self._read[partition] = 0
        behind = {partition for partition, end in ends.items() if self._read.get(partition, 0) < end}
        if not behind:
            return
        consumer.assign([TopicPartition(self._topic, each, self._read.get(each, 0)) for each in behind])
        try:
            while behind:
                self._take(consumer)
                # Its position passes what compaction took away, too.
                for place in consumer.position([TopicPartition(self._topic, each) for each in behind]):
                    if place.offset >= 0:
                        self._read[place.partition] = place.offset
                behind = {each for each in behind if self._read.get(each, 0) < ends[each]}
                if behind and time.monotonic() >= until:
                    raise KeyUnavailable(
                        f"topic {self._topic}: not read to its end in {self._timeout:g} seconds"
                    )
        finally:
            consumer.unassign()

    def _take(self, consumer: confluent_kafka.Consumer) -> None:
        for message in consumer.consume(500, 0.1):
            if (error := message.error()) is not None:
                raise KafkaException(error)
            key, value = message.key(), message.value()
            if key is not None and value is not None:
                self._records[key] = value

    def _ends(self, consumer: confluent_kafka.Consumer, until: float) -> dict[int, int]:
        """Return the partitions that hold anything, and where each ends now."""
        left = max(until - time.monotonic(), 0.1)
        about = consumer.list_topics(self._topic, left).topics[self._topic]
        if about.error is not None:
            raise KafkaException(about.error)
        ends = {}
        for partition in about.partitions:
            low, high = consumer.get_watermark_offsets(
                TopicPartition(self._topic, partition), timeout=left, cached=False
            )
            if high > low:
                ends[partition] = high
        return ends

    def _told(self, error: object) -> KeyRefused | KeyUnavailable:
        if isinstance(error, KafkaError) and error.code() in _DENIED:
            return KeyRefused(f"topic {self._topic}: {error.str()}")
        return KeyUnavailable(
            f"topic {self._topic}: {error.str() if isinstance(error, KafkaError) else type(error).__name__}"
        )
