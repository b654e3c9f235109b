"""What an examination finds: of a key, a file, a server. Each in one line, with what mends it.

Source: docs/doctor.md.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Final, Literal, NamedTuple, Protocol, runtime_checkable

__all__ = ["Examined", "Finding", "Grade", "bad", "clock_of", "ends_of", "good", "room_at", "warning"]

Grade = Literal["good", "warning", "bad"]
_SKEW: Final = 60.0
"""Seconds that a clock may be off. AWS refuses requests of one that is five minutes off; `max_clock_skew` is five minutes by default."""
_SOON: Final = 30
"""Days before its end at which something should be renewed."""
_LITTLE: Final = 2**30
_TOO_LITTLE: Final = 100 * 2**20
"""Bytes of free disk."""


class Finding(NamedTuple):
    """Something that was looked at.

    Attributes:
        grade: ``good``; ``warning``: it works, and hardly as it should; ``bad``: it does not work, or soon will not.
        what: What was looked at.
        says: How it is. Never holds a secret.
        mend: What to do about it.
    """

    grade: Grade
    what: str
    says: str
    mend: str = ""


@runtime_checkable
class Examined(Protocol):
    """Whatever can be asked how it is: a key of a service, a ledger."""

    def examine(self) -> Iterator[Finding]:
        """Look at it where it is, and yield what is found. Raises nothing of its own."""
        ...


def good(says: str) -> Finding:
    """Make a finding that needs nothing. Whoever knows what was looked at adds it."""
    return Finding("good", "", says)


def warning(says: str, mend: str = "") -> Finding:
    """Make a finding of what works, and hardly as it should."""
    return Finding("warning", "", says, mend)


def bad(says: str, mend: str = "") -> Finding:
    """Make a finding of what does not work."""
    return Finding("bad", "", says, mend)


def clock_of(date: object, now: float) -> Iterator[Finding]:
    """Compare the clock of a server with ours.

    Args:
        date: What it says, as in HTTP or in seconds since the epoch; anything else is passed over.
        now: Seconds since the epoch.
    """
    if isinstance(date, str):
        from email.utils import parsedate_to_datetime  # noqa: PLC0415 - it loads much, for who examines

        try:
            there = parsedate_to_datetime(date).timestamp()
        except ValueError:
            return
    elif isinstance(date, (int, float)):
        there = float(date)
    else:
        return
    off = now - there
    if abs(off) <= _SKEW:
        yield good(f"its clock and ours are the same, within {max(abs(off), 1):.0f} s")
        return
    side = "ahead of" if off > 0 else "behind"
    yield bad(
        f"our clock is {abs(off):,.0f} s {side} its own", "set the clock right: chrony, systemd-timesyncd"
    )


def ends_of(end: datetime | float | None, what: str, now: float, mend: str) -> Iterator[Finding]:
    """Say of something that ends when it does, where that is soon or past."""
    if end is None:
        return
    moment = end if isinstance(end, datetime) else datetime.fromtimestamp(end, UTC)
    left = moment - datetime.fromtimestamp(now, UTC)
    if left <= timedelta(0):
        yield bad(f"{what} ended on {moment:%Y-%m-%d}", mend)
    elif left < timedelta(days=_SOON):
        yield warning(f"{what} ends on {moment:%Y-%m-%d}, in {left.days} days", mend)


def room_at(folder: str) -> Iterator[Finding]:
    """Say how much room is left on the disk of *folder*."""
    import shutil  # noqa: PLC0415 - for who examines

    try:
        free = shutil.disk_usage(folder).free
    except OSError as error:
        yield bad(f"{folder}: {error.strerror}", "make the folder, for the user that this process runs as")
        return
    says = f"{free / 2**30:,.1f} GiB are free on the disk of {folder}"
    if free < _TOO_LITTLE:
        yield bad(says, "make room there")
    elif free < _LITTLE:
        yield warning(says, "make room there")
    else:
        yield good(says)
