"""Signing keys that stay in a key service: what all of them have in common.

Each use of one takes a call, so it signs no messages: it delegates (`DelegatedKey`). One with a public half is verified here, with that
half, which is fetched now and then; so a right that is withdrawn in the service ends here, too. Who forges messages drives no calls: a
failure is shared by all who ask soon after.

Source: SPEC.md 7.3.
"""

from __future__ import annotations

import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any, Final

from postseal.core import crypto
from postseal.core.counting import Tallies
from postseal.core.crypto import InvalidSignature
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable
from postseal.core.forking import ForkSafeLock
from postseal.core.signing import Es256Key, Origin, RingKey, Sign, Verify
from postseal.core.wire import Algorithm

__all__ = ["Es256InService", "Failures", "ServiceKey"]

RETRY_AFTER: Final = 2.0
"""Seconds for which those who ask share a failure to answer."""
NEGATIVE_AGE: Final = 30.0
"""Seconds for which they share a no."""
_DAY: Final = 86_400.0


class Failures:
    """The last failure of a service: whoever asks soon after is told the same, without a call."""

    def __init__(self, monotonic: Callable[[], float]) -> None:
        self._monotonic = monotonic
        self._last: KeyUnavailable | KeyRefused | None = None
        self._until = 0.0

    def check(self) -> None:
        """Raise the last failure again, while it is fresh."""
        last = self._last
        if last is not None and self._monotonic() < self._until:
            raise type(last)(*last.args)

    def remember(self, error: KeyUnavailable | KeyRefused) -> None:
        """Keep *error* for a while."""
        age = NEGATIVE_AGE if isinstance(error, KeyRefused) else RETRY_AFTER
        self._last, self._until = type(error)(*error.args), self._monotonic() + age

    def forget(self) -> None:
        """The service has answered."""
        self._last = None


class ServiceKey(RingKey):
    """A signing key of a service.

    Attributes:
        calls: How often its service was asked, by operation.
    """

    remote = True

    def __init__(
        self,
        key_id: str,
        *,
        signs: bool,
        refresh: float,
        max_stale: float,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(key_id, None, "active", None)
        if not 0 < refresh <= _DAY:
            raise ConfigError(
                f"refresh of key {key_id!r} must be over 0 and at most 86,400 seconds: {refresh!r}"
            )
        if not 0 <= max_stale <= _DAY:
            raise ConfigError(f"max_stale of key {key_id!r} must be 0 to 86,400 seconds: {max_stale!r}")
        self.can_sign = signs
        self.calls = Tallies()
        self._refresh, self._max_stale, self._monotonic = refresh, max_stale, monotonic
        self._failures = Failures(monotonic)

    def _must_sign(self) -> None:
        if not self.can_sign:
            raise ConfigError(f"key {self.id!r} only verifies here: it was made with signs=False")


class Es256InService(ServiceKey, ABC):
    """A key on P-256 that signs in its service, and verifies here with the public half that the service gives."""

    algorithm = Algorithm.ES256
    origin = Origin.SENDER

    def __init__(self, key_id: str, **options: Any) -> None:
        super().__init__(key_id, **options)
        self._lock = ForkSafeLock()
        self._public: Es256Key | None = None
        self._seen = self._fresh_until = 0.0

    @abstractmethod
    def _ask_for_public_key(self) -> crypto.P256PublicKey:
        """Fetch the public half. One call. Raises `KeyUnavailable` or `KeyRefused`."""

    @abstractmethod
    def _ask_to_sign(self, message: bytes) -> bytes:
        """Have *message* signed: r and s, 64 bytes. One call. Likewise."""

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Of the public half, once it was fetched."""
        public = self._public
        return frozenset() if public is None else public.public_key_fingerprints

    def fresh_for(self) -> float:
        """Return for how many seconds it verifies without a call."""
        return self._fresh_until - self._monotonic()

    def fetch(self) -> None:
        """Fetch the public half, if it is time. One call, however many threads come.

        Raises:
            KeyUnavailable: No answer, and the last one is too old.
            KeyRefused: The service gives it to us no longer: the key was disabled or deleted, or the right to it withdrawn.
        """
        self._fetched()

    def _fetched(self) -> Es256Key:
        with self._lock:
            public = self._public
            if public is not None and self.fresh_for() > 0:
                return public
            self._failures.check()
            try:
                public = Es256Key(self.id, public_key=self._ask_for_public_key(), senders=[self.id])
            except KeyUnavailable as error:
                now = self._monotonic()
                if public is None or now >= self._seen + self._max_stale:
                    self._failures.remember(error)
                    raise
                # A public key does not change: what there is goes on, for a while.
                self._fresh_until = now + RETRY_AFTER
                return public
            except KeyRefused as error:
                self._public, self._fresh_until = None, 0.0
                self._failures.remember(error)
                raise
            self._public, self._seen = public, self._monotonic()
            self._fresh_until = self._seen + self._refresh
            return public

    def signer(self, sender: str, destination: str, prefix: bytes = b"") -> Sign:
        """Return the function that has the service sign, and sees that the public half verifies it: nobody else could, otherwise."""
        self._must_sign()

        def sign(message: bytes) -> bytes:
            whole = prefix + message
            public = self._fetched()
            signature = self._ask_to_sign(whole)
            try:
                public.verifier(sender, destination)(whole, signature)
            except InvalidSignature:
                raise KeyUnavailable(f"key {self.id!r}: what its service signed does not verify") from None
            return signature

        return sign

    def verifier(self, sender: str, destination: str, prefix: bytes = b"") -> Verify:
        """Return the function that verifies here.

        Raises:
            KeyUnavailable: The public half was not fetched yet.
        """
        public = self._public
        if public is None:
            raise KeyUnavailable(f"key {self.id!r}: its public half was not fetched yet")
        return public.verifier(sender, destination, prefix)
