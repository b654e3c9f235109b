"""Opening at one destination: SPEC.md section 8, and a shorter way for messages that look like one that was opened before."""

from __future__ import annotations

import struct
import time
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple, NoReturn

from postseal.core.context import Headers, byte_head, byte_string, canonical
from postseal.core.crypto import TAG_SIZE, InvalidSignature, InvalidTag, MessageKey
from postseal.core.datakeys import OpenedKey, OpeningKeys
from postseal.core.errors import ConfigError, Refused, Verdict
from postseal.core.outgoing import UNBOUND
from postseal.core.policy import Policies, Policy
from postseal.core.signing import KeyRing, Origin, SigningKey, Verify
from postseal.core.wire import (
    TIME_MIN,
    Envelope,
    Header,
    Protection,
    Recipient,
    Skeleton,
    byte_span,
    decode,
    signed_head,
    to_be_signed_head,
)

__all__ = ["Beside", "Examined", "Incoming", "Opened", "Verified"]

_MAX_LEARNT: Final = 1024
"""Kinds of headers remembered for one destination."""
_VIEW_FROM: Final = 4096
"""Bytes of ciphertext from which a view of it is cheaper than a copy."""
_PARTS_WITH_EXPIRY: Final = 11
_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


class Facts(NamedTuple):
    """What many messages have in common, kept once."""

    header: Header | None
    """Of one of them; None where they came in clear."""
    origin: Origin
    verdict: Verdict


class Verified:
    """What an authenticated message says of itself. All of it is None where the message came in clear, tolerated."""

    __slots__ = ("_facts", "_parts")

    def __init__(self, facts: Facts, parts: tuple[Any, ...]) -> None:
        self._facts = facts
        self._parts = parts  # as `Skeleton.split` makes them

    @property
    def origin(self) -> Origin:
        """What it proves about its sender."""
        return self._facts.origin

    @property
    def sender(self) -> str | None:
        """Who sent it, as far as `origin` proves it."""
        header = self._facts.header
        return None if header is None else header.sender

    @property
    def destination(self) -> str | None:
        """The logical destination that it was sent to."""
        header = self._facts.header
        return None if header is None else header.destination

    @property
    def message_id(self) -> str | None:
        """Its 16-byte id in hex: the same for every copy of it."""
        return None if self._facts.header is None else self._parts[-4].hex()

    @property
    def sent_at(self) -> datetime | None:
        """When it was sealed, in UTC, to the millisecond."""
        if self._facts.header is None:
            return None
        return _EPOCH + timedelta(seconds=self._parts[-6], milliseconds=self._parts[-2])

    @property
    def expires_at(self) -> datetime | None:
        """From when on it is not to be opened, in UTC."""
        return _EPOCH + timedelta(seconds=self._parts[3]) if len(self._parts) == _PARTS_WITH_EXPIRY else None

    @property
    def policy(self) -> str | None:
        """Name of the policy it was sealed under."""
        header = self._facts.header
        return None if header is None else header.policy

    @property
    def content_type(self) -> str | None:
        """The media type that its sender named."""
        header = self._facts.header
        return None if header is None else header.content_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.message_id} from {self.sender} to {self.destination}>"


class Opened(Verified):
    """An opened message. The body does not show in `repr`.

    Attributes:
        body: The clear body.
    """

    __slots__ = ("body",)

    def __init__(self, body: bytes, facts: Facts, parts: tuple[Any, ...]) -> None:
        self.body = body
        self._facts = facts
        self._parts = parts

    @property
    def verdict(self) -> Verdict:
        """*ok*, or *clear* where the policy tolerates clear text."""
        return self._facts.verdict

    @classmethod
    def in_clear(cls, body: bytes) -> Opened:
        """Make what is handed on where the mode lets clear text pass."""
        return cls(body, _CLEAR, ())


class Beside(NamedTuple):
    """What travelled beside the body and may be bound: headers and the like, as the adapter normalised them."""

    headers: Headers | None = None
    content_encoding: str | None = None
    ordering_key: bytes | None = None

    def external(self, bound: tuple[str, ...]) -> bytes:
        """Encode ``external_aad`` as a byte string, with the headers named in *bound*."""
        if not bound and self.content_encoding is None and self.ordering_key is None:
            return UNBOUND
        return byte_string(
            canonical(
                bound,
                self.headers,
                content_encoding=self.content_encoding,
                ordering_key=self.ordering_key,
            )
        )


_CLEAR: Final = Facts(None, Origin.NONE, Verdict.CLEAR)
_NOTHING_BESIDE: Final = Beside()


class Examined(NamedTuple):
    """An envelope that passed every step before the key service; what is signed was verified."""

    envelope: Envelope
    external: bytes
    signer: SigningKey | None


