"""The short form: an envelope without what all envelopes of one data key have in common.

That stands in a *record*, published once; the short form names the record, and carries the holes of the header, the ciphertext and the
signature. Both together give the whole envelope again, to the byte, which is then opened as any other: the short form is a way of
writing, and proves and hides what the whole one does.

Source: SPEC.md 3.6.
"""

from __future__ import annotations

import struct
from typing import Final, NamedTuple, NoReturn

from postseal.core.context import byte_head
from postseal.core.crypto import TAG_SIZE, sha256
from postseal.core.errors import Refused, Verdict
from postseal.core.wire import (
    MAX_BODY,
    MESSAGE_ID_SIZE,
    NONCE_SIZE,
    SHORT_HEAD,
    TIME_MIN,
    Envelope,
    Header,
    Skeleton,
    byte_span,
    decode,
    signed_head,
)

__all__ = ["RECORD_REFERENCE_SIZE", "Record", "Short", "is_short", "read_short"]

RECORD_REFERENCE_SIZE: Final = 16
"""Bytes that name a record: the first of its SHA-256."""
_ARRAY_OF_3, _ARRAY_OF_4 = 0x83, 0x84
_REFERENCE: Final = slice(len(SHORT_HEAD) + 2, len(SHORT_HEAD) + 2 + RECORD_REFERENCE_SIZE)
"""Behind the tag, the array's head and its own."""
_HOLES: Final = struct.calcsize(f">{NONCE_SIZE}sI{MESSAGE_ID_SIZE}sH"), 4
"""Bytes of the holes of a header, and how many more an expiry takes."""


class Short(NamedTuple):
    """A short form taken apart. Nothing in it is authenticated yet.

    *holes* are those of the header, one behind the other; *payload* is the ciphertext with its head; *signature* is empty in
    confidentiality.
    """

    reference: bytes
    holes: bytes
    payload: bytes
    signature: bytes


class Record:
    """What envelopes of one data key, one content type and one signing key have in common.

    As bytes it is such an envelope itself, of an empty body: zeros in its nonce, message id, milliseconds, ciphertext and signature, and
    the least time that there is. So it has one form, and any decoder reads it.

    Args:
        envelope: Any of them.
    """

    __slots__ = (
        "_before",
        "_behind",
        "_pattern",
        "_places",
        "_recipients",
        "_size",
        "_split",
        "data",
        "reference",
    )

    def __init__(self, envelope: Envelope) -> None:
        outer = envelope.outer
        skeleton = Skeleton(_blank(envelope.header))
        sizes = (
            (NONCE_SIZE, 4, 4, MESSAGE_ID_SIZE, 2)
            if skeleton.expires
            else (NONCE_SIZE, 4, MESSAGE_ID_SIZE, 2)
        )
        self._places = tuple(slice(at, at + size) for at, size in zip(skeleton.places, sizes, strict=True))
        self._split = struct.Struct("".join(f"{size}s" for size in sizes))
        self._pattern = [part for fixed in skeleton.fixed for part in (fixed, b"")][:-1]
        self._size = skeleton.size
        self._recipients = envelope.recipients_bytes
        self._before = (
            b"" if outer is None else signed_head(outer.algorithm, outer.protected, outer.unprotected)
        )
        self._behind = 0 if outer is None else outer.algorithm.signature_size
        payload = byte_head(TAG_SIZE) + bytes(TAG_SIZE)
        blank = Short(b"", _blank_holes(skeleton.expires), payload, bytes(self._behind))
        self.data = self.whole(blank)
        """As it is published."""
        self.reference = sha256(self.data)[:RECORD_REFERENCE_SIZE]

    @classmethod
    def read(cls, data: bytes, reference: bytes) -> Record:
        """Read what a store gave for *reference*.

        Raises:
            Refused: It is another, or none.
        """
        if sha256(data)[:RECORD_REFERENCE_SIZE] != reference:
            raise Refused(Verdict.UNKNOWN_KEY, "the store has another record under its reference")
        record = cls(decode(data))
        if record.data != data:
            raise Refused(Verdict.MALFORMED, "its record is none")
        return record

    def shorten(self, envelope: bytes) -> bytes:
        """Write *envelope*, which is one of this record's, in its short form."""
        start, stop, signature = 0, len(envelope), b""
        if self._before:
            start = byte_span(envelope, len(self._before))[0]
            signature = envelope[-self._behind :]
            stop -= self._behind + len(byte_head(self._behind))
        holes = b"".join([envelope[start + place.start : start + place.stop] for place in self._places])
        payload = envelope[start + self._size : stop - len(self._recipients)]
        return b"".join(
            (
                SHORT_HEAD,
                b"\x84\x50" if signature else b"\x83\x50",
                self.reference,
                byte_head(len(holes)),
                holes,
                payload,
                byte_head(len(signature)) + signature if signature else b"",
            )
        )

    def whole(self, short: Short) -> bytes:
        """Write the whole envelope of *short*, which names this record.

        Raises:
            Refused: They do not belong together.
        """
        if len(short.holes) != self._split.size or len(short.signature) != self._behind:
            _malformed("it is not of the form of its record")
        parts = self._pattern.copy()
        parts[1::2] = self._split.unpack(short.holes)
        inner = b"".join((*parts, short.payload, self._recipients))
        if not self._before:
            return inner
        behind = byte_head(self._behind) + short.signature
        return b"".join((self._before, byte_head(len(inner)), inner, behind))


def is_short(data: bytes) -> bool:
    """Tell whether *data*, which looks sealed, is in the short form."""
    return data.startswith(SHORT_HEAD)


def read_short(data: bytes) -> Short:
    """Take a short form apart, strictly.

    Raises:
        Refused: *malformed*.
    """
    least, more = _HOLES
    try:
        count, holes_at = data[len(SHORT_HEAD)], _REFERENCE.stop
        spans = [byte_span(data, holes_at)]
        spans += [byte_span(data, spans[-1][1])]
        if count == _ARRAY_OF_4:
            spans += [byte_span(data, spans[-1][1])]
    except IndexError:
        _malformed("the short form ends early")
    if data[len(SHORT_HEAD) + 1] != 0x50 or count not in (_ARRAY_OF_3, _ARRAY_OF_4):  # noqa: PLR2004 - the head of 16 bytes
        _malformed("an array that is none of the short form")
    if any(start < 0 for start, _ in spans) or spans[-1][1] != len(data):
        _malformed(
            "a byte string of the short form is not in its shortest form, or does not end where it should"
        )
    holes, payload, *signature = spans
    if holes[1] - holes[0] not in (least, least + more):
        _malformed("the holes of a header are of another size")
    if not TAG_SIZE <= payload[1] - payload[0] <= MAX_BODY + TAG_SIZE:
        _malformed("a ciphertext of that size cannot be")
    return Short(
        data[_REFERENCE],
        data[slice(*holes)],
        data[holes[1] : payload[1]],
        data[slice(*signature[0])] if signature else b"",
    )


def _blank(header: Header) -> Header:
    return header._replace(
        nonce=bytes(NONCE_SIZE),
        seconds=TIME_MIN,
        millis=0,
        message_id=bytes(MESSAGE_ID_SIZE),
        expires=None if header.expires is None else TIME_MIN,
    )


def _blank_holes(expiring: bool) -> bytes:
    times = TIME_MIN.to_bytes(4, "big") * (1 + expiring)
    return bytes(NONCE_SIZE) + times + bytes(MESSAGE_ID_SIZE + 2)


def _malformed(why: str) -> NoReturn:
    raise Refused(Verdict.MALFORMED, why)
