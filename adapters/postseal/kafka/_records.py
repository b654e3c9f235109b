"""Opens what a Lambda function is handed from Kafka, by Amazon MSK or a cluster of one's own.

Source: AWS Lambda Developer Guide, "Using Lambda with Amazon MSK" and "with self-managed Apache Kafka": example events.
"""

from __future__ import annotations

import binascii
from base64 import b64encode
from collections.abc import Callable, Mapping
from typing import Any

from postseal.core import ConfigError, Opened, Refused, Sealer
from postseal.core.replay import Receipt
from postseal.kafka._message import Topics, clear_headers, opened_headers, wire_bytes

__all__ = ["open_records"]

_SOURCES = ("aws:kafka", "SelfManagedKafka")


def open_records(
    event: Mapping[str, Any],
    sealer: Sealer,
    *,
    quarantine: Callable[[Mapping[str, Any], Refused], object] | None = None,
) -> OpenedRecords:
    """Open the records of *event*, with which Lambda calls a function for records of Kafka topics.

    A working function::

        def handler(event, context):
            for record in open_records(event, sealer):
                store(base64.b64decode(record["value"]))

    Args:
        event: As Lambda gives it. It stays as it is.
        sealer: Opens.
        quarantine: Takes a refused record, as it came, and why; needed where a policy says ``quarantine`` or ``dead-letter``. What it
            raises is raised, so that the batch comes again.

    Returns:
        Copies of the records that opened, partition by partition in their order, with the clear ``value`` in base64, as Lambda has it.
        Records without a value stay so. Where there is a ledger, call its ``settled()`` at the end of the function.

    Raises:
        KeyUnavailable: The key service did not answer: Lambda has the whole batch come again, in order.
        Refused: A record will never open and its policy says to raise: Lambda has the whole batch come again, until its own limits
            (maximum age or attempts, on-failure destination) end that.
        ConfigError: No event of Kafka; no policy speaks of a topic; a policy needs *quarantine*.
    """
    partitions = event.get("records")
    if event.get("eventSource") not in _SOURCES or not isinstance(partitions, Mapping):
        raise ConfigError(f"this is no event of Kafka: its eventSource must be one of {', '.join(_SOURCES)}")
    topics, opened = Topics(sealer), OpenedRecords(sealer)
    for record in (record for records in partitions.values() for record in records):
        topic = topics[record["topic"]]
        if topic.policy.on_refused in ("quarantine", "dead-letter") and quarantine is None:
            raise ConfigError(
                f"policy {topic.policy.name!r} takes refused records elsewhere: give open_records a quarantine that does"
            )
        value = record.get("value")
        if value is None:  # a tombstone
            opened.append(_bare(record, topic.policy.encrypt_headers))
            continue
        try:
            one = sealer.open(
                _bytes_of(value),
                destination=topic.destination,
                headers=_headers_of(record),
                ordering_key=_key_of(record) if topic.binds_key else None,
                coordinates={name: record[name] for name in ("topic", "partition", "offset")},
            )
        except Refused as refused:
            outcome = topic.policy.outcome(refused.verdict)
            if outcome in ("raise", "leave"):  # Lambda commits whatever is not raised
                raise
            if quarantine is not None and outcome != "discard":
                quarantine(record, refused)
        else:
            opened.append(_opened(record, one))
            opened.note(one)
    return opened


class OpenedRecords(list[dict[str, Any]]):
    """The opened records of an event, and what the ledger is told of them."""

    def __init__(self, sealer: Sealer) -> None:
        super().__init__()
        self._sealer = sealer
        self._receipts: list[Receipt] = []

    def note(self, opened: Opened) -> None:
        """Remember one."""
        if opened.receipt is not None:
            self._receipts.append(opened.receipt)

    def settled(self) -> None:
        """Tell the ledger that all are done, just before the function returns: then Lambda commits them.

        Raises:
            LedgerUnavailable: The ledger did not answer. Let the function fail: then all come again.
        """
        self._sealer.settled(*self._receipts)


def _bare(record: Mapping[str, Any], names: tuple[str, ...]) -> dict[str, Any]:
    if not names or not record.get("headers"):
        return dict(record)
    kept = clear_headers([(name, None) for header in record["headers"] for name in header], names) or []
    allowed = {name for name, _ in kept}
    return {**record, "headers": [header for header in record["headers"] if allowed.issuperset(header)]}


def _opened(record: Mapping[str, Any], opened: Opened) -> dict[str, Any]:
    shown = {**record, "value": b64encode(opened.body).decode()}
    if opened.headers:
        sealed = opened_headers(None, opened)
        shown["headers"] = [
            *(record.get("headers") or ()),
            *({name: _numbers(value)} for name, value in sealed),
        ]
    return shown


def _numbers(value: str | bytes | None) -> list[int] | None:
    """Write a header's value as Lambda does: a list of numbers, from -128 to 127."""
    raw = wire_bytes(value)
    return None if raw is None else [number - 256 if number > 127 else number for number in raw]  # noqa: PLR2004 - bytes of Java


def _bytes_of(text: str) -> bytes:
    """Return the bytes that Lambda wrote as base64.

    Raises:
        ConfigError: They are not in base64, so this is no record of Lambda's.
    """
    try:
        return binascii.a2b_base64(text.encode(), strict_mode=True)
    except (ValueError, AttributeError):
        raise ConfigError("a record's key and value must be in base64, as Lambda has them") from None


def _key_of(record: Mapping[str, Any]) -> bytes | None:
    key = record.get("key")
    return None if key is None else _bytes_of(key)


def _headers_of(record: Mapping[str, Any]) -> list[tuple[str, bytes | None]]:
    """Read headers: a list of dicts of one name each, whose value is a list of numbers, also negative ones, as Java has bytes."""
    return [
        (name, None if value is None else bytes(number & 0xFF for number in value))
        for header in record.get("headers") or ()
        for name, value in header.items()
    ]