class _Learnt:
    """A kind of message that was opened before: what to compare with, and the keys to use.

    Messages of one data key differ in kind by content type and the like; *other* leads to the next kind.
    """

    __slots__ = (
        "begin",
        "bound",
        "decrypt",
        "end",
        "expires",
        "facts",
        "fixed",
        "key",
        "other",
        "recipients",
        "retires",
        "signature_head",
        "signature_size",
        "signed_head",
        "signer",
        "size",
        "split",
        "verify",
        "verify_unbound",
    )

    def __init__(self, examined: Examined, key: OpenedKey, other: _Learnt | None) -> None:
        envelope = examined.envelope
        header, outer, signer = envelope.header, envelope.outer, examined.signer
        skeleton = Skeleton(header)
        # Spread out, because each look through an object is paid for each message.
        self.split = skeleton.split
        self.fixed = skeleton.fixed
        self.size = skeleton.size
        self.begin = skeleton.begin
        self.end = skeleton.end
        self.expires = skeleton.expires
        self.bound = header.bound
        self.facts = _facts(examined)
        self.recipients = envelope.recipients_bytes
        self.key = key
        self.decrypt = key.key.decrypt
        self.other = other
        self.signer = signer
        self.signed_head = self.signature_head = b""
        self.signature_size = 0
        self.retires = False
        self.verify: Verify = _unsigned
        self.verify_unbound: Verify = _unsigned
        if outer is not None and signer is not None:
            prefix = to_be_signed_head(outer.algorithm, outer.protected)
            self.signed_head = signed_head(outer.algorithm, outer.protected)
            self.signature_size = outer.algorithm.signature_size
            self.signature_head = byte_head(self.signature_size)
            self.retires = signer.retired_until is not None
            self.verify = signer.verifier(header.sender, header.destination, prefix)
            self.verify_unbound = signer.verifier(header.sender, header.destination, prefix + UNBOUND)


