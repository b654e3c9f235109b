"""The alarm: raised once when the share of refused messages passes a rate, over when it has fallen to half of it."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Final, NamedTuple

from postseal.core.audit._flood import DAY
from postseal.core.audit._records import AlarmEvent
from postseal.core.errors import ConfigError
from postseal.core.values import Value

__all__ = ["Alarm", "AlarmLimits"]

_STEPS: Final = 60
"""Looks that are remembered of one window."""


class AlarmLimits(Value):
    """When the alarm is raised: as soon as, within the window, both limits are reached.

    Args:
        share: Refused messages, of all that came.
        least: Refused messages: so many there must be, however few came.
        window: Seconds looked back. It is over when a whole window has less than half of either limit.

    Raises:
        ConfigError: An option is out of its range.
    """

    __slots__ = ("least", "share", "window")

    share: float
    least: int
    window: float

    def __init__(self, *, share: float = 0.01, least: int = 100, window: float = 60.0) -> None:
        self._set(share=share, least=least, window=window)
        if isinstance(share, bool) or not isinstance(share, (int, float)) or not 0 < share <= 1:
            raise ConfigError(f"alarm.share is over 0 and at most 1, where 0.01 means 1 %: {share!r}")
        if isinstance(least, bool) or not isinstance(least, int) or not 1 <= least <= 10**9:
            raise ConfigError(f"alarm.least is 1 to 1,000,000,000 messages: {least!r}")
        if isinstance(window, bool) or not isinstance(window, (int, float)) or not 1 <= window <= DAY:
            raise ConfigError(f"alarm.window is 1 to 86,400 seconds: {window!r}")


class _Look(NamedTuple):
    """What there was in all, at some time."""

    now: float
    passed: int
    refused: int
    verdicts: Mapping[str, int]


class Alarm:
    """Watches the totals. Not safe for threads: its user has a lock.

    It looks when a message is refused, and once a second while it is raised. Nothing is known of times in which nobody looked, so a
    window begins at the first refusal after such a time: messages that came long before cannot hide a burst.
    """

    def __init__(self, limits: AlarmLimits) -> None:
        self._limits = limits
        self._step = limits.window / _STEPS
        self._looks: deque[_Look] = deque()
        self._passed = 0
        self.raised = False

    def look(
        self,
        time: datetime,
        now: float,
        passed: Callable[[], int],
        verdicts: Mapping[str, int],
        newest: str | None,
    ) -> AlarmEvent | None:
        """Look at the totals of this moment; return what changed.

        Args:
            time: In UTC, for the event.
            now: Seconds, on the monotonic clock.
            passed: Says how many messages were not refused, so far. Adding them up takes a while, so it is asked only where it counts.
            verdicts: Messages that were refused, by verdict, so far.
            newest: The verdict of the one that makes us look, if one does.
        """
        looks = self._looks
        if not self.raised and looks and now - looks[-1].now > self._limits.window:
            looks.clear()
        if not looks:  # then as it was before the message that makes us look
            before = dict(verdicts)
            if newest is not None:
                before[newest] -= 1
            self._passed = passed()
            looks.append(_Look(now, self._passed, sum(before.values()), before))
        while len(looks) > 1 and now - looks[1].now >= self._limits.window:
            looks.popleft()
        first, refused = looks[0], sum(verdicts.values())
        new, seconds = refused - first.refused, now - first.now
        fresh = now - looks[-1].now >= self._step
        if fresh or (not self.raised and self._is_much(new, new + self._passed - first.passed)):
            self._passed = passed()
        if fresh:
            looks.append(_Look(now, self._passed, refused, dict(verdicts)))
        came = new + self._passed - first.passed
        is_over = fresh and seconds >= self._limits.window and self._is_little(new, came)
        if not (is_over if self.raised else self._is_much(new, came)):
            return None
        self.raised = not self.raised
        since = {name: count - first.verdicts.get(name, 0) for name, count in verdicts.items()}
        since = {name: count for name, count in since.items() if count > 0}
        return AlarmEvent(time, self.raised, new, came, seconds, since)

    def _is_much(self, refused: int, deliveries: int) -> bool:
        return refused >= self._limits.least and refused >= self._limits.share * deliveries

    def _is_little(self, refused: int, deliveries: int) -> bool:
        return refused < self._limits.least / 2 or refused < self._limits.share / 2 * deliveries
