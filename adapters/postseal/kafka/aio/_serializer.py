"""`SealingSerializer` and `OpeningDeserializer` for asyncio, around serializers of either kind."""

from __future__ import annotations

import inspect
from collections.abc import Awaitable, Callable
from typing import Any, TypeVar

from confluent_kafka.serialization import Deserializer, SerializationContext, Serializer

from postseal.core import Opened, Sealer
from postseal.kafka._serializer import OpensValues, SealsValues, tell

__all__ = ["AsyncOpeningDeserializer", "AsyncSealingSerializer"]

T = TypeVar("T")


class _Async:
    """What asyncio's clients tell their serializers beside the rest."""

    _inner: Callable[..., Any]

    def set_async_cluster_id_resolver(self, resolver: Callable[[], Awaitable[Any]]) -> None:
        """Hand *resolver* on to the inner one."""
        tell(self._inner, "set_async_cluster_id_resolver", resolver)

    async def aclose(self) -> None:
        """Close the inner one."""
        verb = "aclose" if hasattr(self._inner, "aclose") else "close"
        await _awaited(tell(self._inner, verb))


class AsyncSealingSerializer(_Async, SealsValues[Awaitable[bytes]], Serializer):
    """Like `postseal.kafka.SealingSerializer`, without blocking the loop: the data key is awaited, sealing is done at once.

    A working program::

        serializer = AsyncSealingSerializer(await AsyncAvroSerializer(registry, schema), sealer)
        value = await serializer(order, SerializationContext("orders", MessageField.VALUE))
        await producer.produce("orders", value, key="4711")

    Send it with a plain `confluent_kafka.aio.AIOProducer`; ours would see that it is sealed, and let it pass.

    Args:
        inner: Any serializer, of asyncio or not: called with an object and its context, returns bytes or None, or an awaitable of it.
        sealer: Seals; its policies say how.

    Raises:
        ConfigError: *inner* or *sealer* is none.
    """

    def __init__(self, inner: Callable[..., Any], sealer: Sealer) -> None:
        self._around(inner, sealer, "serializer")
        self._seal = sealer.aseal

    async def __call__(self, obj: Any, ctx: SerializationContext | None = None) -> bytes | None:  # type: ignore[override]  # as in the client's own
        """Serialize *obj* and seal it for the topic of *ctx*.

        Raises:
            ConfigError: No context, one of a key, or a topic whose policy binds the record key, which a serializer does not see.
            KeyUnavailable: The key service did not answer. Trying again may help.
            KeyRefused: The key service said no.
        """
        context, topic = self._place(ctx)
        body: bytes | None = await _awaited(self._inner(obj, context))
        if body is None:
            return None
        # The headers last: an inner serializer may have added its own.
        return topic.quick(body) or await self._sealed(topic, body, None, context.headers)


class AsyncOpeningDeserializer(_Async, OpensValues[Awaitable[Opened]], Deserializer):
    """Like `postseal.kafka.OpeningDeserializer`, without blocking the loop: a data key that is not known is awaited.

    What is said there of stored offsets holds here too. Better: `postseal.kafka.aio.AIOConsumer`, and the inner deserializer by hand.

    A working program::

        deserializer = AsyncOpeningDeserializer(await AsyncAvroDeserializer(registry), sealer)
        message = await consumer.poll(10)  # of a plain AIOConsumer with "enable.auto.offset.store": False
        order = await deserializer(message.value(), SerializationContext("orders", MessageField.VALUE, message.headers()))
        await consumer.store_offsets(message=message)

    Args:
        inner: Any deserializer, of asyncio or not: called with bytes or None and a context, returns an object, or an awaitable of it.
        sealer: Opens; its policies say what is demanded.

    Raises:
        ConfigError: *inner* or *sealer* is none.
    """

    def __init__(self, inner: Callable[..., Any], sealer: Sealer) -> None:
        self._around(inner, sealer, "deserializer")
        self._unseal = sealer.aopen

    async def __call__(self, value: bytes | None, ctx: SerializationContext | None = None) -> Any:
        """Open *value*, which lay in the topic of *ctx*, and deserialize it. None is handed to the inner deserializer as it is.

        Raises:
            Refused: It will never be handed on. One audit event was made, with the topic as its coordinates.
            KeyUnavailable: The key service did not answer. Keep the message; trying again may help.
            ConfigError: As in `AsyncSealingSerializer`.
        """
        context, topic = self._place(ctx)
        if value is not None:
            body = topic.open_quick(value)
            value = (await self._opened(topic, value, context)).body if body is None else body
        return await _awaited(self._inner(value, context))


async def _awaited(result: Any) -> Any:
    """Return *result*, or what it gives once awaited: as the client takes serializers of either kind."""
    return await result if inspect.isawaitable(result) else result
