"""The short way: opening a message that is, but for its holes, like one that was opened before.

The messages of one data key differ in few places. Once one of them went the whole way (`incoming`), all that it has in common with the
next is known: its header, its sender, its keys. So the next is only compared with it, byte by byte outside the holes, and its holes are
looked at again; what matches is what the whole way would accept, and whatever does not goes the whole way.

Each step costs a tenth of what AES-GCM itself does for a short message, which is why this is one long function, and a closure: what is
constant is looked up once.

Source: SPEC.md 8; bench/core.py shows what it saves.
"""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Any, Final, NamedTuple, NoReturn, TypeAlias

from postseal.core.accelerator import native
from postseal.core.context import byte_head
from postseal.core.crypto import TAG_SIZE, HmacContext, InvalidSignature, InvalidTag
from postseal.core.datakeys import OpenedKey
from postseal.core.errors import Refused, Verdict
from postseal.core.opened import Facts, Opened
from postseal.core.outgoing import UNBOUND
from postseal.core.signing import HmacKey, SigningKey, Verify
from postseal.core.wire import (
    ENCRYPT_HEAD,
    MAX_BODY,
    TIME_MIN,
    Envelope,
    Outer,
    Skeleton,
    signed_head,
    to_be_signed_head,
)

__all__ = ["HINT_SIZE", "Shapes", "ShortWay", "Signed", "forged", "hint_of", "short_way", "wrong_signature"]

ShortWay: TypeAlias = Callable[[bytes, Any], Opened | None]
"""Opens an envelope with what travelled beside it; None where it must go the whole way."""

HINT_SIZE: Final = 16
"""Bytes at the end of an encrypting envelope by which its short way is found: the end of its last wrapped key, and so the same for all
messages of one data key. A hint and no more: what is found is compared with the whole header, commitment included."""

_VIEW_FROM: Final = 4096
"""Bytes of an envelope from which a view of its ciphertext is cheaper than a copy."""
_NOWHERE: Final = slice(0)
_MAX_SHAPES: Final = 4096
"""Lengths of envelopes whose shapes are remembered: about 3 MB."""
_MAX_KINDS: Final = 4
"""Kinds of messages of one data key: content types, with an expiry and without."""

_new: Final = object.__new__


def hint_of(signature_size: int) -> slice:
    """Tell where the hint is in envelopes with a signature of that size, or with none (0)."""
    behind = signature_size and len(byte_head(signature_size)) + signature_size
    return slice(-HINT_SIZE - behind, -behind or None)


class Signed(NamedTuple):
    """What privacy adds. *ends* is when the key retires, in nanoseconds since the epoch."""

    outer: Outer
    signer: SigningKey
    ends: int | None


class Shape(NamedTuple):
    """Where everything is in an envelope: that follows from its length alone, once the rest is known."""

    split: Callable[[bytes], tuple[Any, ...]]
    """Takes the envelope apart: the holes of its header, the ciphertext, what stands between that and the signature, the signature. Of
    a long envelope it leaves the ciphertext where it is, and says that it is empty."""
    join: Callable[..., bytes]
    """Puts together what must stand before the ciphertext: *begins*, the parts of the header and its holes in turn, *head*."""
    begins: bytes
    """What stands before the encrypting envelope; empty where nothing is signed."""
    head: bytes
    """The ciphertext's head."""
    protected: slice
    """The encrypting envelope's protected byte string, with its head."""
    ciphertext: slice
    """Where that of a long envelope is."""
    payload: slice
    """What the signature is over: the encrypting envelope, with its head as a byte string."""


