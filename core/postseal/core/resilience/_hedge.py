"""Of several key services, the next beside the one that is silent: whoever answers first opens."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from functools import partial
from queue import Empty, SimpleQueue
from typing import Final

from postseal.core.counting import Tally
from postseal.core.errors import KeyUnavailable
from postseal.core.keys import KeyContext, KeyProvider, Recipient
from postseal.core.resilience._around import Call, Measure, seconds
from postseal.core.resilience._deadline import Threads, raised

__all__ = ["Hedged"]

_AT_MOST: Final = 256
"""Calls under way at once at one of them, with those that nobody waits for any more."""
_Answer = tuple[bytes | None, BaseException | None]


class Hedged:
    """Asks several key providers to unwrap, each in a thread of its own.

    Args:
        providers: The nearest first.
        hedge: Seconds for which one may be silent before the next is asked beside it.
        name: What it is called in metrics.

    Raises:
        ConfigError: It is no such time.
    """

    def __init__(self, providers: Sequence[KeyProvider], hedge: float, *, name: str = "") -> None:
        self._providers = [(provider, Threads(_AT_MOST)) for provider in providers]
        self._hedge = seconds(hedge, "hedge", zero=True)
        self._name = name
        self._beside = Tally()

    def measures(self) -> Iterator[Measure]:
        """Yield how often the next was asked beside one that was silent."""
        yield Measure("postseal.key_service.hedges", self._name, "", self._beside.value)

    def attempts(self, recipients: Sequence[Recipient], context: KeyContext) -> Iterator[Callable[[], bytes]]:
        """Yield the answers as they come; each is the data key, or raises why not. Who takes no more leaves the rest alone."""
        answers: SimpleQueue[_Answer] = SimpleQueue()
        silent = 0
        for provider, threads in self._providers:
            if silent:
                self._beside.tick()
            try:
                call = Call(provider.unwrap, recipients, context)
                threads.start(f"{provider!r} unwrap", call, lambda *answer: answers.put(answer))
            except KeyUnavailable as error:
                yield partial(raised, error)
                continue
            silent += 1
            with suppress(Empty):  # silent so long: the next one
                answer = answers.get(timeout=self._hedge)
                silent -= 1
                yield _Told(answer)
        for _ in range(silent):
            yield _Told(answers.get())


class _Told:
    """An answer, which may be a data key and does not show."""

    __slots__ = ("_answer",)

    def __init__(self, answer: _Answer) -> None:
        self._answer = answer

    def __call__(self) -> bytes:
        result, error = self._answer
        if error is not None:
            raised(error)
        return result  # type: ignore[return-value]  # mypy does not narrow one element of a tuple by the other
