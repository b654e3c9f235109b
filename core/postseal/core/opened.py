"""What the core hands out: a message that was opened, or verified."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Final, NamedTuple, TypeAlias

from postseal.core.context import HeaderValue, byte_string, head, integer, text
from postseal.core.crypto import sha256
from postseal.core.errors import Verdict
from postseal.core.signing import Origin
from postseal.core.wire import Header

if TYPE_CHECKING:
    from postseal.core.replay import Receipt

__all__ = ["Facts", "Opened", "Parts", "Varying", "Verified", "reference_of", "varying_of"]

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


Varying: TypeAlias = tuple[int, int, bytes, int | None]
"""What differs between messages that have their `Facts` in common: seconds, milliseconds, message id, expiry."""


Parts: TypeAlias = "tuple[bytes, str | None, Receipt | None]"
"""A message that was opened, without its facts: body, content type and receipt. Quicker to make than an `Opened`."""


class Facts(NamedTuple):
    """What many messages have in common, kept once."""

    header: Header | None
    """Of one of them; None where they came in clear."""
    origin: Origin
    verdict: Verdict
    headers: tuple[tuple[str, HeaderValue], ...] = ()
    """Those that were encrypted: then these facts are of one message alone."""


class Verified:
    """What an authenticated message says of itself. All of it is None where the message came in clear, tolerated."""

    __slots__ = ("_facts", "_varying")

    def __init__(self, facts: Facts, varying: Varying) -> None:
        self._facts = facts
        self._varying = varying

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
        return None if self._facts.header is None else self._varying[2].hex()

    @property
    def sent_at(self) -> datetime | None:
        """When it was sealed, in UTC, to the millisecond."""
        if self._facts.header is None:
            return None
        seconds, millis, _, _ = self._varying
        return _EPOCH + timedelta(seconds=seconds, milliseconds=millis)

    @property
    def expires_at(self) -> datetime | None:
        """From when on it is not to be opened, in UTC."""
        expires = self._varying[3]
        return None if expires is None else _EPOCH + timedelta(seconds=expires)

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

    @property
    def reference(self) -> str | None:
        """Names this message in a reply to it: 64 hex digits. Source: SPEC.md 5.4."""
        header = self._facts.header
        return None if header is None else reference_of(header, self._varying).hex()

    @property
    def in_reply_to(self) -> str | None:
        """The `reference` of the request that it answers; None where its sender named none."""
        header = self._facts.header
        return None if header is None or header.in_reply_to is None else header.in_reply_to.hex()

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.message_id} from {self.sender} to {self.destination}>"


class Opened(Verified):
    """An opened message. The body does not show in `repr`.

    Attributes:
        body: The clear body.
    """

    __slots__ = ("_receipt", "body")

    _receipt: Receipt
    """Only there where a ledger was asked."""

    def __init__(self, body: bytes, facts: Facts, varying: Varying) -> None:
        self.body = body
        self._facts = facts
        self._varying = varying

    @property
    def verdict(self) -> Verdict:
        """*ok*; *redelivery* or *duplicate*, where the ledger knows the message; *clear* where the policy tolerates clear text."""
        return self._facts.verdict

    @property
    def headers(self) -> tuple[tuple[str, HeaderValue], ...]:
        """The headers that were encrypted with the body, as pairs of name and value; a name may come more than once."""
        return self._facts.headers

    @property
    def sent_ms(self) -> int:
        """When it was sealed, in milliseconds since the epoch; 0 where it came in clear."""
        return self._varying[0] * 1000 + self._varying[1]

    @property
    def receipt(self) -> Receipt | None:
        """What `Sealer.settled` takes in the place of the message; None where there is nothing to be noted."""
        return getattr(self, "_receipt", None)

    @property
    def parts(self) -> Parts:
        """Body, content type and receipt."""
        return self.body, self.content_type, self.receipt

    def judged(self, verdict: Verdict, receipt: Receipt) -> Opened:
        """Note what the ledger says of it."""
        self._receipt = receipt
        if verdict is not self._facts.verdict:
            self._facts = self._facts._replace(verdict=verdict)
        return self

    @classmethod
    def in_clear(cls, body: bytes) -> Opened:
        """Make what is handed on where the mode lets clear text pass."""
        return cls(body, _CLEAR, (0, 0, b"", None))


def reference_of(header: Header, varying: Varying) -> bytes:
    """Return the 32 bytes by which a reply names the message that has *header*. Source: SPEC.md 5.4."""
    seconds, millis, message_id, _ = varying
    return sha256(
        head(4, 7)
        + text("postseal v1 request")
        + text(header.sender)
        + text(header.destination)
        + byte_string(message_id)
        + integer(seconds)
        + integer(millis)
        + (b"\xf6" if header.commitment is None else byte_string(header.commitment))
    )


def varying_of(header: Header) -> Varying:
    """Return what varies between messages."""
    return header.seconds, header.millis, header.message_id, header.expires


_CLEAR: Final = Facts(None, Origin.NONE, Verdict.CLEAR)
