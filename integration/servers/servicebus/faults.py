"""Faults that a test asks for: at a point on the way of a message, for some entity, so many times."""

from dataclasses import dataclass
from enum import StrEnum
from fnmatch import fnmatchcase
from typing import Any

from .errors import BadRequest, Injected


class Point(StrEnum):
    """Where a fault may strike."""

    TOKEN = "token"  # a client shows its token
    ATTACH = "attach"  # a sender or receiver opens its link
    SEND = "send"  # a message arrived and is not yet enqueued
    SENT = "sent"  # it is enqueued, and the sender does not know yet
    DELIVER = "deliver"  # a message is about to be handed out
    DELIVERED = "delivered"  # it is on its way to the receiver, and not settled
    SETTLE = "settle"  # a settlement arrived and is not yet applied
    SETTLED = "settled"  # it is applied, and the receiver does not know yet
    MANAGE = "manage"  # a request to `$management` arrived
    MANAGED = "managed"  # it is done, and the client does not know yet


class Action(StrEnum):
    """What a fault does."""

    DROP = "drop"  # end the connection, without a word
    DETACH = "detach"  # end the link, with the condition
    REFUSE = "refuse"  # answer with the condition
    LOSE_LOCK = "lose-lock"  # end the message's or session's lock, then go on
    SLOW = "slow"  # go on after so many seconds
    SILENT = "silent"  # never answer


@dataclass(slots=True, kw_only=True)
class Fault:
    """One fault.

    Args:
        point: Where it strikes.
        action: What it does.
        entity: For which entities, by name or pattern.
        times: How often it strikes, then never again.
        skip: How often it lets pass before.
        condition: The error that `detach` and `refuse` answer with.
        seconds: How long `slow` waits.
    """

    point: Point
    action: Action
    entity: str = "*"
    times: int = 1
    skip: int = 0
    condition: str = "com.microsoft:server-busy"
    seconds: float = 0

    @classmethod
    def of(cls, given: dict[str, Any]) -> "Fault":
        """Read a fault as JSON has it.

        Raises:
            BadRequest: It is none.
        """
        try:
            return cls(**{**given, "point": Point(given["point"]), "action": Action(given["action"])})
        except (KeyError, TypeError, ValueError) as error:
            raise BadRequest(f"no fault: {error}") from error

    @property
    def error(self) -> Injected:
        """What a client is told."""
        return Injected(self.condition)


class Faults:
    """The faults that wait."""

    def __init__(self) -> None:
        self._waiting: list[Fault] = []

    def add(self, fault: Fault) -> None:
        """Have it strike."""
        self._waiting.append(fault)

    def clear(self) -> None:
        """Forget all that have not struck."""
        self._waiting.clear()

    def __len__(self) -> int:
        return len(self._waiting)

    def strike(self, point: Point, entity: str) -> Fault | None:
        """Give the fault that strikes here, if any does."""
        for fault in self._waiting:
            if fault.point is point and fnmatchcase(entity.lower(), fault.entity.lower()):
                if fault.skip > 0:
                    fault.skip -= 1
                    continue
                fault.times -= 1
                if fault.times <= 0:
                    self._waiting.remove(fault)
                return fault
        return None
