"""Sends refused messages, as they came, to a topic where nobody takes them for good."""

from __future__ import annotations

import logging
import time
from inspect import iscoroutinefunction
from typing import Any, Final

import confluent_kafka
from confluent_kafka import TIMESTAMP_NOT_AVAILABLE, KafkaError, KafkaException, Message

from postseal.core import ConfigError, Sealer, Verdict
from postseal.kafka._message import KafkaHeaders, quarantine_headers, quarantines, speaks_of_kafka
from postseal.kafka._producer import SealingProducer

__all__ = ["NotConfirmed", "Quarantine", "check_quarantine", "headers_of"]

_log: Final = logging.getLogger("postseal.kafka")
_LONGEST_WAIT: Final = 10.0
"""Seconds for the broker to confirm one message. Far below ``max.poll.interval.ms``, within which a consumer has to come back."""
_SLICE: Final = 0.1


class NotConfirmed(Exception):
    """The quarantine did not confirm that it has the message, which is refused by *verdict*."""

    def __init__(self, text: str, verdict: Verdict) -> None:
        super().__init__(text)
        self.verdict = verdict


class _TooLarge(NotConfirmed):
    """And it never will be, because of its size."""


def check_quarantine(sealer: Sealer, producer: Any) -> None:
    """See to it that refused messages have somewhere to go.

    Raises:
        ConfigError: A policy sends refused Kafka messages to a topic, and *producer* is None, or would change them.
    """
    for policy in sealer.policies:
        if speaks_of_kafka(policy) and quarantines(policy) and producer is None:
            raise ConfigError(
                f"policy {policy.name!r}: on_refused = {policy.on_refused!r} sends refused messages to a topic; "
                "give quarantine=confluent_kafka.Producer(...), a plain producer"
            )
    if isinstance(producer, (SealingProducer, confluent_kafka.SerializingProducer)) or iscoroutinefunction(
        getattr(producer, "produce", None)
    ):
        raise ConfigError(
            f"quarantine must be a plain confluent_kafka.Producer, not {type(producer).__module__}.{type(producer).__name__}: "
            "a refused message stays as it came, and its report is waited for"
        )
    if producer is not None and not callable(getattr(producer, "produce", None)):
        raise ConfigError(f"quarantine must be a confluent_kafka.Producer, not {type(producer).__name__}")


def headers_of(message: Message) -> KafkaHeaders | None:
    """Return the headers of a received *message*; none where a name is no UTF-8, which the client raises on.

    A forger can write such a name. Where the policy binds headers, the message is then refused like any other whose headers were changed.
    """
    try:
        return message.headers()
    except UnicodeDecodeError:
        return None


class Quarantine:
    """Takes refused messages to a topic, one at a time, waiting until the broker has each.

    Args:
        producer: A plain producer, outside of transactions.
    """

    def __init__(self, producer: Any) -> None:
        self._producer = producer

    def take(self, message: Message, verdict: Verdict, topic: str) -> None:
        """Send *message* to *topic* and wait until that is confirmed: key, value, headers, timestamp as they came.

        Of one that the quarantine will never take because of its size, only our headers are sent, and that size: all that came behind it
        would wait for ever. It is still where it lay, as long as its topic keeps it.

        Raises:
            NotConfirmed: It may be there, or not. To be tried again: better twice in quarantine than lost.
        """
        source, partition, offset = message.topic() or "", message.partition() or 0, message.offset() or 0
        value = message.value() or b""
        kind, at = message.timestamp()
        timestamp = 0 if kind == TIMESTAMP_NOT_AVAILABLE else at
        headers = quarantine_headers(headers_of(message), verdict, source, partition, offset)
        try:
            self._send(verdict, topic, value=value, key=message.key(), headers=headers, timestamp=timestamp)
        except _TooLarge as error:
            _log.error(
                "%s [%d] offset %d, %d bytes, is refused (%s) and does not fit into %s, so only its place is noted there: give the "
                "quarantine's producer and topic a larger message.max.bytes (%s)",
                *(source, partition, offset, len(value), verdict.value, topic, error),
            )
            headers = quarantine_headers(None, verdict, source, partition, offset, size=len(value))
            self._send(verdict, topic, value=b"", headers=headers, timestamp=timestamp)

    def _send(self, verdict: Verdict, topic: str, **record: Any) -> None:
        report = _Report()
        try:
            self._producer.produce(topic, **record, on_delivery=report)
            end = time.monotonic() + _LONGEST_WAIT
            while not report.came and time.monotonic() < end:
                self._producer.poll(_SLICE)
        except (BufferError, KafkaException, RuntimeError) as error:  # RuntimeError: it was closed
            raise _failure(error.args[0] if error.args else None, str(error), verdict) from error
        if not report.came:
            raise NotConfirmed(f"no delivery report within {_LONGEST_WAIT:g} seconds", verdict)
        if report.error is not None:
            raise _failure(report.error, str(report.error), verdict)


def _failure(error: object, text: str, verdict: Verdict) -> NotConfirmed:
    too_large = isinstance(error, KafkaError) and error.code() == KafkaError.MSG_SIZE_TOO_LARGE
    return (_TooLarge if too_large else NotConfirmed)(text, verdict)


class _Report:
    """What became of one message; the producer calls it."""

    __slots__ = ("came", "error")

    def __init__(self) -> None:
        self.came = False
        self.error: object = None

    def __call__(self, error: object, _: object) -> None:
        self.error = error
        self.came = True
