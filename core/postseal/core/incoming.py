"""Opening at one destination, step by step: SPEC.md section 8."""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple

from postseal.core.context import Headers, byte_head, byte_string, canonical, pairs_of
from postseal.core.counting import Tally
from postseal.core.crypto import TAG_SIZE, InvalidSignature, InvalidTag, MessageKey
from postseal.core.datakeys import OpenedKey, OpeningKeys
from postseal.core.errors import ConfigError, KeyUnavailable, Refused, Verdict
from postseal.core.learnt import (
    HINT_SIZE,
    Shapes,
    ShortWay,
    Signed,
    forged,
    hint_of,
    short_way,
    wrong_signature,
)
from postseal.core.opened import Facts, Opened, Parts, Verified, varying_of
from postseal.core.outgoing import UNBOUND
from postseal.core.policy import Policies, Policy
from postseal.core.signing import KeyRing, Origin, SigningKey
from postseal.core.wire import (
    Envelope,
    Header,
    Protection,
    Recipient,
    Skeleton,
    decode,
    encrypted_with,
    to_be_signed_head,
)

if TYPE_CHECKING:
    from postseal.core.direct import DirectBodies
    from postseal.core.replay import Receipt, Register

__all__ = ["Beside", "Examined", "Incoming"]

_MAX_SIZES: Final = 16
"""Combinations of sizes of header and recipients whose shapes are remembered for one destination."""
_MAX_LEARNT: Final = 1024
"""Kinds of headers remembered for one destination."""


class Beside(NamedTuple):
    """What travelled beside the body and may be bound: headers and the like, as the adapter normalised them.

    *answers* is no such thing, but what the consumer demands: the reference of the request that the message has to answer.
    """

    headers: Headers | None = None
    content_encoding: str | None = None
    ordering_key: bytes | None = None
    answers: bytes | None = None

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

    def kept(self) -> Beside:
        """Return it with headers that can be looked at more than once."""
        return self if self.headers is None else self._replace(headers=list(pairs_of(self.headers)))


_NOTHING_BESIDE: Final = Beside()


class Examined(NamedTuple):
    """An envelope that passed every step before the key service; what is signed was verified."""

    envelope: Envelope
    external: bytes
    signer: SigningKey | None
    beside: Beside | None = None
    late: Refused | None = None
    """Why it would be refused by its time alone, where the policy only observes."""


