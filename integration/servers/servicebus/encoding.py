"""AMQP 1.0 as bytes: cut a message into its sections, and write the few values that a broker adds.

A broker hands on what it was given, so sections are cut and joined as they are, never decoded and encoded again.

Source: AMQP 1.0, part 1 (types), 1.6 (encodings); part 3, 3.2 (sections).
"""

import struct
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime
from typing import Any

from proton import Data, Described, symbol

HEADER, DELIVERY_ANNOTATIONS, ANNOTATIONS, PROPERTIES, APPLICATION_PROPERTIES = range(0x70, 0x75)
DATA, SEQUENCE, VALUE, FOOTER = range(0x75, 0x79)

# Bytes of a value after its constructor, by the constructor's first half byte. 1.2: fixed, variable, compound, array.
_FIXED = {0x4: 0, 0x5: 1, 0x6: 2, 0x7: 4, 0x8: 8, 0x9: 16}
_LENGTH_OF_ONE = {0xA, 0xC, 0xE}
_LENGTH_OF_FOUR = {0xB, 0xD, 0xF}


class Malformed(ValueError):
    """These bytes are no AMQP."""


def end_of(encoded: bytes, at: int) -> int:
    """Find where the value ends that begins at *at*."""
    try:
        constructor = encoded[at]
        if constructor == 0:
            return end_of(encoded, end_of(encoded, at + 1))
        kind = constructor >> 4
        if kind in _FIXED:
            end = at + 1 + _FIXED[kind]
        elif kind in _LENGTH_OF_ONE:
            end = at + 2 + encoded[at + 1]
        elif kind in _LENGTH_OF_FOUR:
            end = at + 5 + int(struct.unpack_from(">I", encoded, at + 1)[0])
        else:
            raise Malformed(f"no constructor: {constructor:#x}")
    except (IndexError, struct.error, RecursionError) as error:
        raise Malformed("cut off") from error
    if end > len(encoded):
        raise Malformed("cut off")
    return end


def sections(message: bytes) -> Iterator[tuple[int, bytes]]:
    """Cut a message into sections: each one's code and its bytes, from its constructor to its end.

    Raises:
        Malformed: It is no message.
    """
    at, last = 0, HEADER
    while at < len(message):
        if message[at] != 0:
            raise Malformed("no section")
        end = end_of(message, at)
        described = end_of(message, at + 1)
        code = message[described - 1]
        # A section's descriptor is its code, a ulong of one or eight bytes.
        if message[at + 1 : described - 1] not in (b"\x53", b"\x80" + bytes(7)) or not last <= code <= FOOTER:
            raise Malformed("no section, or not in its place")
        yield code, message[at:end]
        at, last = end, code


def body_of(section: bytes) -> bytes:
    """Give the value of a section without its descriptor, as encoded."""
    return section[end_of(section, 1) :]


def binary(section: bytes) -> bytes:
    """Read a section of data."""
    body = body_of(section)
    return body[2:] if body[0] == 0xA0 else body[5:]


def decoded(section: bytes) -> Any:
    """Decode a section with proton."""
    data = Data()
    data.decode(section)
    data.rewind()
    data.next()
    value = data.get_object()
    return value.value if isinstance(value, Described) else value


def pairs(section: bytes) -> Iterator[tuple[bytes, bytes]]:
    """Cut a section that is a map into keys and values, as encoded."""
    body = body_of(section)
    if body[0] == 0xC1:
        count, at = body[2], 3
    elif body[0] == 0xD1:
        count, at = struct.unpack_from(">I", body, 5)[0], 9
    else:
        raise Malformed("no map")
    for _ in range(count // 2):
        value = end_of(body, at)
        end = end_of(body, value)
        yield body[at:value], body[value:end]
        at = end


def section_of_map(code: int, encoded: Mapping[bytes, bytes]) -> bytes:
    """Write a section that is a map of values, each encoded already; nothing where it would be empty."""
    if not encoded:
        return b""
    content = b"".join(key + value for key, value in encoded.items())
    return struct.pack(">BBBBII", 0, 0x53, code, 0xD1, len(content) + 4, 2 * len(encoded)) + content


def header(*, durable: bool, priority: int, ttl: float | None, delivery_count: int) -> bytes:
    """Write a header with each of its fields: left out, a count of 0 would be read as none at all."""
    fields = b"\x41" if durable else b"\x42"
    fields += struct.pack(">BB", 0x50, priority)
    # Milliseconds in four bytes: 49 days. Longer is written as none, for ever.
    milliseconds = 2**32 if ttl is None else int(ttl * 1000)
    fields += struct.pack(">BI", 0x70, milliseconds) if milliseconds < 2**32 else b"\x40"
    fields += b"\x42" + struct.pack(">BI", 0x70, delivery_count)
    return struct.pack(">BBBBBB", 0, 0x53, HEADER, 0xC0, len(fields) + 1, 5) + fields


def symbolic(text: str) -> bytes:
    """Write a symbol of up to 255 characters."""
    return struct.pack(">BB", 0xA3, len(text)) + text.encode("ascii")


def string(text: str) -> bytes:
    """Write a string."""
    raw = text.encode()
    return struct.pack(">BI", 0xB1, len(raw)) + raw


def integer(number: int) -> bytes:
    """Write an int of four bytes."""
    return struct.pack(">Bi", 0x71, number)


def long(number: int) -> bytes:
    """Write a long of eight bytes."""
    return struct.pack(">Bq", 0x81, number)


def timestamp(moment: float) -> bytes:
    """Write a time, given in seconds since 1970, in milliseconds."""
    return struct.pack(">Bq", 0x83, int(moment * 1000))


def seconds(value: Any) -> float | None:
    """Read a time, as proton decodes it, in seconds since 1970."""
    if isinstance(value, datetime):
        return value.replace(tzinfo=value.tzinfo or UTC).timestamp()
    return None if value is None else int(value) / 1000


def text(value: Any) -> str | None:
    """Read a string, symbol or binary, as proton decodes it."""
    if value is None:
        return None
    if isinstance(value, (bytes, memoryview)):
        return bytes(value).decode(errors="replace")
    return str(value)


def fields_of(section: bytes) -> list[Any]:
    """Decode a section that is a list."""
    value = decoded(section)
    return list(value) if value is not None else []


def annotations_of(section: bytes) -> dict[str, Any]:
    """Decode a section that is a map, with keys as text."""
    value = decoded(section) or {}
    return {str(symbol(key)) if isinstance(key, str) else str(key): found for key, found in value.items()}
