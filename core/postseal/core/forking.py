"""What a forked child must not take over from its parent: locks that nobody will release, calls that nobody will finish, data keys.

A lock that another thread held at the moment of the fork stays locked in the child for ever, because that thread does not exist there.

Source: POSIX, fork; Python, `os.register_at_fork`.
"""

from __future__ import annotations

import os
import threading
import weakref
from typing import Final, Protocol

__all__ = ["Forgetful", "ForkSafeLock", "begin_again_in_child"]


class Forgetful(Protocol):
    """Something that holds locks or secrets of this process."""

    def begin_again(self) -> None:
        """Make new locks and forget the rest. Runs in the child while it has one thread; must take no lock that is not new."""


# One hook of the interpreter for all: it takes none back, so one for each object would stay for as long as the process.
_living: Final[weakref.WeakSet[Forgetful]] = weakref.WeakSet()


def begin_again_in_child(thing: Forgetful) -> None:
    """Have ``thing.begin_again()`` called in each forked child, for as long as *thing* lives."""
    _living.add(thing)


class ForkSafeLock:
    """A lock that is free in a forked child, whoever held it in the parent. The thread that holds it may take it again."""

    def __init__(self) -> None:
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Be free."""
        self._lock = threading.RLock()

    def __enter__(self) -> None:
        self._lock.acquire()

    def __exit__(self, *_: object) -> None:
        self._lock.release()


def _begin_again() -> None:
    for thing in tuple(_living):
        thing.begin_again()


if hasattr(os, "register_at_fork"):  # Windows does not fork
    os.register_at_fork(after_in_child=_begin_again)