class Incoming:
    """Opens the messages that lie at one destination.

    Args:
        destination: Where they lie.
        policy: The policy in force there.
        policies: All of them; tell which logical destinations may lie here.
        keys: Data keys unwrapped for *policy*; None in integrity, and where it is direct.
        ring: Who may sign; None in confidentiality.
        direct: Has bodies decrypted by the key service itself, where the policy is direct.
        register: Asks the ledger; None where there is none.
        clock: Nanoseconds since the epoch.
        monotonic: In seconds; the clock of *keys*.
        tally: Counts what is opened or verified.
    """

    def __init__(
        self,
        destination: str,
        policy: Policy,
        policies: Policies,
        keys: OpeningKeys | None,
        ring: KeyRing | None,
        *,
        direct: DirectBodies | None = None,
        register: Register | None = None,
        clock: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], float] = time.monotonic,
        tally: Tally | None = None,
    ) -> None:
        self.tally = tally or Tally()
        self.policy = policy
        self.mode = policy.consuming
        self.destination = destination
        self.keys = keys
        self.direct = direct
        self.keyed = policy.code is not Protection.INTEGRITY and not policy.direct
        """Whether its messages have data keys."""
        self.register = register
        self._policies = policies
        self._ring = ring
        self._clock = clock
        self._monotonic = monotonic
        self._demanded = frozenset(policy.bind_headers)
        self._oldest = None if policy.max_message_age is None else int(policy.max_message_age * 1000)
        self._skew = int(policy.max_clock_skew * 1000)
        self.hint = hint_of(_signature_size(policy, ring))
        """Where in an envelope to look for what `learnt` is kept by. Where keys of several algorithms sign, only one of them is quick."""
        self._shapes: dict[object, Shapes] = {}
        self.learnt: dict[bytes, ShortWay] = {}
        """What opens messages like one that was opened before, by the end of its last wrapped key."""
        self.latest: ShortWay | None = None
        """What opened the message before: that of another kind it leaves to its own."""
        self._learnt_bare: dict[bytes, ShortWay] = {}
        """The same as they were made."""
        self.plain: dict[bytes, ShortWay] = {}
        """Those of `learnt` that look at nothing beside the body."""
        if ring is not None:
            ring.watch(self)

    def examine(self, data: bytes, beside: Beside | None) -> Examined:
        """Do steps 1 to 7: all that can be done without a key service.

        Raises:
            Refused: By the first step that fails.
        """
        envelope = decode(data)
        header = envelope.header
        self._check_policy(header)
        if header.framed and beside is not None:
            beside = beside.kept()
            self._check_beside(self.policy.encrypt_headers, beside)
        if not self._policies.may_lie(self.policy, header.destination, self.destination):
            raise Refused(Verdict.WRONG_DESTINATION, "it was sent to another destination")
        if beside is not None and beside.answers is not None:
            self._check_answers(header, beside.answers)
        if self.policy.senders and header.sender not in self.policy.senders:
            raise Refused(Verdict.UNKNOWN_SENDER, "its sender is not among the senders of the policy")
        external = self._external(beside, header.bound)
        signer = None if self._ring is None else self._verify(self._ring, envelope, external)
        late = None
        try:
            self.check_time(header.seconds * 1000 + header.millis, header.expires)
        except Refused as refused:
            if self.mode != "observe":
                raise
            late = refused  # it is authentic, so it can be opened and handed on; whoever has it opened tells of it
        return Examined(envelope, external, signer, beside, late)

    def _check_policy(self, header: Header) -> None:
        if header.protection is not self.policy.code:
            raise Refused(
                Verdict.DOWNGRADE,
                f"protected by {header.protection.name.lower()} where the policy demands {self.policy.protection}",
            )
        if header.direct is not self.policy.direct:
            raise Refused(
                Verdict.DOWNGRADE,
                "the key service encrypted it itself, and the policy demands a data key"
                if header.direct
                else "a data key encrypted it, and the policy demands the key service itself",
            )
        if header.policy != self.policy.name:
            raise Refused(Verdict.DOWNGRADE, "sealed under another policy than the one in force here")
        if not self._demanded.issubset(header.bound):
            raise Refused(Verdict.DOWNGRADE, "a header that the policy binds is not bound")
        if self.policy.encrypt_headers and not header.framed:
            raise Refused(Verdict.DOWNGRADE, "no headers are encrypted with it, and the policy encrypts some")
        if self.policy.bind_replies and header.in_reply_to is None:
            raise Refused(Verdict.DOWNGRADE, "it answers no request, and the policy demands one")

    @staticmethod
    def _check_beside(names: tuple[str, ...], beside: Beside) -> None:
        from postseal.core.framing import stands_beside  # noqa: PLC0415 - for who encrypts headers, as below

        if (name := stands_beside(names, beside.headers)) is not None:
            raise Refused(
                Verdict.FORGED, f"a header stands beside it that is encrypted with the body: {name!r}"
            )

    @staticmethod
    def _check_answers(header: Header, answers: bytes) -> None:
        if header.in_reply_to is None:
            raise Refused(Verdict.DOWNGRADE, "it is bound to no request, and was to answer one")
        if header.in_reply_to != answers:
            raise Refused(Verdict.WRONG_DESTINATION, "it is the reply to another request")

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
        signer = ring.find(key_id, header.sender, envelope.credential)
        if signer.algorithm is not algorithm:
            raise Refused(Verdict.FORGED, "the algorithm is not that of the key")
        prefix = to_be_signed_head(algorithm, protected) + external + byte_head(len(payload))
        verify = signer.verifier(header.sender, header.destination, prefix)
        try:
            verify(payload, signature)
        except InvalidSignature:
            wrong_signature()
        if signer.signed_between is not None:
            _check_signed_between(signer.signed_between, header.seconds)
        return signer

    def check_time(self, sent: int, expires: int | None) -> int:
        """Do step 7. *sent* is in milliseconds since the epoch, *expires* in seconds.

        Returns:
            Seconds since the epoch: what was sent before is certainly not in the future, now or later.
        """
        now = self._clock() // 1_000_000
        if self._oldest is not None and now - sent > self._oldest:
            raise Refused(Verdict.STALE, "it was sent longer ago than the policy allows")
        if expires is not None and now >= expires * 1000:
            raise Refused(Verdict.STALE, "it has expired")
        if sent - now > self._skew:
            raise Refused(Verdict.FUTURE, "it seems to come from the future; whose clock is wrong?")
        return (now + self._skew) // 1000

    def _check_both_times(self, between: tuple[int, int], sent: int, expires: int | None) -> int:
        _check_signed_between(between, sent // 1000)
        return self.check_time(sent, expires)

    def fetch(self, examined: Examined) -> OpenedKey:
        """Do steps 8 and 9. Raises what `OpeningKeys.fetch` does."""
        return self._keys().fetch(*_key_of(examined.envelope), origin=_origin(examined))

    def cached(self, examined: Examined) -> OpenedKey | None:
        """Do steps 8 and 9 as far as nobody need be asked. Raises what `OpeningKeys.at_hand` does."""
        destination, commitment, _, recipients_bytes = _key_of(examined.envelope)
        return self._keys().at_hand(destination, commitment, recipients_bytes)

    async def fetch_async(self, examined: Examined) -> OpenedKey:
        """Like `fetch`, without blocking the loop."""
        return await self._keys().fetch_async(*_key_of(examined.envelope), origin=_origin(examined))

    def _keys(self) -> OpeningKeys:
        if self.keys is None:
            raise ConfigError(f"policy {self.policy.name!r} has no keys to open with here: it only verifies")
        return self.keys

    def verified(self, examined: Examined) -> Verified:
        """Return what a signed message says of itself, without opening it."""
        return Verified(_facts(examined), varying_of(examined.envelope.header))

    def clear(self, examined: Examined) -> Opened:
        """Return the body of an integrity envelope."""
        return self._opened(examined, examined.envelope.payload)

    def decrypt(self, examined: Examined, key: MessageKey) -> Opened:
        """Do steps 10 and 11, with the right data key.

        Raises:
            Refused: *forged*; *malformed* or *downgrade* for what was encrypted.
        """
        envelope, header = examined.envelope, examined.envelope.header
        aad = encrypted_with(envelope.protected, examined.external)
        try:
            body = key.decrypt(header.nonce or b"", envelope.payload, aad)
        except InvalidTag:
            forged()
        return self._opened(examined, body)

    def decrypt_direct(self, examined: Examined) -> Opened:
        """Do steps 8 to 11 of a message without a data key. Raises what `DirectBodies.decrypt` does, and `decrypt`."""
        return self._opened(examined, self._bodies().decrypt(*_direct_of(examined), _origin(examined)))

    async def decrypt_direct_async(self, examined: Examined) -> Opened:
        """Like `decrypt_direct`, without blocking the loop."""
        return self._opened(
            examined, await self._bodies().decrypt_async(*_direct_of(examined), _origin(examined))
        )

    def _bodies(self) -> DirectBodies:
        if self.direct is None:
            raise ConfigError(f"policy {self.policy.name!r} has no keys to open with here: it only verifies")
        return self.direct

    def _opened(self, examined: Examined, body: bytes) -> Opened:
        header, facts = examined.envelope.header, _facts(examined)
        if header.framed:
            from postseal.core.framing import unframe  # noqa: PLC0415 - `import postseal.core` is to be quick

            names, headers, body = unframe(body)
            if not set(self.policy.encrypt_headers).issubset(names):
                raise Refused(Verdict.DOWNGRADE, "a header that the policy encrypts is not encrypted")
            self._check_beside(names, examined.beside or _NOTHING_BESIDE)
            facts = facts._replace(headers=headers)
        return Opened(body, facts, varying_of(header))

    def receipt(self, register: Register, examined: Examined) -> Receipt:
        """Return what the ledger is asked of a message."""
        envelope, header = examined.envelope, examined.envelope.header
        if not self.keyed:
            from postseal.core.replay import digest_of  # noqa: PLC0415 - loaded, as there is a register

            digest = digest_of(envelope.protected, envelope.payload)
        else:
            digest = envelope.payload[-TAG_SIZE:]
        return register.receipt(header.sender, header.destination, header.message_id, digest)

    def learn(self, examined: Examined, key: OpenedKey) -> None:
        """Remember this kind of message, after one was opened with *key*.

        Nothing is remembered where the ledger has to be waited for, nor of messages that have encrypted headers, or are replies.
        """
        if examined.envelope.header.says_more or examined.late is not None:
            return
        note = None
        if (register := self.register) is not None:
            if register.ledger.waits:
                return
            note = register.noter(examined.envelope.header.sender, examined.envelope.header.destination)
        if len(self.learnt) >= _MAX_LEARNT:
            self.forget()
        envelope, signed = examined.envelope, None
        check_time, always_timed = self.check_time, self._oldest is not None
        if envelope.outer is not None and examined.signer is not None:
            signer = examined.signer
            if signer.signed_between is not None:
                check_time, always_timed = partial(self._check_both_times, signer.signed_between), True
            ends = None if signer.retired_until is None else int(signer.retired_until.timestamp() * 1e9)
            signed = Signed(envelope.outer, signer, ends)
        hint = envelope.recipients_bytes[-HINT_SIZE:]
        skeleton = Skeleton(envelope.header)
        other = self._learnt_bare.get(hint)
        way = self._learnt_bare[hint] = short_way(
            envelope,
            skeleton,
            key,
            _facts(examined),
            signed,
            external=self._external,
            check_time=check_time,
            always_timed=always_timed,
            clock=self._clock,
            monotonic=self._monotonic,
            count=self.tally.tick,
            shapes=self._shapes_of(envelope, skeleton),
            other=other,
            note=note,
        )
        self.latest = self.learnt[hint] = _unrefusing(way) if self.mode == "observe" else way
        if envelope.header.bound or self.plain.get(hint) is not other:
            self.plain.pop(hint, None)
        else:
            self.plain[hint] = way

        if self._ring is not None and examined.signer is not None and not self._ring.holds(examined.signer):
            self.forget()  # the ring changed meanwhile, and may have looked before this was learnt

    def quick(self, data: bytes) -> Opened | None:
        """Open *data*, with nothing beside it, if it is like one that was opened before and binds nothing; else None, refused or not."""
        if type(data) is not bytes or (short := self.plain.get(data[self.hint])) is None:
            return None
        try:
            return short(data, None)
        except (Refused, KeyUnavailable):
            return None

    def quick_body(self, data: bytes) -> bytes | None:
        """Like `quick`, for who needs the body alone; None, too, where the ledger is to be told of the message."""
        if self.register is not None or (opened := self.quick(data)) is None:
            return None
        return opened.body

    def quick_parts(self, data: bytes) -> Parts | None:
        """Like `quick`, for who needs body, content type and receipt alone."""
        opened = self.quick(data)
        return None if opened is None else opened.parts

    def _shapes_of(self, envelope: Envelope, skeleton: Skeleton) -> Shapes:
        outer, recipients = envelope.outer, len(envelope.recipients_bytes)
        sizes = outer and (outer.algorithm, outer.protected, outer.unprotected), skeleton.whole, recipients
        if len(self._shapes) >= _MAX_SIZES:
            self._shapes.clear()
        return self._shapes.setdefault(sizes, Shapes(skeleton, outer, recipients))

    def ring_changed(self) -> None:
        """Forget what was verified with the keys that the ring had."""
        self.hint = hint_of(_signature_size(self.policy, self._ring))
        self.forget()

    def forget(self) -> None:
        """Drop what was learnt."""
        self.latest = None
        self.learnt.clear()
        self._learnt_bare.clear()
        self.plain.clear()


def _unrefusing(way: ShortWay) -> ShortWay:
    """Return *way* without its refusals: the whole way says whether what it refuses is handed on by who only observes."""

    def quietly(data: bytes, beside: Beside | None) -> Opened | None:
        try:
            return way(data, beside)
        except Refused:
            return None

    return quietly


def _check_signed_between(between: tuple[int, int], seconds: int) -> None:
    begins, ends = between
    if not begins <= seconds <= ends:
        raise Refused(Verdict.UNKNOWN_KEY, "it was sealed at a time for which its key was not delegated")


def _signature_size(policy: Policy, ring: KeyRing | None) -> int:
    if policy.code is not Protection.PRIVACY or ring is None:
        return 0
    return ring.signature_size


def _facts(examined: Examined) -> Facts:
    origin = Origin.NONE if examined.signer is None else examined.signer.origin
    return Facts(examined.envelope.header, origin, Verdict.OK)


def _direct_of(examined: Examined) -> tuple[Recipient, bytes, str]:
    envelope = examined.envelope
    (recipient,) = envelope.recipients
    bound = encrypted_with(envelope.protected, examined.external)
    return recipient._replace(wrapped_key=envelope.payload), bound, envelope.header.destination


def _origin(examined: Examined) -> tuple[str, bytes] | None:
    """Tell whose signature was verified: his account it is on if the wrapped key does not unwrap."""
    signer = examined.signer
    return None if signer is None else (examined.envelope.header.sender, signer.kid)


def _key_of(envelope: Envelope) -> tuple[str, bytes, tuple[Recipient, ...], bytes]:
    header = envelope.header
    return header.destination, header.commitment or b"", envelope.recipients, envelope.recipients_bytes
