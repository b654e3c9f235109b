"""What of an AMQP message is bound, and where its envelope rides: pure, without a client.

The envelope is the body. Properties and headers travel as they are; bound are exchange, routing key and content encoding, and those
headers and properties that the policy names. Headers that the policy encrypts travel in the envelope instead (`_inside`). The content type
travels in the envelope, too, and that is the one that a handler sees.

Source: AMQP 0-9-1, basic class and field tables; RabbitMQ, AMQP 0-9-1 errata; SPEC.md 5.
"""

from __future__ import annotations

import struct
from calendar import timegm
from collections.abc import Iterator, Mapping
from datetime import datetime
from decimal import Decimal
from typing import Any, Final, TypeAlias

from postseal.core import ConfigError, Policy, Verdict
from postseal.core.context import (
    Field,
    HeaderValue,
    byte_string,
    check_destination,
    fold,
    head,
    integer,
    text,
)

__all__ = [
    "EXCHANGE_HEADER",
    "KEY_HEADER",
    "VERDICT_HEADER",
    "Bound",
    "Table",
    "check_bound",
    "check_policy",
    "destination_of",
    "least_headers",
    "lies_at",
    "place_of",
    "quarantine_headers",
    "speaks_of_rabbitmq",
]

Table: TypeAlias = Mapping[str, Any]
"""Headers, as a client takes and gives them."""

VERDICT_HEADER: Final = "postseal-verdict"
"""Names, on a copy in the quarantine, why the message was refused."""
EXCHANGE_HEADER: Final = "postseal-exchange"
KEY_HEADER: Final = "postseal-routing-key"
"""Name, on a copy in the quarantine, how it was delivered."""

_SCHEME: Final = "rabbitmq:"
_DIRECT_REPLY: Final = "amq.rabbitmq.reply-to"
"""The broker puts another text in its place. Source: RabbitMQ, Direct Reply-to."""
_BINDABLE: Final = (
    "content_type",
    "content_encoding",
    "type",
    "message_id",
    "correlation_id",
    "reply_to",
    "app_id",
    "priority",
)
"""Properties that stay as they were sent."""
_CHANGING: Final = frozenset(
    {"CC", "BCC", "cluster_id", "delivery_mode", "expiration", "timestamp", "user_id"}
    | {"cluster-id", "delivery-mode", "user-id"}
)
"""Properties and headers that a broker sets, changes or takes away. Source: RabbitMQ, dead lettering, sender-selected distribution."""
_NAMES: Final = tuple(
    (Field(name), prop) for prop in _BINDABLE for name in dict.fromkeys((prop, prop.replace("_", "-")))
)
"""What a policy calls a property: as clients write it, or as the protocol does."""
_PROPERTIES: Final = _CHANGING | {str(name) for name, _ in _NAMES}
_FOLDED: Final = frozenset(map(fold, _PROPERTIES))
_DEEPEST: Final = 32
"""Tables within tables that are bound; deeper ones never open."""


# -- destinations ------------------------------------------------------------------------------------------------------


def destination_of(exchange: str, routing_key: str) -> str:
    """Return the destination of what is published to *exchange* with *routing_key*: ``rabbitmq:exchange/routing.key``.

    The default exchange has no name, so what is sent straight to a queue goes to ``rabbitmq:/queue``.

    Raises:
        ConfigError: The exchange has a ``/`` in its name, so that its destinations would be another's, too; or one is no plain text.
    """
    if not isinstance(exchange, str) or not isinstance(routing_key, str):
        raise ConfigError(
            f"exchange and routing key must be text, not {type(exchange).__name__} and {type(routing_key).__name__}"
        )
    if "/" in exchange:
        raise ConfigError(
            f"exchange {exchange!r} has a '/' in its name, so its messages cannot be told from those of exchange "
            f"{exchange.partition('/')[0]!r}: nothing can be sealed for it, or opened"
        )
    return check_destination(f"{_SCHEME}{exchange}/{routing_key}")


