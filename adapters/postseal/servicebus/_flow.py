"""What is to be done, without the waiting: a flow yields one call after the other, and is told what came of it.

The blocking client runs a flow by `run`, the asyncio one by `arun`; what happens is written once.
"""

from __future__ import annotations

from collections.abc import Callable, Generator
from typing import Any, TypeAlias, TypeVar

__all__ = ["Below", "Flow", "Step", "arun", "run"]

_T = TypeVar("_T")

Step: TypeAlias = Callable[[], Any]
"""A call to be made; in asyncio one that returns an awaitable."""
Flow: TypeAlias = Generator[Step, Any, _T]
"""Yields steps, is sent or thrown their outcome, returns a result."""


def run(flow: Flow[_T]) -> _T:
    """Make the calls of *flow*, and return its result."""
    try:
        step = next(flow)
        while True:
            try:
                outcome = step()
            except BaseException as error:  # noqa: BLE001 - the flow decides, also about Ctrl-C
                step = flow.throw(error)
            else:
                step = flow.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # typeshed has Any there


async def arun(flow: Flow[_T]) -> _T:
    """Like `run`, awaiting each call."""
    try:
        step = next(flow)
        while True:
            try:
                outcome = await step()
            except BaseException as error:  # noqa: BLE001 - the flow decides, also about cancellation
                step = flow.throw(error)
            else:
                step = flow.send(outcome)
    except StopIteration as end:
        return end.value  # type: ignore[no-any-return]  # likewise


class Below:
    """The methods of a live object as they were before it was protected.

    Args:
        target: The sender, receiver or session.
        base: Its class before.
    """

    def __init__(self, target: Any, base: type) -> None:
        self.target = target
        self.base = base

    def step(self, name: str, *args: Any, **options: Any) -> Step:
        """Return the call of method *name*, to be made."""
        method = getattr(self.base, name)
        return lambda: method(self.target, *args, **options)
