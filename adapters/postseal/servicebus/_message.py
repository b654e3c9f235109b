"""How an envelope rides in a Service Bus message: destinations, what is bound, what is handed on. Pure: no client, no sealer.

Source: OASIS AMQP 1.0, part 3 (message format); Microsoft Learn, AMQP 1.0 in Azure Service Bus protocol guide; SPEC.md 5.
"""

from __future__ import annotations

import calendar
import re
import struct
from collections.abc import Collection, Iterator, Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NamedTuple
from uuid import UUID

from azure.servicebus import ServiceBusMessage
from azure.servicebus.amqp import (
    AmqpAnnotatedMessage,
    AmqpMessageBodyType,
    AmqpMessageHeader,
    AmqpMessageProperties,
)

from postseal.core import ConfigError, Opened
from postseal.core.context import Field, HeaderValue, fold
from postseal.core.policy import Policy
from postseal.servicebus._bodies import pack, unpack
from postseal.servicebus._sdk import put_data, put_raw

__all__ = [
    "CONTENT_TYPE",
    "Draft",
    "Sealed",
    "beside_of",
    "bound_by",
    "destination_of",
    "draft_of",
    "envelope_of",
    "fields_of",
    "is_sub_queue",
    "normal",
    "raw_of",
    "reader_of",
    "show_opened",
]

CONTENT_TYPE: Final = "application/cose"
"""Of a sealed message, as it travels; that of the body is in the envelope. Source: RFC 9052 11.3.1 (media type)."""


# -- destinations ------------------------------------------------------------------------------------------------------

_PATH: Final = re.compile(
    r"(?P<name>.+?)(?:/subscriptions/(?P<subscription>[^/]+))?(?P<sub>(?:/\$transfer)?/\$deadletterqueue)?",
    re.IGNORECASE,
)


@lru_cache(maxsize=1024)
def destination_of(entity_path: str) -> str:
    """Return the destination of what lies at *entity_path*: ``servicebus:`` and the name of its queue or topic.

    A subscription and a dead-letter sub-queue have that of their topic or queue, because it is what the producer meant.
    Namespace and region are no part of it.

    Raises:
        ConfigError: It names nothing.
    """
    found = _PATH.fullmatch(entity_path)
    if found is None:
        raise ConfigError(f"not the path of a queue, topic or subscription: {entity_path!r}")
    return f"servicebus:{found['name']}"


def is_sub_queue(entity_path: str) -> bool:
    """Tell whether *entity_path* is a dead-letter sub-queue, from which nothing can be dead-lettered again."""
    found = _PATH.fullmatch(entity_path)
    return found is not None and found["sub"] is not None


def reader_of(entity_path: str) -> str:
    """Return who reads at *entity_path*, to the ledger: the subscription, its dead letters too; of a queue, nobody in particular."""
    found = _PATH.fullmatch(entity_path)
    subscription = None if found is None else found["subscription"]
    return "" if subscription is None else subscription.lower()


# -- what is bound -----------------------------------------------------------------------------------------------------

_FIELDS: Final = {
    "message-id": "message_id",
    "user-id": "user_id",
    "to": "to",
    "subject": "subject",
    "label": "subject",
    "reply-to": "reply_to",
    "correlation-id": "correlation_id",
    "content-type": "content_type",
    "content-encoding": "content_encoding",
    "session-id": "group_id",
    "group-id": "group_id",
    "group-sequence": "group_sequence",
    "reply-to-session-id": "reply_to_group_id",
    "reply-to-group-id": "reply_to_group_id",
}
"""Properties of AMQP by the names that policies use, with ``_`` for ``-`` too. Source: AMQP 1.0 3.2.4, and the client's names."""
_CHANGING: Final = frozenset(
    {
        "creation-time",
        "absolute-expiry-time",
        "time-to-live",
        "delivery-count",
        "DeadLetterReason",
        "DeadLetterErrorDescription",
        "Diagnostic-Id",
    }
)
"""What the broker, or tracing, changes. Source: field-tested against azure-servicebus 7.15; AMQP protocol guide, message annotations."""

_DOUBLE: Final = struct.Struct(">d")
_UUID_SIZE: Final = 16
_FOLDED: Final = frozenset(map(fold, _FIELDS))

Bound = tuple[tuple[str, str | None], ...]
"""Names that a policy binds, each with the field of AMQP's properties that it means; None for an application property."""


@lru_cache(maxsize=256)
def bound_by(policy: Policy) -> Bound:
    """Return what *policy* binds beside a body.

    Raises:
        ConfigError: It names something that changes on the way.
    """
    changing = [
        name for name in policy.bind_headers if name in _CHANGING or name.replace("_", "-") in _CHANGING
    ]
    if changing:
        raise ConfigError(
            f"policy {policy.name!r}: bind_headers names {changing}, which Service Bus changes on the way"
        )
    own = [
        name
        for name in policy.encrypt_headers
        if fold(name.replace("_", "-")) in _FOLDED or name in _CHANGING
    ]
    if own:
        raise ConfigError(
            f"policy {policy.name!r}: encrypt_headers names {own}, which are properties of Service Bus; "
            "application properties can be encrypted"
        )
    return tuple((name, _FIELDS.get(name.replace("_", "-"))) for name in policy.bind_headers)


