"""Sealing to one destination: what is constant is made once, each message fills in the rest."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Final, NamedTuple, NoReturn

from postseal.core.accelerator import Native, native
from postseal.core.context import EMPTY, byte_head, byte_string
from postseal.core.counting import Tally
from postseal.core.crypto import NONCE_SIZE, HmacContext, RandomBytes
from postseal.core.datakeys import SealingKey, SealingKeys, Write
from postseal.core.errors import ConfigError, KeyUnavailable, nearest
from postseal.core.forking import ForkSafeLock
from postseal.core.policy import Policy
from postseal.core.signing import HmacKey, KeyRing, Renewed, Sign, Voucher
from postseal.core.wire import (
    ENCRYPT_HEAD,
    MAX_BODY,
    MESSAGE_ID_SIZE,
    NO_CREDENTIAL,
    TIME_MAX,
    TIME_MIN,
    Algorithm,
    Header,
    Recipient,
    Template,
    encode_direct,
    encode_outer,
    encode_recipients,
    encrypted_with,
    signed_head,
    to_be_signed_head,
)

if TYPE_CHECKING:
    from postseal.core.direct import DirectBodies

__all__ = ["LEAST_START", "UNBOUND", "Outgoing"]

LEAST_START: Final = b"\xd1"
"""The least of the first bytes that an envelope can have; hardly a body begins with it or more."""
UNBOUND: Final = byte_string(EMPTY)
"""``external_aad`` as an encoded byte string, where nothing is bound."""
_SECOND: Final = 1_000_000_000
_MILLISECOND: Final = 1_000_000
"""In nanoseconds, both."""
_NOISE: Final = NONCE_SIZE + MESSAGE_ID_SIZE
_NONCE: Final = slice(NONCE_SIZE)
_MESSAGE_ID: Final = slice(NONCE_SIZE, None)
_MAX_WRITERS: Final = 64
"""Content types remembered for one data key."""
_MAX_SIZES: Final = 4096
"""Sizes of byte strings whose heads are remembered: about 400 kB."""


class _Heads(dict[int, bytes]):
    """Heads of byte strings by their size, behind the bytes *before*: looked up in a third of the time that making one takes."""

    def __init__(self, before: bytes = b"") -> None:
        self._before = before

    def __missing__(self, size: int) -> bytes:
        made = self._before + byte_head(size)
        if len(self) < _MAX_SIZES:
            self[size] = made
        return made


class _Signing(NamedTuple):
    """What signs now: made once for each key."""

    algorithm: Algorithm
    key_id: bytes
    credential: bytes
    sign_raw: Sign
    sign: Sign
    sign_unbound: Sign
    begin_mac: Callable[[], HmacContext] | None
    head: bytes
    """What stands before the payload."""


class Outgoing:
    """Seals the messages of one sender to one destination.

    Args:
        sender: Who we are.
        destination: Where to; travels as ``aud``.
        policy: The policy in force there.
        keys: Its data keys; None in integrity, and where the policy is direct.
        ring: Its signing keys; None in confidentiality.
        direct: Has bodies encrypted by the key service itself, where the policy is direct.
        clock: Nanoseconds since the epoch.
        monotonic: In seconds; the clock of *keys*.
        random: Gives nonce and message id, in this order, in one call of 28 bytes.
        tally: Counts what is sealed.
        shortening: Puts around what seals whole envelopes what shortens them; None where data keys are carried.

    Raises:
        ConfigError: This sender may not sign here.
    """

    def __init__(
        self,
        sender: str,
        destination: str,
        policy: Policy,
        keys: SealingKeys | None,
        ring: KeyRing | None,
        *,
        direct: DirectBodies | None = None,
        clock: Callable[[], int],
        monotonic: Callable[[], float],
        random: RandomBytes,
        tally: Tally,
        shortening: Callable[[Write], Write] | None = None,
    ) -> None:
        self.stranger: ConfigError | None = None
        """Why nothing can be sealed here."""
        if policy.senders and sender not in policy.senders:
            self.stranger = ConfigError(
                f"policy {policy.name!r}: {sender!r} is not among the senders{nearest(sender, policy.senders)}"
            )
        self.passes = not policy.seals
        if self.stranger is not None and not self.passes:
            raise self.stranger
        self.policy = policy
        self.destination = destination
        self.keys = keys
        self._direct = direct
        self.frames = bool(policy.encrypt_headers)
        """Whether headers are encrypted with the body."""
        self.renewed: Renewed | None = None
        """What signs with one key after another: before each message, ask it whether it is due."""
        self.plain: SealingKeys | None = self._plain()
        """`keys`, where nothing has to be known of a message but its body."""
        self._sender = sender

        self._clock = clock
        self._monotonic = monotonic
        self._small = 0 if keys is None else min(keys.small, MAX_BODY)
        self._random = random
        self._shortening = shortening
        self.tally = tally
        self._middles = _Heads(before=b"\xa0")
        self._payload_heads = _Heads()
        self._ring = None if self.passes else ring
        self._lock = ForkSafeLock()
        self._signing: _Signing | None = None
        if self._ring is not None:
            self._ring.watch(self)
            with self._lock:
                self._signing = self._signs(self._ring)

    def _plain(self) -> SealingKeys | None:
        policy = self.policy
        if (
            self.passes
            or policy.bind_headers
            or self.frames
            or policy.bind_replies
            or self.renewed is not None
        ):
            return None
        return self.keys

    def _signs(self, ring: KeyRing) -> _Signing:
        sender, destination = self._sender, self.destination
        key = ring.signing_key(sender)
        self.renewed = key if isinstance(key, Renewed) else None
        self.plain = self._plain()
        if isinstance(key, Renewed):
            if key.sender != sender:
                raise ConfigError(f"{key} signs as {key.sender!r} here, and not as {sender!r}")
            key.watch(self)
            current = key.current()
            if current is None:
                # Whoever begins now waits for the key (`Renewed.due`); who is under way goes on with what there was.
                return self._signing or _no_signing(KeyUnavailable(f"{key} has no key yet that signs"))
            key = current
        if isinstance(key, Voucher):
            raise ConfigError(f"key {key.id!r} only vouches for others: it cannot sign")
        outer = encode_outer(key.algorithm, key.kid)
        prefix = to_be_signed_head(key.algorithm, outer)
        return _Signing(
            algorithm=key.algorithm,
            key_id=key.kid,
            credential=key.credential,
            sign_raw=key.signer(sender, destination),
            sign=key.signer(sender, destination, prefix),
            sign_unbound=key.signer(sender, destination, prefix + UNBOUND),
            begin_mac=(
                key.begun(sender, destination, prefix + UNBOUND).copy if isinstance(key, HmacKey) else None
            ),
            head=signed_head(key.algorithm, outer, key.credential),
        )

    def ring_changed(self) -> None:
        """Sign with what the ring has now; where it has nothing to sign with, say so for each message. The data key stays."""
        if self._ring is None:
            return
        with self._lock:  # so that of two changes the later one stays
            try:
                self._signing = self._signs(self._ring)
            except ConfigError as error:
                self._signing = _no_signing(error)
        if self.keys is not None and (key := self.keys.key) is not None:
            key.writers.clear()
            key.expiring_writers.clear()

    def quick(self, body: bytes, content_type: str | None = None) -> bytes | None:
        """Seal *body*, with nothing beside it, if a data key is at hand and nothing else has to be looked at; else None."""
        if (plain := self.plain) is None or type(body) is not bytes or not body < LEAST_START:
            return None
        if (
            (current := plain.key) is not None
            and (write := current.writers.get(content_type)) is not None
            and (sealed := write(body, UNBOUND, None, False))  # noqa: FBT003 - by position, which is quicker
        ):
            return sealed
        if (size := len(body)) > MAX_BODY or (key := plain.cached(size)) is None:
            return None
        write = key.writers.get(content_type) or self.writer(key, content_type, None)
        return write(body, UNBOUND, None, True)  # noqa: FBT003

    def writer(
        self,
        key: SealingKey,
        content_type: str | None,
        expires: int | None,
        in_reply_to: bytes | None = None,
    ) -> Write:
        """Make the function that seals messages of *content_type*, with an expiry like *expires* or without, under *key*.

        It is kept with the key, unless it is for a reply: hardly another one is bound to the same request.
        """
        header = self._header(
            content_type,
            expires,
            nonce=bytes(NONCE_SIZE),
            commitment=key.key.commitment,
            in_reply_to=in_reply_to,
        )
        template, tail = Template(header, UNBOUND), encode_recipients(key.recipients)
        _seconds(self._clock())  # complains now, if it must
        signing = self._signing
        if (compiled := native()) is None:
            write = self._pure(key, template, tail, expires, signing)
        else:
            write = self._compiled(compiled, key, template, tail, signing)
        if in_reply_to is not None:
            return write
        if self._shortening is not None:
            write = self._shortening(write)
        writers = key.writers if expires is None else key.expiring_writers
        if len(writers) >= _MAX_WRITERS:
            writers.clear()
        writers[content_type] = write
        if (
            self._signing is not signing
        ):  # the ring changed meanwhile, and may have looked before this was there
            writers.pop(content_type, None)
        return write

    def _compiled(
        self, compiled: Native, key: SealingKey, template: Template, tail: bytes, signing: _Signing | None
    ) -> Write:
        """Make what does the same as `_pure`, and is compiled."""
        return compiled.writer(
            key=key,
            permits=key.permits,
            small=self._small,
            random=self._random,
            clock=self._clock,
            monotonic=self._monotonic,
            encrypt=key.key.encrypt,
            count=self.tally.tick,
            template=template.blank(),
            begin=template.begin,
            places=template.places,
            unbound=UNBOUND,
            tail=tail,
            before=b"" if signing is None else signing.head,
            behind=b"" if signing is None else byte_head(signing.algorithm.signature_size),
            sign=_signs_not if signing is None else signing.sign,
            sign_unbound=_signs_not if signing is None else signing.sign_unbound,
            begin_mac=None if signing is None else signing.begin_mac,
            seconds=_seconds,
        ).write

    def _pure(  # noqa: C901, PLR0915 - see below
        self, key: SealingKey, template: Template, tail: bytes, expires: int | None, signing: _Signing | None
    ) -> Write:
        """Make it in Python.

        What is constant is looked up once, here. The function is a long one because each call that it does not make is a twentieth of
        what AES-GCM itself takes for a short message; bench/core.py shows what that saves.
        """
        pack, first, fourth, last = template.pack, template.first, template.fourth, template.last
        end = template.end
        within = slice(template.begin, end)
        expiring, permits, small = expires is not None, key.permits, self._small
        random, clock, monotonic, encrypt = self._random, self._clock, self._monotonic, key.key.encrypt
        before = behind = b""
        sign: Sign = _signs_not
        sign_unbound: Sign = _signs_not
        begin_mac: Callable[[], HmacContext] | None = None
        if signing is not None:
            sign, sign_unbound, begin_mac = signing.sign, signing.sign_unbound, signing.begin_mac
            before, behind = signing.head, byte_head(signing.algorithm.signature_size)
        middles, payload_heads, join = self._middles, self._payload_heads, b"".join
        count = self.tally.tick
        constant = len(ENCRYPT_HEAD) + end - template.begin + len(tail)
        second = (0, b"")
        """In nanoseconds since the epoch, and what is encoded of it: the same for all its messages."""

        def write(body: bytes, external: bytes, expires: int | None, counted: bool) -> bytes:
            nonlocal second
            if not counted:  # as `SealingKeys.cached` does it
                if len(body) > small:
                    return b""
                try:
                    permits.pop()
                except IndexError:
                    return b""
                if monotonic() >= key.expires:
                    permits.append(None)  # nothing was sealed; and the key may yet go on, stale
                    return b""
            noise = random(_NOISE)
            nonce, now = noise[_NONCE], clock()
            since, times = second
            if not 0 <= now - since < _SECOND or expiring:
                seconds = _seconds(now)
                second = since, times = seconds * _SECOND, template.times(seconds, expires)
            millis = (now - since) // _MILLISECOND
            aad = pack(first, nonce, times, noise[_MESSAGE_ID], fourth, millis, last)
            protected = aad[within]
            if external is not UNBOUND:
                aad = aad[:end] + external
            ciphertext = encrypt(nonce, body, aad)
            count()
            size = len(ciphertext)
            middle = middles[size]
            if not before:
                return join((ENCRYPT_HEAD, protected, middle, ciphertext, tail))
            size += constant + len(middle)
            payload = join((payload_heads[size], ENCRYPT_HEAD, protected, middle, ciphertext, tail))
            if external is not UNBOUND:
                signature = sign(external + payload)
            elif begin_mac is None:
                signature = sign_unbound(payload)
            else:
                mac = begin_mac()
                mac.update(payload)
                signature = mac.finalize()
            return join((before, payload, behind, signature))

        return write

    def seal_direct(
        self,
        body: bytes,
        external: bytes,
        content_type: str | None,
        expires: int | None,
        in_reply_to: bytes | None = None,
    ) -> bytes:
        """Seal *body* without a data key: one call, in which the key service encrypts it itself. Arguments as for `sign`.

        Raises:
            TooLarge: It takes no body of that size. Nobody was asked to encrypt it.
            KeyUnavailable: It did not answer. Retrying may help.
            KeyRefused: It said no.
        """
        bodies = self._bodies(len(body))
        protected = self._begun(content_type, expires, in_reply_to)
        made = bodies.encrypt(body, encrypted_with(protected, external), self.destination)
        return self._finished(protected, made, external)

    async def seal_direct_async(
        self,
        body: bytes,
        external: bytes,
        content_type: str | None,
        expires: int | None,
        in_reply_to: bytes | None = None,
    ) -> bytes:
        """Like `seal_direct`, without blocking the loop."""
        bodies = self._bodies(len(body))
        protected = self._begun(content_type, expires, in_reply_to)
        made = await bodies.encrypt_async(body, encrypted_with(protected, external), self.destination)
        return self._finished(protected, made, external)

    def _bodies(self, size: int) -> DirectBodies:
        if self._direct is None:
            raise ConfigError(f"policy {self.policy.name!r} has no keys here to encrypt with")
        self._direct.check_size(size)
        return self._direct

    def _begun(self, content_type: str | None, expires: int | None, in_reply_to: bytes | None) -> bytes:
        """Return the protected header of a message without a data key."""
        now = self._clock()
        return self._header(
            content_type,
            expires,
            seconds=_seconds(now),
            millis=now % _SECOND // _MILLISECOND,
            message_id=self._random(_NOISE)[_MESSAGE_ID],
            algorithm=Algorithm.KEY_SERVICE,
            in_reply_to=in_reply_to,
        ).encode()

    def _finished(self, protected: bytes, made: Recipient, external: bytes) -> bytes:
        """Return the envelope of what the key service made, signed in privacy."""
        envelope = encode_direct(protected, made)
        if (signing := self._signing) is not None:
            payload = byte_string(envelope)
            behind = byte_head(signing.algorithm.signature_size)
            envelope = b"".join((signing.head, payload, behind, signing.sign(external + payload)))
        self.tally.tick()
        return envelope

    def sign(
        self,
        body: bytes,
        external: bytes,
        content_type: str | None,
        expires: int | None,
        in_reply_to: bytes | None = None,
    ) -> bytes:
        """Sign the clear *body*, in integrity.

        Args:
            body: The clear body.
            external: The ``external_aad`` as an encoded byte string.
            content_type: The media type of *body*.
            expires: Seconds since the epoch.
            in_reply_to: Reference of the request that it answers.
        """
        signing = self._signing
        if signing is None:
            raise ConfigError(f"policy {self.policy.name!r} signs nothing, and has no data keys here")
        now = self._clock()
        message_id = self._random(_NOISE)[NONCE_SIZE:]
        protected = self._header(
            content_type,
            expires,
            seconds=_seconds(now),
            millis=now % _SECOND // _MILLISECOND,
            message_id=message_id,
            key_id=signing.key_id,
            algorithm=signing.algorithm,
            in_reply_to=in_reply_to,
        ).encode()
        payload = byte_head(len(body)) + body
        signature = signing.sign_raw(to_be_signed_head(signing.algorithm, protected) + external + payload)
        self.tally.tick()
        behind = byte_head(signing.algorithm.signature_size)
        before = signed_head(signing.algorithm, protected, signing.credential)
        return b"".join((before, payload, behind, signature))

    def _header(
        self,
        content_type: str | None,
        expires: int | None,
        *,
        seconds: int = 0,
        millis: int = 0,
        message_id: bytes = b"",
        nonce: bytes | None = None,
        commitment: bytes | None = None,
        key_id: bytes | None = None,
        algorithm: Algorithm = Algorithm.A256GCM,
        in_reply_to: bytes | None = None,
    ) -> Header:
        if content_type is not None and not 1 <= _utf8_size(content_type) <= 255:  # noqa: PLR2004 - SPEC.md 9
            raise ConfigError(f"a content type has 1 to 255 bytes of UTF-8: {content_type[:80]!r}")
        return Header(
            algorithm=algorithm,
            sender=self._sender,
            destination=self.destination,
            seconds=seconds,
            millis=millis,
            message_id=message_id,
            protection=self.policy.code,
            policy=self.policy.name,
            policy_version=self.policy.version,
            bound=self.policy.bind_headers,
            content_type=content_type,
            expires=expires,
            nonce=nonce,
            commitment=commitment,
            key_id=key_id,
            framed=self.frames,
            in_reply_to=in_reply_to,
        )


def _seconds(now: int) -> int:
    """Return the seconds of *now*, nanoseconds since the epoch.

    Raises:
        ConfigError: The clock is so wrong that no header can carry its time, and nobody could open the message.
    """
    seconds = now // _SECOND
    if not TIME_MIN <= seconds <= TIME_MAX:
        raise ConfigError(
            "the clock of this machine is before 1970-01-02 or after 2106-02-07: nothing was sealed"
        )
    return seconds


def _signs_not(message: bytes) -> bytes:
    raise AssertionError(len(message))


def _no_signing(error: ConfigError | KeyUnavailable) -> _Signing:
    """Make what stands for the signing key where the ring has none."""

    def refuse(message: bytes) -> NoReturn:
        raise type(error)(f"{error}; a message of {len(message)} bytes was not sealed")

    return _Signing(Algorithm.EDDSA, b"-", NO_CREDENTIAL, refuse, refuse, refuse, None, b"-")


def _utf8_size(value: str) -> int:
    """Return how many bytes *value* takes; none where it has no UTF-8."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return 0
