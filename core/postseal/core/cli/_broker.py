"""What the story needs of a broker: two ends through the adapter, and an administrator with bare clients."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Final, NamedTuple, Protocol

from postseal.core import Sealer
from postseal.core.cli._orders import Order

__all__ = ["CONTENT_TYPE", "Broker", "Held", "Until"]

CONTENT_TYPE: Final = "application/json"

Until = Callable[[], bool]
"""Tells whether a consumer has received all there is to receive."""


class Held(NamedTuple):
    """A message as the broker has it.

    Attributes:
        body: Kafka: the record's value. SQS: the body, in UTF-8.
        key: The record's key; None on SQS.
        content_type: The header, or message attribute, that says how the body is to be read.
    """

    body: bytes
    key: bytes | None
    content_type: str | None

    @property
    def everything(self) -> bytes:
        """All of it, to be searched."""
        return b"\0".join((self.body, self.key or b"", (self.content_type or "").encode()))


class Broker(Protocol):
    """A broker with the topics or queues ``orders`` and ``refunds``."""

    name: str
    scheme: str
    where: str
    settled: str
    """What becomes of a refused message here."""

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Send to ``orders`` through the adapter."""
        ...

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Receive from ``orders`` and ``refunds`` through the adapter, until *done*."""
        ...

    def look(self, count: int) -> list[Held]:
        """Read *count* messages of ``orders`` as an administrator would; they stay there."""
        ...

    def put(self, place: str, message: Held) -> None:
        """Write *message* to *place* as an administrator would."""
        ...

    def refused(self) -> int:
        """Count the refused messages that are kept, as an administrator would."""
        ...

    def envelope(self, body: bytes) -> bytes:
        """Return the envelope that a body held by the broker is."""
        ...

    def body(self, envelope: bytes) -> bytes:
        """Return the body that the broker would hold for *envelope*."""
        ...

    def close(self) -> None:
        """Let go of all clients."""
        ...
