"""What keeps a flood of refused messages from filling a log: the first few of each kind are told whole, the rest as a number."""

from __future__ import annotations

from datetime import datetime
from typing import Final

from postseal.core.audit._records import AuditEvent, MoreEvents
from postseal.core.errors import ConfigError, Verdict
from postseal.core.values import Value

__all__ = ["Flood", "FloodLimit"]

DAY: Final = 86400
"""In seconds."""
_MAX_KINDS: Final = 256
"""Kinds of events (verdict and destination) counted apart in one interval."""
_MAX_SUMMARIES: Final = 10
"""Kinds that get a line of their own when an interval ends: those with the most events. One line tells of all others."""


class FloodLimit(Value):
    """How many events are told whole. All others become one line for each kind, "and 12,345 more like it", when the interval ends.

    Args:
        first: Events of each verdict and destination told whole in an interval.
        most: Events of all kinds told whole in an interval.
        interval: Seconds.

    Raises:
        ConfigError: An option is out of its range.
    """

    __slots__ = ("first", "interval", "most")

    first: int
    most: int
    interval: float

    def __init__(self, *, first: int = 5, most: int = 30, interval: float = 60.0) -> None:
        self._set(first=first, most=most, interval=interval)
        for name, value in (("first", first), ("most", most)):
            if isinstance(value, bool) or not isinstance(value, int) or not 0 <= value <= 10**6:
                raise ConfigError(f"a flood limit's {name} is 0 to 1,000,000 events: {value!r}")
        if isinstance(interval, bool) or not isinstance(interval, (int, float)) or not 1 <= interval <= DAY:
            raise ConfigError(f"a flood limit's interval is 1 to 86,400 seconds: {interval!r}")


class _More:
    """Events of one kind that were not told."""

    __slots__ = ("count", "last", "since")

    def __init__(self, since: datetime) -> None:
        self.since = self.last = since
        self.count = 0


class Flood:
    """Says which events are told whole, and of the others how many there were. Not safe for threads: its user has a lock.

    Args:
        limit: None where all are.
    """

    def __init__(self, limit: FloodLimit | None) -> None:
        self._limit = limit
        self._ends = 0.0
        self._whole = 0
        self._told: dict[tuple[Verdict | None, str | None], int] = {}
        self._more: dict[tuple[Verdict | None, str | None], _More] = {}

    @property
    def pending(self) -> bool:
        """Whether there are events that a summary is yet to tell of."""
        return bool(self._more)

    def admit(self, event: AuditEvent, now: float) -> bool:
        """Tell whether *event* is told whole; else count it. *now* is in seconds, on the monotonic clock; ask `due` before.

        Its interval begins with the first event after the last one ended.
        """
        if (limit := self._limit) is None:
            return True
        if now >= self._ends:
            self._ends = now + limit.interval
            self._whole = 0
            self._told.clear()
        kind: tuple[Verdict | None, str | None] = event.verdict, event.destination
        told = self._told.get(kind, 0)
        if told < limit.first and self._whole < limit.most and (told or len(self._told) < _MAX_KINDS):
            self._told[kind] = told + 1
            self._whole += 1
            return True
        if kind not in self._more and len(self._more) >= _MAX_KINDS:
            kind = None, None
        more = self._more.get(kind)
        if more is None:
            more = self._more[kind] = _More(event.time)
        more.last = event.time
        more.count += 1
        return False

    def due(self, now: float) -> list[MoreEvents]:
        """Return what is to be told now of events that were not: something when their interval has ended, else nothing."""
        return self.rest() if self._more and now >= self._ends else []

    def rest(self) -> list[MoreEvents]:
        """Return what is to be told of events that were not told yet."""
        kinds = sorted(self._more.items(), key=lambda item: (item[0][0] is None, -item[1].count))
        self._more = {}
        lines = [_line(kind, [more]) for kind, more in kinds[:_MAX_SUMMARIES]]
        if others := [more for _, more in kinds[_MAX_SUMMARIES:]]:
            lines.append(_line((None, None), others))
        return lines


def _line(kind: tuple[Verdict | None, str | None], parts: list[_More]) -> MoreEvents:
    return MoreEvents(
        time=max(more.last for more in parts),
        since=min(more.since for more in parts),
        verdict=kind[0],
        destination=kind[1],
        events=sum(more.count for more in parts),
    )