def lies_at(exchange: str, routing_key: str, queue: str) -> tuple[str, str]:
    """Return the exchange and the routing key under which a message is opened that *queue* delivered.

    As it was published; but what came through the default exchange lies at the queue itself. CC and BCC can name other queues there, and
    whoever may publish could have a message of one queue handed on by the consumer of another.

    Args:
        exchange: As the delivery says it.
        routing_key: Likewise.
        queue: From which it came; empty where that is not known.

    Source: RabbitMQ, sender-selected distribution; AMQP 0-9-1, 3.1.3.1 (every queue is bound to the default exchange by its name alone).
    """
    if exchange or not queue or queue in (routing_key, _DIRECT_REPLY):
        return exchange, routing_key
    return exchange, queue


def place_of(destination: str) -> tuple[str, str]:
    """Return the exchange and the routing key of *destination*.

    Raises:
        ConfigError: It has none.
    """
    exchange, slash, routing_key = destination.removeprefix(_SCHEME).partition("/")
    if not destination.startswith(_SCHEME) or not slash:
        raise ConfigError(
            f"{destination!r} is no destination of RabbitMQ: 'rabbitmq:exchange/routing.key', or 'rabbitmq:/queue'"
        )
    return exchange, routing_key


def speaks_of_rabbitmq(policy: Policy) -> bool:
    """Tell whether *policy* is for some destination of RabbitMQ."""
    return any(pattern.startswith(_SCHEME) for pattern in (*policy.destinations, *policy.accept_from))


def check_policy(policy: Policy) -> None:
    """See that RabbitMQ can do what *policy* says.

    Raises:
        ConfigError: It binds what does not stay as it was sent, it has a pattern that means nothing, or a quarantine of another broker.
    """
    for pattern in (*policy.destinations, *policy.accept_from):
        if pattern.startswith(_SCHEME) and "/" not in pattern and "*" not in pattern:
            queue = pattern.removeprefix(_SCHEME)
            raise ConfigError(
                f"policy {policy.name!r}: {pattern!r} is no destination of RabbitMQ; write 'rabbitmq:exchange/routing.key', or "
                f"'rabbitmq:/{queue}' for what is sent to the queue {queue!r} by the default exchange"
            )
    changing = [name for name in policy.bind_headers if name in _CHANGING or name.startswith("x-")]
    if changing:
        raise ConfigError(f"policy {policy.name!r}: bind_headers names {changing}, which brokers change")
    own = [name for name in policy.encrypt_headers if fold(name) in _FOLDED or name.lower().startswith("x-")]
    if own:
        raise ConfigError(
            f"policy {policy.name!r}: encrypt_headers names {own}, which are properties, or for the broker to read; "
            "headers of your own can be encrypted"
        )
    if policy.on_refused == "quarantine":
        place_of(policy.quarantine or "")


# -- what is bound -----------------------------------------------------------------------------------------------------


class Bound:
    """The headers and properties of a message, as they are bound: pairs of name and value, made when they are asked for.

    A property comes first, and as None where it is not set: a header of its name can then not take its place.

    Args:
        properties: As pika or aiormq has them.
        sent: Whether they are on their way to the broker, so that values are still to become what a consumer will get.
    """

    __slots__ = ("_properties", "_sent")

    def __init__(self, properties: Any, *, sent: bool) -> None:
        self._properties = properties
        self._sent = sent

    def __iter__(self) -> Iterator[tuple[str, HeaderValue]]:
        properties = self._properties
        for name, prop in _NAMES:
            yield name, _property(properties, prop)
        headers = None if properties is None else properties.headers
        if isinstance(headers, Mapping):
            for name, value in headers.items():
                yield name, _value(value, self._sent)


def check_bound(properties: Any, policy: Policy) -> None:
    """Refuse what the broker would change on the way, and the consumer then refuse.

    Raises:
        ConfigError: The policy binds ``reply_to``, and it is the broker's pseudo-queue.
    """
    if properties is None or properties.reply_to != _DIRECT_REPLY:
        return
    if not {"reply_to", "reply-to"}.isdisjoint(policy.bind_headers):
        raise ConfigError(
            f"policy {policy.name!r} binds reply_to, and the broker puts another text in the place of {_DIRECT_REPLY!r}"
        )


