"""What a ledger is, and the one that is kept in memory."""

from __future__ import annotations

import logging
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from math import isfinite
from typing import Final, Literal, Protocol, TypeAlias, get_args, runtime_checkable

from postseal.core.errors import ConfigError, LedgerUnavailable, Verdict, nearest
from postseal.core.forking import ForkSafeLock, begin_again_in_child
from postseal.core.replay._table import Table

__all__ = ["Ledger", "LedgerFailure", "MemoryLedger", "Receipt", "StoredLedger"]

Receipt: TypeAlias = tuple[bytes, bytes, int]
"""What a ledger keeps of a message: its id in the ledger (16 bytes), a digest of the rest (16 bytes), and for how many seconds."""

LedgerFailure: TypeAlias = Literal["keep", "deliver"]

_log: Final = logging.getLogger("postseal.ledger")
_MAX_AGE: Final = 14 * 86400.0
"""Seconds. Source: the longest that SQS keeps a message, and Service Bus and Kafka by default."""
_MOST_SECONDS: Final = 10 * 366 * 86400


@runtime_checkable
class Ledger(Protocol):
    """Knows which messages were settled. Called by many threads at once.

    Every method raises `LedgerUnavailable` where its store does not answer: then nothing is handed on, and nothing settled.
    """

    @property
    def waits(self) -> bool:
        """Whether `meet` may wait for another machine."""
        ...

    @property
    def max_age(self) -> float:
        """Seconds for which a message is remembered at most."""
        ...

    def meet(self, receipt: Receipt) -> Verdict:
        """Say what is known of a message that came: *ok* (nothing), *redelivery*, *duplicate* or *conflict*."""
        ...

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """Note that these messages are settled."""
        ...

    def unsettle(self, receipts: Sequence[Receipt]) -> None:
        """Note that they are not: the broker did not take it."""
        ...

    async def ameet(self, receipt: Receipt) -> Verdict:
        """Like `meet`, without blocking the loop."""
        ...

    async def asettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `settle`, without blocking the loop."""
        ...

    async def aunsettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `unsettle`, without blocking the loop."""
        ...


