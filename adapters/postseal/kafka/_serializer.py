"""A serializer that seals and a deserializer that opens, around any others."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from confluent_kafka.serialization import (
    Deserializer,
    MessageField,
    SerializationContext,
    Serializer,
)

from postseal.core import ConfigError, Sealer
from postseal.kafka._message import Topic, Topics, bound_headers, wire_headers

__all__ = ["OpeningDeserializer", "SealingSerializer"]


class SealingSerializer(Serializer):
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

    __slots__ = ["_inner", "_sealer", "_topics"]

    def __init__(self, inner: Callable[..., bytes | None], sealer: Sealer) -> None:
        self._topics = Topics(sealer)
        self._sealer = sealer
        self._inner = _checked(inner, "serializer")

    def __call__(self, obj: Any, ctx: SerializationContext | None = None) -> bytes | None:
        """Serialize *obj* and seal it for the topic of *ctx*.

        Raises:
            ConfigError: No context, one of a key, or a topic whose policy binds the record key, which a serializer does not see.
            KeyUnavailable: The key service did not answer. Trying again may help.
            KeyRefused: The key service said no.

        Note:
            Called by `confluent_kafka.SerializingProducer`, these arrive as the ``exception`` of its `ValueSerializationError`.
        """
        context = _of_value(ctx)
        topic = _without_key(self._topics[context.topic])
        body = self._inner(obj, context)
        if body is None:
            return None
        if topic.plain:
            return self._sealer.seal(body, destination=topic.destination)
        # The headers last: an inner serializer may have added its own.
        headers = bound_headers(context.headers, topic.binds)
        return self._sealer.seal(body, destination=topic.destination, headers=headers)

    def set_cluster_id_resolver(self, resolver: Callable[[], Any]) -> None:
        """Hand *resolver* on to the inner serializer."""
        _tell(self._inner, "set_cluster_id_resolver", resolver)

    def close(self) -> None:
        """Close the inner serializer."""
        _tell(self._inner, "close")


class OpeningDeserializer(Deserializer):
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

    __slots__ = ["_inner", "_sealer", "_topics"]

    def __init__(self, inner: Callable[..., Any], sealer: Sealer) -> None:
        self._topics = Topics(sealer)
        self._sealer = sealer
        self._inner = _checked(inner, "deserializer")

    def __call__(self, value: bytes | None, ctx: SerializationContext | None = None) -> Any:
        """Open *value*, which lay in the topic of *ctx*, and deserialize it. None is handed to the inner deserializer as it is.

        Raises:
            Refused: It will never be handed on. One audit event was made, with the topic as its coordinates.
            KeyUnavailable: The key service did not answer. Keep the message; trying again may help.
            ConfigError: As in `SealingSerializer`.

        Note:
            Called by `confluent_kafka.DeserializingConsumer`, these arrive as the ``exception`` of its `ValueDeserializationError`.
        """
        context = _of_value(ctx)
        topic = _without_key(self._topics[context.topic])
        if value is not None:
            # All headers: the sender may have bound more than the policy demands here.
            headers = wire_headers(context.headers)
            value = self._sealer.open(
                value, destination=topic.destination, headers=headers, coordinates={"topic": topic.name}
            ).body
        return self._inner(value, context)

    def set_cluster_id_resolver(self, resolver: Callable[[], Any]) -> None:
        """Hand *resolver* on to the inner deserializer."""
        _tell(self._inner, "set_cluster_id_resolver", resolver)

    def close(self) -> None:
        """Close the inner deserializer."""
        _tell(self._inner, "close")


def _checked(inner: Callable[..., Any], what: str) -> Callable[..., Any]:
    if not callable(inner):
        raise ConfigError(f"inner must be a {what}, not {type(inner).__name__}")
    return inner


def _of_value(ctx: SerializationContext | None) -> SerializationContext:
    if ctx is None or not ctx.topic:
        raise ConfigError(
            "a message is bound to its topic: call with SerializationContext(topic, MessageField.VALUE, headers)"
        )
    if ctx.field == MessageField.KEY:
        raise ConfigError(
            "keys are not sealed: Kafka partitions and compacts by them; use it for values alone"
        )
    return ctx


def _without_key(topic: Topic) -> Topic:
    if topic.binds_key:
        raise ConfigError(
            f"policy {topic.policy.name!r} binds the record key, which a serializer does not see: "
            "use postseal.kafka.Producer and Consumer, or SerializingProducer and DeserializingConsumer of postseal.kafka"
        )
    return topic


def _tell(inner: Any, verb: str, *args: Any) -> None:
    """Call a method that plain functions and older clients' serializers do not have."""
    method = getattr(inner, verb, None)
    if method is not None:
        method(*args)
