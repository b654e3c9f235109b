"""Sealing to one destination: what is constant is made once, each message fills in the rest."""

from __future__ import annotations

from collections.abc import Callable
from struct import Struct
from typing import Final

from postseal.core.context import EMPTY, byte_head, byte_string
from postseal.core.crypto import NONCE_SIZE, RandomBytes
from postseal.core.datakeys import SealingKey, SealingKeys, Write
from postseal.core.errors import ConfigError, nearest
from postseal.core.policy import Policy
from postseal.core.signing import KeyRing, Sign
from postseal.core.wire import (
    ENCRYPT_HEAD,
    MAX_BODY,
    MESSAGE_ID_SIZE,
    TIME_MAX,
    TIME_MIN,
    Algorithm,
    Header,
    Protection,
    Template,
    encode_outer,
    encode_recipients,
    signed_head,
    to_be_signed_head,
)

__all__ = ["LEAST_START", "UNBOUND", "Outgoing"]

LEAST_START: Final = b"\xd1"
"""The least of the first bytes that an envelope can have; hardly a body begins with it or more."""
UNBOUND: Final = byte_string(EMPTY)
"""``external_aad`` as an encoded byte string, where nothing is bound."""
_MIDDLE: Final = Struct(">HH").pack
_MIDDLES: Final = tuple(b"\xa0" + byte_head(size) for size in range(0x100))
"""The empty map and the head of a ciphertext, for sizes of one byte; `_MIDDLE` packs those of two."""
_NOISE: Final = NONCE_SIZE + MESSAGE_ID_SIZE
_NONCE: Final = slice(NONCE_SIZE)
_MESSAGE_ID: Final = slice(NONCE_SIZE, None)
_MAX_WRITERS: Final = 64
"""Content types remembered for one data key."""


