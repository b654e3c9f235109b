"""What becomes of a refused message: decided here, for every client; each does it in its own way. No I/O.

A refused message can be rejected (the broker then dead-letters it, or drops it where the queue has no dead-letter exchange: AMQP cannot
tell which), copied to a quarantine and then acknowledged, acknowledged, or left unsettled, so that it comes again when its channel closes.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Mapping
from datetime import UTC, datetime
from enum import Enum
from itertools import takewhile
from operator import itemgetter
from typing import Final, NamedTuple

from postseal.core import AuditEvent, AuditUnavailable, ConfigError, Policy, Refused, Sealer, Verdict
from postseal.core.audit import QuietLog
from postseal.core.opened import Parts
from postseal.core.replay import Receipt
from postseal.core.sealer import SealAtHand
from postseal.rabbitmq._message import check_policy, destination_of, place_of, speaks_of_rabbitmq

__all__ = ["MAX_PLACES", "Handed", "Place", "Places", "Settle", "Turned", "pause_after"]

_log: Final = logging.getLogger("postseal.rabbitmq")

MAX_PLACES: Final = 4096
"""Pairs of exchange and routing key that are kept: replies have a routing key each."""
_FIRST_PAUSE: Final = 0.25
"""Seconds after the first failure; each further one doubles them."""
_LONGEST_PAUSE: Final = 10.0
"""Seconds after which it is tried again at the latest, however long it fails."""


def pause_after(failures: int) -> float:
    """Return the seconds to wait after that many failures in a row, 1 or more."""
    doublings: int = min(failures - 1, 30)
    return min(_FIRST_PAUSE * (1 << doublings), _LONGEST_PAUSE)


class Settle(Enum):
    """What to do with a refused message."""

    RAISE = "left to its consumer, which is told"
    LEAVE = "left unsettled"
    REJECT = "rejected, for the dead-letter exchange"
    QUARANTINE = "copied to the quarantine"
    DISCARD = "acknowledged"
    DROP = "dropped: it was acknowledged before it came"


class Turned(NamedTuple):
    """A message that is not handed on, and what becomes of it."""

    error: Exception
    """`Refused`; `ConfigError` where no policy speaks of it; or what went wrong that no verdict fits."""
    settle: Settle
    quarantine: tuple[str, str] = ("", "")
    """Exchange and routing key of the quarantine, where it goes there."""

    @property
    def verdict(self) -> Verdict:
        """Why, in one word."""
        return self.error.verdict if isinstance(self.error, Refused) else Verdict.WRONG_DESTINATION


class Handed(dict[int, "Receipt | None"]):
    """Delivery tags of what the application got on one channel and has not settled, the lowest first; with what the ledger is then told.

    While anything is kept from the application, "all up to a tag" has to be settled one by one: what lies between is not the application's
    to settle.
    """

    def late(self, tag: int, receipt: Receipt | None = None) -> None:
        """Note *tag*, behind which others may have been handed on before; the tag of what has just come is simply put into the dict."""
        in_order = not self or tag > next(reversed(self))
        self[tag] = receipt
        if not in_order:
            items = sorted(self.items(), key=itemgetter(0))
            self.clear()
            self.update(items)

    def up_to(self, last: int) -> list[int]:
        """Return all tags up to that one; 0 means all. Source: AMQP 0-9-1, basic.ack."""
        return list(self if last == 0 else takewhile(last.__ge__, self))

    def receipts(self, tags: Iterable[int]) -> list[Receipt]:
        """Return what the ledger is told when these are acknowledged."""
        return [receipt for tag in tags if (receipt := self.get(tag)) is not None]

    def take(self, tags: Iterable[int]) -> None:
        """Take these out."""
        for tag in tags:
            self.pop(tag, None)


class Place(NamedTuple):
    """What the policy says of one pair of exchange and routing key, looked up once."""

    destination: str
    policy: Policy
    seal: SealAtHand
    """`Sealer.at_hand`."""
    open: Callable[[bytes], Parts | None]
    """`Sealer.parts_at_hand`."""
    reader: str
    """Who reads, to the ledger: the queue, where an exchange may have put a copy into each of several."""

    def turn(self, refused: Refused, *, auto_ack: bool) -> Turned:
        """Say what becomes of a message *refused* here.

        Args:
            refused: Why.
            auto_ack: Whether the broker held it as acknowledged when it sent it, so that it has nothing left to settle.
        """
        return _turn(refused, self.policy, self.destination, auto_ack=auto_ack)


class Places(dict[tuple[str, str], Place]):
    """Pairs of exchange and routing key that were met.

    Args:
        sealer: Knows their policies.
        queue: Whose messages are read, where a ledger has to know; else empty.

    Raises:
        ConfigError: A policy says what RabbitMQ cannot do.
    """

    def __init__(self, sealer: Sealer, queue: str = "") -> None:
        super().__init__()
        self._sealer = sealer
        sealer.forget_with(self)
        self._quiet = QuietLog(_log)
        self._queue = queue
        self._of_queues: dict[str, Places] = {}
        ours = [policy for policy in sealer.policies if speaks_of_rabbitmq(policy)]
        for policy in ours:
            check_policy(policy)
        ways = {(policy.on_refused, policy.quarantine, policy.consuming == "observe") for policy in ours}
        self._for_all = ours[0] if len(ways) == 1 else None

    def __missing__(self, pair: tuple[str, str]) -> Place:
        """Look *pair* up and keep it.

        Raises:
            ConfigError: It is no destination, or no policy speaks of it.
        """
        destination = destination_of(*pair)
        sealer = self._sealer
        generation = sealer.generation
        policy = sealer.policy_for(destination)
        reader = self._queue if pair[0] else ""  # the default exchange puts a message into one queue
        opens = sealer.parts_at_hand(destination, reader)
        place = Place(destination, policy, sealer.at_hand(destination), opens, reader)
        if len(self) >= MAX_PLACES:
            self.clear()
        self[pair] = place
        if sealer.generation != generation:  # other rules were taken over meanwhile: not for the next message
            self.pop(pair, None)
        return place

    def of_queue(self, queue: str) -> Places:
        """Return the places as who consumes *queue* meets them: these, unless there is a ledger."""
        if self._sealer.ledger is None:
            return self
        places = self._of_queues.get(queue)
        if places is None:
            if len(self._of_queues) >= MAX_PLACES:
                self._of_queues.clear()
            places = self._of_queues[queue] = Places(self._sealer, queue)
        return places

    def turn(
        self,
        error: Exception,
        exchange: str,
        routing_key: str,
        coordinates: Mapping[str, str | int],
        *,
        auto_ack: bool,
    ) -> Turned:
        """Say what becomes of a message that could not be opened, and log it.

        Args:
            error: What opening it raised, but for `KeyUnavailable`.
            exchange: To which it was published.
            routing_key: Likewise.
            coordinates: Where the broker has it, for the audit event.
            auto_ack: As in `Place.turn`.
        """
        if isinstance(error, Refused):
            turned = self[exchange, routing_key].turn(error, auto_ack=auto_ack)
        elif isinstance(error, ConfigError):
            turned = self.turn_stray(error, exchange, routing_key, coordinates, auto_ack=auto_ack)
        else:
            # A fault of a key provider, or of ours. Its text may quote anything, so only its kind is logged.
            _log.error("a message of %s could not be opened: %s", exchange, type(error).__name__)
            turned = Turned(error, Settle.RAISE)
        self._quiet.warning("refused at %s: %s", getattr(error, "destination", ""), turned.settle.value)
        return turned

    def turn_stray(
        self,
        error: ConfigError,
        exchange: object,
        routing_key: object,
        coordinates: Mapping[str, str | int],
        *,
        auto_ack: bool,
    ) -> Turned:
        """Say what becomes of a message of which no policy speaks.

        Whoever may publish to the default exchange can put such a message into any queue. So it is treated as all policies want refused
        messages to be, where they agree to dead-letter or to quarantine them; else who consumes is told.
        """
        policy = self._for_all
        if policy is None or policy.on_refused not in ("dead-letter", "quarantine"):
            return Turned(error, Settle.RAISE)
        destination = f"rabbitmq:{exchange}/{routing_key}".encode("unicode_escape").decode()
        refused = Refused(Verdict.WRONG_DESTINATION, str(error), destination=destination)
        event = AuditEvent(
            time=datetime.now(UTC),
            verdict=refused.verdict,
            detail="no policy speaks of where it was published to",
            destination=destination,
            policy="",
            mode=policy.consuming,
            # What is no UTF-8 comes as bytes.
            coordinates={k: v if isinstance(v, (str, int)) else repr(v) for k, v in coordinates.items()},
        )
        try:
            self._sealer.auditor.tell(event)
        except AuditUnavailable:  # then nothing may be settled
            return Turned(error, Settle.RAISE)
        return _turn(refused, policy, destination, auto_ack=auto_ack)


def _turn(refused: Refused, policy: Policy, destination: str, *, auto_ack: bool) -> Turned:
    outcome = policy.outcome(refused.verdict)
    if outcome == "raise":
        return Turned(refused, Settle.RAISE)
    if outcome == "leave":
        return Turned(refused, Settle.DROP if auto_ack else Settle.LEAVE)
    quarantine = policy.quarantine
    if quarantine == destination:  # what is refused in the quarantine stays there
        return Turned(refused, Settle.DROP if auto_ack else Settle.LEAVE)
    if outcome == "quarantine" or (
        auto_ack and outcome == "dead-letter" and (quarantine or "").startswith("rabbitmq:")
    ):
        return Turned(refused, Settle.QUARANTINE, place_of(quarantine or ""))
    if auto_ack:
        return Turned(refused, Settle.DROP)
    return Turned(refused, Settle.REJECT if outcome == "dead-letter" else Settle.DISCARD)
