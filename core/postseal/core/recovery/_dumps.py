"""Where sealed messages were kept: folders of files, files of one behind the other, lines of JSON.

Nothing here is believed: what cannot be read is handed on as something that will be refused, so that it is counted.
"""

from __future__ import annotations

import base64
import binascii
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, BinaryIO, Final, NamedTuple

from postseal.core.errors import ConfigError, nearest
from postseal.core.wire import looks_sealed

__all__ = ["BODIES", "FORMATS", "Kept", "decoded", "looked_at", "message_of_line", "read_dump"]

FORMATS: Final = ("auto", "envelopes", "jsonl", "lengths")
_LENGTH: Final = 4
_MOST: Final = 2**31
BODIES: Final = ("body", "value", "payload", "envelope", "data", "Body", "MessageBody")
_HEADERS: Final = ("headers", "properties", "attributes")


class Kept(NamedTuple):
    """One message of a dump.

    Attributes:
        source: Where it stood: the name of a file, and the number within it. No two of a dump have the same.
        envelope: Its bytes; b"" where they cannot be read.
        headers: That travelled beside it, where the dump has kept them.
        content_encoding: Likewise.
        ordering_key: Likewise: the Kafka record key.
        trouble: Why it cannot be read, or nothing.
    """

    source: str
    envelope: bytes
    headers: tuple[tuple[str, Any], ...] = ()
    content_encoding: str | None = None
    ordering_key: bytes | None = None
    trouble: str = ""


def read_dump(path: str | Path, format: str = "auto") -> Iterator[Kept]:  # noqa: A002 - the word of the command line
    """Read the messages at *path*, one by one.

    Args:
        path: A folder, of which each file is read; or a file.
        format: ``envelopes``: one envelope a file, as bytes, base64 or hex.
            ``lengths``: a file of envelopes, each behind its length in 4 bytes, the highest first.
            ``jsonl``: one JSON object a line, the envelope in base64 under ``body``, ``value`` or ``payload``; and, if bound,
            ``headers`` (an object or a list of pairs; bytes as ``{"base64": "..."}``), ``content_encoding``, and in base64 ``ordering_key``
            or ``key``.
            ``auto``: looks at each file.

    Raises:
        ConfigError: There is no such thing, or no such format.
    """
    if format not in FORMATS:
        raise ConfigError(f"there is no format {format!r}{nearest(format, FORMATS)}")
    root = Path(path)
    if root.is_dir():
        for file in sorted(each for each in root.rglob("*") if each.is_file()):
            yield from _read_file(file, str(file.relative_to(root)), format)
    else:
        yield from _read_file(root, root.name, format)


def _read_file(file: Path, name: str, form: str) -> Iterator[Kept]:
    try:
        with file.open("rb") as stream:
            kind = looked_at(stream) if form == "auto" else form
            if kind == "jsonl":
                yield from _lines(stream, name)
            elif kind == "lengths":
                yield from _lengths(stream, name)
            else:
                yield Kept(name, decoded(stream.read()))
    except OSError as error:
        raise ConfigError(f"{str(file)!r} cannot be read: {error.strerror}") from None


def looked_at(stream: BinaryIO) -> str:
    """Tell the format of a file by how it begins."""
    begin = stream.read(64)
    stream.seek(0)
    if begin.lstrip()[:1] == b"{":
        return "jsonl"
    if len(begin) > _LENGTH and looks_sealed(begin[_LENGTH:]) and not looks_sealed(begin):
        return "lengths"
    return "envelopes"


def _lengths(stream: BinaryIO, name: str) -> Iterator[Kept]:
    number = 0
    while head := stream.read(_LENGTH):
        number += 1
        source = f"{name}:{number}"
        size = int.from_bytes(head, "big")
        envelope = stream.read(size) if len(head) == _LENGTH and size < _MOST else b""
        if len(head) < _LENGTH or len(envelope) < size:
            yield Kept(source, b"", trouble="the file ends within it, or its length is wrong")
            return
        yield Kept(source, envelope)


def _lines(stream: BinaryIO, name: str) -> Iterator[Kept]:
    for number, line in enumerate(stream, 1):
        if line.strip():
            yield message_of_line(line, f"{name}:{number}")


def message_of_line(line: bytes, source: str) -> Kept:
    """Return the message that a line of JSON holds."""
    try:
        return _message(json.loads(line), source)
    except (ValueError, TypeError, LookupError, AttributeError, RecursionError):
        # The text of the error may quote the line.
        return Kept(source, b"", trouble="the line is no message in JSON as it should be")


def _message(line: Mapping[str, Any], source: str) -> Kept:
    body = next((line[name] for name in BODIES if name in line), None)
    envelope = decoded(body.encode()) if isinstance(body, str) else b""
    headers: Any = next((line[name] for name in _HEADERS if line.get(name)), {})
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    key = line.get("ordering_key", line.get("key"))
    encoding = line.get("content_encoding")
    return Kept(
        source,
        envelope,
        tuple((str(name), _value(value)) for name, value in pairs),
        encoding if isinstance(encoding, str) else None,
        None if not isinstance(key, str) else base64.b64decode(key, validate=True),
        "" if envelope else "the line has no body in base64",
    )


def _value(value: Any) -> Any:
    return base64.b64decode(value["base64"], validate=True) if isinstance(value, dict) else value


def decoded(written: bytes) -> bytes:
    """Return the envelope that *written* is: itself, or in base64 or hex; else *written*, which will be refused."""
    if looks_sealed(written):
        return written
    text = b"".join(written.split())
    for decode in (_base64, bytes.fromhex):
        try:
            data = decode(text.decode("ascii"))
        except (ValueError, binascii.Error):
            continue
        if looks_sealed(data):
            return data
    return written


def _base64(text: str) -> bytes:
    bare = text.rstrip("=").replace("-", "+").replace("_", "/")
    return base64.b64decode(bare + "=" * (-len(bare) % 4), validate=True)
