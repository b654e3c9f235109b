"""Sorts the messages that came in one answer: opened, refused, withheld.

What opens them stands outside, with or without ``await``. Each message is sorted before the next is asked for, because what waits holds up
what is behind it::

    for one in sorting:
        sorting.opened(one, sealer.open(one.data, ...))  # or sorting.failed(one, error)
"""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, NamedTuple

from postseal.core import AuditEvent, ConfigError, KeyUnavailable, Opened, Refused, Verdict
from postseal.core.audit import Auditor
from postseal.core.context import Headers
from postseal.core.replay import Receipt
from postseal.core.wire import decode
from postseal.sqs._message import (
    Place,
    attributes_md5,
    attributes_of,
    values_of,
)
from postseal.sqs._text import envelope_of, open_texts, text_md5, text_md5s
from postseal.sqs._wrapped import Wrapper

__all__ = ["Broken", "Received", "Sorting", "Turned"]

_log: Final = logging.getLogger("postseal.sqs")
_DAMAGED: Final = "MD5OfBody is not that of the body received"


class Received(Mapping[str, str | int]):
    """A message that came. As a mapping it says where SQS has it, for an audit event, and is read only then.

    Args:
        message: As of ReceiveMessage. It changes when it is opened.

    Attributes:
        text: Its body as it came.
        data: What is to be opened: the envelope that the body is or holds, else the body.
        headers: Its attributes; None where it has none.
        ordering_key: Its group, where that is bound.
        wrapper: SNS's JSON, where the envelope lies in that.
    """

    __slots__ = ("_coordinates", "data", "headers", "message", "ordering_key", "text", "wrapper")

    def __init__(self, message: dict[str, Any]) -> None:
        self.message = message
        self.text: str = message.get("Body", "")
        self.data = b""
        self.headers: Headers | None = None
        self.ordering_key: bytes | None = None
        self.wrapper: Wrapper | None = None
        self._coordinates: dict[str, str | int] | None = None

    @property
    def handle(self) -> str:
        """Its receipt handle."""
        return str(self.message.get("ReceiptHandle", ""))

    @property
    def message_id(self) -> str:
        """The id that SQS gave it."""
        return str(self.message.get("MessageId", ""))

    @property
    def group(self) -> str | None:
        """Its group, where SQS says it."""
        system = self.message.get("Attributes")
        return system.get("MessageGroupId") if system else None

    @property
    def receive_count(self) -> int | None:
        """How often it came, this time included; None where SQS was not asked."""
        count = str((self.message.get("Attributes") or {}).get("ApproximateReceiveCount", ""))
        return int(count) if count.isdecimal() else None

    @property
    def damaged(self) -> bool:
        """Whether its body is not the one whose MD5 SQS named: a fault of the way here, not of the message."""
        claimed = self.message.get("MD5OfBody")
        return claimed is not None and claimed != text_md5(self.text)

    @property
    def coordinates(self) -> dict[str, str | int]:
        """Where SQS has it."""
        if self._coordinates is None:
            self._coordinates = {"message_id": self.message_id}
            if (count := self.receive_count) is not None:
                self._coordinates["receive_count"] = count
            if self.damaged:
                self._coordinates["damaged"] = _DAMAGED
        return self._coordinates

    def __getitem__(self, name: str) -> str | int:
        return self.coordinates[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self.coordinates)

    def __len__(self) -> int:
        return len(self.coordinates)


class Turned(NamedTuple):
    """A message that was refused, and why."""

    received: Received
    refusal: Refused
    stays: bool = False
    """Whether it is left on its queue whatever the policy says."""


class Broken(NamedTuple):
    """A message that could not be opened, for a reason that no verdict fits."""

    received: Received
    error: Exception


