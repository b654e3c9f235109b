"""What is told of refused and tolerated messages: one event each, to `logging` and to a callback; and exact counts.

An event never holds a body, a key or a header value. What was read from a message and not authenticated has a name that says so.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from postseal.core.errors import Verdict
from postseal.core.forking import ForkSafeLock

__all__ = ["AuditEvent", "Auditor"]


class AuditEvent(NamedTuple):
    """One message that was not delivered, or not as its policy wants it.

    Attributes:
        time: When, in UTC.
        verdict: Why, in one word.
        detail: Why, in a sentence.
        destination: Where it lay.
        policy: Name of the policy in force there.
        unverified_sender: Whom the message names; None where it could not be read.
        unverified_destination: What it was sent to, by its own account.
        unverified_message_id: Its id in hex, by its own account.
        unverified_key_id: The signing key that it names, or the wrapping keys.
        coordinates: Where the broker has it: topic, partition and offset, or the broker's message id.
        handed_on: Whether it was delivered all the same: clear text that is tolerated, a duplicate where the policy delivers them.
    """

    time: datetime
    verdict: Verdict
    detail: str
    destination: str
    policy: str
    unverified_sender: str | None = None
    unverified_destination: str | None = None
    unverified_message_id: str | None = None
    unverified_key_id: str | None = None
    coordinates: Mapping[str, str | int] = MappingProxyType({})
    handed_on: bool = False

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        values = self._asdict()
        values["time"] = self.time.isoformat(timespec="milliseconds")
        values["verdict"] = self.verdict.value
        values["coordinates"] = dict(self.coordinates)
        return values


class Auditor:
    """Tells of events, and counts them.

    Args:
        callback: Called with each event, in the thread that opened the message. What it raises is logged and goes no further: the message
            is refused all the same.
    """

    def __init__(self, callback: Callable[[AuditEvent], None] | None = None) -> None:
        self._callback = callback
        self._lock = ForkSafeLock()
        self._counts: Counter[Verdict] = Counter()

    @property
    def counts(self) -> dict[Verdict, int]:
        """How many events of each verdict there were."""
        with self._lock:
            return dict(self._counts)

    def tell(self, event: AuditEvent) -> None:
        """Count *event*, log it, hand it to the callback."""
        with self._lock:
            self._counts[event.verdict] += 1
        import logging  # noqa: PLC0415 - few messages are refused; `import postseal.core` is to be quick

        log = logging.getLogger("postseal.audit")
        log.warning(
            "%s: %s at %s (%s)",
            "accepted" if event.handed_on else "refused",
            event.verdict.value,
            event.destination,
            event.detail,
            extra={"postseal": event.as_dict()},
        )
        if self._callback is not None:
            try:
                self._callback(event)
            except Exception:
                log.exception("the audit callback failed on a %s event", event.verdict.value)
