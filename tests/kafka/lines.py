"""The Kafka adapter's flavours as `Line`s, for the mock cluster and for a real broker alike."""

from __future__ import annotations

import contextlib
import time
import uuid
from abc import abstractmethod
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition
from confluent_kafka.error import ValueDeserializationError, ValueSerializationError

from postseal.core import KeyUnavailable, Refused, Sealer
from postseal.kafka import (
    Consumer,
    DeserializingConsumer,
    OpeningDeserializer,
    Producer,
    SealingSerializer,
    SerializingProducer,
)
from tests.contract import Line, Raw, Receiving

_WAIT = 0.2


class KafkaLine(Line):
    """What the flavours share: topics, bare clients, and how a consumer is run.

    Args:
        address: ``bootstrap.servers``.
        make_topic: Makes a topic of that name.
    """

    scheme: ClassVar[str] = "kafka"
    ordered: ClassVar[bool] = True

    def __init__(self, address: str, make_topic: Callable[[str], None]) -> None:
        self.address = address
        self._make_topic = make_topic
        self.bare = confluent_kafka.Producer(self.conf())

    def conf(self, **more: Any) -> dict[str, Any]:
        """Configure a client."""
        return {"bootstrap.servers": self.address, "log_level": 0, "linger.ms": 0} | more

    def consuming(self, place: str, **more: Any) -> dict[str, Any]:
        """Configure a consumer of the one group of *place*."""
        return {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "group.id": f"group-{place}",
            "auto.offset.reset": "earliest",
            "group.protocol": "consumer",
            "fetch.wait.max.ms": 20,  # the mock cluster lets a fetch wait this long even where a message comes
        } | more

    def place(self) -> str:
        name = f"t-{uuid.uuid4().hex[:12]}"
        self._make_topic(name)
        return name

    def place_with_dead_letters(self) -> tuple[str, str]:
        return self.place(), self.place()

    def put(self, place: str, *messages: Raw) -> None:
        for message in messages:
            self.bare.produce(place, message.body, partition=0, headers=dict(message.headers))
        assert self.bare.flush(20) == 0

    def held(self, place: str, count: int) -> list[Raw]:
        return [
            Raw(
                message.value(),
                {name: value.decode() for name, value in message.headers() or [] if value is not None},
            )
            for message in self.messages(place, count)
        ]

    def messages(self, place: str, count: int) -> list[Any]:
        """Read what lies in all partitions until *count* messages were seen and no more are there."""
        conf = {
            "bootstrap.servers": self.address,
            "log_level": 0,
            "group.id": "-",
            "enable.partition.eof": True,
            "fetch.wait.max.ms": 20,
        }
        consumer = confluent_kafka.Consumer(conf)
        partitions = consumer.list_topics(place, 10).topics[place].partitions
        consumer.assign([TopicPartition(place, partition, 0) for partition in partitions])
        found: list[Any] = []
        ended: set[int] = set()
        end = time.monotonic() + 30
        try:
            while time.monotonic() < end:
                message = consumer.poll(_WAIT)
                if message is None:
                    continue
                if message.error() is None:
                    found.append(message)
                    ended.discard(message.partition())
                elif message.error().code() == KafkaError._PARTITION_EOF:
                    ended.add(message.partition())
                if len(found) >= count and len(ended) == len(partitions):
                    return found
        finally:
            consumer.close()
        raise AssertionError(f"{place} holds {len(found)} messages, not {count}")

    def has_message(self, place: str) -> bool:
        consumer = confluent_kafka.Consumer(
            {"bootstrap.servers": self.address, "group.id": "-", "log_level": 0}
        )
        try:
            partitions = consumer.list_topics(place, 10).topics[place].partitions
            marks = (consumer.get_watermark_offsets(TopicPartition(place, p), 10) for p in partitions)
            return any(low < high for low, high in marks)
        finally:
            consumer.close()

    @contextlib.contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        consumer = self.consumer(sealer, place, **{} if settles else {"enable.auto.offset.store": False})
        consumer.subscribe([place])
        try:
            yield self._receiving(consumer, sealer, settles=settles)
        finally:
            consumer.close()

    @abstractmethod
    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Any:
        """Make the flavour's consumer."""

    def _receiving(self, consumer: Any, sealer: Sealer, *, settles: bool) -> Receiving:
        return Polling(consumer)


class Polling(Receiving):
    """Polls one of our consumers."""

    def __init__(self, consumer: Any) -> None:
        super().__init__()
        self.consumer = consumer

    def step(self) -> None:
        try:
            message = self.consumer.poll(_WAIT)
        except Refused as refused:
            self.refused.append(refused)
            return
        if message is not None:
            assert message.error() is None, message.error()
            self.got(message.value(), message.headers())