def beside_of(
    fields: Mapping[str, Any], application: Mapping[Any, Any] | None, policy: Policy
) -> dict[str, Any]:
    """Return what `Sealer.seal` and `Sealer.open` want to know of a message besides its body.

    Args:
        fields: Of AMQP's own properties, as they travel.
        application: The application properties.
        policy: The policy in force.

    Raises:
        TypeError: A bound property stands there twice, as text and as bytes.
    """
    beside: dict[str, Any] = {}
    bound = bound_by(policy)
    if bound or application:
        beside["headers"] = _Headers(_bound_values(fields, application or {}, bound), application or {})
    if (encoding := fields.get("content_encoding")) is not None:
        beside["content_encoding"] = _text(encoding)
    if policy.bind_ordering_key and (session := fields.get("group_id")) is not None:
        beside["ordering_key"] = _text(session).encode("utf-8", "surrogateescape")
    return beside


class _Headers:
    """What is bound, and all other application properties: made into pairs when they are asked for."""

    __slots__ = ("_application", "_bound")

    def __init__(self, bound: Mapping[str, HeaderValue], application: Mapping[Any, Any]) -> None:
        self._bound = bound
        self._application = application

    def __iter__(self) -> Iterator[tuple[str, HeaderValue]]:
        yield from self._bound.items()
        for key, value in self._application.items():
            name = _name(key)
            # One that has the name of a field of AMQP's own cannot stand in for it.
            if name is not None and name not in self._bound and name.replace("_", "-") not in _FIELDS:
                yield name, normal(value)


def _name(key: object) -> str | None:
    """Return the name of an application property, which comes as bytes; None where it is none."""
    try:
        return key.decode() if isinstance(key, bytes) else key if isinstance(key, str) else None
    except UnicodeDecodeError:
        return None


def _without(application: Mapping[Any, Any] | None, names: Collection[str]) -> dict[Any, Any] | None:
    """Return a copy of *application* but for the properties of *names*."""
    if application is None:
        return None
    return (
        {key: value for key, value in application.items() if _name(key) not in names}
        if names
        else dict(application)
    )


def _put_back(application: Mapping[Any, Any] | None, opened: Opened) -> dict[Any, Any]:
    """Return *application* and the properties that came encrypted, in the form in which the client hands out all: text as bytes."""
    return {**(application or {}), **{name.encode(): _as_received(value) for name, value in opened.headers}}


def _as_received(value: HeaderValue) -> Any:
    if isinstance(value, str):
        return value.encode()
    if not isinstance(value, bytes):
        return value
    kind, rest = value[:1], value[1:]
    if kind == b"\x01" and len(rest) == _DOUBLE.size:
        return _DOUBLE.unpack(rest)[0]
    if kind == b"\x02" and len(rest) == _UUID_SIZE:
        return UUID(bytes=rest)
    # Bytes without a mark were sealed by somebody without this adapter.
    return rest if kind == b"\x00" else value


def _bound_values(
    fields: Mapping[str, Any], application: Mapping[Any, Any], bound: Bound
) -> dict[str, HeaderValue]:
    values: dict[str, HeaderValue] = {}
    for name, field in bound:
        if field is not None:
            if (value := fields.get(field)) is not None:
                values[Field(name)] = normal(value)
            continue
        keys = [key for key in (name, name.encode()) if key in application]
        if len(keys) > 1:
            raise TypeError(
                f"application property {name!r} is bound and stands there twice, as str and as bytes"
            )
        if keys:
            values[name] = normal(application[keys[0]])
    return values


def normal(value: Any) -> HeaderValue:
    """Return *value* in the one form that it has before sending and after receiving.

    Text comes back as bytes, times come back as milliseconds. What the core has no form for, and bytes that are no text, are
    marked by a first byte of their kind.
    """
    if value is None or isinstance(value, (bool, int, str)):
        return value
    if isinstance(value, (bytes, bytearray, memoryview)):
        return _text_or_marked(bytes(value))
    if isinstance(value, float):
        return b"\x01" + _DOUBLE.pack(value)
    if isinstance(value, UUID):
        return b"\x02" + value.bytes
    if isinstance(value, datetime):
        # As the client does it. Source: azure-servicebus 7.15, _pyamqp/_encode.py, encode_timestamp.
        return int(calendar.timegm(value.utctimetuple()) * 1000 + value.microsecond / 1000)
    return value  # type: ignore[no-any-return]  # the core says what is wrong with it


