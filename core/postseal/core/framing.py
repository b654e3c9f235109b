"""Headers that are encrypted with the body: the frame that both travel in, inside the ciphertext.

A frame is what AES-GCM encrypts in the place of the body, where the header says so (`Header.framed`). Its names are all that the sender's
policy encrypts, also those that the message did not have; so nobody can add one beside it unseen.

Source: SPEC.md 3.5.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Final, NamedTuple

from postseal.core.context import (
    Headers,
    HeaderValue,
    byte_head,
    encoded_headers,
    encoded_values,
    fold,
    pairs_of,
)
from postseal.core.wire import MAX_BOUND, MAX_TEXT, Reader

__all__ = ["Frame", "frame", "stands_beside", "unframe"]

_ARRAY: Final = 4
_START: Final = b"\x82"
_MAX_VALUES: Final = 1024
"""Values of one name."""


class Frame(NamedTuple):
    """What a frame holds. *names* are all that were encrypted; *headers* pairs of name and value, in the order of names."""

    names: tuple[str, ...]
    headers: tuple[tuple[str, HeaderValue], ...]
    body: bytes


def frame(names: tuple[str, ...], headers: Headers | None, body: bytes) -> bytes:
    """Put those of *headers* that are in *names* and *body* into a frame.

    Args:
        names: Ascending by their UTF-8, none twice.
        headers: All of the message; the others are passed over.
        body: The clear body.

    Raises:
        TypeError: A value has no canonical form; there are more than 1,024 of one name; a name could be taken for one of *names*.
    """
    values = encoded_values(names, headers)
    for name, encoded in values.items():
        if len(encoded) > _MAX_VALUES:
            raise TypeError(
                f"header {name!r} has {len(encoded):,} values; at most {_MAX_VALUES:,} can be encrypted"
            )
    return b"".join((_START, encoded_headers(values), byte_head(len(body)), body))


def unframe(data: bytes) -> Frame:
    """Take a frame apart, strictly.

    Raises:
        Refused: *malformed*: it is not exactly of SPEC.md 3.5.
    """
    reader = Reader(data, 0, len(data), "frame")
    reader.expect(_ARRAY, 2)
    count = reader.take(_ARRAY)
    if not 1 <= count <= MAX_BOUND:
        reader.malformed(f"{count} encrypted headers; 1 to {MAX_BOUND} may be")
    names: list[str] = []
    headers: list[tuple[str, HeaderValue]] = []
    for _ in range(count):
        reader.expect(_ARRAY, 2)
        name = reader.text(1, MAX_TEXT)
        names.append(name)
        values = reader.take(_ARRAY)
        if values > _MAX_VALUES:
            reader.malformed(f"{values} values of an encrypted header; at most {_MAX_VALUES} may be")
        headers += [(name, reader.value()) for _ in range(values)]
    if any(a.encode() >= b.encode() for a, b in pairwise(names)):
        reader.malformed("encrypted headers are out of order or repeated")
    body = reader.byte_string(0, reader.end)
    reader.finish()
    return Frame(tuple(names), tuple(headers), body)


def stands_beside(names: Collection[str], headers: Headers | None) -> str | None:
    """Return one of the encrypted *names* that a header beside the envelope has, or could be taken for; None where there is none."""
    if headers is None or not names:
        return None
    folded = {fold(name): name for name in names}
    return next((folded[key] for name, _ in pairs_of(headers) if (key := fold(name)) in folded), None)
