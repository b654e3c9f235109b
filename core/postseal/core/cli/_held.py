"""What a quarantine holds, and what can be done with it."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple, Self

from postseal.core.cli._anatomy import anatomy
from postseal.core.errors import ConfigError, Refused
from postseal.core.wire import decode

__all__ = ["Held", "Quarantine"]


class Held(NamedTuple):
    """A message in quarantine."""

    id: str
    """By which the broker or we find it again: shown by ``list``, taken by the others."""
    body: bytes
    """As it came, sealed or not: bytes also where the broker has text."""
    verdict: str | None
    """Why it was refused, as the copy says; None where it does not."""
    source: str | None
    """The destination that it goes back to; None where nothing says so."""
    at: datetime | None
    """Since when it lies there, or when it was sent, by the broker's clock."""
    native: Any

    @property
    def sender(self) -> str | None:
        """Who sent it, by its own unverified account; None where it is no envelope."""
        try:
            return decode(self.body).header.sender
        except Refused:
            return None

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: never a body in clear."""
        said: dict[str, Any] = {
            "id": self.id,
            "verdict": self.verdict,
            "source": self.source,
            "at": None if self.at is None else self.at.astimezone(UTC).isoformat(timespec="seconds"),
            "bytes": len(self.body),
        }
        try:
            said |= {"sealed": True, **anatomy(self.body, decode(self.body))}
        except Refused as refused:
            said |= {"sealed": False, "error": refused.detail}
        return said


class Quarantine(ABC):
    """One quarantine, connected. Also a ``with`` block: what was looked at and not taken out is given back at its end."""

    @abstractmethod
    def each(self, *, taking: bool) -> Iterator[Held]:
        """Go through what it holds now, each once.

        Args:
            taking: Whether some are to be taken out; else they are only looked at.
        """

    @abstractmethod
    def send_back(self, held: Held, destination: str) -> None:
        """Send a message, as it came, to *destination*; return when the broker has it."""

    @abstractmethod
    def move(self, held: Held, body: bytes, destination: str) -> None:
        """Send a message with *body* in the place of its own, and all else as it lies here; return when the broker has it."""

    @abstractmethod
    def take_out(self, messages: Sequence[Held]) -> None:
        """Take messages out of the quarantine, for good.

        Raises:
            ConfigError: The broker cannot.
        """

    def sent_back(self, held: Held) -> None:
        """Take out a message that was sent back. Where the broker cannot, it stays."""
        self.take_out([held])

    def go_on(self, destination: str) -> None:  # noqa: B027 - most take out, and have nothing to remember
        """Where nothing is taken out: have `each` begin behind what was moved to *destination* before."""

    def moved(self, held: Held) -> None:
        """Take out a message that was moved; where the broker cannot, note how far that is."""
        self.take_out([held])

    @abstractmethod
    def close(self) -> None:
        """Disconnect."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


def named(destination: str, scheme: str) -> str:
    """Return the name in *destination*.

    Raises:
        ConfigError: It is one of another broker.
    """
    found, _, name = destination.partition(":")
    if found != scheme or not name:
        raise ConfigError(
            f"{destination!r} is no destination of {scheme}: messages go back to where their broker is"
        )
    return name


def aud_of(body: bytes, scheme: str) -> str | None:
    """Return the destination that an envelope names, unverified, if it is one of *scheme*."""
    try:
        destination = decode(body).header.destination
    except Refused:
        return None
    return destination if destination.startswith(f"{scheme}:") else None
