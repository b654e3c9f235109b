"""How one reader at one destination asks a ledger: what a message is called there, and for how long it is kept."""

from __future__ import annotations

from collections.abc import Callable
from hashlib import blake2b
from typing import Final

from postseal.core.errors import Verdict
from postseal.core.replay._ledger import Ledger, Receipt
from postseal.core.replay._table import ID_SIZE

__all__ = ["Register", "digest_of"]

_PERSON: Final = b"postseal ledger"


def digest_of(protected: bytes, payload: bytes) -> bytes:
    """Return what tells two clear payloads apart, that of one id. Of a ciphertext, its tag does: it covers header and body."""
    return blake2b(payload, digest_size=ID_SIZE, key=blake2b(protected).digest(), person=_PERSON).digest()


class Register:
    """Knows what to ask of each message.

    Args:
        ledger: Is asked.
        reader: Who reads, where several each get a copy of every message; else empty.
        keep: Seconds for which messages are remembered.

    Source: SPEC.md 8.1.
    """

    def __init__(self, ledger: Ledger, reader: str, keep: float) -> None:
        self.ledger = ledger
        self._reader = reader
        self._keep = int(keep) + 1

    def receipt(self, sender: str, destination: str, message_id: bytes, digest: bytes) -> Receipt:
        """Return what the ledger is told of a message."""
        message = self._scope(sender, destination)
        message.update(message_id)
        return message.digest(), digest, self._keep

    def noter(self, sender: str, destination: str) -> Callable[[bytes, bytes], Receipt | None]:
        """Return a function that notes a message of that *sender* to that *destination*, by its id and digest.

        It gives the receipt; or None where the message is not new, so that more is to be said of it.
        """
        begin, meet, keep, new = (
            self._scope(sender, destination).copy,
            self.ledger.meet,
            self._keep,
            Verdict.OK,
        )

        def note(message_id: bytes, digest: bytes) -> Receipt | None:
            message = begin()
            message.update(message_id)
            receipt = message.digest(), digest, keep
            return receipt if meet(receipt) is new else None

        return note

    def _scope(self, sender: str, destination: str) -> blake2b:
        scope = blake2b(digest_size=ID_SIZE, person=_PERSON)
        for part in (sender, destination, self._reader):
            text = part.encode()
            scope.update(len(text).to_bytes(4) + text)
        return scope
