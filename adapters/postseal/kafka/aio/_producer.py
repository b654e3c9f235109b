"""The asyncio producer that seals what it sends."""

from __future__ import annotations

import asyncio
import inspect
import sys
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException
from confluent_kafka import aio as client

from postseal.core import Sealer
from postseal.kafka._errors import MessageTooLarge
from postseal.kafka._message import Topics, wire_bytes, without
from postseal.kafka._sealing import Sealing

__all__ = ["AIOProducer"]

_MOST: Final = "message.max.bytes"
_MOST_DEFAULT: Final = 1_000_000
"""Source: librdkafka, CONFIGURATION.md, message.max.bytes."""
_FRAME: Final = 512
"""More bytes than librdkafka counts for a record beside its value and key."""


F = TypeVar("F", bound=Callable[..., Any])


def _coroutine_function(function: F) -> F:
    """Have *function*, which returns a coroutine, taken for what ``async def`` makes, by whoever asks."""
    if sys.version_info >= (3, 12):
        return inspect.markcoroutinefunction(function)
    function._is_coroutine = asyncio.coroutines._is_coroutine  # type: ignore[attr-defined]  # noqa: SLF001 - for asyncio and unittest.mock
    return function


class AIOProducer(Sealing[Awaitable[bytes]], client.AIOProducer):
    """`confluent_kafka.aio.AIOProducer` that seals what it sends: swap the import, name the sealer.

    A working program::

        async with AIOProducer({"bootstrap.servers": "localhost:9092"}, sealer=sealer) as producer:
            report = await producer.produce("orders", b"4111 1111 1111 1111", key="4711")
            await producer.flush()
            message = await report

    What waits in the client's buffer is sealed already.

    Args:
        producer_conf: As for `confluent_kafka.aio.AIOProducer`; it is not changed.
        args: Likewise.
        sealer: Seals; its policies say how.
        options: As for `confluent_kafka.aio.AIOProducer`.

    Raises:
        ConfigError: *sealer* is none.
        KafkaException: The client's configuration is wrong.
    """

    _client_produce = client.AIOProducer.produce  # `super()` would be made for every message

    def __init__(self, producer_conf: dict[str, Any], *args: Any, sealer: Sealer, **options: Any) -> None:
        self._topics = Topics(sealer)
        self._seal = sealer.aseal
        self._flushing: set[asyncio.Task[None]] = set()
        # A copy: the client puts callbacks of its own into it. What is no dict is for the client to refuse.
        conf = producer_conf.copy() if isinstance(producer_conf, dict) else producer_conf
        super().__init__(conf, *args, **options)
        self._most = int(conf.get(_MOST, _MOST_DEFAULT)) - _FRAME

    @_coroutine_function
    def produce(  # pyright: ignore[reportIncompatibleMethodOverride] - both give a CoroutineType, which mypy knows by no such name
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        *args: Any,
        **kwargs: Any,
    ) -> Coroutine[Any, Any, asyncio.Future[Any]]:
        """Seal *value* and send it; all else as in `confluent_kafka.aio.AIOProducer.produce`.

        None stays None: a tombstone deletes by being null. ``b""`` is a message, and is sealed. A cancelled call either sent nothing, or
        the message goes out.

        Returns:
            A future: of the message as it was sent, with its sealed bytes; or it raises, `MessageTooLarge` where the message is over
            ``message.max.bytes`` once sealed.

        Raises:
            KeyUnavailable: The key service did not answer. Nothing was sent; trying again may help.
            KeyRefused: The key service said no.
            ConfigError: No policy speaks of *topic*.
            Refused: *value* is an envelope, but none that opens here.
            NotImplementedError: The client takes no headers, but for those that the policy encrypts.
        """
        # What is common takes no coroutine of ours around the client's: for a message that is not long, it would be a tenth of all.
        if value is not None and (way := self._topics.get(topic)) is not None:
            envelope = way.quick(value)  # type: ignore[arg-type]  # gives None for what is no bytes
            if envelope is not None and self._fits(envelope, key):
                return self._client_produce(topic, envelope, key, *args, **kwargs)
        return self._produce(topic, value, key, *args, **kwargs)

    async def _produce(
        self, topic: str, value: str | bytes | None, key: str | bytes | None, *args: Any, **kwargs: Any
    ) -> asyncio.Future[Any]:
        if value is None:
            if kwargs.get("headers"):
                self._check_bare(topic, kwargs["headers"])
            return await super().produce(topic, None, key, *args, **kwargs)
        way = self._topics[topic]
        envelope = way.quick(value)  # type: ignore[arg-type]  # gives None for what is no bytes
        if envelope is None:
            envelope = await self._sealed(way, value, key, kwargs.get("headers"))
            if way.takes and "headers" in kwargs and (rest := without(kwargs.pop("headers"), way.takes)):
                kwargs["headers"] = rest
        report = await super().produce(topic, envelope, key, *args, **kwargs)
        if not self._fits(envelope, key):
            return _explained(report, len(wire_bytes(value) or b""), len(envelope))
        return report

    def _fits(self, envelope: bytes, key: str | bytes | None) -> bool:
        """Tell whether a record is certainly not too large."""
        return len(envelope) + (len(key) * 4 if key else 0) <= self._most  # a character has up to 4 bytes

    async def _flush_buffer(self, target_topic: str | None = None) -> None:
        """Give what is buffered to librdkafka, to the end: the client alone loses it where the caller is cancelled."""
        flush = asyncio.ensure_future(super()._flush_buffer(target_topic))
        self._flushing.add(flush)  # the loop itself only knows tasks weakly
        flush.add_done_callback(self._flushing.discard)
        await asyncio.shield(flush)


def _explained(report: asyncio.Future[Any], clear_size: int, sealed_size: int) -> asyncio.Future[Any]:
    """Return a future like *report* that says how much of a message that is too large is ours."""
    explained: asyncio.Future[Any] = report.get_loop().create_future()

    def tell(done: asyncio.Future[Any]) -> None:
        if explained.done():
            return
        if done.cancelled():
            explained.cancel()
            return
        error = done.exception()
        if error is None:
            explained.set_result(done.result())
        elif isinstance(error, KafkaException) and error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE:
            too_large = MessageTooLarge(error, clear_size, sealed_size)
            too_large.__cause__ = error
            explained.set_exception(too_large)
        else:
            explained.set_exception(error)

    report.add_done_callback(tell)
    return explained
