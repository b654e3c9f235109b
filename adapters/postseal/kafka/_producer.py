"""Producers that seal what they send."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException

from postseal.core import ConfigError, Sealer
from postseal.kafka._errors import MessageTooLarge
from postseal.kafka._message import Topic, Topics, wire_bytes, without
from postseal.kafka._sealing import Sealing

__all__ = ["Producer", "SealingProducer", "SerializingProducer"]

K = TypeVar("K")
V = TypeVar("V")


class SealingProducer(confluent_kafka.Producer, Sealing[bytes]):
    """What our producers share: `produce` and `produce_batch` that seal. Made ready by `_seal_with` before the client itself is."""

    _client_produce = confluent_kafka.Producer.produce  # `super()` would be made for every message

    def _seal_with(self, sealer: Sealer) -> None:
        self._topics = Topics(sealer)
        self._seal = sealer.seal

    def produce(  # noqa: PLR0917 - the client's own signature
        self,
        topic: str,
        value: str | bytes | None = None,
        key: str | bytes | None = None,
        partition: int = -1,
        callback: Any = None,
        on_delivery: Any = None,
        timestamp: int = 0,
        headers: Any = None,
    ) -> None:
        """Seal *value* and send it; all else as in `confluent_kafka.Producer.produce`.

        None stays None: a tombstone deletes by being null. ``b""`` is a message, and is sealed. The delivery report's message shows what
        was sent: the sealed bytes.

        Raises:
            KeyUnavailable: The key service did not answer. Nothing was sent; trying again may help.
            KeyRefused: The key service said no.
            ConfigError: No policy speaks of *topic*.
            MessageTooLarge: Over ``message.max.bytes`` once sealed. It is a `KafkaException`, too.
            Refused: *value* is an envelope, but none that opens here; or beside it stands a header that the policy encrypts.
            BufferError: The client's queue is full, as without us.
        """
        envelope: bytes | None = None
        if value is not None:
            way = self._topics[topic]
            envelope = way.quick(value)  # type: ignore[arg-type]  # gives None for what is no bytes
            if envelope is None:
                envelope = self._sealed(way, value, key, headers)
                if way.takes:
                    headers = without(headers, way.takes)
        elif headers:
            self._check_bare(topic, headers)
        # To the client the first of its two names for the report counts, even where it is None.
        report = on_delivery if callback is None else callback
        try:
            self._client_produce(topic, envelope, key, partition, report, report, timestamp, headers)
        except KafkaException as error:
            if value is None or error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                raise
            raise MessageTooLarge(error, len(wire_bytes(value) or b""), len(envelope or b"")) from error

    def produce_batch(
        self,
        topic: str,
        messages: Any,
        partition: int = -1,
        callback: Any = None,
        on_delivery: Any = None,
    ) -> int:
        """Seal the values of *messages* and send them; all else as in `confluent_kafka.Producer.produce_batch`.

        Headers that the policy encrypts travel in the envelope, so that they arrive, which other headers of a batch do not.

        All are sealed before the first is sent, so where sealing fails none is. The caller's dicts are not changed, but for the
        ``_error`` that the client itself puts into those that it did not take.

        Raises:
            ConfigError: No policy speaks of *topic*; or a message has headers, which the client would drop, where the policy binds some.
            KeyUnavailable: As in `produce`; so are the others.
        """
        way = self._topics[topic]
        if not isinstance(messages, list):
            return super().produce_batch(topic, messages)  # says what is wrong
        sealed = [self._sealed_entry(way, message) for message in messages]
        try:
            report = on_delivery if callback is None else callback
            return super().produce_batch(topic, sealed, partition, report, report)
        finally:
            for message, entry in zip(messages, sealed, strict=True):
                if entry is not message and "_error" in entry:
                    message["_error"] = entry["_error"]

    def _sealed_entry(self, way: Topic, message: Any) -> Any:
        if not isinstance(message, dict):
            return message  # the client says what is wrong
        value = message.get("value")
        headers = message.get("headers")
        if value is None:
            if headers:
                self._check_bare(way.name, headers)
            return message.copy()
        sent = without(headers, way.takes)
        if sent and way.binds:
            raise ConfigError(
                f"produce_batch sends no headers, and policy {way.policy.name!r} binds {sorted(way.binds)}: use produce"
            )
        entry = message | {
            "value": self._sealed(way, value, message.get("key"), headers if way.takes else None)
        }
        if way.takes and headers:
            entry["headers"] = sent
        return entry


class Producer(SealingProducer):
    """`confluent_kafka.Producer` that seals what it sends: swap the import, name the sealer.

    A working program::

        producer = Producer({"bootstrap.servers": "localhost:9092"}, sealer=sealer)
        producer.produce("orders", b"4111 1111 1111 1111", key="4711")
        producer.flush()

    Args:
        args: The client's configuration, as for `confluent_kafka.Producer`.
        sealer: Seals; its policies say how.
        config: As for `confluent_kafka.Producer`.

    Raises:
        ConfigError: *sealer* is none.
        KafkaException: The client's configuration is wrong.
    """

    def __init__(self, *args: Any, sealer: Sealer, **config: Any) -> None:
        self._seal_with(sealer)
        super().__init__(*args, **config)


if TYPE_CHECKING or hasattr(confluent_kafka.SerializingProducer, "__class_getitem__"):
    _Serializing = confluent_kafka.SerializingProducer
else:  # before 2.16 it is not generic

    class _Serializing(confluent_kafka.SerializingProducer, Generic[K, V]):
        pass


class SerializingProducer(_Serializing[K, V], SealingProducer):  # type: ignore[misc]  # pyright: ignore[reportIncompatibleMethodOverride] - produce has key before value here, as in the client
    """`confluent_kafka.SerializingProducer` that seals what its serializers made; here the key can be bound, too.

    Args:
        conf: As for `confluent_kafka.SerializingProducer`.
        sealer: Seals; its policies say how.

    Raises:
        ConfigError: *sealer* is none.
        KafkaException: The client's configuration is wrong.
    """

    # Its `produce` ends in `super().produce(topic, value, key, ...)`, which is ours: the method resolution order does all the work.

    def __init__(self, conf: dict[str, Any], *, sealer: Sealer) -> None:
        self._seal_with(sealer)
        super().__init__(conf)
