"""Iterators of aio-pika that can raise: what is refused, where the policy says so.

Source: aio-pika 10.2, queue.py and channel.py (``QUEUE_CLASS``).
"""

from __future__ import annotations

from functools import cache, partial
from typing import Any

from aio_pika.queue import Queue, QueueIterator

__all__ = ["tell_iterator", "telling_queues"]


class _Told:
    """Stands among the messages of an iterator for an error that it will raise."""

    def __init__(self, error: Exception) -> None:
        self.error = error

    async def nack(self, **_: Any) -> None:
        """Do nothing: an iterator that is closed gives back what it holds, and this is no message."""


class _Telling(QueueIterator):
    """An iterator that raises what it was told."""

    async def __anext__(self) -> Any:
        message: Any = await super().__anext__()
        if isinstance(message, _Told):
            raise message.error
        return message


@cache
def telling_queues(kind: type[Queue]) -> type[Queue]:
    """Make *kind* of queue one whose iterators can be told; its users see no other difference."""

    class Telling(kind):  # type: ignore[valid-type, misc] # whatever class it is of
        __slots__ = ()

        def iterator(self, **options: Any) -> Any:
            iterator = super().iterator(**options)
            iterator.__class__ = _telling(iterator.__class__)
            return iterator

    Telling.__name__, Telling.__qualname__, Telling.__module__ = (
        kind.__name__,
        kind.__qualname__,
        kind.__module__,
    )
    return Telling


@cache
def _telling(kind: type[QueueIterator]) -> type[QueueIterator]:
    return type(kind.__name__, (_Telling, kind), {"__module__": kind.__module__})


async def tell_iterator(hand_on: Any, error: Exception) -> bool:
    """Have the iterator that *hand_on* fills raise *error*, and tell whether it fills one.

    Args:
        hand_on: As aio-pika hands it to aiormq: ``partial(consumer, iterator.on_message, ...)``.
        error: What it raises when all before it was taken.
    """
    target = hand_on.args[0] if isinstance(hand_on, partial) and hand_on.args else hand_on
    iterator = getattr(target, "__self__", None)
    if not isinstance(iterator, _Telling):
        return False
    await iterator.on_message(_Told(error))  # type: ignore[arg-type] # `_Telling` takes it out again
    return True
