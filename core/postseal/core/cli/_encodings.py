"""Finds the envelope in what people paste: raw bytes, base64 of either alphabet, hex."""

from __future__ import annotations

import base64
import binascii
import re
from typing import Final, Literal, NamedTuple, TypeAlias, get_args

from postseal.core.errors import Refused, Verdict
from postseal.core.wire import looks_sealed

__all__ = ["ENCODINGS", "Encoding", "Read", "read"]

Encoding: TypeAlias = Literal["raw", "base64", "base64url", "hex"]
ENCODINGS: Final[tuple[Encoding, ...]] = get_args(Encoding)

_HEX: Final = re.compile(rb"(?:0[xX])?((?:[0-9a-fA-F]{2})*)")
_BASE64: Final = re.compile(rb"[A-Za-z0-9+/]*={0,2}")
_BASE64URL: Final = re.compile(rb"[A-Za-z0-9_-]*={0,2}")
_BETWEEN_BYTES: Final = re.compile(rb"[\s:]+")
_MARKS: Final = b"'\""


class Read(NamedTuple):
    """Bytes, and how they were written."""

    data: bytes
    encoding: Encoding


def read(given: bytes, encoding: Encoding | None = None) -> Read:
    """Return the bytes that *given* writes down in *encoding*; by default in whichever makes an envelope of it.

    Raises:
        Refused: *malformed* where it is not of *encoding*; *unprotected* where no encoding makes it look like an envelope.
    """
    if encoding is not None:
        data = _decoded(given, encoding)
        if data is None:
            raise Refused(Verdict.MALFORMED, f"this is not {encoding}{_first_wrong(given, encoding)}")
        return Read(data, encoding)
    for candidate in ENCODINGS:
        data = _decoded(given, candidate)
        if data is not None and looks_sealed(data):
            return Read(data, candidate)
    raise Refused(Verdict.UNPROTECTED, _not_sealed(given))


def _decoded(given: bytes, encoding: Encoding) -> bytes | None:
    if encoding == "raw":
        return given
    text = given.strip().strip(_MARKS)
    if encoding == "hex":
        match = _HEX.fullmatch(_BETWEEN_BYTES.sub(b"", text))
        return None if match is None else binascii.unhexlify(match[1])
    text = b"".join(text.split())
    if (_BASE64 if encoding == "base64" else _BASE64URL).fullmatch(text) is None:
        return None
    bare = text.rstrip(b"=")
    if len(bare) % 4 == 1:  # 6 bits are no byte
        return None
    return base64.b64decode(bare + b"=" * (-len(bare) % 4), b"+/" if encoding == "base64" else b"-_")


def _first_wrong(given: bytes, encoding: Encoding) -> str:
    """Say where the first byte is that *encoding* has not."""
    legal = {
        "hex": rb"[^0-9a-fA-FxX:\s'\"]",
        "base64": rb"[^A-Za-z0-9+/=\s'\"]",
        "base64url": rb"[^A-Za-z0-9_=\s'\"-]",
    }
    wrong = re.search(legal[encoding], given)
    if wrong is None:
        return ": characters are missing, or too many"
    return f": byte {wrong.start():,} is 0x{given[wrong.start()]:02x}"


def _not_sealed(given: bytes) -> str:
    """Say that this is no envelope, and by its first byte why, without showing what may be somebody's clear text."""
    if not given:
        return "this is no envelope: it is empty"
    return (
        "this is no envelope: one begins with the bytes d8 60 84, d1 84 or d2 84, as they are or in base64 or hex, "
        f"and this begins with {given[0]:02x}"
    )
