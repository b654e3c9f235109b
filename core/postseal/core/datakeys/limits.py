"""The limits of data keys: how long each seals, how long each opens."""

from __future__ import annotations

from typing import Final

from postseal.core.errors import ConfigError
from postseal.core.values import Value

__all__ = ["MAX_BYTES", "MAX_FAILURES", "MAX_MESSAGES", "DataKeyLimits", "OpeningLimits"]

MAX_MESSAGES: Final = 2**28
MAX_BYTES: Final = 2**38
MAX_FAILURES: Final = 10_000


def _positive(value: float, what: str, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ConfigError(f"{what} must be over 0 and at most {most:,}: {value!r}")


class DataKeyLimits(Value):
    """How long a data key seals. The first limit reached ends it; all count from its creation.

    Args:
        max_age: Seconds.
        max_messages: Messages, at most 2**28. 1 makes a key for each message.
        max_bytes: Bytes of bodies, at most 2**38. Each body counts as one byte at least, and as ``max_bytes // max_messages`` at least.
        max_stale: Seconds past *max_age* for which it goes on sealing while the key service does not answer; 0 for none.

    Raises:
        ConfigError: A limit is out of its range.
    """

    __slots__ = ("max_age", "max_bytes", "max_messages", "max_stale")

    max_age: float
    max_messages: int
    max_bytes: int
    max_stale: float

    def __init__(
        self,
        *,
        max_age: float = 600.0,
        max_messages: int = 2**20,
        max_bytes: int = 64 * 2**30,
        max_stale: float = 3600.0,
    ) -> None:
        self._set(max_age=max_age, max_messages=max_messages, max_bytes=max_bytes, max_stale=max_stale)
        _positive(max_age, "data_key.max_age", 30 * 86400)
        # SP 800-38D 8.3 and SPEC.md 6.4: random nonces stay distinct up to 2**28 with probability 1 - 2**-40.
        _positive(max_messages, "data_key.max_messages", MAX_MESSAGES)
        # RFC 8446 5.5: 2**24.5 records of 2**14 bytes keep AES-GCM's advantage near 2**-57.
        _positive(max_bytes, "data_key.max_bytes", MAX_BYTES)
        if max_stale:
            _positive(max_stale, "data_key.max_stale", 30 * 86400)


class OpeningLimits(Value):
    """How long an unwrapped data key opens without asking again.

    Args:
        max_age: Seconds. This is the revocation window: a right withdrawn takes effect within it.
        max_stale: Seconds past *max_age* for which it goes on opening while the key service does not answer; 0 for none.
        max_keys: Data keys kept; the least recently used goes first.
        max_failures: Calls a second that may fail for wrapped keys that were never opened here, from one origin; ten may at once, and are
            waited for. An origin is a sender whose signature was verified, or all that is not signed. What is beyond is kept for later.

    Raises:
        ConfigError: A limit is out of its range.
    """

    __slots__ = ("max_age", "max_failures", "max_keys", "max_stale")

    max_age: float
    max_stale: float
    max_keys: int
    max_failures: float

    def __init__(
        self,
        *,
        max_age: float = 300.0,
        max_stale: float = 3600.0,
        max_keys: int = 1024,
        max_failures: float = 1.0,
    ) -> None:
        self._set(max_age=max_age, max_stale=max_stale, max_keys=max_keys, max_failures=max_failures)
        _positive(max_age, "opening.max_age", 30 * 86400)
        _positive(max_keys, "opening.max_keys", 2**20)
        _positive(max_failures, "opening.max_failures", MAX_FAILURES)
        if max_stale:
            _positive(max_stale, "opening.max_stale", 30 * 86400)
