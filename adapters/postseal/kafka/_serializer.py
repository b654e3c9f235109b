"""A serializer that seals and a deserializer that opens, around any others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, Generic, TypeVar

from confluent_kafka.serialization import (
    Deserializer,
    MessageField,
    SerializationContext,
    Serializer,
)

from postseal.core import ConfigError, Opened, Sealer
from postseal.kafka._message import Topic, Topics, wire_headers
from postseal.kafka._sealing import Sealing

__all__ = ["OpeningDeserializer", "OpensValues", "SealingSerializer", "SealsValues"]

_KEY: Final = MessageField.KEY  # looked up once: members of an Enum are slow to come by
R = TypeVar("R")
"""What opening gives: the `Opened`, or an awaitable of it."""
S = TypeVar("S")


class _OfValues:
    """What our serializers and deserializers share: for which topic they are called, and whom they are around."""

    _inner: Callable[..., Any]
    _topics: Topics

    def _around(self, inner: Callable[..., Any], sealer: Sealer, what: str) -> None:
        self._topics = Topics(sealer)
        if not callable(inner):
            raise ConfigError(f"inner must be a {what}, not {type(inner).__name__}")
        self._inner = inner

    def _place(self, ctx: SerializationContext | None) -> tuple[SerializationContext, Topic]:
        """Return *ctx*, checked, and the topic that it names."""
        if ctx is None or not ctx.topic:
            raise ConfigError(
                "a message is bound to its topic: call with SerializationContext(topic, MessageField.VALUE, headers)"
            )
        if ctx.field == _KEY:
            raise ConfigError(
                "keys are not sealed: Kafka partitions and compacts by them; use it for values alone"
            )
        topic = self._topics[ctx.topic]
        if topic.policy.encrypt_headers:
            raise ConfigError(
                f"policy {topic.policy.name!r} encrypts headers, which a serializer cannot take out of a message: "
                "use postseal.kafka.Producer and Consumer, or SerializingProducer and DeserializingConsumer of postseal.kafka"
            )
        if topic.binds_key:
            raise ConfigError(
                f"policy {topic.policy.name!r} binds the record key, which a serializer does not see: "
                "use postseal.kafka.Producer and Consumer, or SerializingProducer and DeserializingConsumer of postseal.kafka"
            )
        return ctx, topic

    def set_cluster_id_resolver(self, resolver: Callable[[], Any]) -> None:
        """Hand *resolver* on to the inner one."""
        tell(self._inner, "set_cluster_id_resolver", resolver)

    def close(self) -> Any:
        """Close the inner one."""
        return tell(self._inner, "close")


class SealsValues(_OfValues, Sealing[S]):
    """What serializers that seal share."""


class OpensValues(_OfValues, Generic[R]):
    """What deserializers that open share."""

    _unseal: Callable[..., R]

    def _opened(self, topic: Topic, value: bytes, context: SerializationContext) -> R:
        # All headers: the sender may have bound more than the policy demands here.
        return self._unseal(
            value,
            destination=topic.destination,
            headers=wire_headers(context.headers),
            coordinates={"topic": topic.name},
        )


class SealingSerializer(SealsValues[bytes], Serializer):
    """Serializes with *inner*, then seals: outside the schema's framing. For values; keys are left alone.

    A working program::

        producer = SerializingProducer({
            "bootstrap.servers": "localhost:9092",
            "value.serializer": SealingSerializer(StringSerializer(), sealer),
        })
        producer.produce("orders", key="4711", value="4111 1111 1111 1111")

    What *inner* makes None of stays None: a tombstone deletes by being null.

    Args:
        inner: Any serializer: called with an object and its context, returns bytes or None.
        sealer: Seals; its policies say how.

    Raises:
        ConfigError: *inner* or *sealer* is none.
    """

    def __init__(self, inner: Callable[..., bytes | None], sealer: Sealer) -> None:
        self._around(inner, sealer, "serializer")
        self._seal = sealer.seal

    def __call__(self, obj: Any, ctx: SerializationContext | None = None) -> bytes | None:
        """Serialize *obj* and seal it for the topic of *ctx*.

        Raises:
            ConfigError: No context, one of a key, or a topic whose policy binds the record key, which a serializer does not see.
            KeyUnavailable: The key service did not answer. Trying again may help.
            KeyRefused: The key service said no.

        Note:
            Called by `confluent_kafka.SerializingProducer`, these arrive as the ``exception`` of its `ValueSerializationError`.
        """
        if (  # what is common, without another call
            ctx is None
            or ctx.field == _KEY
            or (topic := self._topics.get(ctx.topic)) is None
            or not topic.serializes
        ):
            ctx, topic = self._place(ctx)
        body = self._inner(obj, ctx)
        if body is None:
            return None
        # The headers last: an inner serializer may have added its own.
        return topic.quick(body) or self._sealed(topic, body, None, ctx.headers)


class OpeningDeserializer(OpensValues[Opened], Deserializer):
    """Opens, then deserializes with *inner*. For values; keys are left alone.

    It raises where a message is refused or the key service is away, and that is all that a deserializer can do. The stock
    `confluent_kafka.DeserializingConsumer` has stored the message's offset by then: after a restart it would be lost. So give that
    ``"enable.auto.offset.store": False`` and store offsets after ``poll`` returned; or, better, use
    `postseal.kafka.DeserializingConsumer` with the inner deserializer alone, which also waits, quarantines and audits as the policy says.

    A working program::

        consumer = DeserializingConsumer({
            "bootstrap.servers": "localhost:9092",
            "group.id": "billing",
            "enable.auto.offset.store": False,
            "value.deserializer": OpeningDeserializer(StringDeserializer(), sealer),
        })
        consumer.subscribe(["orders"])
        message = consumer.poll(10)
        consumer.store_offsets(message=message)

    Args:
        inner: Any deserializer: called with bytes or None and a context, returns an object.
        sealer: Opens; its policies say what is demanded.

    Raises:
        ConfigError: *inner* or *sealer* is none.
    """

    def __init__(self, inner: Callable[..., Any], sealer: Sealer) -> None:
        self._around(inner, sealer, "deserializer")
        self._unseal = sealer.open

    def __call__(self, value: bytes | None, ctx: SerializationContext | None = None) -> Any:
        """Open *value*, which lay in the topic of *ctx*, and deserialize it. None is handed to the inner deserializer as it is.

        Raises:
            Refused: It will never be handed on. One audit event was made, with the topic as its coordinates.
            KeyUnavailable: The key service did not answer. Keep the message; trying again may help.
            ConfigError: As in `SealingSerializer`.

        Note:
            Called by `confluent_kafka.DeserializingConsumer`, these arrive as the ``exception`` of its `ValueDeserializationError`.
        """
        context, topic = self._place(ctx)
        if value is None:
            return self._inner(None, context)
        body = topic.open_quick(value)
        return self._inner(self._opened(topic, value, context).body if body is None else body, context)


def tell(inner: Any, verb: str, *args: Any) -> Any:
    """Call a method that plain functions and older clients' serializers do not have."""
    method = getattr(inner, verb, None)
    return None if method is None else method(*args)
