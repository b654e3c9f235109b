"""A quota of a key service, kept on this side: calls wait their turn here, and are not refused there.

Source: AWS KMS Developer Guide, request quotas; Azure Key Vault, service limits (calls in 10 seconds).
"""

from __future__ import annotations

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator
from typing import TypeVar

from postseal.core.counting import Tally
from postseal.core.errors import ConfigError
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.resilience._around import Around, Call, Measure, NotAsked, seconds, whole

__all__ = ["Limited", "Limiter"]

_T = TypeVar("_T")
_NEVER = float("inf")


class Limiter:
    """Lets calls begin so that the service never counts more than *calls* within *per* seconds, whenever it begins to count.

    A call is counted by the service at some moment between its beginning and its end here. So the place that it takes is free again only
    *per* seconds after its **end**: then no two moments at which it may have been counted are too near, whatever the network does.
    Beyond a tenth of the quota, which may begin at once, calls are spread evenly, so that one that comes later need not wait for a whole
    *per*.

    Those who wait are let in by turns: one for each verb, policy and destination. A backlog of one does not hold up another.

    Args:
        calls: What the quota allows. Where several processes use it, the share of this one.
        per: Seconds.
        max_wait: Seconds after which whoever waits is told to come back.
        clock: Monotonic, in seconds.
        pause: Waits for a condition so many seconds.

    Raises:
        ConfigError: Something of it cannot be.
    """

    def __init__(
        self,
        calls: int,
        *,
        per: float,
        max_wait: float = 30.0,
        clock: Callable[[], float] = time.monotonic,
        pause: Callable[[threading.Condition, float], object] = threading.Condition.wait,
    ) -> None:
        self._calls = whole(calls, "limit.calls", 1_000_000)
        self._per = seconds(per, "limit.per")
        self._max_wait = seconds(max_wait, "limit.max_wait")
        self._gap = per / calls
        self._ahead = max(calls // 10, 1) * self._gap
        self._clock, self._pause = clock, pause
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Begin with nobody waiting. What the parent has used of the quota, a child does not know: give each process its share."""
        self._lock = threading.Lock()
        self._lines: OrderedDict[Hashable, deque[threading.Condition]] = OrderedDict()
        """Who waits, by line; the first of the first line is the next."""
        self._running = 0
        self._ended: deque[float] = deque()
        """When calls ended that still take a place."""
        self._due = 0.0
        """When the next would begin if all were spread evenly."""

    def __repr__(self) -> str:
        return f"<Limiter {self}>"

    def __str__(self) -> str:
        return f"{self._calls:,} calls in {self._per:g} s"

    @property
    def waiting(self) -> int:
        """How many wait."""
        with self._lock:
            return sum(map(len, self._lines.values()))

    def begin(self, line: Hashable, what: str = "a call") -> None:
        """Wait for a turn in *line*. It lasts until `end`, which whoever has it must call.

        Raises:
            NotAsked: It would take too long. There is nothing to end.
        """
        with self._lock:
            me = threading.Condition(self._lock)
            self._lines.setdefault(line, deque()).append(me)
            end = self._clock() + self._max_wait
            try:
                while (wait := self._wait_of(me)) > 0:
                    left = end - self._clock()
                    if left <= 0:
                        raise NotAsked(
                            f"{what}: {self._calls:,} calls in {self._per:g} s are all that may be made, and it waited "
                            f"{self._max_wait:g} s for its turn"
                        )
                    self._pause(me, min(wait, left))
                self._running += 1
                self._due = max(self._due, self._clock()) + self._gap
            finally:
                self._leave(line, me)

    def _wait_of(self, me: threading.Condition) -> float:
        """Return for how many seconds *me* has to wait at least; without end for who is not the next, and is woken."""
        if next(iter(self._lines.values()))[0] is not me:
            return _NEVER
        now = self._clock()
        while self._ended and self._ended[0] + self._per <= now:
            self._ended.popleft()
        wait = self._due - self._ahead + self._gap - now
        if self._running + len(self._ended) >= self._calls:
            wait = max(wait, self._ended[0] + self._per - now if self._ended else _NEVER)
        return wait

    def _leave(self, line: Hashable, me: threading.Condition) -> None:
        """Go out of the line, let the other lines go first, and wake who is the next now."""
        waiting = self._lines[line]
        waiting.remove(me)
        if waiting:
            self._lines.move_to_end(line)
        else:
            del self._lines[line]
        self._wake()

    def end(self) -> None:
        """End a turn."""
        with self._lock:
            self._running -= 1
            self._ended.append(self._clock())
            self._wake()

    def _wake(self) -> None:
        if self._lines:
            next(iter(self._lines.values()))[0].notify()


class Limited(Around):
    """Has calls wait until the quota of the key service allows them.

    Args:
        inner: The one that is asked: of one attempt, as each counts.
        limiter: Of the quota. Give all that count against one quota the same.
        name: What it is called in errors and metrics.

    Raises:
        ConfigError: *limiter* is none.
    """

    def __init__(self, inner: KeyProvider, limiter: Limiter, *, name: str = "") -> None:
        super().__init__(inner, name=name)
        if not isinstance(limiter, Limiter):
            raise ConfigError(f"limiter must be a Limiter, not {type(limiter).__name__}")
        self._limiter = limiter
        self._sent_back = Tally()

    @property
    def in_words(self) -> str:
        """The quota."""
        return str(self._limiter)

    def measures(self) -> Iterator[Measure]:
        """Yield how many wait, and how many waited too long."""
        yield Measure("postseal.key_service.waiting", self.name, "", self._limiter.waiting)
        yield self._measure("postseal.key_service.not_asked", self._sent_back, "limit")

    def _ask(self, verb: str, context: KeyContext, call: Call[_T]) -> _T:
        try:
            self._limiter.begin((verb, context), self._about(verb))
        except NotAsked:
            self._sent_back.tick()
            raise
        try:
            return call()
        finally:
            self._limiter.end()
