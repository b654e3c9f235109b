"""Tells the ledger which messages a client deletes: before SQS is asked to, and takes it back where SQS did not.

A message is deleted by its receipt handle, which is all that a delete names. So what was handed on is remembered by that.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple

from postseal.core.replay import Receipt

__all__ = ["Deleting", "Handles"]

_MOST: Final = 120_000
"""Messages that are remembered until they are deleted. Source: SQS, quotas: messages in flight of a standard queue."""
_ACCEPTED: Final = 300


class Deleting(NamedTuple):
    """What one call that deletes was noted to settle: receipts by their handle, and handles by the id of their entry."""

    receipts: dict[bytes, Receipt]
    entries: dict[str, bytes]


class Handles:
    """Receipts of what a client handed on, by receipt handle. The oldest goes where there are too many: it was given back long ago."""

    def __init__(self) -> None:
        self._receipts: dict[bytes, Receipt] = {}

    def keep(self, handed_on: Iterable[tuple[Mapping[str, Any], Receipt]]) -> None:
        """Remember messages of ReceiveMessage."""
        receipts = self._receipts
        for message, receipt in handed_on:
            receipts[_key(message.get("ReceiptHandle"))] = receipt
            if len(receipts) > _MOST:
                receipts.pop(next(iter(receipts)), None)

    def deleting(self, params: Mapping[str, Any]) -> Deleting | None:
        """Return what a DeleteMessage or DeleteMessageBatch with these *params* settles; None where that is nothing of ours."""
        given = params.get("Entries")
        entries = given if isinstance(given, (list, tuple)) else [params]
        keys = {
            str(entry.get("Id", "")): _key(entry.get("ReceiptHandle"))
            for entry in entries
            if isinstance(entry, Mapping)
        }
        receipts = {key: self._receipts[key] for key in keys.values() if key in self._receipts}
        return Deleting(receipts, keys) if receipts else None

    def deleted(
        self, deleting: Deleting, parsed: Mapping[str, Any] | None, status: int | None
    ) -> list[Receipt]:
        """Forget what SQS says is gone; return the receipts of what is not.

        Args:
            deleting: What was noted.
            parsed: The answer; None where there was none.
            status: The HTTP status; None likewise.
        """
        left = set(deleting.receipts)
        if parsed is not None and status is not None and status < _ACCEPTED:
            left = {
                deleting.entries.get(str(failed.get("Id", "")), b"")
                for failed in parsed.get("Failed") or ()
                if isinstance(failed, Mapping)
            }
        for key in deleting.receipts.keys() - left:
            self._receipts.pop(key, None)
        return [receipt for key, receipt in deleting.receipts.items() if key in left]


def _key(handle: object) -> bytes:
    """Handles are long: a digest of one takes less."""
    return blake2b(str(handle).encode("utf-8", "surrogatepass"), digest_size=16).digest()