class MemoryLedger:
    """A ledger of this process alone, lost when it ends. A forked child begins with an empty one.

    Each id takes at most 100 bytes, room for more included. At *max_ids* the oldest go, and copies of those are no longer known:
    `forgotten` counts them, and the first is logged.

    Args:
        max_ids: How many messages are remembered at most.
        max_age: Seconds for which a message is remembered, where its policy has no ``max_message_age``.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: One of them is out of its range.
    """

    waits = False

    def __init__(
        self,
        *,
        max_ids: int = 1_000_000,
        max_age: float = _MAX_AGE,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self.max_ids = check_count("max_ids", max_ids)
        self.max_age = check_seconds("max_age", max_age)
        self._clock = clock
        self._lock = ForkSafeLock()
        self._warned = False
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget everything: in a forked child, where another thread may have been at it."""
        self._table = Table(self.max_ids)

    def __len__(self) -> int:
        """Count the messages that are remembered."""
        with self._lock:
            return len(self._table)

    @property
    def forgotten(self) -> int:
        """How many messages were forgotten before their time, because there were more than *max_ids*."""
        with self._lock:
            return self._table.forgotten

    @property
    def nbytes(self) -> int:
        """Bytes that the ids take."""
        with self._lock:
            return self._table.nbytes

    def meet(self, receipt: Receipt) -> Verdict:
        """Say what is known of a message that came, and remember it."""
        message, digest, keep = receipt
        now = int(self._clock())
        with self._lock:
            return self._table.meet(message, digest, now, now + keep)

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """Note that these messages are settled."""
        now = int(self._clock())
        with self._lock:
            for message, digest, keep in receipts:
                self._table.settle(message, digest, now, now + keep)
        if not self._warned and self._table.forgotten:
            self._warned = True
            _log.warning("more than %d messages in the ledger: the oldest are forgotten", self.max_ids)

    def unsettle(self, receipts: Sequence[Receipt]) -> None:
        """Note that they are not, after all."""
        with self._lock:
            for message, _, _ in receipts:
                self._table.unsettle(message)

    async def ameet(self, receipt: Receipt) -> Verdict:
        """Like `meet`: it waits for nothing."""
        return self.meet(receipt)

    async def asettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `settle`: it waits for nothing."""
        self.settle(receipts)

    async def aunsettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `unsettle`: it waits for nothing."""
        self.unsettle(receipts)


class StoredLedger(ABC):
    """What ledgers have in common whose settled messages lie in a store, for other processes too.

    What was seen here and not yet settled is remembered in memory, for the word *redelivery*; the store is written when a message is
    settled.

    Args:
        max_age: As in `MemoryLedger`.
        on_failure: What happens to messages while the store fails. ``"keep"``: they wait at the broker, and settling raises. ``"deliver"``:
            they are handed on, by what this process alone remembers; `unasked` counts them, and replays may pass.
        max_seen: How many messages of this process are remembered in memory.
        clock: Seconds since the epoch.
    """

    def __init__(
        self,
        *,
        max_age: float,
        on_failure: LedgerFailure,
        max_seen: int,
        clock: Callable[[], float],
    ) -> None:
        if on_failure not in get_args(LedgerFailure):
            raise ConfigError(
                f"on_failure is {on_failure!r}{nearest(str(on_failure), get_args(LedgerFailure))}"
            )
        self.max_age = check_seconds("max_age", max_age)
        self._delivers = on_failure == "deliver"
        self._here = MemoryLedger(max_ids=check_count("max_seen", max_seen), max_age=max_age, clock=clock)
        self._clock = clock
        self.unasked = 0
        """How many times the store failed and *on_failure* let that pass."""

    @abstractmethod
    def _find(self, message: bytes) -> bytes | None:
        """Return the digest of a settled message; None where it is not known."""

    @abstractmethod
    def _write(self, receipts: Sequence[Receipt]) -> None:
        """Store settled messages, all or none."""

    @abstractmethod
    def _erase(self, receipts: Sequence[Receipt]) -> None:
        """Take them out again."""

    def meet(self, receipt: Receipt) -> Verdict:
        """Say what is known of a message that came: by the store first, then by what this process saw."""
        try:
            known = self._find(receipt[0])
        except LedgerUnavailable as error:
            self._pass(error)
            known = None
        return self._judge(receipt, known)

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """Note that these messages are settled."""
        try:
            self._write(receipts)
        except LedgerUnavailable as error:
            self._pass(error)
        self._here.settle(receipts)

    def unsettle(self, receipts: Sequence[Receipt]) -> None:
        """Note that they are not, after all."""
        self._here.unsettle(receipts)
        try:
            self._erase(receipts)
        except LedgerUnavailable as error:
            self._pass(error)

    def _judge(self, receipt: Receipt, known: bytes | None) -> Verdict:
        if known is None:
            return self._here.meet(receipt)
        return Verdict.DUPLICATE if known == receipt[1] else Verdict.CONFLICT

    def _pass(self, error: LedgerUnavailable) -> None:
        """Let *error* pass where that is wanted; else raise it."""
        if not self._delivers:
            raise error
        self.unasked += 1
        if (
            self.unasked & (self.unasked - 1) == 0
        ):  # at powers of two: a store that is away for long fills no log
            _log.warning("the ledger failed %d times, and messages pass without it: %s", self.unasked, error)


def check_count(option: str, value: object) -> int:
    """Return *value* if it is a number of ids."""
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 2**32:
        raise ConfigError(f"{option} must be a whole number from 1 to 2**32: {value!r}")
    return value


def check_seconds(option: str, value: object) -> float:
    """Return *value* if it is a time to remember."""
    if (
        isinstance(value, bool)
        or not isinstance(value, (int, float))
        or not isfinite(value)
        or not 1 <= value <= _MOST_SECONDS
    ):
        raise ConfigError(f"{option} must be from 1 second to ten years, in seconds: {value!r}")
    return float(value)