class Shapes(dict[int, "Shape | None"]):
    """Shapes of envelopes by their length; None where there can be none of that length.

    Args:
        skeleton: Of the header.
        outer: What signs, or None.
        recipients: Bytes of the recipients.
    """

    def __init__(self, skeleton: Skeleton, outer: Outer | None, recipients: int) -> None:
        self._skeleton = skeleton
        self._recipients = recipients
        self._before = (
            b"" if outer is None else signed_head(outer.algorithm, outer.protected, outer.unprotected)
        )
        self._signature = 0 if outer is None else outer.algorithm.signature_size
        self._joins: dict[tuple[int, int], tuple[Callable[..., bytes], slice]] = {}
        """What shapes have in common whose *begins* and *head* are equally long."""

    def __missing__(self, length: int) -> Shape | None:
        if len(self) >= _MAX_SHAPES:
            self.clear()
        shape = self[length] = self._find(length)
        return shape

    def _find(self, length: int) -> Shape | None:
        """Find where everything is in an envelope of *length* bytes."""
        before, signature = self._before, self._signature
        stop = length - signature - (len(byte_head(signature)) if before else 0)
        begins = b""
        if before:
            payload_head = _head_in(stop - len(before))
            if payload_head is None:
                return None
            begins = before + payload_head
        at, end = len(begins) + self._skeleton.size, stop - self._recipients
        head = _head_in(end - at)
        if head is None or not TAG_SIZE <= (size := end - at - len(head)) <= MAX_BODY + TAG_SIZE:
            return None
        is_long = length >= _VIEW_FROM
        ciphertext = f"0s{size}x" if is_long else f"{size}s"
        behind = length - signature - end
        join, protected = self._join(len(begins), len(head))
        return Shape(
            Struct(
                f">{len(begins)}x{self._skeleton.holes}{len(head)}x{ciphertext}{behind}s{signature}s"
            ).unpack,
            join,
            begins,
            head,
            protected,
            slice(end - size, end) if is_long else _NOWHERE,
            slice(len(before), stop),
        )

    def _join(self, begins: int, head: int) -> tuple[Callable[..., bytes], slice]:
        if (known := self._joins.get((begins, head))) is None:
            join = Struct(f">{begins}s{self._skeleton.whole}{head}s").pack
            protected = slice(begins + len(ENCRYPT_HEAD), begins + self._skeleton.size - 1)
            known = self._joins[begins, head] = join, protected
        return known


