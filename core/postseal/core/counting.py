"""Counts that many threads make exactly, without a lock where they count."""

from __future__ import annotations

import threading
from collections.abc import Callable
from itertools import count
from typing import Final

from postseal.core.forking import begin_again_in_child

__all__ = ["Tallies", "TalliesByMode", "Tally"]

_MAX_NAMES: Final = 8192
OTHERS: Final = "(others)"


class Tally:
    """How often `tick` was called, in this process. A forked child begins at 0.

    A tick takes 30 nanoseconds: one step of the interpreter, so no two threads count as one, and no lock is taken. Reading counts as one,
    too, and is taken off again.

    Attributes:
        tick: Counts one.
    """

    __slots__ = ("__weakref__", "_before", "_lock", "tick")

    def __init__(self) -> None:
        self.tick: Callable[[], int] = count().__next__
        self._before = 0
        self._lock = threading.Lock()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Count from 0: what the parent counted is the parent's."""
        self._lock = threading.Lock()
        self._before = self.tick() + 1

    @property
    def value(self) -> int:
        """How often."""
        with self._lock:
            seen = self.tick() - self._before
            self._before += 1
        return seen


class Tallies(dict[str, Tally]):
    """A `Tally` for each name, made when it is first asked for; one for all names beyond the first 8,192."""

    def __missing__(self, name: str) -> Tally:
        if len(self) >= _MAX_NAMES and name != OTHERS:
            return self[OTHERS]
        return self.setdefault(name, Tally())

    @property
    def values_now(self) -> dict[str, int]:
        """What each counted, by name."""
        return {name: tally.value for name, tally in tuple(self.items())}

    @property
    def total(self) -> int:
        """What all counted."""
        return sum(self.values_now.values())


class TalliesByMode(dict[tuple[str, str], Tally]):
    """A `Tally` for each name and mode, made when it is first asked for; one a mode for all beyond the first 8,192."""

    def __missing__(self, key: tuple[str, str]) -> Tally:
        name, mode = key
        if len(self) >= _MAX_NAMES and name != OTHERS:
            return self[OTHERS, mode]
        return self.setdefault(key, Tally())

    @property
    def by_mode(self) -> dict[tuple[str, str], int]:
        """What each counted, by name and mode."""
        return {key: tally.value for key, tally in tuple(self.items())}

    @property
    def values_now(self) -> dict[str, int]:
        """What each name counted, in all modes."""
        totals: dict[str, int] = {}
        for (name, _), value in self.by_mode.items():
            totals[name] = totals.get(name, 0) + value
        return totals

    @property
    def total(self) -> int:
        """What all counted."""
        return sum(self.by_mode.values())
