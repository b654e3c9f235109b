"""The asyncio flavours of the Kafka adapter as `Line`s. Their clients live on one event loop, which runs while a test waits."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, ClassVar

import confluent_kafka.aio
from confluent_kafka import TopicPartition
from confluent_kafka.serialization import MessageField, SerializationContext

from postseal.core import KeyUnavailable, Refused, Sealer
from postseal.kafka.aio import AIOConsumer, AIOProducer, AsyncOpeningDeserializer, AsyncSealingSerializer
from tests.contract import Receiving
from tests.kafka.lines import KafkaLine

__all__ = ["AIOConsumeLine", "AIOLine", "AIOSerializerLine"]

_WAIT = 0.2


class AIOLine(KafkaLine):
    """`AIOProducer` and `AIOConsumer`, by `poll`."""

    receives = "poll"

    def __init__(self, address: str, make_topic: Callable[[str], None], runner: asyncio.Runner) -> None:
        super().__init__(address, make_topic)
        self.runner = runner

    def producer(self, sealer: Sealer, **conf: Any) -> Any:
        """Make the flavour's producer; on the loop."""
        return AIOProducer(self.conf(**conf), sealer=sealer)

    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Any:
        return AIOConsumer(self.consuming(place, **conf), sealer=sealer, quarantine=self.bare)

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        if headers and not set(headers) <= set(sealer.policy_for(f"kafka:{place}").taken_headers):
            # The client's AIOProducer sends none; who needs them has a sync producer beside it.
            with self._beside(sealer) as producer:
                producer.produce(place, body, partition=0, headers=headers)
            return
        more = {"headers": headers} if headers else {}
        self.send_batch(sealer, place, [{"value": body, "partition": 0} | more])

    @contextlib.contextmanager
    def _beside(self, sealer: Sealer) -> Iterator[Any]:
        from postseal.kafka import Producer

        producer = Producer(self.conf(), sealer=sealer)
        yield producer
        assert producer.flush(20) == 0

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [{"value": body, "key": "k", "partition": 0} for body in bodies]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        async def send() -> None:
            async with self.producer(sealer) as producer:
                reports = [await producer.produce(place, **message) for message in batch]
                await producer.flush()
                for report in reports:
                    assert (await report).error() is None

        self.runner.run(send())

    @contextlib.contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        conf = {} if settles else {"enable.auto.offset.store": False}

        async def begin() -> Any:
            consumer = self.consumer(sealer, place, **conf)
            await consumer.subscribe([place])
            return consumer

        consumer = self.runner.run(begin())
        try:
            yield self._receiving(consumer, sealer, settles=settles)
        finally:
            self.runner.run(consumer.close())

    def _receiving(self, consumer: Any, sealer: Sealer, *, settles: bool) -> Receiving:
        return AIOReceiving(self.runner, consumer, self.receives)


class AIOConsumeLine(AIOLine):
    """`AIOProducer` and `AIOConsumer`, by `consume`."""

    receives = "consume"


class AIOReceiving(Receiving):
    """Receives from one of our consumers."""

    def __init__(self, runner: asyncio.Runner, consumer: Any, receives: str) -> None:
        super().__init__()
        self.runner = runner
        self.consumer = consumer
        self.receives = receives

    def step(self) -> None:
        try:
            if self.receives == "poll":
                message = self.runner.run(self.consumer.poll(_WAIT))
                messages = [] if message is None else [message]
            else:
                messages = self.runner.run(self.consumer.consume(3, _WAIT))
        except Refused as refused:
            self.refused.append(refused)
            return
        for message in messages:
            assert message.error() is None, message.error()
            self.got(message.value(), message.headers())


async def _as_it_is(value: bytes | None, _: object = None) -> bytes | None:
    return value


class AIOSerializerLine(AIOLine):
    """`AsyncSealingSerializer` and `AsyncOpeningDeserializer` with the client's own asyncio classes; the rest is the program's."""

    settled_by_client: ClassVar[bool] = True

    def consumer(self, sealer: Sealer, place: str, **conf: Any) -> Any:
        storing = {"enable.auto.offset.store": False}  # by hand, once a message was opened
        return confluent_kafka.aio.AIOConsumer(self.consuming(place, **conf) | storing)

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        if not headers:
            self.send_batch(sealer, place, [{"value": body, "partition": 0}])
            return
        ctx = SerializationContext(place, MessageField.VALUE, headers)
        value = self.runner.run(AsyncSealingSerializer(_as_it_is, sealer)(body, ctx))
        self.bare.produce(place, value, partition=0, headers=headers)
        assert self.bare.flush(20) == 0

    def producer(self, sealer: Sealer, **conf: Any) -> Any:
        return _Serializing(self.conf(**conf), AsyncSealingSerializer(_as_it_is, sealer))

    def _receiving(self, consumer: Any, sealer: Sealer, *, settles: bool) -> Receiving:
        return ByHand(self, consumer, sealer, settles=settles)


class _Serializing(confluent_kafka.aio.AIOProducer):
    """What a program does around the stock producer."""

    def __init__(self, conf: dict[str, Any], serializer: AsyncSealingSerializer) -> None:
        super().__init__(conf)
        self._serializer = serializer

    async def produce(self, topic: str, value: Any = None, *args: Any, **kwargs: Any) -> Any:
        value = await self._serializer(value, SerializationContext(topic, MessageField.VALUE))
        return await super().produce(topic, value, *args, **kwargs)


class ByHand(Receiving):
    """What a program has to do around the stock consumer: store offsets, wait, move refused messages away."""

    def __init__(self, line: AIOSerializerLine, consumer: Any, sealer: Sealer, *, settles: bool) -> None:
        super().__init__()
        self.line = line
        self.consumer = consumer
        self._sealer = sealer
        self._deserializer = AsyncOpeningDeserializer(_as_it_is, sealer)
        self._settles = settles

    def step(self) -> None:
        self.line.runner.run(self._step())

    async def _step(self) -> None:
        message = await self.consumer.poll(_WAIT)
        if message is None:
            return
        ctx = SerializationContext(message.topic(), MessageField.VALUE, message.headers())
        try:
            self.got(await self._deserializer(message.value(), ctx), message.headers())
        except KeyUnavailable:
            await self.consumer.seek(TopicPartition(message.topic(), message.partition(), message.offset()))
            return
        except Refused as refused:
            self.refused.append(refused)
            self._move_away(message)
        if self._settles:
            await self.consumer.store_offsets(message=message)

    def _move_away(self, message: Any) -> None:
        policy = self._sealer.policy_for(f"kafka:{message.topic()}")
        if policy.on_refused == "dead-letter":
            target = policy.quarantine.removeprefix("kafka:")
            self.line.bare.produce(
                target, message.value(), message.key(), partition=0, headers=message.headers()
            )
            assert self.line.bare.flush(20) == 0
