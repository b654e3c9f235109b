"""Headers that travel in the envelope: how they are taken out of a message, and put back as their consumer would have got them. Pure.

In the envelope a value has the form in which it would be bound (SPEC.md 5.3): that keeps its type, so nothing else has to.
"""

from __future__ import annotations

import copy
import struct
from collections.abc import Collection, Mapping
from datetime import UTC, datetime, timedelta
from decimal import Decimal, InvalidOperation
from typing import Any, Final

from postseal.core import Opened, Refused
from postseal.core.context import HeaderValue
from postseal.core.wire import Reader

__all__ = ["put_back", "without"]

_ARRAY: Final = 4
_MAP: Final = 5
_DEEPEST: Final = 32
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def without(properties: Any, names: Collection[str]) -> Any:
    """Return *properties* but for the headers of *names*: a copy, where there are any."""
    headers = None if properties is None else properties.headers
    if not isinstance(headers, Mapping) or not any(name in headers for name in names):
        return properties
    rest = {name: value for name, value in headers.items() if name not in names}
    properties = copy.copy(properties)
    properties.headers = rest or None
    return properties


def put_back(properties: Any, opened: Opened, *, aware: bool) -> None:
    """Let *properties* have the headers that came encrypted.

    Args:
        properties: As received.
        opened: The message.
        aware: Whether the client has times with a time zone; pika has them without, in UTC.
    """
    if opened.headers:
        inside = {name: _restored(value, aware) for name, value in opened.headers}
        properties.headers = {**(properties.headers or {}), **inside}


def _restored(form: HeaderValue, aware: bool, depth: int = 0) -> Any:  # noqa: PLR0911 - one for each type
    """Return the value that has this *form*. Bytes that are no form come back as they are: somebody sealed without this adapter."""
    if not isinstance(form, bytes) or depth > _DEEPEST:
        return form
    kind, rest = form[:1], form[1:]
    try:
        if kind == b"x":
            return rest
        if kind == b"d":
            return struct.unpack(">d", rest)[0]
        if kind == b"D":
            return Decimal(rest.decode())
        if kind == b"T":
            return _time(rest, aware)
        if kind in (b"A", b"F"):
            return _nested(rest, kind, aware, depth + 1)
    except (InvalidOperation, OverflowError, Refused, ValueError, struct.error):
        pass
    return form


def _time(digits: bytes, aware: bool) -> datetime:
    seconds, _, micros = digits.partition(b".")
    at = _EPOCH + timedelta(seconds=int(seconds), microseconds=int(micros))
    return at if aware else at.replace(tzinfo=None)


def _nested(data: bytes, kind: bytes, aware: bool, depth: int) -> list[Any] | dict[str, Any]:
    reader = Reader(data, 0, len(data), "header")
    if kind == b"A":
        found: list[Any] | dict[str, Any] = [
            _restored(reader.value(), aware, depth) for _ in range(reader.take(_ARRAY))
        ]
    else:
        found = {
            reader.text(0, reader.end): _restored(reader.value(), aware, depth)
            for _ in range(reader.take(_MAP))
        }
    reader.finish()
    return found
