"""Times for which messages that were settled may be delivered again: deliberate rewinds."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any, Final, Self

from postseal.core.errors import ConfigError

__all__ = ["ReplayWindow", "Windows"]

_LONGEST: Final = 7 * 86400
"""Seconds that a window may stay open."""
_MOST: Final = 64
"""Windows that may be open at once."""


class ReplayWindow:
    """Lets messages that were settled be delivered again, until it ends or is closed. Also a ``with`` block.

    Attributes:
        destination: Where they may lie, or may have been sent to.
        since: When they were sent, at the earliest.
        until: When they were sent, at the latest.
        reason: Why.
        ends: When the window ends by itself.
        count: How many were delivered through it.
    """

    def __init__(
        self,
        destination: str,
        since: datetime,
        until: datetime,
        *,
        reason: str,
        ends: datetime,
        on_close: Callable[[ReplayWindow], object],
    ) -> None:
        self.destination = destination
        self.since = since
        self.until = until
        self.reason = reason
        self.ends = ends
        self.count = 0
        self._from = int(since.timestamp() * 1000)
        self._to = int(until.timestamp() * 1000)
        self._ends = ends.timestamp()
        self._on_close = on_close

    def admits(self, destinations: tuple[str, str], sent: int, now: float) -> bool:
        """Tell whether a message that was *sent* at that millisecond passes."""
        return now < self._ends and self.destination in destinations and self._from <= sent <= self._to

    def over(self, now: float) -> bool:
        """Tell whether it has ended."""
        return now >= self._ends

    def close(self) -> None:
        """End it now."""
        self._on_close(self)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<ReplayWindow {self.destination} of {self.since} to {self.until}, until {self.ends}: {self.reason}>"


class Windows:
    """The windows of one sealer. Empty nearly always."""

    def __init__(self) -> None:
        self._windows: tuple[ReplayWindow, ...] = ()

    def open(
        self,
        destination: str,
        since: datetime,
        until: datetime,
        *,
        reason: str,
        now: datetime,
        lasts: float,
    ) -> ReplayWindow:
        """Open one.

        Raises:
            ConfigError: A time without its zone, a window without a reason or without an end.
        """
        for name, value in (("since", since), ("until", until)):
            if not isinstance(value, datetime) or value.tzinfo is None:
                raise ConfigError(f"{name} must be a datetime with its time zone: {value!r}")
        if since > until:
            raise ConfigError(f"since is after until: {since.isoformat()} and {until.isoformat()}")
        if not isinstance(reason, str) or not reason.strip() or not reason.isprintable():
            raise ConfigError("reason must say, in one line, why messages may be delivered again")
        if isinstance(lasts, bool) or not isinstance(lasts, (int, float)) or not 0 < lasts <= _LONGEST:
            raise ConfigError(f"lasts must be over 0 and up to {_LONGEST:,} seconds: {lasts!r}")
        kept = tuple(window for window in self._windows if not window.over(now.timestamp()))
        if len(kept) >= _MOST:
            raise ConfigError(f"{_MOST} windows are open: close one first")
        ends = datetime.fromtimestamp(now.timestamp() + lasts, now.tzinfo)
        window = ReplayWindow(destination, since, until, reason=reason, ends=ends, on_close=self._close)
        self._windows = (*kept, window)
        return window

    def _close(self, window: Any) -> None:
        self._windows = tuple(each for each in self._windows if each is not window)

    def __bool__(self) -> bool:
        return bool(self._windows)

    def admit(self, destinations: tuple[str, str], sent: int, now: float) -> bool:
        """Tell whether a message passes, and count it if it does."""
        for window in self._windows:
            if window.admits(destinations, sent, now):
                window.count += 1
                return True
        return False
