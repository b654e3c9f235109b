"""What the caches tell of themselves: how often they helped, and in which state their keys are."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import NamedTuple

from postseal.core.counting import Tally
from postseal.core.datakeys.leases import KeyState

__all__ = ["CacheCounts", "CacheTallies"]


class CacheCounts(NamedTuple):
    """What the caches of one sealer, to seal or to open, have done in this process, and what they hold now."""

    hits: int
    """Messages that waited for nobody."""
    misses: int
    """Times that a message waited for the key service."""
    calls: int
    """Calls begun."""
    failed: int
    """Calls that brought no key."""
    ahead: int
    """Times that the service was asked ahead of time, with no message waiting."""
    stale: int
    """Times that a data key went on past its age, for 2 seconds each."""
    negative: int
    """Messages refused without a call: their wrapped key was known not to unwrap."""
    rationed: int
    """Times that a message was kept, because too many wrapped keys had failed."""
    in_flight: int
    """Calls under way."""
    fresh: int
    """Data keys within their age."""
    going_on: int
    """Data keys past their age that serve, stale, because the key service is away."""
    ended: int
    """Data keys past their age that are kept in case the key service is found to be away."""

    @property
    def entries(self) -> int:
        """Data keys held."""
        return self.fresh + self.going_on + self.ended


class CacheTallies:
    """The counters behind it: one set for all caches of a sealer that seal, one for those that open."""

    __slots__ = ("ahead", "brought", "calls", "failed", "misses", "negative", "rationed", "stale")

    def __init__(self) -> None:
        self.misses, self.calls, self.brought, self.failed = Tally(), Tally(), Tally(), Tally()
        self.ahead, self.stale, self.negative, self.rationed = Tally(), Tally(), Tally(), Tally()

    @contextmanager
    def call(self) -> Iterator[None]:
        """Count a call."""
        self.calls.tick()
        try:
            yield
        except BaseException:
            self.failed.tick()
            raise
        self.brought.tick()

    def counts(self, served: int, states: Iterable[KeyState]) -> CacheCounts:
        """Return what was counted, with the number of messages *served* in all, and the *states* of the keys."""
        brought, failed = (
            self.brought.value,
            self.failed.value,
        )  # first: what lands in between is still under way
        calls, misses, states = self.calls.value, self.misses.value, list(states)
        return CacheCounts(
            hits=max(0, served - misses),
            misses=misses,
            calls=calls,
            failed=failed,
            ahead=self.ahead.value,
            stale=self.stale.value,
            negative=self.negative.value,
            rationed=self.rationed.value,
            in_flight=calls - brought - failed,
            fresh=states.count("fresh"),
            going_on=states.count("stale"),
            ended=states.count("ended"),
        )
