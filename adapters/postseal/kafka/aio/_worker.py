"""Works for the asyncio consumer in the threads in which the client makes all its calls.

There a message is fetched, opened and settled by the very code of the sync consumers, so that a slow key service holds a thread and never
the loop. What is new is that whoever awaits may be cancelled between fetching and handing on. So offsets are stored by the next call,
when it is known whether the messages arrived; what did not is set back, and comes again.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from typing import Any, Final

from confluent_kafka import Message

from postseal.core import Sealer
from postseal.kafka._errors import RefusedMessage
from postseal.kafka._opening import partition_of
from postseal.kafka._partitions import Partition
from postseal.kafka._receiving import Receiving

__all__ = ["Handing", "Worker"]

_SLICE: Final = 0.25
"""Seconds for which the client is asked to wait at once: after that a call ends that nobody waits for any more."""


class Handing:
    """What one call fetches, on its way to whoever awaits it.

    Attributes:
        arrived: Whether it did; None as long as that is open. False ends the call, too.
        made: Whether the call has ended.
        messages: What is to be handed on.
        refused: What is raised instead.
        unstored: The last message of each partition that was dealt with.
    """

    __slots__ = ("arrived", "made", "messages", "refused", "unstored")

    def __init__(self) -> None:
        self.arrived: bool | None = None
        self.made = False
        self.messages: list[Message] = []
        self.refused: RefusedMessage | None = None
        self.unstored: dict[Partition, Message] = {}


class _Given(Exception):
    """Whoever waited has given up."""


def _forward(name: str) -> Callable[..., Any]:
    def call(self: _Forwarding, *args: Any, **kwargs: Any) -> Any:
        return getattr(self.bare, name)(*args, **kwargs)

    return call


class _Forwarding:
    """The client's consumer as a base class: what `Receiving` calls by ``super()``."""

    assign = _forward("assign")
    close = _forward("close")
    commit = _forward("commit")
    incremental_assign = _forward("incremental_assign")
    incremental_unassign = _forward("incremental_unassign")
    pause = _forward("pause")
    position = _forward("position")
    resume = _forward("resume")
    seek = _forward("seek")
    store_offsets = _forward("store_offsets")
    subscribe = _forward("subscribe")
    unassign = _forward("unassign")
    unsubscribe = _forward("unsubscribe")

    _handing: Handing
    bare: Any
    """The client's consumer."""

    def poll(self, timeout: float = -1) -> Message | None:
        """Poll in slices."""
        end = _end(timeout)
        while True:
            self._check_wanted()
            message: Message | None = self.bare.poll(_within(end))
            if message is not None or _over(end):
                return message

    _client_poll: Any = poll
    _client_store: Any = store_offsets

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Consume in slices, until all are there or the time is over, as the client alone does."""
        end = _end(timeout)
        found: list[Message] = []
        try:
            while True:
                self._check_wanted()
                found += self.bare.consume(num_messages - len(found), _within(end))
                if len(found) >= num_messages or _over(end):
                    return found
        except BaseException:
            self._set_back(found)
            raise

    def _check_wanted(self) -> None:
        if self._handing.arrived is False:
            raise _Given

    def _set_back(self, messages: list[Message]) -> None:
        raise NotImplementedError

    def __getattr__(self, name: str) -> Any:
        return getattr(self.bare, name)


class Worker(Receiving, _Forwarding):
    """A consumer that opens, for one receiving call at a time; other calls may be made meanwhile.

    Args:
        sealer: Opens.
        quarantine: A plain, sync producer.
        group: The consumer group.

    Raises:
        ConfigError: As in `postseal.kafka.Consumer`.
    """

    def __init__(self, sealer: Sealer, quarantine: Any, group: str) -> None:
        self._open_with(sealer, quarantine, group)
        self._handing = Handing()
        self._settling = threading.Lock()
        self._events: deque[Message] = deque()

    def receive(self, handing: Handing, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Call `poll` or `consume`, and note in *handing* what comes of it.

        Returns:
            What that returned; anything where nobody waits for it any more.
        """
        self._handing = handing
        try:
            if self._events:
                handing.messages = [self._events.popleft()]
                return handing.messages[0] if verb == "poll" else handing.messages
            got: Any = getattr(self, verb)(*args, **kwargs)
            handing.messages = got if isinstance(got, list) else [] if got is None else [got]
        except _Given:
            return None
        except RefusedMessage as refused:
            handing.refused = refused
            raise
        else:
            return got
        finally:
            handing.made = True

    def settled(self, task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """Settle what the call before fetched, if that can be said already; then do *task*."""
        with self._settling:
            handing = self._handing
            if handing.made and handing.arrived is not None:
                self._handing = Handing()
                self._settle_handing(handing)
        return task(*args, **kwargs)

    def _settle_handing(self, handing: Handing) -> None:
        """Store the offsets of what arrived; set back what did not."""
        lost = set() if handing.arrived else {partition_of(m) for m in handing.messages if m.error() is None}
        for partition, message in handing.unstored.items():
            if partition not in lost:
                self._store(message)
        if handing.arrived:
            return
        self._events.extend(message for message in handing.messages if message.error() is not None)
        for refused in tuple(self._raising):
            if partition_of(refused.kafka_message) in lost:
                self._raising.remove(refused)  # it is met again, behind those
        self._set_back(handing.messages)
        if handing.refused is not None:
            self._refuse_again(handing.refused)

    def _refuse_again(self, refused: RefusedMessage) -> None:
        """Set the partition back to a message whose refusal was raised and not seen; it was audited."""
        partition, offset = partition_of(refused.kafka_message), refused.kafka_message.offset() or 0
        self._troubles.set_back(partition, offset).verdict = refused.verdict
        self._seek(partition, offset)

    def _store_later(self, message: Message, now: float) -> None:  # noqa: ARG002 - when that is, `settled` knows
        self._handing.unstored[partition_of(message)] = message


def _end(timeout: float) -> float | None:
    return time.monotonic() + timeout if timeout >= 0 else None


def _over(end: float | None) -> bool:
    return end is not None and time.monotonic() >= end


def _within(end: float | None) -> float:
    return _SLICE if end is None else min(_SLICE, max(0.0, end - time.monotonic()))
