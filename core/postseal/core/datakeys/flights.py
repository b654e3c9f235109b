"""Calls to key services: one in flight for each thing asked for, whoever asks, and so many at once, whatever is asked for."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final, Generic, TypeVar

from postseal.core.datakeys.leases import SLOW, Clock
from postseal.core.errors import KeyUnavailable, PostsealError
from postseal.core.forking import begin_again_in_child

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = ["MAX_CALLS", "Calls", "Flights", "copy_of"]

MAX_CALLS: Final = 32
"""Calls at once, for whatever keys. Beyond, calls wait their turn; a boto3 client has 10 connections."""

_T = TypeVar("_T")
_E = TypeVar("_E", bound=Exception)


class _Flight(Generic[_T]):
    """A call under way."""

    __slots__ = ("begun", "landed", "what")

    def __init__(self, what: object, begun: float) -> None:
        from concurrent.futures import Future  # noqa: PLC0415 - it loads logging and more; misses are rare

        self.what = what
        self.begun = begun
        self.landed: Future[tuple[_T, None] | tuple[None, Exception]] = Future()
        """What the call returned or raised. Never an exception of the future's own: asyncio takes some of those amiss."""
        self.landed.set_running_or_notify_cancel()  # nobody who waits can cancel it


class Flights:
    """One call in flight for each thing asked for, whoever asks: threads wait for it, tasks await it. At most `MAX_CALLS` at once.

    A thread that leads makes the call itself. For a task that leads, and for what is asked ahead of time, a thread of the crew makes it:
    not one of the loop's pool, which may be full of threads that wait for this very flight, while the crew waits for none. A thread of the
    crew is started when there is a call to make, and ends when there is none.

    Args:
        clock: Monotonic, in seconds.
    """

    def __init__(self, clock: Clock = time.monotonic) -> None:
        self._clock = clock
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget who calls and who waits: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._places = threading.Semaphore(MAX_CALLS)
        self._flights: dict[object, _Flight[Any]] = {}
        self._queue: deque[tuple[_Flight[Any], Callable[[], Any]]] = deque()
        self._crew = 0

    def run(self, what: object, call: Callable[[], _T], patience: float | None = None) -> tuple[_T, bool]:
        """Make the call, or wait for the one under way. Return what it returned, and whether it was ours.

        Who has *patience* waits for so many seconds, then raises `KeyUnavailable`; the call goes on without him.
        """
        flight, leads = self._join(what)
        if leads and patience is None:
            self._fly(flight, call)
        elif leads:
            self._board(flight, call)
        try:
            return _outcome(flight.landed.result(patience)), leads
        except TimeoutError:
            raise _no_answer(patience) from None

    async def run_async(
        self, what: object, call: Callable[[], _T], patience: float | None = None
    ) -> tuple[_T, bool]:
        """Like `run`, without blocking the loop. A cancelled task leaves the call under way for the others."""
        import asyncio  # noqa: PLC0415 - who has no loop need not load it

        flight, leads = self._join(what)
        if leads:
            self._board(flight, call)
        landed = asyncio.wrap_future(flight.landed)
        if patience is None:
            return _outcome(await landed), leads
        try:
            return _outcome(await asyncio.wait_for(landed, patience)), leads
        except TimeoutError:
            raise _no_answer(patience) from None

    def begin(self, what: object, call: Callable[[], object]) -> bool:
        """Have the call made by another thread, unless one is under way; wait for nothing. Return False where no thread can be had."""
        flight, leads = self._join(what)
        return not leads or self._board(flight, call)

    def under_way(self, what: object) -> bool:
        """Tell whether a call is under way."""
        return what in self._flights

    def hangs(self, what: object) -> bool:
        """Tell whether a call is under way and has had no answer for `SLOW` seconds."""
        flight = self._flights.get(what)
        return flight is not None and self._clock() - flight.begun >= SLOW

    def _join(self, what: object) -> tuple[_Flight[Any], bool]:
        with self._lock:
            flight = self._flights.get(what)
            if flight is not None:
                return flight, False
            flight = self._flights[what] = _Flight(what, self._clock())
            return flight, True

    def _fly(self, flight: _Flight[_T], call: Callable[[], _T]) -> None:
        try:
            with self._places:
                result = call()
        except Exception as error:
            self._fail(flight, copy_of(error))
            raise
        except BaseException as error:
            # Ctrl-C is for the thread that it struck. The others may try again.
            self._fail(flight, KeyUnavailable(f"the call was ended by {type(error).__name__}"))
            raise
        else:
            self._land(flight)
            flight.landed.set_result((result, None))

    def _fail(self, flight: _Flight[Any], error: Exception) -> None:
        self._land(flight)
        flight.landed.set_result((None, error))

    def _land(self, flight: _Flight[Any]) -> None:
        with self._lock:
            self._flights.pop(flight.what, None)

    def _board(self, flight: _Flight[Any], call: Callable[[], object]) -> bool:
        """Have a thread of the crew make the call. Return False where none can be had: then whoever waits was told."""
        with self._lock:
            self._queue.append((flight, call))
            if self._crew >= MAX_CALLS:
                return True
            self._crew += 1
        try:
            _start(self._work)
        except RuntimeError as error:  # the system has no more threads for us
            with self._lock:
                self._crew -= 1
                stranded = () if self._crew else tuple(self._queue)
                if stranded:
                    self._queue.clear()
            for waiting, _ in stranded:
                self._fail(waiting, KeyUnavailable(f"no thread to ask the key service in: {error}"))
            return not stranded
        return True

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._crew -= 1
                    return
                flight, call = self._queue.popleft()
            with suppress(BaseException):  # whoever waits was told; the crew goes on
                self._fly(flight, call)


def _start(work: Callable[[], None]) -> None:
    """Start a thread of the crew."""
    threading.Thread(target=work, name="postseal-data-key", daemon=True).start()


def _no_answer(seconds: float | None) -> KeyUnavailable:
    return KeyUnavailable(f"the key service gave no answer for {seconds} s")


def _outcome(landed: tuple[_T, None] | tuple[None, Exception]) -> _T:
    result, error = landed
    if error is not None:
        raise copy_of(error)
    return result  # type: ignore[return-value]  # mypy does not narrow one element of a tuple by the other


def copy_of(error: _E) -> _E:
    """Copy *error* without its traceback, for one of those who wait for it.

    One object raised in many threads would mix their tracebacks, and keep alive what their frames hold: bodies. What is none of our
    errors is a bug of the provider: then the traceback is worth more.
    """
    if not isinstance(error, PostsealError):
        return error
    import copy  # noqa: PLC0415 - calls seldom fail

    try:
        copied = copy.copy(error)
    except TypeError:  # a subclass that is not made from its own arguments
        return error
    copied.__cause__ = error.__cause__
    return copied


class Calls(Generic[_T]):
    """Calls for what is no data key: one in flight for each thing asked."""

    def __init__(self) -> None:
        self._flights = Flights()

    def run(self, what: object, call: Callable[[], _T]) -> _T:
        """Make the call, or wait for the one under way."""
        return self._flights.run(what, call)[0]

    async def run_async(self, what: object, call: Callable[[], _T]) -> _T:
        """Like `run`, without blocking the loop."""
        return (await self._flights.run_async(what, call))[0]
