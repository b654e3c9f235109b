"""Sealing to one destination: what is constant is made once, each message fills in the rest."""

from __future__ import annotations

from struct import Struct
from typing import Final

from postseal.core.context import EMPTY, byte_head, byte_string
from postseal.core.crypto import NONCE_SIZE, RandomBytes
from postseal.core.datakeys import SealingKey, SealingKeys
from postseal.core.errors import ConfigError, nearest
from postseal.core.policy import Policy
from postseal.core.signing import KeyRing, Sign
from postseal.core.wire import (
    ENCRYPT_HEAD,
    MESSAGE_ID_SIZE,
    Algorithm,
    Header,
    Protection,
    Template,
    encode_outer,
    encode_recipients,
    signed_head,
    to_be_signed_head,
)

__all__ = ["UNBOUND", "Outgoing"]

UNBOUND: Final = byte_string(EMPTY)
"""``external_aad`` as an encoded byte string, where nothing is bound."""
_MIDDLE: Final = Struct(">HH").pack
_NOISE: Final = NONCE_SIZE + MESSAGE_ID_SIZE
_MAX_TEMPLATES: Final = 64
"""Content types remembered for one data key."""


class Outgoing:
    """Seals the messages of one sender to one destination.

    Args:
        sender: Who we are.
        destination: Where to; travels as ``aud``.
        policy: The policy in force there.
        keys: Its data keys; None in integrity.
        ring: Its signing keys; None in confidentiality.
        random: Gives nonce and message id, in this order, in one call of 28 bytes.

    Raises:
        ConfigError: This sender may not sign here.
    """

    def __init__(  # noqa: PLR0917 - all are needed, and made in one place
        self,
        sender: str,
        destination: str,
        policy: Policy,
        keys: SealingKeys | None,
        ring: KeyRing | None,
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
        self._sender = sender
        self._destination = destination
        self._random = random
        self._algorithm = Algorithm.A256GCM
        self._key_id: bytes | None = None
        self._sign: Sign | None = None
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

    def seal(  # noqa: PLR0917 - naming them would cost more than a step
        self,
        key: SealingKey,
        body: bytes,
        external: bytes,
        now: int,
        content_type: str | None,
        expires: int | None,
    ) -> bytes:
        """Encrypt *body* and, in privacy, sign the outcome.

        Args:
            key: From `keys`, which has counted this message.
            body: The clear body.
            external: The ``external_aad`` as an encoded byte string; `UNBOUND` itself where nothing is bound.
            now: Milliseconds since the epoch.
            content_type: The media type of *body*.
            expires: Seconds since the epoch.
        """
        template, tail = key.templates.get((content_type, expires is None)) or self._template(
            key, content_type, expires
        )
        noise = self._random(_NOISE)
        nonce = noise[:NONCE_SIZE]
        aad = template.fill(nonce, now // 1000, noise[NONCE_SIZE:], now % 1000, expires)
        protected = aad[template.begin : template.end]
        if external is not UNBOUND:
            aad = aad[: template.end] + external
        ciphertext = key.key.encrypt(nonce, body, aad)
        size = len(ciphertext)
        # The empty map, and the head of the ciphertext; most have a length of two bytes.
        middle = _MIDDLE(0xA059, size) if 0xFF < size <= 0xFFFF else b"\xa0" + byte_head(size)  # noqa: PLR2004
        if self._sign is None:
            return b"".join((ENCRYPT_HEAD, protected, middle, ciphertext, tail))
        size += len(ENCRYPT_HEAD) + len(protected) + len(middle) + len(tail)
        payload = b"".join((byte_head(size), ENCRYPT_HEAD, protected, middle, ciphertext, tail))
        signature = self._sign_unbound(payload) if external is UNBOUND else self._sign(external + payload)
        return b"".join((self._signed_head, payload, self._signature_head, signature))

    def sign(
        self, body: bytes, external: bytes, now: int, content_type: str | None, expires: int | None
    ) -> bytes:
        """Sign the clear *body*, in integrity. Arguments as of `seal`."""
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

    def _template(
        self, key: SealingKey, content_type: str | None, expires: int | None
    ) -> tuple[Template, bytes]:
        header = self._header(content_type, expires, nonce=bytes(NONCE_SIZE), commitment=key.key.commitment)
        if len(key.templates) >= _MAX_TEMPLATES:
            key.templates.clear()
        made = Template(header, UNBOUND), encode_recipients(key.recipients)
        key.templates[content_type, expires is None] = made
        return made

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


def _utf8_size(value: str) -> int:
    """Return how many bytes *value* takes; none where it has no UTF-8."""
    try:
        return len(value.encode())
    except UnicodeEncodeError:
        return 0
