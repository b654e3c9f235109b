"""Copies of received messages, to be kept elsewhere as they came. Pure."""

from __future__ import annotations

from typing import Any, Final
from uuid import UUID

from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType, AmqpMessageProperties

from postseal.servicebus._message import fields_of, normal
from postseal.servicebus._sdk import encode_sections

__all__ = ["VERDICT_PROPERTY", "copy_of"]

VERDICT_PROPERTY: Final = "postseal-verdict"
"""Application property that names, on a copy in the quarantine, why the message was refused."""
_LEFT_OUT: Final = (b"DeadLetterReason", b"DeadLetterErrorDescription", VERDICT_PROPERTY.encode())
_SIMPLE: Final = (bool, int, float, str, bytes, UUID, type(None))
"""Types of values that application properties may have. Source: AMQP 1.0 3.2.5."""


def copy_of(raw: AmqpAnnotatedMessage, verdict: str | None) -> AmqpAnnotatedMessage:
    """Copy a received message for the quarantine, as it came: sealed or not.

    Left out is what the broker set, which would be refused or end the copy's life, and what the client can receive and not send. A body
    that it cannot send, which no protected sender makes, goes as text that shows it: nobody can make a message that cannot be kept.

    Args:
        raw: As it was received.
        verdict: Why it was refused; None where it goes back to where it came from.
    """
    properties = fields_of(raw.properties)
    properties["creation_time"] = properties["absolute_expiry_time"] = None
    application: dict[Any, Any] = {
        name: _sendable(value)
        for name, value in _map(raw.application_properties).items()
        if isinstance(name, bytes) and name not in _LEFT_OUT and isinstance(value, _SIMPLE)
    }
    if verdict is not None:
        application[VERDICT_PROPERTY] = verdict
    key = _map(raw.annotations).get(b"x-opt-partition-key")
    parts: dict[str, Any] = {
        "properties": properties,
        "application_properties": application or None,
        "annotations": None if key is None else {b"x-opt-partition-key": key},
    }
    if raw.body_type is AmqpMessageBodyType.DATA:
        body: dict[str, Any] = {"data_body": list(raw.body)}
    elif raw.body_type is AmqpMessageBodyType.SEQUENCE:
        body = {"sequence_body": list(raw.body)}
    else:
        body = {"value_body": raw.body}
    copy = AmqpAnnotatedMessage(**body, **parts)
    try:
        encode_sections(copy)
    except Exception:  # noqa: BLE001 - the encoder promises nothing about what it cannot encode
        told = (
            AmqpMessageProperties(message_id=raw_id.decode("utf-8", "replace"))
            if isinstance(raw_id := properties.get("message_id"), bytes)
            else None
        )
        copy = AmqpAnnotatedMessage(
            data_body=repr(body).encode("utf-8", "replace"),
            properties=told,
            application_properties={VERDICT_PROPERTY: verdict or ""},
        )
    return copy


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
