"""Copies of received messages, to be kept elsewhere as they came. Pure."""

from __future__ import annotations

from copy import copy
from typing import Any, Final
from uuid import UUID

from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType, AmqpMessageProperties

from postseal.servicebus._message import fields_of, normal
from postseal.servicebus._sdk import encode_sections, put_raw

__all__ = ["VERDICT_PROPERTY", "as_it_came", "copy_of", "keep_as_it_came", "shown"]

VERDICT_PROPERTY: Final = "postseal-verdict"
"""Application property that names, on a copy in the quarantine, why the message was refused."""
_DESTINATION_PROPERTY: Final = "postseal-destination"
"""Names, likewise, where it lay."""
_LEFT_OUT: Final = (
    b"DeadLetterReason",
    b"DeadLetterErrorDescription",
    VERDICT_PROPERTY.encode(),
    _DESTINATION_PROPERTY.encode(),
)
_MOST_SHOWN: Final = 65_536
"""Characters. Source: 256 KiB is the smallest limit of a message, Microsoft Learn, Service Bus quotas."""
_SIMPLE: Final = (bool, int, float, str, bytes, UUID, type(None))
"""Types of values that application properties may have. Source: AMQP 1.0 3.2.5."""


def keep_as_it_came(message: Any) -> None:
    """Have *message*, before it shows its clear body, remember how it lay at the broker. It is changed in place: what shows is another."""
    came = message._postseal_came = message.raw_amqp_message  # noqa: SLF001 - ours, and not the client library's
    shows = copy(came)
    shows.properties = copy(came.properties)
    put_raw(message, shows)


def as_it_came(message: Any) -> AmqpAnnotatedMessage:
    """Return *message* as it lay at the broker, also where it shows its clear body by now."""
    came: AmqpAnnotatedMessage = getattr(message, "_postseal_came", None) or message.raw_amqp_message
    return came


def copy_of(
    raw: AmqpAnnotatedMessage, verdict: str | None, destination: str = "", *, body: bytes | None = None
) -> AmqpAnnotatedMessage:
    """Copy a received message for the quarantine, as it came: sealed or not.

    Left out is what the broker set, which would be refused or end the copy's life, and what the client can receive and not send. A body
    that it cannot send, which no protected sender makes, goes as text that shows it: nobody can make a message that cannot be kept.

    Args:
        raw: As it was received.
        verdict: Why it was refused; None where it goes back to where it came from.
        destination: Where it lay.
        body: What is to be in the place of its body.
    """
    properties = fields_of(raw.properties)
    properties["creation_time"] = properties["absolute_expiry_time"] = None
    application: dict[Any, Any] = {
        name: _sendable(value)
        for name, value in _map(raw.application_properties).items()
        if isinstance(name, bytes) and name not in _LEFT_OUT and isinstance(value, _SIMPLE)
    }
    if verdict is not None:
        application |= _ours(verdict, destination)
    key = _map(raw.annotations).get(b"x-opt-partition-key")
    parts: dict[str, Any] = {
        "properties": properties,
        "application_properties": application or None,
        "annotations": None if key is None else {b"x-opt-partition-key": key},
    }
    try:
        made = AmqpAnnotatedMessage(**(_body_of(raw) if body is None else {"data_body": [body]}), **parts)
        encode_sections(made)
    except Exception:  # noqa: BLE001 - the encoder promises nothing about what it cannot encode
        return shown(raw, verdict, destination)
    return made


def _ours(verdict: str, destination: str) -> dict[Any, Any]:
    return {VERDICT_PROPERTY: verdict, _DESTINATION_PROPERTY: destination}


def shown(raw: AmqpAnnotatedMessage, verdict: str | None, destination: str = "") -> AmqpAnnotatedMessage:
    """Return a message with text that shows the body of *raw*, or how it begins, where there can be no copy."""
    raw_id = fields_of(raw.properties).get("message_id")
    told = (
        AmqpMessageProperties(message_id=raw_id.decode("utf-8", "replace"))
        if isinstance(raw_id, bytes)
        else None
    )
    return AmqpAnnotatedMessage(
        data_body=repr(_body_of(raw))[:_MOST_SHOWN].encode("utf-8", "replace"),
        properties=told,
        application_properties=_ours(verdict or "", destination),
    )


def _body_of(raw: AmqpAnnotatedMessage) -> dict[str, Any]:
    """Return the argument that gives a message the body of *raw*."""
    if raw.body_type is AmqpMessageBodyType.DATA:
        return {"data_body": list(raw.body)}
    if raw.body_type is AmqpMessageBodyType.SEQUENCE:
        return {"sequence_body": list(raw.body)}
    return {"value_body": raw.body}


def _sendable(value: Any) -> Any:
    """Return a received value so that it can be sent: other clients send what this one only receives."""
    if isinstance(value, int) and not isinstance(value, bool) and not -(2**31) <= value < 2**31:
        # As the client's own amqp_long_value writes it.
        return {"TYPE": "LONG" if value < 2**63 else "ULONG", "VALUE": value}
    if isinstance(value, bytes) and isinstance(normal(value), bytes):
        return {"TYPE": "BINARY", "VALUE": value}  # it would be decoded otherwise, and is no text
    return value


def _map(value: Any) -> dict[Any, Any]:
    return value if isinstance(value, dict) else {}
