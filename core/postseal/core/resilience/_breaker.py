"""A key service that does not answer is left alone for a while: whoever asks is told so at once, and one call in a while finds out.

No library: those that there are hold a lock for the length of a call (pybreaker), let everybody try at once when the time is over
(circuitbreaker, purgatory), or count by the clock on the wall, which jumps.
"""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Iterator
from typing import Final, NamedTuple, TypeVar

from postseal.core.counting import Tally
from postseal.core.errors import KeyRefused, KeyUnavailable
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.resilience._around import Around, Call, Measure, NotAsked, seconds, whole

__all__ = ["Breaker"]

_T = TypeVar("_T")
_LEAST: Final = 0.8
"""Of the time that it stays open; the most is as much over."""


class _Limits(NamedTuple):
    failures: int
    wait: float
    max_wait: float


class Breaker(Around):
    """Asks no more once the key service has not answered so many times in a row, until one call finds that it does.

    What makes and wraps data keys has a breaker of its own, and what unwraps another: the one may answer where the other does not, as
    where wrapping is done here with a public key. Only silence counts, and only an answer ends it. A wrapped key that is broken or not
    ours says nothing, because it may not have been asked about, and whoever forges messages could choose it.

    Args:
        inner: The one that is asked.
        failures: Calls in a row without an answer that open it.
        wait: Seconds for which it stays open at first, and a fifth more or less, so that processes do not ask in step.
        max_wait: The most that it becomes, as it doubles each time that the service is found not to answer.
        name: What it is called in errors and metrics.
        clock: Monotonic, in seconds.
        jitter: From 0 to 1.

    Raises:
        ConfigError: Something of it cannot be.
    """

    def __init__(
        self,
        inner: KeyProvider,
        *,
        failures: int = 5,
        wait: float = 2.0,
        max_wait: float = 30.0,
        name: str = "",
        clock: Callable[[], float] = time.monotonic,
        jitter: Callable[[], float] = random.random,
    ) -> None:
        super().__init__(inner, name=name)
        self._limits = limits = _Limits(
            whole(failures, "breaker.failures", 10_000),
            seconds(wait, "breaker.wait"),
            seconds(max_wait, "breaker.max_wait"),
        )
        self._wrapping, self._opening = (_Circuit(limits, clock, jitter) for _ in range(2))
        self._spared = Tally()

    @property
    def in_words(self) -> str:
        """When it opens, and for how long."""
        return f"a breaker that opens after {self._limits.failures} for {self._limits.wait:g} s"

    def measures(self) -> Iterator[Measure]:
        """Yield whether each of both is open, and the calls that were not made."""
        for what, circuit in (("wrap", self._wrapping), ("unwrap", self._opening)):
            yield Measure("postseal.key_service.breaker", self.name, what, int(circuit.is_open))
        yield self._measure("postseal.key_service.not_asked", self._spared, "breaker")

    def _ask(self, verb: str, context: KeyContext, call: Call[_T]) -> _T:  # noqa: ARG002 - the same for all
        circuit = self._opening if verb in ("unwrap", "decrypt") else self._wrapping
        try:
            probes = circuit.enter(self._about(verb))
        except NotAsked:
            self._spared.tick()
            raise
        answered: bool | None = None
        try:
            found = call()
            answered = True
        except NotAsked:
            raise
        except KeyUnavailable:
            answered = False
            raise
        except KeyRefused:
            answered = True
            raise
        finally:
            circuit.leave(answered, probes=probes)
        return found


class _Circuit:
    """Closed, open until a moment, or half open: one call is under way that finds out."""

    def __init__(self, limits: _Limits, clock: Callable[[], float], jitter: Callable[[], float]) -> None:
        self._limits, self._clock, self._jitter = limits, clock, jitter
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Be closed: what the parent's connections met, the child's may not."""
        self._lock = threading.Lock()
        self._close()

    def _close(self) -> None:
        self._failures = 0
        self._until: float | None = None
        self._wait = self._limits.wait
        self._probing = False

    @property
    def is_open(self) -> bool:
        """Whether it is, or is being found out whether it needs to be."""
        return self._until is not None

    def enter(self, what: str) -> bool:
        """Begin a call; tell whether it is the one that finds out.

        Raises:
            NotAsked: It is open.
        """
        with self._lock:
            if self._until is None:
                return False
            left = self._until - self._clock()
            if left > 0 or self._probing:
                when = f"in {left:.1f} s" if left > 0 else "just now"
                raise NotAsked(
                    f"{what}: not asked, as it did not answer {self._limits.failures} times in a row; asked again {when}"
                )
            self._probing = True
            return True

    def leave(self, answered: bool | None, *, probes: bool) -> None:
        """End a call: it was *answered*, or not, or nobody knows."""
        with self._lock:
            if answered:
                self._close()
            elif answered is None:
                self._probing = self._probing and not probes
            elif probes and self._probing:
                self._wait = min(self._wait * 2, self._limits.max_wait)
                self._open()
            elif self._until is None:
                self._failures += 1
                if self._failures >= self._limits.failures:
                    self._open()

    def _open(self) -> None:
        self._probing = False
        self._until = self._clock() + self._wait * (_LEAST + 2 * (1 - _LEAST) * self._jitter())