class Incoming:
    """Opens the messages that lie at one destination.

    Args:
        destination: Where they lie.
        policy: The policy in force there.
        policies: All of them; tell which logical destinations may lie here.
        keys: Data keys unwrapped for *policy*; None in integrity.
        ring: Who may sign; None in confidentiality.
        clock: Nanoseconds since the epoch.
        monotonic: In seconds; the clock of *keys*.
    """

    def __init__(
        self,
        destination: str,
        policy: Policy,
        policies: Policies,
        keys: OpeningKeys | None,
        ring: KeyRing | None,
        *,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self.policy = policy
        self.destination = destination
        self.keys = keys
        self._policies = policies
        self._ring = ring
        self._clock = clock
        self._monotonic = monotonic
        self._not_future = 0
        self._signed_head = b""  # of the message learnt last: that of the next, most likely
        self._demanded = frozenset(policy.bind_headers)
        self._oldest = None if policy.max_message_age is None else int(policy.max_message_age * 1000)
        self._timed = self._oldest is not None
        self._skew = int(policy.max_clock_skew * 1000)
        self._signed = policy.code is Protection.PRIVACY
        self._learnt: dict[bytes, _Learnt] = {}

    # -- the whole way ---------------------------------------------------------------------------------------------

    def examine(self, data: bytes, beside: Beside | None) -> Examined:
        """Do steps 1 to 7: all that can be done without a key service.

        Raises:
            Refused: By the first step that fails.
        """
        envelope = decode(data)
        header = envelope.header
        self._check_policy(header)
        if not self._policies.may_lie(self.policy, header.destination, self.destination):
            raise Refused(Verdict.WRONG_DESTINATION, "it was sent to another destination")
        if self.policy.senders and header.sender not in self.policy.senders:
            raise Refused(Verdict.UNKNOWN_SENDER, "its sender is not among the senders of the policy")
        external = self._external(beside, header.bound)
        signer = None if self._ring is None else self._verify(self._ring, envelope, external)
        self.check_time(header.seconds * 1000 + header.millis, header.expires)
        return Examined(envelope, external, signer)

    def _check_policy(self, header: Header) -> None:
        if header.protection is not self.policy.code:
            raise Refused(
                Verdict.DOWNGRADE,
                f"protected by {header.protection.name.lower()} where the policy demands {self.policy.protection}",
            )
        if header.policy != self.policy.name:
            raise Refused(Verdict.DOWNGRADE, "sealed under another policy than the one in force here")
        if not self._demanded.issubset(header.bound):
            raise Refused(Verdict.DOWNGRADE, "a header that the policy binds is not bound")

    @staticmethod
    def _external(beside: Beside | None, bound: tuple[str, ...]) -> bytes:
        if beside is None and not bound:
            return UNBOUND
        try:
            return (beside or _NOTHING_BESIDE).external(bound)
        except TypeError as error:
            raise Refused(Verdict.FORGED, f"a bound header cannot be as it was sent: {error}") from None

    def _verify(self, ring: KeyRing, envelope: Envelope, external: bytes) -> SigningKey:
        header, outer = envelope.header, envelope.outer
        if outer is None:
            if header.key_id is None:  # the inner part of privacy, stripped of its signature
                raise Refused(Verdict.DOWNGRADE, "the signature was taken away")
            algorithm, key_id, protected = header.algorithm, header.key_id, envelope.protected
            payload, signature = envelope.payload, envelope.signature
        else:
            algorithm, key_id, protected = outer.algorithm, outer.key_id, outer.protected
            payload, signature = envelope.inner, outer.signature
        signer = ring.find(key_id, header.sender)
        if signer.algorithm is not algorithm:
            raise Refused(Verdict.FORGED, "the algorithm is not that of the key")
        prefix = to_be_signed_head(algorithm, protected) + external + byte_head(len(payload))
        verify = signer.verifier(header.sender, header.destination, prefix)
        try:
            verify(payload, signature)
        except InvalidSignature:
            _wrong_signature()
        return signer

    def check_time(self, sent: int, expires: int | None) -> None:
        """Do step 7. *sent* is in milliseconds since the epoch, *expires* in seconds."""
        now = self._clock() // 1_000_000
        # What was no future a moment ago is none now: the clock is read once in a while, not for each message.
        self._not_future = (now + self._skew) // 1000
        if self._oldest is not None and now - sent > self._oldest:
            raise Refused(Verdict.STALE, "it was sent longer ago than the policy allows")
        if expires is not None and now >= expires * 1000:
            raise Refused(Verdict.STALE, "it has expired")
        if sent - now > self._skew:
            raise Refused(Verdict.FUTURE, "it seems to come from the future; whose clock is wrong?")

    def fetch(self, examined: Examined) -> OpenedKey:
        """Do steps 8 and 9. Raises what `OpeningKeys.fetch` does."""
        return self._keys().fetch(*_key_of(examined.envelope))

    async def fetch_async(self, examined: Examined) -> OpenedKey:
        """Like `fetch`, without blocking the loop."""
        return await self._keys().fetch_async(*_key_of(examined.envelope))

    def _keys(self) -> OpeningKeys:
        if self.keys is None:
            raise ConfigError(f"policy {self.policy.name!r} has no keys to open with")
        return self.keys

    def verified(self, examined: Examined) -> Verified:
        """Return what a signed message says of itself, without opening it."""
        return Verified(_facts(examined), _parts(examined.envelope.header))

    def clear(self, examined: Examined) -> Opened:
        """Return the body of an integrity envelope."""
        return _opened(examined, examined.envelope.payload)

    def decrypt(self, examined: Examined, key: MessageKey) -> Opened:
        """Do step 10, with the right data key.

        Raises:
            Refused: *forged*.
        """
        envelope, header = examined.envelope, examined.envelope.header
        aad = b"\x83\x67Encrypt" + byte_string(envelope.protected) + examined.external
        try:
            body = key.decrypt(header.nonce or b"", envelope.payload, aad)
        except InvalidTag:
            _forged()
        return _opened(examined, body)

    def learn(self, examined: Examined, key: OpenedKey) -> None:
        """Remember this kind of message, after one was opened with *key*."""
        if len(self._learnt) >= _MAX_LEARNT:
            self._learnt.clear()
        commitment = examined.envelope.header.commitment or b""
        known = self._learnt.get(commitment)
        if known is not None and (known.key is not key or known.other is not None):
            known = None  # of a data key that ended, or kinds enough
        self._learnt[commitment] = learnt = _Learnt(examined, key, known)
        self._signed_head = learnt.signed_head

    def forget(self) -> None:
        """Drop what was learnt."""
        self._learnt.clear()

    # -- the short way ---------------------------------------------------------------------------------------------

    def open_learnt(  # noqa: C901, PLR0911, PLR0912, PLR0915 - one long story: each call would cost as much as a step
        self, data: bytes, beside: Beside | None
    ) -> Opened | None:
        """Open a message that is, but for its holes, one that was opened before; None where it is not, or the key's age has ended.

        Whatever is compared here byte by byte was decoded and examined when it was learnt, and the holes are looked at again. So this
        accepts nothing that the whole way would refuse.

        Raises:
            Refused: *forged*, *stale* or *future*: what can differ in the holes.
        """
        try:
            inner, payload, stop = data, 0, 0
            if self._signed:
                signed_head = self._signed_head
                payload = len(signed_head) if data.startswith(signed_head) else byte_span(data, 2)[1] + 1
                size = data[payload + 1] << 8 | data[payload + 2]
                if data[payload] == 0x59 and size > 0xFF:  # noqa: PLR2004 - the head of a byte string, RFC 8949 3; likewise below
                    start = payload + 3
                    stop = start + size
                else:
                    start, stop = byte_span(data, payload)
                inner = data[start:stop]
            size = inner[4]
            if inner[3] == 0x58:  # noqa: PLR2004
                commitment = inner[size - 27 : size + 5]
            else:
                size = size << 8 | inner[5]
                commitment = inner[size - 26 : size + 6]
            learnt = self._learnt.get(commitment)
            if learnt is None:
                return None
            parts = learnt.split(inner)
            if parts[::2] != learnt.fixed:
                learnt = learnt.other
                if learnt is None or (parts := learnt.split(inner))[::2] != learnt.fixed:
                    return None
            begin = learnt.size
            first = inner[begin]
            if first == 0x59 and (size := inner[begin + 1] << 8 | inner[begin + 2]) > 0xFF:  # noqa: PLR2004
                begin += 3
                end = begin + size
            elif first == 0x58 and (size := inner[begin + 1]) > 0x17:  # noqa: PLR2004
                begin += 2
                end = begin + size
            else:
                begin, end = byte_span(inner, begin)
        except (IndexError, struct.error):  # cut short: the whole way says how
            return None
        ticks = self._monotonic()
        key = learnt.key
        if ticks >= key.expires or end - begin < TAG_SIZE or inner[end:] != learnt.recipients:
            return None
        external = UNBOUND
        if beside is not None or learnt.bound:
            external = self._external(beside, learnt.bound)
        if self._signed:
            signature = data[stop + 2 :]
            if (
                len(signature) != learnt.signature_size
                or data[stop : stop + 2] != learnt.signature_head
                or data[:payload] != learnt.signed_head
                or (learnt.retires and not self._may_verify(learnt.signer))
            ):
                return None
            try:
                if external is UNBOUND:
                    learnt.verify_unbound(data[payload:stop], signature)
                else:
                    learnt.verify(external + data[payload:stop], signature)
            except InvalidSignature:
                _wrong_signature()
        seconds, millis = parts[-6], parts[-2]
        if seconds < TIME_MIN or millis > 999:  # noqa: PLR2004 - SPEC.md 4
            return None
        if self._timed or learnt.expires or seconds >= self._not_future:
            expires = parts[3] if learnt.expires else None
            if expires is not None and expires < TIME_MIN:
                return None
            self.check_time(seconds * 1000 + millis, expires)
        aad = b"\x83\x67Encrypt" + inner[learnt.begin : learnt.end] + external
        ciphertext = inner[begin:end] if end - begin < _VIEW_FROM else memoryview(inner)[begin:end]
        try:
            body = learnt.decrypt(parts[1], ciphertext, aad)
        except InvalidTag:
            _forged()
        key.used = ticks
        opened = _new(Opened)  # without __init__, which would cost as much again
        opened.body = body
        opened._facts = learnt.facts  # noqa: SLF001 - of our own making
        opened._parts = parts  # noqa: SLF001
        return opened

    def _may_verify(self, signer: SigningKey | None) -> bool:
        return self._ring is not None and signer is not None and self._ring.may_verify(signer)


_new: Final = object.__new__


def _unsigned(message: bytes, signature: bytes) -> None:
    raise AssertionError((message, signature))


def _facts(examined: Examined) -> Facts:
    origin = Origin.NONE if examined.signer is None else examined.signer.origin
    return Facts(examined.envelope.header, origin, Verdict.OK)


def _opened(examined: Examined, body: bytes) -> Opened:
    return Opened(body, _facts(examined), _parts(examined.envelope.header))


def _parts(header: Header) -> tuple[Any, ...]:
    """Put what varies between messages where `Skeleton.split` puts it."""
    varying = [header.nonce, header.seconds, header.message_id, header.millis, None]
    if header.expires is not None:
        varying.insert(1, header.expires)
    return tuple(part for value in varying for part in (b"", value))[:-1]


def _key_of(envelope: Envelope) -> tuple[str, bytes, tuple[Recipient, ...], bytes]:
    header = envelope.header
    return header.destination, header.commitment or b"", envelope.recipients, envelope.recipients_bytes


def _wrong_signature() -> NoReturn:
    raise Refused(Verdict.FORGED, "the signature is wrong") from None


def _forged() -> NoReturn:
    raise Refused(Verdict.FORGED, "the ciphertext or what it is bound to was changed") from None
