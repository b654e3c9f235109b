"""A ledger for tests of adapters: it shows what it was told, and can be away while something is settled."""

from __future__ import annotations

from collections.abc import Sequence

from postseal.core import LedgerUnavailable, MemoryLedger
from postseal.core.replay import Receipt

__all__ = ["Noting"]


class Noting(MemoryLedger):
    """Counts the messages that are settled just now.

    Attributes:
        settled: Their ids.
        away: Whether settling fails.
    """

    def __init__(self) -> None:
        super().__init__()
        self.settled: set[bytes] = set()
        self.away = False

    def settle(self, receipts: Sequence[Receipt]) -> None:
        """Note, or be away."""
        if self.away:
            raise LedgerUnavailable("away")
        super().settle(receipts)
        self.settled |= {receipt[0] for receipt in receipts}

    def unsettle(self, receipts: Sequence[Receipt]) -> None:
        """Take back."""
        super().unsettle(receipts)
        self.settled -= {receipt[0] for receipt in receipts}
