"""Kafka: librdkafka's mock cluster, in this process, with confluent-kafka."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Any, Final

import confluent_kafka
from confluent_kafka import TopicPartition

from postseal.core import Sealer
from postseal.core.cli._broker import CONTENT_TYPE, Held, Until
from postseal.core.cli._orders import Order
from postseal.kafka import Consumer, Producer

__all__ = ["Kafka"]

_quiet: Final = logging.getLogger("postseal.demo.librdkafka")
_SECONDS: Final = 10.0


class Kafka:
    """A cluster of one broker that lives as long as this object."""

    name = "Kafka"
    scheme = "kafka"
    settled = "in the topics *.refused"

    def __init__(self) -> None:
        self._cluster = confluent_kafka.Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "unused", "logger": _quiet}
        )
        broker = next(iter(self._cluster.list_topics(timeout=_SECONDS).brokers.values()))
        self._conf: dict[str, Any] = {
            "bootstrap.servers": f"{broker.host}:{broker.port}",
            "logger": _quiet,  # or librdkafka writes to standard error
        }
        self.where = f"librdkafka's mock cluster, {broker.host}:{broker.port}"
        self._bare = confluent_kafka.Producer(self._conf)
        for topic in ("orders", "refunds", "orders.refused", "refunds.refused"):
            self._cluster.list_topics(topic, timeout=_SECONDS)  # makes it
        self._consumer: Consumer | None = None

    # -- with the adapter: what a program looks like ---------------------------------------------------------------

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Send as any producer does; only the import differs, and the sealer."""
        producer = Producer(self._conf, sealer=sealer)
        for order in orders:
            producer.produce(
                "orders", order.to_json(), key=order.number, headers={"content-type": CONTENT_TYPE}
            )
        producer.flush(_SECONDS)

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Receive as any consumer does: what is refused never gets here."""
        consumer = self._consumer or self._subscribed(sealer)
        while not done():
            message = consumer.poll(0.2)
            if message is not None and message.error() is None:
                handle(message.value() or b"")

    def _subscribed(self, sealer: Sealer) -> Consumer:
        conf = {
            "group.id": "billing",
            "auto.offset.reset": "earliest",
            "group.protocol": "consumer",  # the older protocol lets the first member wait for 3 s
            "fetch.wait.max.ms": 20,  # the mock cluster answers an empty fetch only when this is over
        }
        # Refused messages are moved, as they came, by a producer that seals nothing.
        self._consumer = Consumer(self._conf | conf, sealer=sealer, quarantine=self._bare)
        self._consumer.subscribe(["orders", "refunds"])
        return self._consumer

    # -- with bare clients: what an administrator can do -----------------------------------------------------------

    def look(self, count: int) -> list[Held]:
        """Read the first *count* records of the topic ``orders``."""
        held = []
        for message in self._read("orders", count):
            headers = dict(message.headers() or [])
            content_type = headers.get("content-type")
            held.append(
                Held(
                    _bytes(message.value()) or b"",
                    _bytes(message.key()),
                    None if content_type is None else (_bytes(content_type) or b"").decode(),
                )
            )
        return held

    def put(self, place: str, message: Held) -> None:
        """Produce *message* as it is."""
        headers: dict[str, str | bytes | None] = {"content-type": message.content_type}
        self._bare.produce(place, message.body, key=message.key, headers=headers)
        self._bare.flush(_SECONDS)

    def refused(self) -> int:
        """Count what lies in the topics of refused messages."""
        return self._count("orders.refused") + self._count("refunds.refused")

    def _read(self, topic: str, count: int) -> list[confluent_kafka.Message]:
        reader = confluent_kafka.Consumer(self._conf | {"group.id": "administrator"})
        try:
            partitions = self._cluster.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
            reader.assign([TopicPartition(topic, number, 0) for number in partitions])
            return reader.consume(count, timeout=_SECONDS)
        finally:
            reader.close()

    def _count(self, topic: str) -> int:
        reader = confluent_kafka.Consumer(self._conf | {"group.id": "administrator"})
        try:
            partitions = self._cluster.list_topics(topic, timeout=_SECONDS).topics[topic].partitions
            ends = [
                reader.get_watermark_offsets(TopicPartition(topic, n), timeout=_SECONDS) for n in partitions
            ]
            return sum(end[1] - end[0] for end in ends if end is not None)
        finally:
            reader.close()

    def envelope(self, body: bytes) -> bytes:
        """Return *body*: a record's value is the envelope itself."""
        return body

    def body(self, envelope: bytes) -> bytes:
        """Return *envelope*, likewise."""
        return envelope

    def close(self) -> None:
        """Leave the group."""
        if self._consumer is not None:
            self._consumer.close()


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value
