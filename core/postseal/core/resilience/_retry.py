"""Asking again, a few times, with a wait between that no two processes have alike, and never so often that it harms the service.

tenacity does the tries and the waits. What it has not is the budget.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING, Final, TypeVar

from postseal.core.counting import Tally
from postseal.core.errors import ConfigError, KeyUnavailable, MissingExtraError
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.resilience._around import Around, Call, Measure, NotAsked, seconds, whole

if TYPE_CHECKING:
    from tenacity import RetryCallState

__all__ = ["Retrying"]

_T = TypeVar("_T")
_AT_ONCE: Final = 10.0
"""Further tries that a service which always answered is worth."""


class Retrying(Around):
    """Asks again where the key service does not answer, and never where it says no.

    Args:
        inner: The one that is asked. Its client makes one attempt, best: `Breaker`, `Limited` and `Deadline` within see each try.
        attempts: Tries in all, at most.
        first_wait: Seconds between the first try and the second, at most: any time up to that, so that processes do not ask in step.
        max_wait: The most that it becomes, as it doubles.
        budget: Further tries for each call that was answered, in the long run. A service that answers nobody is asked ten times more, and
            then once for each call.
        name: What it is called in errors and metrics.
        sleep: Waits so many seconds.

    Raises:
        ConfigError: Something of it cannot be.
        MissingExtraError: tenacity is not installed.

    Source: gRPC A6, retry throttling; AWS Architecture Blog, exponential backoff and jitter, for the full jitter.
    """

    def __init__(
        self,
        inner: KeyProvider,
        *,
        attempts: int = 3,
        first_wait: float = 0.1,
        max_wait: float = 2.0,
        budget: float = 0.2,
        name: str = "",
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        super().__init__(inner, name=name)
        try:
            import tenacity  # noqa: PLC0415 - loaded by who uses it
        except ImportError as missing:
            raise MissingExtraError.naming("resilience", __name__, missing) from missing
        self._attempts = whole(attempts, "retry.attempts", 10)
        seconds(first_wait, "retry.first_wait")
        seconds(max_wait, "retry.max_wait")
        if isinstance(budget, bool) or not isinstance(budget, (int, float)) or not 0 <= budget <= 1:
            raise ConfigError(f"retry.budget must be 0 to 1: {budget!r}")
        self._budget = _Budget(budget)
        self._again, self._spent = Tally(), Tally()
        self._tries = tenacity.Retrying(
            stop=self._ends,
            wait=tenacity.wait_random_exponential(multiplier=first_wait, max=max_wait),
            retry=tenacity.retry_if_exception(_may_pass),
            before_sleep=self._note,
            sleep=sleep,
            reraise=True,
        )

    @property
    def in_words(self) -> str:
        """How many tries."""
        return f"{self._attempts} tries"

    def measures(self) -> Iterator[Measure]:
        """Yield further tries, and those that were not made for want of budget."""
        yield self._measure("postseal.key_service.retries", self._again)
        yield self._measure("postseal.key_service.not_asked", self._spent, "budget")

    def _note(self, _: object) -> None:
        self._again.tick()

    def _ends(self, state: RetryCallState) -> bool:
        """Tell whether the try that failed was the last. Each further one takes a part of the budget."""
        if state.attempt_number >= self._attempts:
            return True
        if self._budget.take():
            return False
        self._spent.tick()
        return True

    def _ask(self, verb: str, context: KeyContext, call: Call[_T]) -> _T:  # noqa: ARG002 - the same for all
        answers: list[_T] = []
        for attempt in self._tries:
            with attempt:
                try:
                    answers.append(call())
                except KeyUnavailable:
                    raise
                except Exception:
                    self._budget.give()  # it says no, and so it answers
                    raise
                self._budget.give()
        return answers[0]


def _may_pass(error: BaseException) -> bool:
    """Tell whether asking again may help. Where it was not even asked, somebody within knows better."""
    return isinstance(error, KeyUnavailable) and not isinstance(error, NotAsked)


class _Budget:
    """Further tries that may still be made: each takes one, each answer gives a part of one back."""

    def __init__(self, share: float) -> None:
        self._share = share
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Begin with all of it."""
        self._lock = threading.Lock()
        self._left = _AT_ONCE if self._share else 0.0

    def take(self) -> bool:
        """Take one, if there is one."""
        with self._lock:
            if self._left < 1:
                return False
            self._left -= 1
            return True

    def give(self) -> None:
        """Give back what an answer is worth."""
        with self._lock:
            self._left = min(self._left + self._share, _AT_ONCE)
