"""The logger, and what is said there only now and then."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from logging import Logger

__all__ = ["QuietLog", "Seldom", "audit_log"]

_EVERY: Final = 60.0
"""Seconds."""
_FIRST: Final = 5
"""Lines of each kind said in that time."""
_MAX_KINDS: Final = 256
"""Kinds of lines told apart in that time; all others are one."""


def audit_log() -> Logger:
    """Return the logger ``postseal.audit``."""
    import logging  # noqa: PLC0415 - few messages are refused; `import postseal.core` is to be quick

    return logging.getLogger("postseal.audit")


class Seldom:
    """Says yes at once, and then once a minute at most."""

    def __init__(self) -> None:
        self._next = 0.0

    def now(self, now: float) -> bool:
        """Tell whether to say it, at *now* in seconds on the monotonic clock."""
        if now < self._next:
            return False
        self._next = now + _EVERY
        return True


class QuietLog:
    """Warnings, each of which may come with every message of a flood: five of a kind a minute are said.

    The next one that is said tells how many were not. Which numbers are exact is for `Auditor.counts` to say; this is for whoever reads
    along. Lines are of one kind if they differ in numbers alone.

    Args:
        log: Where they go.
        clock: Seconds.
    """

    def __init__(self, log: Logger, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._log = log
        self._clock = clock
        self._ends = 0.0
        self._said: dict[tuple[object, ...], int] = {}
        self._unsaid: dict[tuple[object, ...], int] = {}

    def warning(self, text: str, *args: object) -> None:
        """Log at WARNING, or do not."""
        now = self._clock()
        if now >= self._ends:
            self._ends = now + _EVERY
            self._unsaid = {kind: count - _FIRST for kind, count in self._said.items() if count > _FIRST}
            self._said = {}
        kind: tuple[object, ...] = text, *(value for value in args if not isinstance(value, int))
        if kind not in self._said and len(self._said) >= _MAX_KINDS:
            kind = ()
        said = self._said[kind] = self._said.get(kind, 0) + 1
        if said > _FIRST:
            return
        if more := self._unsaid.pop(kind, 0):
            text, args = f"{text} (and %d more like it before)", (*args, more)
        self._log.warning(text, *args)