class Consuming(Polling):
    """Takes what there is from one of our consumers, up to three at once."""

    def step(self) -> None:
        try:
            messages = self.consumer.consume(3, _WAIT)
        except Refused as refused:
            self.refused.append(refused)
            return
        for message in messages:
            assert message.error() is None, message.error()
            self.got(message.value(), message.headers())


class ClientLine(KafkaLine):
    """`Producer` and `Consumer`, by `poll`."""

    def producer(self, sealer: Sealer, **conf: Any) -> Producer:
        return Producer(self.conf(**conf), sealer=sealer)

    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Consumer:
        return Consumer(self.consuming(place, **conf), sealer=sealer, quarantine=self.bare)

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        producer = self.producer(sealer)
        producer.produce(place, body, partition=0, headers=headers)
        assert producer.flush(20) == 0

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [{"value": body, "key": "k", "partition": 0} for body in bodies]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        producer = self.producer(sealer)
        assert producer.produce_batch(place, batch) == len(batch)
        assert producer.flush(20) == 0


class ClientBatchLine(ClientLine):
    """`Producer` and `Consumer`, by `consume`."""

    def _receiving(self, consumer: Any, sealer: Sealer, *, settles: bool) -> Receiving:
        return Consuming(consumer)


def _as_it_is(value: bytes | None, _: object = None) -> bytes | None:
    return value


class SerializingLine(ClientLine):
    """`SerializingProducer` and `DeserializingConsumer` of ours."""

    def producer(self, sealer: Sealer, **conf: Any) -> Any:
        return SerializingProducer(self.conf(**{"value.serializer": _as_it_is}, **conf), sealer=sealer)

    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Any:
        conf = self.consuming(place, **{"value.deserializer": _as_it_is}, **conf)
        return DeserializingConsumer(conf, sealer=sealer, quarantine=self.bare)

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        producer = self.producer(sealer)
        producer.produce(place, value=body, partition=0, headers=headers)
        assert producer.flush(20) == 0


class SerializerLine(KafkaLine):
    """`SealingSerializer` and `OpeningDeserializer` in the stock clients; what these do not do, the program does."""

    settled_by_client: ClassVar[bool] = True

    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Any:
        return confluent_kafka.DeserializingConsumer(
            self.consuming(place, **conf)
            | {
                "value.deserializer": OpeningDeserializer(_as_it_is, sealer),
                # Without this, a message that did not open is lost after a restart.
                "enable.auto.offset.store": False,
            }
        )

    def _receiving(self, consumer: Any, sealer: Sealer, *, settles: bool) -> Receiving:
        return ByHand(consumer, sealer, self.bare, settles=settles)

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._produce(sealer, place, [{"value": body, "partition": 0, "headers": headers}])

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [{"value": body, "key": "k", "partition": 0} for body in bodies]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        self._produce(sealer, place, batch)

    def _produce(self, sealer: Sealer, place: str, batch: list[dict[str, Any]]) -> None:
        serializer = SealingSerializer(_as_it_is, sealer)
        producer = confluent_kafka.SerializingProducer(self.conf(**{"value.serializer": serializer}))
        try:
            for message in batch:
                producer.produce(place, **message)
        except ValueSerializationError as error:
            raise error.exception or error from None
        assert producer.flush(20) == 0


class ByHand(Receiving):
    """What a program has to do around the stock consumer: store offsets, wait, move refused messages away."""

    def __init__(self, consumer: Any, sealer: Sealer, bare: Any, *, settles: bool) -> None:
        super().__init__()
        self.consumer = consumer
        self._sealer = sealer
        self._bare = bare
        self._settles = settles

    def step(self) -> None:
        try:
            message = self.consumer.poll(_WAIT)
        except ValueDeserializationError as error:
            message = error.kafka_message
            where = TopicPartition(message.topic(), message.partition(), message.offset())
            if isinstance(error.exception, KeyUnavailable):
                self.consumer.seek(where)
                return
            if not isinstance(error.exception, Refused):
                raise
            self.refused.append(error.exception)
            self._move_away(message)
        else:
            if message is None:
                return
            self.got(message.value(), message.headers())
        if self._settles:
            self.consumer.store_offsets(message=message)

    def _move_away(self, message: Any) -> None:
        policy = self._sealer.policy_for(f"kafka:{message.topic()}")
        if policy.on_refused == "dead-letter":
            self._bare.produce(
                policy.quarantine.removeprefix("kafka:"),
                message.value(),
                message.key(),
                partition=0,
                headers=message.headers(),
            )
            assert self._bare.flush(20) == 0