class Outgoing:
    """Seals the messages of one sender to one destination.

    Args:
        sender: Who we are.
        destination: Where to; travels as ``aud``.
        policy: The policy in force there.
        keys: Its data keys; None in integrity.
        ring: Its signing keys; None in confidentiality.
        clock: Nanoseconds since the epoch.
        random: Gives nonce and message id, in this order, in one call of 28 bytes.

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
        clock: Callable[[], int],
        random: RandomBytes,
    ) -> None:
        if policy.senders and sender not in policy.senders:
            raise ConfigError(
                f"policy {policy.name!r}: {sender!r} is not among the senders{nearest(sender, policy.senders)}"
            )
        self.policy = policy
        self.binds = bool(policy.bind_headers)
        self.keys = keys
        self.passes = policy.mode in ("off", "observe")
        self.plain = None if self.passes or self.binds else keys
        """`keys`, where nothing has to be known of a message but its body."""
        self._sender = sender
        self._destination = destination
        self._clock = clock
        self._random = random
        self._algorithm = Algorithm.A256GCM
        self._key_id: bytes | None = None
        self._signed_head = self._signature_head = b""
        self._sign: Sign = _signs_not
        self._sign_raw: Sign = _signs_not
        self._sign_unbound: Sign = _signs_not
        if ring is not None and not self.passes:
            key = ring.signing_key(sender)
            self._algorithm = key.algorithm
            self._key_id = key.id.encode()
            outer = encode_outer(key.algorithm, self._key_id)
            prefix = to_be_signed_head(key.algorithm, outer)
            self._sign_raw = key.signer(sender, destination)
            self._sign = key.signer(sender, destination, prefix)
            self._sign_unbound = key.signer(sender, destination, prefix + UNBOUND)
            self._signed_head = signed_head(key.algorithm, outer)
            self._signature_head = byte_head(key.algorithm.signature_size)

    def quick(self, body: bytes) -> bytes | None:
        """Seal *body*, with nothing beside it, if a data key is at hand and nothing else has to be looked at; else None."""
        if (
            self.plain is not None
            and type(body) is bytes
            and body[:1] < LEAST_START
            and (size := len(body)) <= MAX_BODY
            and (key := self.plain.cached(size)) is not None
        ):
            return (key.writers.get(None) or self.writer(key, None, None))(body, UNBOUND, None)
        return None

    def writer(self, key: SealingKey, content_type: str | None, expires: int | None) -> Write:
        """Make the function that seals messages of *content_type*, with an expiry like *expires* or without, under *key*.

        It is kept with the key. What is constant is looked up once, here.
        """
        self._now()  # complains now, if it must
        header = self._header(content_type, expires, nonce=bytes(NONCE_SIZE), commitment=key.key.commitment)
        template, tail = Template(header, UNBOUND), encode_recipients(key.recipients)
        pack, fixed, begin, end = template.pack, template.fixed, template.begin, template.end
        (first, second, *exp, third, fourth, last), expiring = fixed, expires is not None
        before_iat = exp[0] if exp else b""
        random, clock, encrypt = self._random, self._clock, key.key.encrypt
        sign, sign_unbound = self._sign, self._sign_unbound
        before, behind = self._signed_head, self._signature_head

        def write(body: bytes, external: bytes, expires: int | None) -> bytes:
            noise = random(_NOISE)
            nonce, now = noise[_NONCE], clock() // 1_000_000
            if expiring:
                aad = pack(
                    first,
                    nonce,
                    second,
                    expires,
                    before_iat,
                    now // 1000,
                    third,
                    noise[_MESSAGE_ID],
                    fourth,
                    now % 1000,
                    last,
                )
            else:
                aad = pack(
                    first, nonce, second, now // 1000, third, noise[_MESSAGE_ID], fourth, now % 1000, last
                )
            protected = aad[begin:end]
            if external is not UNBOUND:
                aad = aad[:end] + external
            ciphertext = encrypt(nonce, body, aad)
            size = len(ciphertext)
            if size <= 0xFF:  # noqa: PLR2004 - lengths of one byte and of two, RFC 8949 3
                middle = _MIDDLES[size]
            elif size <= 0xFFFF:  # noqa: PLR2004
                middle = _MIDDLE(0xA059, size)
            else:
                middle = b"\xa0" + byte_head(size)
            if not before:
                return b"".join((ENCRYPT_HEAD, protected, middle, ciphertext, tail))
            size += len(ENCRYPT_HEAD) + len(protected) + len(middle) + len(tail)
            payload = b"".join((byte_head(size), ENCRYPT_HEAD, protected, middle, ciphertext, tail))
            signature = sign_unbound(payload) if external is UNBOUND else sign(external + payload)
            return b"".join((before, payload, behind, signature))

        writers = key.expiring_writers if expiring else key.writers
        if len(writers) >= _MAX_WRITERS:
            writers.clear()
        writers[content_type] = write
        return write

    def sign(self, body: bytes, external: bytes, content_type: str | None, expires: int | None) -> bytes:
        """Sign the clear *body*, in integrity.

        Args:
            body: The clear body.
            external: The ``external_aad`` as an encoded byte string.
            content_type: The media type of *body*.
            expires: Seconds since the epoch.
        """
        now = self._now()
        message_id = self._random(_NOISE)[NONCE_SIZE:]
        protected = self._header(
            content_type,
            expires,
            seconds=now // 1000,
            millis=now % 1000,
            message_id=message_id,
            key_id=self._key_id,
        ).encode()
        payload = byte_head(len(body)) + body
        signature = self._sign_raw(to_be_signed_head(self._algorithm, protected) + external + payload)
        return b"".join((signed_head(self._algorithm, protected), payload, self._signature_head, signature))

    def _now(self) -> int:
        """Return milliseconds since the epoch.

        Raises:
            ConfigError: The clock is so wrong that no header can carry its time, and nobody could open the message.
        """
        now = self._clock() // 1_000_000
        if not TIME_MIN <= now // 1000 <= TIME_MAX:
            raise ConfigError(
                "the clock of this machine is before 1970-01-02 or after 2106-02-07: nothing was sealed"
            )
        return now

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
    ) -> Header:
        if content_type is not None and not 1 <= _utf8_size(content_type) <= 255:  # noqa: PLR2004 - SPEC.md 9
            raise ConfigError(f"a content type has 1 to 255 bytes of UTF-8: {content_type[:80]!r}")
        encrypts = self.policy.code is not Protection.INTEGRITY
        return Header(
            algorithm=Algorithm.A256GCM if encrypts else self._algorithm,
            sender=self._sender,
            destination=self._destination,
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
        )


def _signs_not(message: bytes) -> bytes:
    raise AssertionError(len(message))


def _utf8_size(value: str) -> int:
    """Return how many bytes *value* takes; none where it has no UTF-8."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return 0