def short_way(  # noqa: C901, PLR0915 - see above
    envelope: Envelope,
    skeleton: Skeleton,
    key: OpenedKey,
    facts: Facts,
    signed: Signed | None,
    *,
    external: Callable[[Any, tuple[str, ...]], bytes],
    check_time: Callable[[int, int | None], int],
    always_timed: bool,
    clock: Callable[[], int],
    monotonic: Callable[[], float],
    count: Callable[[], int],
    shapes: Shapes,
    other: ShortWay | None,
    note: Callable[[bytes, bytes], Any] | None = None,
) -> ShortWay:
    """Make the function that opens messages like *envelope*, which was opened with *key*.

    Args:
        envelope: It went the whole way.
        skeleton: Of its header.
        key: Its data key; the way ends when the key's age does.
        facts: What the messages have in common, to hand out.
        signed: What privacy adds.
        external: Encodes what is bound; refuses what cannot be.
        check_time: Step 7; returns the second before which nothing is in the future.
        always_timed: Whether the policy limits the age of messages.
        clock: Nanoseconds since the epoch.
        monotonic: Seconds; the clock of *key*.
        count: Counts a message that was opened.
        shapes: Of envelopes by their length: shared by all kinds of messages whose parts have these sizes.
        other: The way of another kind of message of the same data key.
        note: Notes a message in the ledger by its id and the tag of its ciphertext; gives None where more is to be said of it.

    Returns:
        The short way. It raises `Refused`: *forged*, *stale* or *future*, which is what can be wrong in the holes.
    """
    header, is_signed = envelope.header, signed is not None
    if other is not None and _kinds(other) >= _MAX_KINDS:
        other = None
    (first, second, *exp, third, fourth, last), expiring = skeleton.fixed, skeleton.expires
    before_iat = exp[0] if exp else b""
    bound, decrypt = header.bound, key.key.decrypt
    timed = always_timed or expiring
    not_future = 0
    tail, ends = envelope.recipients_bytes, 0
    verify: Verify = _unsigned
    verify_unbound: Verify = _unsigned
    begin_mac: Callable[[], HmacContext] | None = None
    if signed is not None:
        outer, signer, retires = signed
        tail += byte_head(outer.algorithm.signature_size)
        ends = retires or 0
        prefix = to_be_signed_head(outer.algorithm, outer.protected)
        verify = signer.verifier(header.sender, header.destination, prefix)
        verify_unbound = signer.verifier(header.sender, header.destination, prefix + UNBOUND)
        if isinstance(signer, HmacKey):
            begin_mac = signer.begun(header.sender, header.destination, prefix + UNBOUND).copy
    if (compiled := native()) is not None:
        return compiled.opener(
            key=key,
            decrypt=decrypt,
            skeleton=skeleton.blank,
            places=skeleton.places,
            before=b"" if signed is None else signed_head(signed.outer.algorithm, signed.outer.protected),
            recipients=envelope.recipients_bytes,
            behind=tail[len(envelope.recipients_bytes) :],
            signature=0 if signed is None else signed.outer.algorithm.signature_size,
            verify=verify,
            verify_unbound=verify_unbound,
            begin_mac=begin_mac,
            ends=ends,
            bound=bound,
            external=external,
            unbound=UNBOUND,
            check_time=check_time,
            timed=timed,
            clock=clock,
            monotonic=monotonic,
            opened=Opened,
            new=_new,
            facts=facts,
            content_type=header.content_type,
            invalid_signature=InvalidSignature,
            invalid_tag=InvalidTag,
            wrong_signature=wrong_signature,
            forged=forged,
            other=other,
            note=note,
            count=count,
            kinds=1 + _kinds(other),
        ).open

    def open_like(data: bytes, beside: Any) -> Opened | None:  # noqa: C901, PLR0911, PLR0912 - see above
        nonlocal not_future
        shape = shapes[len(data)]
        if shape is None:
            return None if other is None else other(data, beside)
        split, join, begins, head, protected, where, inner = shape
        if expiring:
            nonce, expires, seconds, message_id, millis, ciphertext, behind, signature = split(data)
            start = join(
                begins,
                first,
                nonce,
                second,
                expires,
                before_iat,
                seconds,
                third,
                message_id,
                fourth,
                millis,
                last,
                head,
            )
        else:
            nonce, seconds, message_id, millis, ciphertext, behind, signature = split(data)
            expires = None
            start = join(begins, first, nonce, second, seconds, third, message_id, fourth, millis, last, head)
        if not data.startswith(start):
            return None if other is None else other(data, beside)
        if seconds < TIME_MIN or millis > 999 or (expires is not None and expires < TIME_MIN):  # noqa: PLR2004 - SPEC.md 4
            return None  # malformed, whatever else is wrong
        ticks = monotonic()
        if ticks >= key.expires or behind != tail:
            return None
        bytes_beside = external(beside, bound) if bound or beside is not None else UNBOUND
        if is_signed:
            if ends and clock() >= ends:
                return None
            payload = data[inner]
            try:
                if bytes_beside is not UNBOUND:
                    verify(bytes_beside + payload, signature)
                elif begin_mac is not None:
                    mac = begin_mac()
                    mac.update(payload)
                    mac.verify(signature)
                else:
                    verify_unbound(payload, signature)
            except InvalidSignature:
                wrong_signature()
        if timed or seconds >= not_future:
            # The clock is read once in a while, not for each message.
            not_future = check_time(seconds * 1000 + millis, expires)
        aad = b"\x83\x67Encrypt" + data[protected] + bytes_beside
        try:
            body = decrypt(nonce, ciphertext or memoryview(data)[where], aad)
        except InvalidTag:
            forged()
        key.used = ticks
        receipt = None
        if note is not None:
            tag = ciphertext[-TAG_SIZE:] or data[where][-TAG_SIZE:]
            if (receipt := note(message_id, tag)) is None:
                return None  # the whole way says what it is
        count()
        opened = _new(Opened)  # without __init__, which would cost as much again
        opened.body = body
        opened._facts = facts  # noqa: SLF001 - of our own making
        opened._varying = seconds, millis, message_id, expires  # noqa: SLF001
        if receipt is not None:
            opened._receipt = receipt  # noqa: SLF001
        return opened

    open_like.kinds = 1 + _kinds(other)  # type: ignore[attr-defined]
    return open_like


def _kinds(way: ShortWay | None) -> int:
    """Tell how long a chain of ways is."""
    return 0 if way is None else getattr(getattr(way, "__self__", way), "kinds", 1)


def _head_in(room: int) -> bytes | None:
    """Return the head of the byte string that takes *room* bytes with its head; None where none does."""
    for size in (1, 2, 3, 5):
        if room >= size and len(head := byte_head(room - size)) == size:
            return head
    return None


def wrong_signature() -> NoReturn:
    """Refuse: the one text for every cause."""
    raise Refused(Verdict.FORGED, "the signature is wrong") from None


def forged() -> NoReturn:
    """Refuse: the one text for every cause."""
    raise Refused(Verdict.FORGED, "the ciphertext or what it is bound to was changed") from None


def _unsigned(message: bytes, signature: bytes) -> None:
    raise AssertionError((len(message), len(signature)))
