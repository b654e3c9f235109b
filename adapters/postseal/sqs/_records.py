"""Opens what a trigger brings: the records of a Lambda function's event, or one message.

Source: AWS Lambda Developer Guide, "Using Lambda with Amazon SQS": example event; reporting batch item failures.
"""

from __future__ import annotations

import binascii
import contextlib
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType
from typing import Any, Final

from postseal.core import ConfigError, KeyUnavailable, Sealer
from postseal.core.context import HeaderValue
from postseal.core.replay import Receipt
from postseal.sqs._message import Place, destination_of
from postseal.sqs._opening import open_each
from postseal.sqs._settling import Settling, carry_out
from postseal.sqs._sorting import Sorting, Turned

__all__ = ["OpenedRecords", "open_message", "open_records"]

_RECORD: Final = "record"
"""In a message made of a record: that record. No name that SQS gives begins with a small letter."""


class OpenedRecords(Sequence[dict[str, Any]]):
    """The opened records of an event, in their order, and what Lambda is to be answered about all.

    Attributes:
        records: Copies of those that opened, with the clear ``body`` and its ``md5OfBody``.
    """

    def __init__(
        self,
        records: list[dict[str, Any]],
        failures: list[str],
        *,
        sealer: Sealer | None = None,
        receipts: Mapping[str, Receipt] = MappingProxyType({}),
    ) -> None:
        self.records = records
        self._failures = failures
        self._sealer = sealer
        self._receipts = receipts
        """What the ledger is told of those that opened, by their id."""

    def __getitem__(self, at: Any) -> Any:
        return self.records[at]

    def __len__(self) -> int:
        return len(self.records)

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return iter(self.records)

    def __repr__(self) -> str:
        return f"<{len(self.records)} opened, {len(self._failures)} failed>"

    def fail(self, record: Mapping[str, Any]) -> None:
        """Have *record* come again, because the function could not do with it what it should."""
        if record["messageId"] not in self._failures:
            self._failures.append(record["messageId"])

    def answer(self) -> dict[str, list[dict[str, str]]]:
        """Return what the function is to return: all that must come again. Lambda deletes the others, and the ledger is told so.

        Raises:
            LedgerUnavailable: The ledger did not answer. Let the function fail: then all come again.
        """
        if self._sealer is not None:
            self._sealer.settled(
                *(receipt for each, receipt in self._receipts.items() if each not in self._failures)
            )
        return {"batchItemFailures": [{"itemIdentifier": each} for each in self._failures]}


def open_records(
    event: Mapping[str, Any],
    sealer: Sealer,
    *,
    reports_failures: bool,
    client: Any = None,
    quarantine: Mapping[str, str] | None = None,
) -> OpenedRecords:
    """Open the records of *event*, with which Lambda calls a function for messages of a queue; messages of topics in it, too.

    A working function::

        def handler(event, context):
            batch = open_records(event, sealer, reports_failures=True)
            for record in batch:
                store(record["body"])
            return batch.answer()

    Args:
        event: As Lambda gives it. It stays as it is.
        sealer: Opens.
        reports_failures: Whether the event source mapping has ``ReportBatchItemFailures``. **Lambda does not say so, and without it deletes
            all messages once the function returns, whatever it answers**: then this raises where a message must come again, and all do.
        client: A client of SQS, protected or not, that copies refused messages to their quarantine; needed by policies that have one.
        quarantine: URLs of queues by destination, as of `protect`.

    Returns:
        The records that opened. Refused ones are answered as failed, so that the queue's redrive policy takes them, unless their policy
        discards them, or a copy in their quarantine is confirmed: those Lambda deletes.

    Raises:
        ConfigError: No event of SQS; no policy speaks of its queue; the policy has a quarantine, and there is no *client*.
        KeyUnavailable: The key service did not answer, and *reports_failures* is false.
        Refused: A message was refused and is to come again, and *reports_failures* is false.
    """
    records = _records_of(event)
    if not records:
        return OpenedRecords([], [])
    arn = records[0]["eventSourceARN"]
    place = Place.of(destination_of(arn.rpartition(":")[2]), sealer)
    if place.policy.consuming == "off":
        return OpenedRecords([*records], [])
    if place.policy.on_refused == "quarantine" and client is None:
        raise ConfigError(f"policy {place.policy.name!r} has a quarantine: give open_records a client")
    sorting = Sorting([_message_of(record) for record in records], place, sealer.auditor)
    open_each(sorting, sealer)
    settling = Settling(queue_urls=quarantine or {}, come_again_after=0)
    # What may be deleted is left to Lambda, which deletes all that is not answered as failed.
    taken = carry_out(settling.take(place.destination, place.policy, sorting.refused), client, _never)
    gone = {id(received) for received in taken}
    left = [turned for turned in sorting.refused if id(turned.received) not in gone]
    if not reports_failures:
        _raise_first(sorting, left)
    again = {
        id(each.message)
        for each in (*sorting.withheld, *(b.received for b in sorting.broken), *(t.received for t in left))
    }
    return OpenedRecords(
        [_filled(message) for message in sorting.done],
        [message["MessageId"] for message in sorting.messages if id(message) in again],
        sealer=sealer,
        receipts={message["MessageId"]: receipt for message, receipt in sorting.receipts},
    )


