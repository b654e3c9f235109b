"""What a consumer handed on and its group has not committed: told to the ledger when the broker has confirmed the commit.

A stored offset settles nothing: until it is committed, the messages before it come again after a crash. So the ledger is told late, and
never of a message that may yet come again.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Iterable
from typing import Any, Final

from postseal.core import LedgerUnavailable, Sealer
from postseal.core.replay import Receipt
from postseal.kafka._partitions import Partition

__all__ = ["Uncommitted"]

_log: Final = logging.getLogger("postseal.kafka")
_MOST: Final = 65_536
"""Messages of a partition that are remembered until they are committed; of more, the oldest are never told to the ledger."""


class Uncommitted:
    """Messages by partition, in the order of their offsets.

    Args:
        sealer: Tells its ledger.
        group: The consumer group: to the ledger, who reads.
    """

    def __init__(self, sealer: Sealer, group: str) -> None:
        self._sealer = sealer
        self.reader = group
        self._messages: dict[Partition, deque[tuple[int, Receipt]]] = {}
        self._owed: list[Receipt] = []
        """Of committed messages, what the ledger did not take."""

    def note(self, partition: Partition, offset: int, receipt: Receipt) -> None:
        """Remember a message. What was noted at its offset or behind it comes again."""
        messages = self._messages.get(partition)
        if messages is None:
            messages = self._messages[partition] = deque(maxlen=_MOST)
        while messages and messages[-1][0] >= offset:
            messages.pop()
        messages.append((offset, receipt))

    def committed(self, partitions: Iterable[Any] | None) -> None:
        """Tell the ledger of all that lies before these offsets, as the client reports them. What it does not take is tried again."""
        for each in partitions or ():
            messages = self._messages.get((each.topic, each.partition))
            if not messages or each.error is not None:
                continue
            while messages and messages[0][0] < each.offset:
                self._owed.append(messages.popleft()[1])
        try:
            self.pay()
        except LedgerUnavailable as error:
            _log.warning("%d committed messages are not in the ledger yet: %s", len(self._owed), error)

    def pay(self) -> None:
        """Tell the ledger what it did not take before.

        Raises:
            LedgerUnavailable: It does not take it now, either. Nothing more is handed on until it does.
        """
        if self._owed:
            self._sealer.settled(*self._owed)
            self._owed.clear()

    def close(self) -> None:
        """Try a last time."""
        if self._owed:
            self.committed(None)
        if self._owed:
            _log.error(
                "%d committed messages are not in the ledger: copies will count as new", len(self._owed)
            )
