"""How often wrapped keys that were never opened here are asked for, once some of them have failed.

Without a signature nothing tells an honest wrapped key from a forged one but the key service, so a flood of different forgeries would be
a flood of calls. Once one has failed, the unknown keys of its origin are rationed: ten may fail, and then as many in a second as the
policy says. Each that opens earns two more calls, so honest traffic is soon at full speed again. A message that is beyond the ration is
not refused: it may be honest. It is kept, and comes again.

Who gets the next call: the key that was asked for most often. A data key seals many messages, so an honest one leads soon, while each of
different forgeries was asked for once. If it does not come again within 3 seconds, its turn is over. Whoever would keep an honest key
of *g* messages a second waiting with *f* forgeries a second has to bring a fresh key every 3 seconds, at least, that was asked for more
often than that: the honest key waits 6 f / g seconds at most, and the ten of the beginning.

Whoever signs is an origin of his own: neither forgeries in no name nor another sender's are on his account.
"""

from __future__ import annotations

from typing import Final

__all__ = ["BURST", "CALM", "Ration", "Rations"]

CALM: Final = 30.0
"""Seconds without a failure after which nothing is rationed."""
BURST: Final = 10
"""Failures before calls are rationed by time. Those that follow wait until the time of these is over, too."""
TURN: Final = 3
"""Times as long as a call may take of the ration, for which those wait that were asked for most."""
_MOST_CREDIT: Final = 64
_MOST_ASKED: Final = 1024
"""Wrapped keys whose asking is counted."""
_MOST_ORIGINS: Final = 1024


class Ration:
    """The ration of one origin.

    Args:
        each: Seconds for each call that may fail.
        now: When the first one has failed.
    """

    def __init__(self, each: float, now: float) -> None:
        self._each = each
        self._failed_at = now
        self._burst = BURST - 1
        self._credit = 0
        self._free_at = now + each
        self._asked: dict[object, int] = {}
        self._top = 0
        """How often those were asked for that were asked for most."""

    def is_calm(self, now: float) -> bool:
        """Tell whether it is long ago that one failed."""
        return now - self._failed_at >= CALM

    def admits(self, what: object, now: float) -> bool:
        """Tell whether the key service may be asked for *what*; who is told so asks."""
        if self._burst:
            self._burst -= 1
        elif self._credit:
            self._credit -= 1
            return True
        elif not self._is_turn_of(what, now):
            self._note(what)
            return False
        self._free_at = max(self._free_at, now) + self._each
        return True

    def succeeded(self) -> None:
        """Note that a call brought a key."""
        self._credit = min(self._credit + 2, _MOST_CREDIT)

    def failed(self, now: float) -> None:
        """Note that a call brought none."""
        self._failed_at = now

    def _is_turn_of(self, what: object, now: float) -> bool:
        if now < self._free_at:
            return False
        if self._asked.get(what, 0) + 1 < self._top:
            if now < self._free_at + TURN * self._each:
                return False
            # Those that were asked for most did not come again: they have had their turn.
            self._asked = {each: times for each, times in self._asked.items() if times < self._top}
        self._asked.pop(what, None)
        self._top = max(self._asked.values(), default=0)
        return True

    def _note(self, what: object) -> None:
        """Count that *what* was asked for. Source: Misra and Gries, Finding repeated elements (1982): what is asked for often is kept."""
        times = self._asked.get(what, 0) + 1
        if times == 1 and len(self._asked) >= _MOST_ASKED:
            self._asked = {each: times - 1 for each, times in self._asked.items() if times > 1}
            self._top = max(0, self._top - 1)
            return
        self._asked[what] = times
        self._top = max(self._top, times)


class Rations:
    """The rations of all origins that had failures a short while ago. Used under the lock of whoever has it.

    Args:
        failures: In a second.
    """

    def __init__(self, failures: float) -> None:
        self._each = 1 / failures
        self._rations: dict[object, Ration] = {}

    def admits(self, origin: object, what: object, now: float) -> bool:
        """Tell whether the key service may be asked for *what*, which came from *origin*."""
        ration = self._of(origin, now)
        return ration is None or ration.admits(what, now)

    def succeeded(self, origin: object, now: float) -> None:
        """Note that a call brought a key."""
        if (ration := self._of(origin, now)) is not None:
            ration.succeeded()

    def failed(self, origin: object, now: float) -> None:
        """Note that a call brought none."""
        if (ration := self._of(origin, now)) is not None:
            ration.failed(now)
            return
        while len(self._rations) >= _MOST_ORIGINS:
            del self._rations[next(iter(self._rations))]
        self._rations[origin] = Ration(self._each, now)

    def _of(self, origin: object, now: float) -> Ration | None:
        ration = self._rations.get(origin)
        if ration is not None and ration.is_calm(now):
            del self._rations[origin]
            return None
        return ration