def _text_or_marked(data: bytes) -> HeaderValue:
    try:
        return data.decode()
    except UnicodeDecodeError:
        return b"\x00" + data


def _text(value: str | bytes) -> str:
    return value if isinstance(value, str) else value.decode("utf-8", "surrogateescape")


# -- outgoing ----------------------------------------------------------------------------------------------------------


class Sealed(AmqpAnnotatedMessage):
    """A message that the adapter sealed, or lets pass as it came. Only the adapter makes one."""

    made_by: object
    """Whose: a sender takes only its own."""
    draft: Draft | None = None
    """What is yet to be sealed, where this only keeps its place in a batch."""


class Draft(NamedTuple):
    """A message to be sealed, taken apart; it shares nothing with the caller's that anyone could change."""

    parts: dict[str, Any]
    """Arguments of the message to be made, but for its body."""
    body: bytes
    content_type: str | None
    beside: dict[str, Any]

    def finished(self, envelope: bytes, made_by: object) -> Sealed:
        """Make the message that travels."""
        message = Sealed(data_body=envelope, **self.parts)
        message.made_by = made_by
        return message


def raw_of(message: Any) -> AmqpAnnotatedMessage:
    """Return the AMQP message that *message* is or has.

    Raises:
        TypeError: It is none that a sender takes.
    """
    if isinstance(message, ServiceBusMessage):
        return message.raw_amqp_message
    if isinstance(message, AmqpAnnotatedMessage):
        return message
    if isinstance(message, Mapping):
        return ServiceBusMessage(**message).raw_amqp_message
    raise TypeError(
        "Only AmqpAnnotatedMessage, ServiceBusMessage instances or Mappings representing messages are supported. "
        f"Received instead: {type(message).__name__}"
    )


def draft_of(raw: AmqpAnnotatedMessage, policy: Policy) -> Draft:
    """Take *raw* apart, to be sealed as *policy* says. It stays as it is.

    Raises:
        TypeError, ValueError: Something in it cannot be sent, or not be bound.
    """
    body, content_type = pack(raw)
    properties = fields_of(raw.properties)
    properties["content_type"] = CONTENT_TYPE
    header = fields_of(raw.header)
    parts = {
        "header": None if _is_empty(header) else header,
        "footer": _copied(raw.footer),
        "properties": properties,
        "application_properties": _without(raw.application_properties, policy.taken_headers),
        "annotations": _copied(raw.annotations),
        "delivery_annotations": _copied(raw.delivery_annotations),
    }
    return Draft(parts, body, content_type, beside_of(properties, raw.application_properties, policy))


def fields_of(section: AmqpMessageProperties | AmqpMessageHeader | None) -> dict[str, Any]:
    """Return a copy of the fields of AMQP's properties or header; a message is made from such, too."""
    return {} if section is None else dict(vars(section))


def _is_empty(fields: Mapping[str, Any]) -> bool:
    return all(value is None for value in fields.values())


def _copied(mapping: Mapping[Any, Any] | None) -> dict[Any, Any] | None:
    return None if mapping is None else dict(mapping)


# -- incoming ----------------------------------------------------------------------------------------------------------


def envelope_of(raw: AmqpAnnotatedMessage) -> bytes:
    """Return what is to be opened in *raw*: its body, where that is bytes; else nothing, which is no envelope."""
    body = raw.body
    if raw.body_type is AmqpMessageBodyType.DATA:
        sections = list(body)  # as whoever sent it wrote them: of any type
        return b"".join(sections) if all(isinstance(s, (bytes, memoryview)) for s in sections) else b""
    return body if raw.body_type is AmqpMessageBodyType.VALUE and isinstance(body, bytes) else b""


def show_opened(message: Any, opened: Opened) -> None:
    """Have a received *message* show the clear body and its content type in the place of the sealed.

    Raises:
        ValueError: What was sealed is no body.
    """
    raw: AmqpAnnotatedMessage = message.raw_amqp_message
    body, content_type = unpack(opened.body, opened.content_type)
    if raw.body_type is AmqpMessageBodyType.DATA and "data_body" in body:
        put_data(raw, body["data_body"])  # the common case: making a message anew costs more than opening it
    else:
        beside: dict[str, Any] = {
            "header": raw.header,
            "footer": raw.footer,
            "properties": raw.properties,
            "application_properties": raw.application_properties,
            "annotations": raw.annotations,
            "delivery_annotations": raw.delivery_annotations,
        }
        raw = AmqpAnnotatedMessage(**body, **beside)
        put_raw(message, raw)
    if opened.headers:
        raw.application_properties = _put_back(raw.application_properties, opened)
    properties = raw.properties or AmqpMessageProperties()
    properties.content_type = content_type
    shown: Any = (
        None if _is_empty(vars(properties)) else properties
    )  # as it was before a content type was set
    raw.properties = shown
