"""Recipients whose key pairs are in a key service: producers fetch public keys and wrap by themselves, the service unwraps.

::

    main = PublicKeyRecipients(ServiceRecipients([AwsKmsRsaKey(kms, "arn:aws:kms:..."), AzureRsaKey(vault, "https://...")]))  # wraps
    main = PublicKeyRecipients(open_with=[AwsKmsRsaKey(kms, "arn:aws:kms:...")])  # unwraps: one call for each data key

A producer has the right to public keys alone and makes no call for a data key; no private key leaves its service, which records who opened.
Each key is named with its version, so that consumers can have the next one before producers wrap for it.

Source: SPEC.md 6.2 and 6.3; AWS KMS API: GetPublicKey, Decrypt; Azure Key Vault REST API: Get Key, Unwrap Key.
"""

from __future__ import annotations

import logging
import os
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import Final, Protocol

from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable
from postseal.core.findings import Examined, Finding
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import KeyContext
from postseal.core.publickeys import RecipientKey

__all__ = ["KeyInService", "ServiceRecipients"]

_log: Final = logging.getLogger("postseal.keys")
_SOON: Final = 30.0
"""Seconds after which to look again where that failed."""


class KeyInService(Protocol):
    """A key pair of a service, by its public half."""

    def fetch(self) -> RecipientKey:
        """Fetch the public half. One call.

        Raises:
            KeyUnavailable: No answer.
            KeyRefused: It is not to be wrapped for: disabled, deleted, of another kind, or we have no right to it.
        """
        ...


def _in_thread(job: Callable[[], None]) -> None:
    threading.Thread(target=job, name="postseal-recipients", daemon=True).start()


class ServiceRecipients:
    """A directory of public keys in key services: a source for `PublicKeyRecipients`.

    Nothing is asked at construction. The first data key waits for the keys; later ones do not: a thread beside looks at them again.

    Args:
        keys: For whom to wrap. Each opens alone.
        refresh: Seconds after which a thread looks again.
        max_stale: Seconds for which what was last seen goes on while a service does not answer.
        run: Runs a job beside.

    Raises:
        ConfigError: No keys, or an option makes no sense.
    """

    def __init__(
        self,
        keys: Iterable[KeyInService],
        *,
        refresh: float = 300.0,
        max_stale: float = 86_400.0,
        monotonic: Callable[[], float] = time.monotonic,
        run: Callable[[Callable[[], None]], object] = _in_thread,
    ) -> None:
        self._keys = tuple(keys)
        if not self._keys:
            raise ConfigError("ServiceRecipients needs a key to wrap for")
        if not refresh > 0 or not max_stale >= 0:
            raise ConfigError(
                f"refresh must be over 0 seconds and max_stale 0 or more: {refresh!r}, {max_stale!r}"
            )
        self._refresh, self._max_stale = refresh, max_stale
        self._monotonic, self._run = monotonic, run
        self._beside = 0
        self._refused: KeyRefused | None = None
        self._due = self._seen = 0.0
        self._lock = ForkSafeLock()
        self._found: tuple[RecipientKey, ...] = ()

    def __repr__(self) -> str:
        return f"<ServiceRecipients {', '.join(map(repr, self._keys))}>"

    def examine(self) -> Iterator[Finding]:
        """Ask about each key where it is."""
        for key in self._keys:
            if isinstance(key, Examined):
                yield from key.examine()

    def recipients(self, context: KeyContext) -> Sequence[RecipientKey]:  # noqa: ARG002 - the same for all
        """Return the public keys; have them looked at beside, where it is time to. Waits for them the first time alone.

        Raises:
            KeyRefused: One of them may not be wrapped for: a message is sealed for all or not at all.
            KeyUnavailable: They cannot be had at first, or were last seen longer than `max_stale` ago.
        """
        if not self._found:
            with self._lock:
                if not self._found:
                    self._look()
        now = self._monotonic()
        if now >= self._due and self._beside != os.getpid():
            self._beside = os.getpid()  # a forked child has not its parent's thread
            self._run(self._look_beside)
        if self._refused is not None:
            raise KeyRefused(*self._refused.args)
        if now - self._seen > self._max_stale:
            raise KeyUnavailable(f"{self}: nothing was seen of them for {self._max_stale:g} seconds")
        return self._found

    def _look(self) -> None:
        found = tuple(key.fetch() for key in self._keys)
        self._found, self._refused = found, None
        self._seen = self._monotonic()
        self._due = self._seen + self._refresh

    def _look_beside(self) -> None:
        try:
            self._look()
        except KeyRefused as refused:
            self._refused = refused
            _log.warning("nothing more is sealed for them: %s", refused)
        except Exception as error:  # noqa: BLE001 - a thread of its own: whatever it is, the next one tries again
            _log.warning("%r was not refreshed: %s", self, type(error).__name__)
        finally:
            self._due = max(self._due, self._monotonic() + min(self._refresh, _SOON))
            self._beside = 0
