"""For how long a data key serves, and when its key service is asked again: the same for sealing and for opening.

A key has an end, its age. A little before, it is *due*: whoever uses it then has the service asked in the background, and goes on. So no
message waits for a key that is in use. If the service is away, it is asked every `RETRY_AFTER` seconds, and past the end the key goes on,
stale, for as long as its limits allow. If the service has said no, whoever holds the key drops it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final, Literal

from postseal.core.crypto import random_bytes

__all__ = [
    "AWAY_FOR",
    "OPENING_AHEAD",
    "RETRY_AFTER",
    "SEALING_AHEAD",
    "SLOW",
    "Clock",
    "KeyState",
    "Lease",
    "jitter",
]

KeyState = Literal["fresh", "stale", "ended"]
"""Within its age; past it, and serving because the key service is away; past it, and kept in case the service is found to be away."""

Clock = Callable[[], float]
"""Monotonic, in seconds."""

RETRY_AFTER: Final = 2.0
"""Seconds after which a service that did not answer is asked again."""
SLOW: Final = 5.0
"""Seconds after which a call without an answer counts as none: no message waits for it where its key may go on, stale."""
AWAY_FOR: Final = 10.0
"""Seconds for which it is remembered that the service was away. After a pause in the traffic it is asked before a stale key serves."""
SEALING_AHEAD: Final = (0.04, 0.07)
"""Parts of its age before whose end a data key to seal with is due; drawn for each: producers started at once do not call at once."""
OPENING_AHEAD: Final = (0.02, 0.04)
"""The same for one to open with. Later than producers change theirs: a key that is about to go out of use is not asked for again."""


def jitter() -> float:
    """Return a number from 0 to 1. The module `random` would take longer to load than all of this."""
    return int.from_bytes(random_bytes(2), "big") / 0xFFFF


class Lease:
    """What the key service said of one data key, and for how long it holds.

    Args:
        begins: From when its age counts.
        max_age: Seconds.
        max_stale: Seconds past that for which it may go on while the service is away.
        ahead: Parts of its age, at least and at most, before whose end it is due.
        took: Seconds that the service took to answer. It is due at least twice as long before its end.
        drawn: From 0 to 1: between the two parts of *ahead*.
    """

    __slots__ = ("_again", "_away", "begins", "due", "ends", "last")

    def __init__(
        self,
        begins: float,
        max_age: float,
        max_stale: float,
        *,
        ahead: tuple[float, float],
        took: float = 0.0,
        drawn: float = 0.0,
    ) -> None:
        least, most = ahead
        self.begins = begins
        self.ends = begins + max_age
        self.last = self.ends + max_stale
        """Until then it serves where the service is away."""
        part = max_age * (least + (most - least) * drawn)
        self.due = self.ends - min(max(part, 2 * took), max_age / 2)
        self._again = 0.0
        self._away = float("-inf")

    @property
    def ahead(self) -> float:
        """Seconds before its end from which it is due."""
        return self.ends - self.due

    def until(self, now: float) -> float | None:
        """Return until when it serves with nothing looked at; None where somebody has to wait for the service."""
        if now < self.ends:
            return min(self.ends, next((mark for mark in (self.due, self._again) if now < mark), self.ends))
        if now < self.last and now - self._away < AWAY_FOR:
            return min(now + RETRY_AFTER, self.last)
        return None

    def state(self, now: float) -> KeyState:
        """Return the state of its key."""
        if now < self.ends:
            return "fresh"
        return "ended" if self.until(now) is None else "stale"

    def asks(self, now: float, *, early: bool = False) -> bool:
        """Tell whether the service is to be asked now, in the background; *early* where it is to be though the age is not due.

        Whoever is told so asks: for the next `RETRY_AFTER` seconds, nobody else is.
        """
        if now < self._again or not (early or now >= self.due):
            return False
        self._again = now + RETRY_AFTER
        return True

    def away(self, now: float) -> None:
        """Note that the service did not answer."""
        self._away = now
        self._again = now + RETRY_AFTER
