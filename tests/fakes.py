"""A key service to be had in a test: counts what it is asked, and stops answering, refuses or dawdles when told to.

keys = FakeKeys()
sealer = Sealer(sender="shop", policies=[orders], keys={"main": keys})
keys.unavailable.set()   # from now on every call raises KeyUnavailable
keys.unavailable.clear()
"""

from __future__ import annotations

import threading
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from typing import TypeVar

from postseal.core import (
    KeyContext,
    KeyProvider,
    KeyRefused,
    KeyUnavailable,
    NewDataKey,
    Recipient,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
)

__all__ = ["FakeKeys", "local_keys"]

_T = TypeVar("_T")
_LONGEST = 30.0
"""Seconds after which a call that was made slow goes on, so that a test that forgot about it ends."""


def local_keys(key_id: str = "test-key") -> UnsafeLocalKeys:
    """Make a provider on a new random key, without its warning."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeLocalKeysWarning)
        return UnsafeLocalKeys.ephemeral(key_id)


class FakeKeys:
    """Key provider around another, which is a local one unless told otherwise. Safe for threads.

    Attributes:
        calls: How often each of ``"generate"``, ``"wrap"``, ``"unwrap"``, ``"encrypt"`` and ``"decrypt"`` was asked for, failures too.
        unavailable: While set, each call raises `KeyUnavailable`.
        refused: While set, each call raises `KeyRefused`.
        slow: While set, a call waits; it goes on when the event is cleared (`unblock`).
        waiting: Set as soon as a call waits.
    """

    def __init__(self, inner: KeyProvider | None = None) -> None:
        self._inner = local_keys() if inner is None else inner
        self._lock = threading.Lock()
        self._go_on = threading.Event()
        self.calls: Counter[str] = Counter()
        self.unavailable = threading.Event()
        self.refused = threading.Event()
        self.slow = threading.Event()
        self.waiting = threading.Event()

    def unblock(self) -> None:
        """Let calls that wait go on, and later ones not wait."""
        self.slow.clear()
        self._go_on.set()

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have a new data key made."""
        return self._answer("generate", lambda: self._inner.generate(context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap a data key that another provider made."""
        return self._answer("wrap", lambda: self._inner.wrap(data_key, context))

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Unwrap a data key."""
        return self._answer("unwrap", lambda: self._inner.unwrap(recipients, context))

    @property
    def most_direct(self) -> int:
        """As of the one within."""
        return self._inner.most_direct  # type: ignore[attr-defined, no-any-return]  # where it encrypts bodies

    @property
    def anybody_encrypts(self) -> bool:
        """As of the one within."""
        return self._inner.anybody_encrypts  # type: ignore[attr-defined, no-any-return]  # likewise

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Encrypt a body."""
        return self._answer("encrypt", lambda: self._inner.encrypt(plaintext, context))  # type: ignore[attr-defined, no-any-return]

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Decrypt a body."""
        return self._answer("decrypt", lambda: self._inner.decrypt(recipient, context))  # type: ignore[attr-defined, no-any-return]

    @property
    def opened(self) -> int:
        """How often it was asked for what opens a message."""
        return self.calls["unwrap"] + self.calls["decrypt"]

    def _answer(self, verb: str, call: Callable[[], _T]) -> _T:
        with self._lock:
            self.calls[verb] += 1
        if self.slow.is_set():
            self.waiting.set()
            self._go_on.wait(_LONGEST)
        if self.unavailable.is_set():
            raise KeyUnavailable("the fake key service was told not to answer")
        if self.refused.is_set():
            raise KeyRefused("the fake key service was told to refuse")
        return call()