def open_message(
    body: str,
    sealer: Sealer,
    *,
    destination: str,
    attributes: Mapping[str, HeaderValue | Mapping[str, Any]] | None = None,
    group: str | None = None,
    coordinates: Mapping[str, str | int] | None = None,
) -> str:
    """Open the *body* of one message of a queue that came by any other way: a pipe, a bridge, a dump.

    Args:
        body: As it lay on the queue, also inside SNS's JSON.
        sealer: Opens.
        destination: Where it lay: ``sqs:`` and the name of the queue.
        attributes: Text of String, bytes of Binary, or attributes as the API has them; those that the policy binds are needed. Those that
            came encrypted are not given back: for these, receive with a client, or `open_records`.
        group: Its MessageGroupId, where the policy binds it.
        coordinates: Where it came from, for the audit event.

    Returns:
        The clear body.

    Raises:
        Refused: It will never be handed on; one audit event was made.
        KeyUnavailable: The key service did not answer. Keep the message; retrying may help.
        ConfigError: No policy speaks of *destination*.
    """
    message = {
        "Body": body,
        "MessageAttributes": {name: _attribute_of(value) for name, value in (attributes or {}).items()},
        "Attributes": {} if group is None else {"MessageGroupId": group},
    }
    place = Place.of(destination, sealer)
    if place.policy.consuming == "off":
        return body
    sorting = Sorting([message], place, sealer.auditor)
    for one in sorting:
        opened = sealer.open(
            one.data,
            destination=destination,
            headers=one.headers,
            ordering_key=one.ordering_key,
            coordinates=coordinates,
            reader=sorting.reader,
        )
        sorting.opened(one, opened)
    if sorting.refused:
        raise sorting.refused[0].refusal
    return str(message["Body"])


def _records_of(event: Mapping[str, Any]) -> list[dict[str, Any]]:
    records = event.get("Records")
    if not isinstance(records, list) or not all(
        isinstance(record, dict) and record.get("eventSource") == "aws:sqs" for record in records
    ):
        raise ConfigError("this is no event of SQS: each of its Records must have the eventSource 'aws:sqs'")
    if len({record["eventSourceARN"] for record in records}) > 1:
        raise ConfigError("an event of SQS brings records of one queue; these are of several")
    return records


def _raise_first(sorting: Sorting, left: Sequence[Turned]) -> None:
    """Raise why a message has to come again, if one has to."""
    if sorting.broken:
        raise sorting.broken[0].error
    if sorting.withheld:
        raise KeyUnavailable("the key service did not answer: all messages of this event have to come again")
    if left:
        raise left[0].refusal


def _message_of(record: Mapping[str, Any]) -> dict[str, Any]:
    """Write *record* as ReceiveMessage would."""
    attributes = record.get("messageAttributes") or {}
    message = {
        "MessageId": record["messageId"],
        "Body": record.get("body", ""),
        "Attributes": record.get("attributes") or {},
        "MessageAttributes": {name: _api_attribute(value) for name, value in attributes.items()},
        _RECORD: record,
    }
    if "md5OfBody" in record:
        message["MD5OfBody"] = record["md5OfBody"]
    return message


def _api_attribute(value: Mapping[str, Any]) -> dict[str, Any]:
    attribute: dict[str, Any] = {"DataType": value.get("dataType", "")}
    if value.get("stringValue") is not None:
        attribute["StringValue"] = value["stringValue"]
    if value.get("binaryValue") is not None:
        with contextlib.suppress(
            ValueError
        ):  # then it has none, and where it is bound the message does not open
            attribute["BinaryValue"] = binascii.a2b_base64(value["binaryValue"].encode(), strict_mode=True)
    return attribute


def _attribute_of(value: HeaderValue | Mapping[str, Any]) -> Mapping[str, Any]:
    if isinstance(value, Mapping):
        return value
    return (
        {"DataType": "String", "StringValue": value}
        if isinstance(value, str)
        else {"DataType": "Binary", "BinaryValue": value}
    )


def _filled(message: Mapping[str, Any]) -> dict[str, Any]:
    record = {**message[_RECORD], "body": message["Body"]}
    if "MD5OfBody" in message:
        record["md5OfBody"] = message["MD5OfBody"]
    present = record.get("messageAttributes") or {}
    inside = {
        name: _record_attribute(value)
        for name, value in message["MessageAttributes"].items()
        if name not in present
    }
    if inside:
        record["messageAttributes"] = {**present, **inside}
    return record


def _record_attribute(attribute: Mapping[str, Any]) -> dict[str, Any]:
    """Write an attribute as Lambda has it. Source: AWS Lambda Developer Guide, Using Lambda with Amazon SQS, example event."""
    written = {"stringListValues": [], "binaryListValues": [], "dataType": attribute["DataType"]}
    if "StringValue" in attribute:
        return {"stringValue": attribute["StringValue"], **written}
    return {"binaryValue": binascii.b2a_base64(attribute["BinaryValue"], newline=False).decode(), **written}


def _never(_: float) -> None:
    """Pause not at all: nothing here is waited for."""
