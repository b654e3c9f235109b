"""What a protected receiver hands on, and when; keeps what cannot be opened yet."""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, Final

from postseal.core import KeyUnavailable
from postseal.servicebus._flow import Below, Flow, Step
from postseal.servicebus._opening import Opening, Sorted, receipt_of, wrapped_key
from postseal.servicebus._settling import Place, Settling

__all__ = ["Receiving", "Waiting"]

_log: Final = logging.getLogger("postseal.servicebus")

_MAX_HELD: Final = 64
"""Messages that wait for the key service in one receiver; with so many, it receives no more."""
_MAX_PAUSE: Final = 5.0
"""Seconds between two questions to a key service that does not answer, at most."""
_DEFAULT_WAIT: Final = 60.0
"""Seconds that a receive waits where nobody says. Source: azure-servicebus 7.15, DEFAULT_RECEIVE_WAIT_TIME_SECS."""
_LEAST_WAIT: Final = 0.01
"""Seconds. The client library takes no wait of none."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """How a receiver waits for a key service that does not answer. Described at `postseal.servicebus.protect`."""

    retry_after: float
    give_back_after: float
    clock: Callable[[], float] = time.monotonic


@dataclass(slots=True)
class _Held:
    """A message that waits for the key service, its lock kept."""

    message: Any
    since: float
    margin: float
    """Seconds before the end of its lock when that is renewed."""
    opened: bool = False
    """It waits for nothing: the call that was to return it was interrupted."""


class Receiving:
    """Receives for one receiver.

    Args:
        below: The receiver, unprotected.
        opening: Opens.
        place: Where it reads.
        settling: Settles what is refused.
        waiting: How it waits for the key service.
        sleep: Pauses, or returns what is awaited to pause, for some seconds.
    """

    def __init__(
        self,
        below: Below,
        opening: Opening,
        place: Place,
        settling: Settling,
        waiting: Waiting,
        *,
        sleep: Callable[[float], Any],
    ) -> None:
        self._below = below
        self._opening = opening
        self._place = place
        self._settling = settling
        self._waiting = waiting
        self._sleep = sleep
        self._held: deque[_Held] = deque()
        self._pause = waiting.retry_after
        self._due = 0.0

    # -- receive_messages ------------------------------------------------------------------------------------------

    def receive(self, count: int | None, wait: float | None) -> Flow[list[Any]]:
        """Return up to *count* opened messages, none after *wait* seconds without one."""
        yield from self._settling.save()
        if (wait is not None and wait <= 0) or (count is not None and count <= 0):
            yield self._below.step("receive_messages", count, wait)  # it says what is wrong with them
            return []
        if wait is None:
            wait = self._own_wait() or _DEFAULT_WAIT
        end = self._now() + wait
        while True:
            if ready := (yield from self._again(count or _MAX_HELD)):
                return (yield from self._given(ready))
            left = end - self._now()
            if left <= 0 and wait > 0:
                return []
            if self._is_full():
                yield self._pausing(left)
                continue
            if self._held:
                left = min(left, self._due - self._now())
            came = yield self._below.step("receive_messages", count, max(left, _LEAST_WAIT))
            if not came and not self._held:
                return []
            batch = yield from self._taken(came)
            if batch.opened:
                return (yield from self._given(batch.opened))
            self._complain(batch)

    # -- iteration -------------------------------------------------------------------------------------------------

    def next(self, source: Step | None = None, wait: float | None = None) -> Flow[Any]:
        """Return the next opened message, or None where the client library says that there is none.

        Args:
            source: Asks the client library for the next message; its own ``next`` unless given.
            wait: Seconds without a message after which there is none; the receiver's own unless given.
        """
        yield from self._settling.save()
        wait = self._own_wait() if wait is None else wait
        end = None if wait is None else self._now() + wait
        while True:
            if ready := (yield from self._again(1)):
                return (yield from self._given(ready[:1]))[0]
            if not self._held:
                try:
                    came = [(yield source or self._below.step(self._next_name))]
                except (StopIteration, StopAsyncIteration):
                    return None
            else:
                left = self._due - self._now() if end is None else min(end, self._due) - self._now()
                if end is not None and self._now() >= end:
                    return None
                if self._is_full():
                    yield self._pausing(left)
                    continue
                came = yield self._below.step("receive_messages", 1, max(left, _LEAST_WAIT))
            batch = yield from self._taken(came)
            if batch.opened:
                return (yield from self._given(batch.opened))[0]
            self._complain(batch)

    @property
    def _next_name(self) -> str:
        return "__next__" if hasattr(self._below.base, "__next__") else "__anext__"

    # -- deferred, peeked ------------------------------------------------------------------------------------------

    def receive_deferred(self, numbers: Any, **options: Any) -> Flow[list[Any]]:
        """Return the opened ones of deferred messages. One that waits for the key service stays deferred."""
        yield from self._settling.save()
        came = yield self._below.step("receive_deferred_messages", numbers, **options)
        if self._place.deletes:
            batch = yield from self._taken(came)
        else:
            batch = yield from self._sort(came)
            yield from self._settling.settle(batch.refused)
            for message in batch.withheld:
                yield from self._settling.abandon(message)
        if batch.opened:
            return (yield from self._given(batch.opened))
        self._complain(batch)
        if batch.withheld:
            raise KeyUnavailable("the key service did not answer; the messages stay deferred")
        return []

    def peek(self, count: int, *, sequence_number: int, **options: Any) -> Flow[list[Any]]:
        """Return the opened ones of the next messages; where there are none among them, of those behind them."""
        while True:
            came = yield self._below.step("peek_messages", count, sequence_number=sequence_number, **options)
            if not came:
                return []
            batch = yield from self._sort(came, Sorted(received=False))
            if batch.opened:
                return batch.opened
            self._complain(batch)
            if batch.withheld:
                raise KeyUnavailable("the key service did not answer")
            sequence_number = came[-1].sequence_number + 1

    # -- the ledger ------------------------------------------------------------------------------------------------

    def complete(self, message: Any) -> Flow[None]:
        """Complete *message*. The ledger is told before, and that is taken back where the broker does not take it.

        Raises:
            LedgerUnavailable: The ledger did not answer. Nothing was completed.
        """
        receipt = receipt_of(message)
        if receipt is not None:
            yield lambda: self._opening.settled(receipt)
        try:
            yield self._below.step("complete_message", message)
        except BaseException:
            if receipt is not None:
                yield lambda: self._opening.unsettled(receipt)
            raise

    def _given(self, messages: list[Any]) -> Flow[list[Any]]:
        """Return *messages*, which are handed on. By that, what was received and deleted is settled: the ledger is told before."""
        receipts = [receipt_of(message) for message in messages] if self._place.deletes else []
        known = [receipt for receipt in receipts if receipt is not None]
        if known:
            try:
                yield lambda: self._opening.settled(*known)
            except BaseException:
                for message in messages:
                    self._hold(message, opened=True)
                raise
        return messages

    # -- the end ---------------------------------------------------------------------------------------------------

    @property
    def has_what_nobody_else_has(self) -> bool:
        """Whether it holds messages that were received and deleted."""
        return self._place.deletes and (bool(self._held) or self._settling.has_unsaved)

    def close(self) -> Flow[None]:
        """Give back what is held, while the receiver is still open."""
        if not self._place.deletes:
            held, self._held = self._held, deque()
            for one in held:
                yield from self._settling.abandon(one.message)

    def closed(self) -> Flow[None]:
        """Save what only we have, when the receiver is closed: before, it might receive that again, and delete it."""
        held, self._held = self._held, deque()
        yield from self._settling.close([one.message for one in held])

    # -- opening ---------------------------------------------------------------------------------------------------

    def _taken(self, came: list[Any]) -> Flow[Sorted]:
        """Open what *came*, hold what has to wait, settle what is refused. If that is interrupted, the rest is held, too."""
        batch, waiting = Sorted(), deque(came)
        try:
            yield from self._sort(came, batch, waiting)
            yield from self._settling.settle(batch.refused)
        except BaseException:
            for message in batch.opened:
                self._hold(message, opened=True)
            for message in waiting:
                self._hold(message)
            raise
        finally:
            for message in batch.withheld:
                self._hold(message)
        return batch

    def _sort(
        self, messages: list[Any], batch: Sorted | None = None, waiting: deque[Any] | None = None
    ) -> Flow[Sorted]:
        """Open each of *messages*, taking it out of *waiting*."""
        batch = batch or Sorted()
        waiting = deque(messages) if waiting is None else waiting
        away = {key for held in self._held if (key := wrapped_key(held.message)) is not None}
        while waiting:
            yield from self._opening.sort(waiting[0], batch, away)
            waiting.popleft()
        return batch

    def _complain(self, batch: Sorted) -> None:
        """Raise, where nothing was handed on, what has to be known."""
        if batch.broken:
            raise batch.broken[0]
        for turned in batch.refused:
            if self._place.policy.outcome(turned.refusal.verdict) == "raise":
                raise turned.refusal

    # -- waiting for the key service -------------------------------------------------------------------------------

    def _hold(self, message: Any, *, opened: bool = False) -> None:
        if not self._held:
            self._pause = self._waiting.retry_after
            self._due = self._now() if opened else self._now() + self._pause
            if not opened:
                _log.warning("messages at %s wait: the key service did not answer", self._place.entity_path)
        self._held.append(_Held(message, self._now(), self._margin(message), opened))

    def _again(self, count: int) -> Flow[list[Any]]:
        """Try again to open what is held, in its order, where it is time; return up to *count* opened."""
        if not self._held or self._now() < self._due:
            return []
        waiting, self._held = self._held, deque()
        batch, away = Sorted(), set[bytes]()
        try:
            while waiting:
                if (yield from self._waits_on(waiting[0], batch, away, count)):
                    self._held.append(waiting[0])
                waiting.popleft()
            yield from self._settling.settle(batch.refused)
        except BaseException:
            self._held.extendleft(self._held_again(batch.opened))
            raise
        finally:
            self._held.extend(waiting)
        if batch.withheld:
            self._pause = min(self._pause * 2, _MAX_PAUSE)
            # Half of what is left of a lock: none is to end meanwhile.
            soonest = min([self._pause, *(self._margin(one.message) for one in self._held)])
            self._due = self._now() + max(soonest, _LEAST_WAIT)
        else:
            self._due = 0.0
        if not batch.opened:
            self._complain(batch)
        return batch.opened

    def _held_again(self, opened: list[Any]) -> list[_Held]:
        self._due = 0.0
        return [
            _Held(message, self._now(), self._margin(message), opened=True) for message in reversed(opened)
        ]

    def _waits_on(self, one: _Held, batch: Sorted, away: set[bytes], count: int) -> Flow[bool]:
        """Try to open *one* of those held; tell whether it has to wait on."""
        if not (yield from self._is_locked(one)):
            return False
        if len(batch.opened) >= count:
            return True
        if one.opened:
            batch.opened.append(one.message)
            return False
        return (yield from self._opening.sort(one.message, batch, away))

    def _is_locked(self, held: _Held) -> Flow[bool]:
        """Tell whether *held* is still ours, its lock renewed where it ends soon; give it back where that lasts too long."""
        if self._place.deletes:
            return True
        if self._now() - held.since > self._waiting.give_back_after:
            _log.warning(
                "a message at %s waited too long for the key service: abandoned", self._place.entity_path
            )
            yield from self._settling.abandon(held.message)
            return False
        left = self._lock_left(held.message)
        if left is None or left > held.margin:
            return True
        try:
            if left <= 0:
                return False
            session = self._below.target.session if self._place.in_order else None
            yield session.renew_lock if session else self._below.step("renew_message_lock", held.message)
            held.margin = self._margin(held.message)
        except Exception as error:  # noqa: BLE001 - the broker has the message, and delivers it again
            _log.warning(
                "a lock at %s could not be renewed: %s", self._place.entity_path, type(error).__name__
            )
            return False
        return True

    def _lock_left(self, message: Any) -> float | None:
        """Return the seconds until the lock of *message*, or of its session, ends; None where nobody knows."""
        until = (
            self._below.target.session.locked_until_utc if self._place.in_order else message.locked_until_utc
        )
        return None if until is None else float((until - datetime.now(UTC)).total_seconds())

    def _margin(self, message: Any) -> float:
        """Return how many seconds before its end the lock of *message* is to be renewed: half of what is left."""
        left = self._lock_left(message)
        return self._waiting.give_back_after if left is None else max(left, 0.0) / 2

    def _is_full(self) -> bool:
        """Tell whether nothing more is to be received: what comes would have to wait, too."""
        return bool(self._held) and (self._place.in_order or len(self._held) >= _MAX_HELD)

    def _pausing(self, most: float) -> Step:
        seconds = max(min(most, self._due - self._now()), 0.0)
        return lambda: self._sleep(seconds)

    def _own_wait(self) -> float | None:
        wait: float | None = getattr(self._below.target, "_max_wait_time", None)
        return wait

    def _now(self) -> float:
        return self._waiting.clock()
