"""Bodies as bytes: one DATA section as it is, all else as the sections of AMQP that it would have been.

What is not one DATA section of a plain content type is written as AMQP 1.0 sections, properties with the content type first, and marked
by a content type of our own. That is in the envelope, authenticated, so a body is never taken for what it is not.
"""

from __future__ import annotations

from typing import Any, Final

from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageBodyType, AmqpMessageProperties

from postseal.core.wire import MAX_TEXT, looks_sealed
from postseal.servicebus._sdk import decode_sections, encode_sections

__all__ = ["SECTIONS", "pack", "unpack"]

SECTIONS: Final = "application/x-postseal-amqp-sections"
"""Content type, in the envelope, of a body that is sections of AMQP."""


def pack(raw: AmqpAnnotatedMessage) -> tuple[bytes, str | None]:
    """Return the body of *raw* as bytes to be sealed, and the content type to seal it under.

    Raises:
        TypeError, ValueError: The body holds what the client cannot send; the text does not show it.
    """
    content_type = None if raw.properties is None else raw.properties.content_type
    if raw.body_type is AmqpMessageBodyType.DATA:
        sections = list(raw.body)
        for section in sections:
            if not isinstance(section, (bytes, bytearray, memoryview)):
                raise TypeError(f"a section of a data body is bytes or text, not {type(section).__name__}")
        if len(sections) == 1:
            body = bytes(sections[0])
            if looks_sealed(body):
                return body, None  # it will be let pass as it is, or refused
            named = _plain(content_type)
            if content_type is None or named is not None:
                return body, named
        kept: dict[str, Any] = {"data_body": sections}
    elif raw.body_type is AmqpMessageBodyType.SEQUENCE:
        kept = {"sequence_body": list(raw.body)}
    else:
        kept = {"value_body": raw.body}
    properties = None if content_type is None else AmqpMessageProperties(content_type=content_type)
    try:
        return encode_sections(AmqpAnnotatedMessage(**kept, properties=properties)), SECTIONS
    except Exception as error:  # noqa: BLE001 - the encoder promises nothing about what it cannot encode
        # Not `from` that error: its text quotes the body.
        raise ValueError(
            f"the body holds what azure-servicebus cannot send ({type(error).__name__})"
        ) from None


def _plain(content_type: Any) -> str | None:
    """Return *content_type* where an envelope can carry it and it comes back as it was; None where it cannot."""
    if isinstance(content_type, bytes):
        content_type = content_type.decode("utf-8", "replace")
    if not isinstance(content_type, str) or content_type == SECTIONS:
        return None
    fits = 1 <= len(content_type) <= MAX_TEXT and content_type.isascii() and content_type.isprintable()
    return content_type if fits else None


def unpack(body: bytes, content_type: str | None) -> tuple[dict[str, Any], Any]:
    """Return the argument that gives an `AmqpAnnotatedMessage` this body, and the content type as a client receives it.

    Raises:
        ValueError: It is marked as sections, and is none.
    """
    if content_type != SECTIONS:
        return {"data_body": [body]}, None if content_type is None else content_type.encode()
    try:
        message = decode_sections(body)
    except Exception:  # noqa: BLE001 - the decoder promises nothing about other bytes
        # Not `from` that error: its text may quote the body.
        raise ValueError("the opened body is no section of AMQP") from None
    named = None if message.properties is None else message.properties.content_type
    if message.data:
        return {"data_body": list(message.data)}, named
    if message.sequence:
        return {"sequence_body": list(message.sequence)}, named
    return {"value_body": message.value}, named