def _property(properties: Any, name: str) -> HeaderValue:
    if properties is None:
        return None
    if name == "type" and not hasattr(properties, "type"):
        name = "message_type"  # as aiormq calls it
    value: HeaderValue = getattr(properties, name)
    return None if value == "" else value  # aiormq does not send what is empty


def _value(value: Any, sent: bool, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each type
    """Bring a header's *value* to its one form; what has none is returned as it is, and refused where it is bound.

    Text, integers, booleans and None are themselves. All else becomes bytes that begin with the letter of its type, so that no two
    values of different types are bound as the same.

    Source: SPEC.md 5.3; AMQP 0-9-1 errata, field table types.
    """
    if value is None or isinstance(value, (str, int)):  # bool is an int
        return value
    if isinstance(value, (bytes, bytearray)):
        return b"x" + value
    if isinstance(value, float):
        # aiormq sends 32 bits.
        return b"d" + struct.pack(">d", _single(value) if sent else value)
    if isinstance(value, Decimal):
        return b"D" + _digits(value) if value.is_finite() else value
    if isinstance(value, datetime):
        # Whole seconds are sent, a naive one as UTC.
        return b"T%d.%06d" % (timegm(value.utctimetuple()), 0 if sent else value.microsecond)
    if depth < _DEEPEST and isinstance(value, (list, Mapping)):
        return _nested(value, sent, depth + 1)
    return value


def _nested(value: list[Any] | Mapping[Any, Any], sent: bool, depth: int) -> Any:
    """Encode a list or a table in deterministic CBOR, its values brought to their one form before. Source: SPEC.md 5.3."""
    try:
        if isinstance(value, list):
            return b"A" + head(4, len(value)) + b"".join(_item(each, sent, depth) for each in value)
        pairs = sorted((text(name), _item(each, sent, depth)) for name, each in value.items())
    except (AttributeError, OverflowError, TypeError, UnicodeEncodeError):
        return value
    return b"F" + head(5, len(pairs)) + b"".join(name + item for name, item in pairs)


def _item(value: Any, sent: bool, depth: int) -> bytes:
    form = _value(value, sent, depth)
    if form is None or form is True or form is False:
        return {None: b"\xf6", True: b"\xf5", False: b"\xf4"}[form]
    if isinstance(form, str):
        return text(form)
    if isinstance(form, int):
        return integer(form)
    if isinstance(form, bytes):
        return byte_string(form)
    raise TypeError


def _digits(value: Decimal) -> bytes:
    digits = f"{value:f}"
    if "." in digits:
        digits = digits.rstrip("0").rstrip(".")
    return b"0" if digits == "-0" else digits.encode()


def _single(value: float) -> float:
    try:
        (single,) = struct.unpack(">f", struct.pack(">f", value))
    except OverflowError:
        return value  # the client will say so
    return float(single)


# -- the quarantine ----------------------------------------------------------------------------------------------------


def quarantine_headers(
    headers: Table | None, verdict: Verdict, exchange: str, routing_key: str
) -> dict[str, Any]:
    """Return *headers* with ours: the verdict in one word, and how the message was delivered.

    No detail: whoever forges messages may read the quarantine. What an earlier quarantine, or a forger, wrote under our names is replaced;
    CC and BCC are left out, because the broker would send the copy to the queues that they name, in our name.
    """
    kept = {name: value for name, value in (headers or {}).items() if name not in ("CC", "BCC")}
    return kept | {VERDICT_HEADER: verdict.value, EXCHANGE_HEADER: exchange, KEY_HEADER: routing_key}


def least_headers(headers: Table) -> dict[str, Any]:
    """Return ours of `quarantine_headers` alone, for a message whose own cannot be written again.

    A client reads types that it does not write, or writes in more bytes; and a frame that was nearly full has no room for ours. Whoever can
    publish could else keep a message out of the quarantine, or have our connection closed for a frame that is too large.
    """
    return {name: headers[name] for name in (VERDICT_HEADER, EXCHANGE_HEADER, KEY_HEADER)}
