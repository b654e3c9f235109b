"""What the core hands out: a message that was opened, or verified."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any, Final, NamedTuple

from postseal.core.errors import Verdict
from postseal.core.signing import Origin
from postseal.core.wire import Header

__all__ = ["Facts", "Opened", "Verified", "parts_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_PARTS_WITH_EXPIRY: Final = 11


class Facts(NamedTuple):
    """What many messages have in common, kept once."""

    header: Header | None
    """Of one of them; None where they came in clear."""
    origin: Origin
    verdict: Verdict


class Verified:
    """What an authenticated message says of itself. All of it is None where the message came in clear, tolerated."""

    __slots__ = ("_facts", "_parts")

    def __init__(self, facts: Facts, parts: tuple[Any, ...]) -> None:
        self._facts = facts
        self._parts = parts  # as `Skeleton.split` makes them

    @property
    def origin(self) -> Origin:
        """What it proves about its sender."""
        return self._facts.origin

    @property
    def sender(self) -> str | None:
        """Who sent it, as far as `origin` proves it."""
        header = self._facts.header
        return None if header is None else header.sender

    @property
    def destination(self) -> str | None:
        """The logical destination that it was sent to."""
        header = self._facts.header
        return None if header is None else header.destination

    @property
    def message_id(self) -> str | None:
        """Its 16-byte id in hex: the same for every copy of it."""
        return None if self._facts.header is None else self._parts[-4].hex()

    @property
    def sent_at(self) -> datetime | None:
        """When it was sealed, in UTC, to the millisecond."""
        if self._facts.header is None:
            return None
        return _EPOCH + timedelta(seconds=self._parts[-6], milliseconds=self._parts[-2])

    @property
    def expires_at(self) -> datetime | None:
        """From when on it is not to be opened, in UTC."""
        return _EPOCH + timedelta(seconds=self._parts[3]) if len(self._parts) == _PARTS_WITH_EXPIRY else None

    @property
    def policy(self) -> str | None:
        """Name of the policy it was sealed under."""
        header = self._facts.header
        return None if header is None else header.policy

    @property
    def content_type(self) -> str | None:
        """The media type that its sender named."""
        header = self._facts.header
        return None if header is None else header.content_type

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.message_id} from {self.sender} to {self.destination}>"


class Opened(Verified):
    """An opened message. The body does not show in `repr`.

    Attributes:
        body: The clear body.
    """

    __slots__ = ("body",)

    def __init__(self, body: bytes, facts: Facts, parts: tuple[Any, ...]) -> None:
        self.body = body
        self._facts = facts
        self._parts = parts

    @property
    def verdict(self) -> Verdict:
        """*ok*, or *clear* where the policy tolerates clear text."""
        return self._facts.verdict

    @classmethod
    def in_clear(cls, body: bytes) -> Opened:
        """Make what is handed on where the mode lets clear text pass."""
        return cls(body, _CLEAR, ())


def parts_of(header: Header) -> tuple[Any, ...]:
    """Put what varies between messages where `Skeleton.split` puts it."""
    varying = [header.nonce, header.seconds, header.message_id, header.millis, None]
    if header.expires is not None:
        varying.insert(1, header.expires)
    return tuple(part for value in varying for part in (b"", value))[:-1]


_CLEAR: Final = Facts(None, Origin.NONE, Verdict.CLEAR)
