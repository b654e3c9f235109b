"""What is told: an event, how many more like it there were, an alarm."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from types import MappingProxyType
from typing import Any, Literal, NamedTuple, TypeAlias

from postseal.core.errors import Verdict

__all__ = ["AlarmEvent", "AuditEvent", "Counted", "MoreEvents", "Record"]


Outcome: TypeAlias = Literal["refused", "let-through", "handed-on"]


class Counted(NamedTuple):
    """A kind of event, as they are counted.

    Attributes:
        verdict: Why, in one word.
        destination: Where they lay.
        mode: Of consumers there at that time.
        outcome: ``"refused"``; ``"let-through"`` where only the mode let it through; ``"handed-on"`` where *enforce* does so, too.
    """

    verdict: Verdict
    destination: str
    mode: str
    outcome: Outcome


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
        let_through: Whether only the mode let it through: in ``"enforce"`` it would have been refused.
        mode: In force there; empty where no policy speaks of it.
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
    let_through: bool = False
    mode: str = ""

    @property
    def outcome(self) -> Outcome:
        """What became of it, in a word."""
        return "let-through" if self.let_through else "handed-on" if self.handed_on else "refused"

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        values: dict[str, Any] = {"kind": "event"} | self._asdict()
        values["time"] = _moment(self.time)
        values["verdict"] = self.verdict.value
        values["coordinates"] = dict(self.coordinates)
        return values


class MoreEvents(NamedTuple):
    """Events that were not told one by one, because there were too many like them.

    Attributes:
        time: When the last of them was.
        since: When the first of them was.
        verdict: Of all of them; None where this is what is left of many kinds.
        destination: Likewise.
        events: How many.
    """

    time: datetime
    since: datetime
    verdict: Verdict | None
    destination: str | None
    events: int

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        values: dict[str, Any] = {"kind": "more"} | self._asdict()
        values["time"] = _moment(self.time)
        values["since"] = _moment(self.since)
        values["verdict"] = None if self.verdict is None else self.verdict.value
        return values


class AlarmEvent(NamedTuple):
    """The alarm was raised, or is over.

    Attributes:
        time: When, in UTC.
        raised: Whether it was raised now; else it is over.
        refused: Messages refused in the time looked at.
        deliveries: All messages that came in that time.
        seconds: How long that time was.
        verdicts: How many there were of each verdict, in that time.
    """

    time: datetime
    raised: bool
    refused: int
    deliveries: int
    seconds: float
    verdicts: Mapping[str, int]

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it."""
        values: dict[str, Any] = {"kind": "alarm"} | self._asdict()
        values["time"] = _moment(self.time)
        values["seconds"] = round(self.seconds, 3)
        values["verdicts"] = dict(self.verdicts)
        return values


Record: TypeAlias = AuditEvent | MoreEvents | AlarmEvent


def _moment(time: datetime) -> str:
    return time.isoformat(timespec="milliseconds")