class Sorting:
    """Sorts *messages*, in their order.

    Args:
        messages: As of ReceiveMessage. Those that open are changed in place.
        place: Where they lay.
        auditor: Told of what is refused here, not by the sealer.

    Attributes:
        destination: Of *place*.
        reader: Likewise.
        done: Opened messages.
        refused: Those that are never handed on.
        withheld: Those that have to wait for the key service.
        broken: Those that something else went wrong with.
        receipts: What the ledger is to be told when an opened message is settled, each with its message; none where there is no ledger.
        messages: All of them.
    """

    def __init__(self, messages: Sequence[dict[str, Any]], place: Place, auditor: Auditor) -> None:
        self.destination = place.destination
        self.reader = place.reader
        self.done: list[dict[str, Any]] = []
        self.refused: list[Turned] = []
        self.withheld: list[Received] = []
        self.broken: list[Broken] = []
        self.receipts: list[tuple[dict[str, Any], Receipt]] = []
        self.messages = messages
        self._place = place
        self._auditor = auditor
        self._groups: set[str] = set()
        self._keys: set[bytes] = set()

    @property
    def raised(self) -> Refused | None:
        """The first refusal of which the policy says that it is to be raised."""
        outcome = self._place.policy.outcome
        refusals = (turned.refusal for turned in self.refused)
        return next((refusal for refusal in refusals if outcome(refusal.verdict) == "raise"), None)

    def __iter__(self) -> Iterator[Received]:
        place, groups, keys, messages = self._place, self._groups, self._keys, self.messages
        # What opens is authentic, letter by letter, whatever MD5 came with it; clear text that is let pass has nothing else, nor has
        # SNS's JSON around what opens (see `opened`).
        checks = place.policy.consuming != "enforce"
        at = 0
        while at < len(messages):
            if place.plain and not checks and not groups and not keys:
                at += self._open_at_once(messages[at:])
                if at == len(messages):
                    return
            one = Received(messages[at])
            at += 1
            text = one.text
            envelope = envelope_of(text)
            if envelope is None:
                envelope = self._unwrapped(one) if place.wraps else None
                envelope = text.encode("utf-8", "surrogatepass") if envelope is None else envelope
            one.data = envelope
            if (groups or keys) and self._waits(one):
                self.withheld.append(one)
                continue
            if checks and one.damaged:
                self._refuse(one, Verdict.MALFORMED, _DAMAGED, stays=True)
                continue
            one.headers = self._headers(one)
            one.ordering_key = self._ordering_key(one)
            yield one

    def _open_at_once(self, messages: Sequence[dict[str, Any]]) -> int:
        """Open *messages* up to the first of which more counts than its body, or that is unlike those that were opened before.

        Returns:
            How many that are.
        """
        place = self._place
        receipts: list[Receipt | None] = []

        def noting(envelope: bytes) -> bytes | None:
            if (opened := place.open(envelope)) is None:
                return None
            receipts.append(opened.receipt)
            return opened.body

        bodies = [message.get("Body") for message in messages]
        clear = open_texts(noting if place.noted else place.open_body, bodies)
        for message, text, digest in zip(messages, clear, text_md5s(clear), strict=False):
            _fill(message, text, digest)
        done = messages[: len(clear)]
        self.done += done
        self.receipts += [(one, met) for one, met in zip(done, receipts, strict=False) if met is not None]
        return len(clear)

    def _done(self, message: dict[str, Any], opened: Opened) -> None:
        self.done.append(message)
        if self._place.noted and (receipt := opened.receipt) is not None:
            self.receipts.append((message, receipt))

    @staticmethod
    def _unwrapped(one: Received) -> bytes | None:
        one.wrapper = Wrapper.of(one.text)
        return None if one.wrapper is None else one.wrapper.envelope

    @staticmethod
    def _headers(one: Received) -> Headers | None:
        """Return all attributes: the sender may have bound or encrypted more than the policy demands here."""
        if one.wrapper is not None:
            return values_of(one.wrapper.attributes)
        return values_of(one.message.get("MessageAttributes")) or None

    def _ordering_key(self, received: Received) -> bytes | None:
        group = received.group if self._place.bind_group else None
        return None if group is None else group.encode()

    def opened(self, one: Received, opened: Opened) -> None:
        """Put the clear body in the place of the sealed one."""
        wrapper = one.wrapper
        try:
            text = opened.body.decode()
        except UnicodeDecodeError:
            self._refuse(one, Verdict.MALFORMED, "the opened body is no text")
            return
        if wrapper is not None:
            if one.damaged:
                self._refuse(one, Verdict.MALFORMED, _DAMAGED, stays=True)
                return
            if opened.destination != wrapper.destination:
                # Else anybody could put what was sent to the queue itself into a wrapper of their own making.
                self._refuse(
                    one, Verdict.WRONG_DESTINATION, "it was not sent to the topic that SNS's JSON names"
                )
                return
            text = wrapper.filled(text, attributes_of(opened.headers))
        elif opened.headers:
            given = {**(one.message.get("MessageAttributes") or {}), **attributes_of(opened.headers)}
            one.message["MessageAttributes"] = given
            one.message["MD5OfMessageAttributes"] = attributes_md5(given)
        _fill(one.message, text, text_md5(text))
        self._done(one.message, opened)

    def failed(self, one: Received, error: Exception) -> None:
        """Note why *one* did not open.

        Raises:
            ConfigError: If that is what *error* is.
        """
        if isinstance(error, Refused):
            # What was damaged on its way here may be whole where it lies.
            self.refused.append(Turned(one, error, one.damaged))
        elif isinstance(error, KeyUnavailable):
            self.withheld.append(one)
            self._hold(one)
            if (key := _wrapped_key(one.data)) is not None:
                self._keys.add(key)
        elif isinstance(error, ConfigError):
            raise error
        else:  # a fault of a key provider or of ours, for which the others must not pay
            # The message stays on its queue. The text of the error may quote anything, so only its kind is logged.
            _log.error("a message at %s could not be opened: %s", self.destination, type(error).__name__)
            self.broken.append(Broken(one, error))
            self._hold(one)

    def _hold(self, received: Received) -> None:
        """Keep the order: what is behind *received* in its group has to wait with it."""
        if self._place.fifo and received.group is not None:
            self._groups.add(received.group)

    def _waits(self, received: Received) -> bool:
        """Tell whether it is behind one of its group that waits, or of a key that the service was just asked for in vain."""
        if received.group in self._groups:
            return True
        return bool(self._keys) and _wrapped_key(received.data) in self._keys

    def _refuse(self, received: Received, verdict: Verdict, detail: str, *, stays: bool = False) -> None:
        """Refuse, and tell of, a message that the sealer has nothing against."""
        refusal = Refused(verdict, detail, destination=self.destination)
        event = AuditEvent(
            time=datetime.now(UTC),
            verdict=verdict,
            detail=detail,
            destination=self.destination,
            policy=self._place.policy.name,
            coordinates=received.coordinates,
            mode=self._place.policy.consuming,
        )
        try:
            self._auditor.tell(event)
        except KeyUnavailable:  # what must be written was not
            self.withheld.append(received)
            self._hold(received)
        else:
            self.refused.append(Turned(received, refusal, stays))


def _fill(message: dict[str, Any], text: str, digest: str) -> None:
    """Put a clear body and its MD5 into the places of those of the sealed one."""
    message["Body"] = text
    if "MD5OfBody" in message:
        message["MD5OfBody"] = digest


def _wrapped_key(envelope: bytes) -> bytes | None:
    """Return the wrapped keys that *envelope* carries, as they stand there, unverified; None where it carries none."""
    try:
        return decode(envelope).recipients_bytes or None
    except Refused:
        return None
