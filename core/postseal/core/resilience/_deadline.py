"""No longer than so many seconds for one try, whatever the client's own timeouts are.

A call that cannot be stopped is left to end by itself, in a thread of its own: whoever waits for it goes on without it.
"""

from __future__ import annotations

import contextvars
import threading
from collections.abc import Callable, Iterator
from queue import Empty, SimpleQueue
from typing import Final, NoReturn, TypeVar

from postseal.core.counting import Tally
from postseal.core.errors import KeyUnavailable
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider
from postseal.core.resilience._around import Around, Call, Measure, seconds

__all__ = ["Deadline", "Threads", "raised"]

_T = TypeVar("_T")
_MOST: Final = 256
"""Calls under way at once, with those that nobody waits for any more. A cache asks from 32 threads at most for its tasks."""


class Threads:
    """Makes calls in threads of their own, so that whoever waits for one can stop waiting.

    Args:
        most: How many at once, with those that nobody waits for any more.
    """

    def __init__(self, most: int = _MOST) -> None:
        self._most = most
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Begin with none."""
        self._lock = threading.Lock()
        self._now = 0

    def start(
        self, what: str, call: Callable[[], _T], tell: Callable[[_T | None, BaseException | None], object]
    ) -> None:
        """Make *call*, and tell what it returned or raised. *what* says of an error which call it was.

        Raises:
            KeyUnavailable: There are too many already.
        """
        with self._lock:
            if self._now >= self._most:
                raise KeyUnavailable(f"{what}: {self._now} calls wait for an answer already")
            self._now += 1
        try:
            # What is traced of the call belongs to who asked.
            run = contextvars.copy_context().run
            threading.Thread(
                target=run, args=(self._run, call, tell), name="postseal-key-service", daemon=True
            ).start()
        except RuntimeError as error:  # the system has no more threads for us
            self._end()
            raise KeyUnavailable(f"{what}: no thread to ask in: {error}") from None

    def _run(self, call: Callable[[], _T], tell: Callable[[_T | None, BaseException | None], object]) -> None:
        try:
            result = call()
        except BaseException as error:  # noqa: BLE001 - told to who waits
            self._end()
            tell(None, error)
        else:
            self._end()
            tell(result, None)

    def _end(self) -> None:
        with self._lock:
            self._now -= 1


def raised(error: BaseException) -> NoReturn:
    """Raise what another thread was told, and keep nothing of it here: the frames of an error may hold a data key."""
    try:
        raise error
    finally:
        del error


class Deadline(Around):
    """Ends a call that takes too long as `KeyUnavailable`.

    Args:
        inner: The one that is asked, in a thread of its own for each call.
        seconds: How long a call may take.
        name: What it is called in errors and metrics.

    Raises:
        ConfigError: It is no such time.
    """

    def __init__(self, inner: KeyProvider, seconds: float = 5.0, *, name: str = "") -> None:
        super().__init__(inner, name=name)
        self._seconds = _seconds(seconds)
        self._threads = Threads()
        self._ended = Tally()

    @property
    def in_words(self) -> str:
        """How long a try."""
        return f"{self._seconds:g} s for a try"

    def measures(self) -> Iterator[Measure]:
        """Yield calls that took too long."""
        yield self._measure("postseal.key_service.timeouts", self._ended)

    def _ask(self, verb: str, context: KeyContext, call: Call[_T]) -> _T:  # noqa: ARG002 - the same for all
        answers: SimpleQueue[tuple[_T | None, BaseException | None]] = SimpleQueue()
        self._threads.start(self._about(verb), call, lambda result, error: answers.put((result, error)))
        try:
            result, error = answers.get(timeout=self._seconds)
        except Empty:
            self._ended.tick()
            raise KeyUnavailable(f"{self._about(verb)}: no answer within {self._seconds:g} s") from None
        if error is not None:
            raised(error)
        return result  # type: ignore[return-value]  # mypy does not narrow one element of a tuple by the other


def _seconds(value: float) -> float:
    return seconds(value, "deadline")
