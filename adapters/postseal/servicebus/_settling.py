"""Settles what is not handed on: refused messages by their policy.

Nothing here raises, but for a receiver in receive-and-delete mode whose quarantine does not answer: it would lose what it was to keep.
"""

from __future__ import annotations

import logging
from collections import deque
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from azure.servicebus.exceptions import MessageSizeExceededError

from postseal.core import ConfigError, Refused, Verdict
from postseal.core.audit import QuietLog
from postseal.core.policy import Policy
from postseal.servicebus._copies import as_it_came, copy_of, shown
from postseal.servicebus._flow import Below, Flow
from postseal.servicebus._in_force import InForce

__all__ = ["Place", "Settling", "Turned"]

_log: Final = logging.getLogger("postseal.servicebus")


class Place(NamedTuple):
    """Where a receiver reads, and how."""

    entity_path: str
    destination: str
    in_force: InForce
    deletes: bool
    """Receive-and-delete: a message is gone from the broker as soon as it was received."""
    sub_queue: bool
    in_order: bool
    """It reads a session."""
    reader: str = ""
    """Who reads, to the ledger: the subscription, as each gets a copy of every message; dead letters are its own."""

    @property
    def policy(self) -> Policy:
        """The policy in force; where none speaks of the place any more, the last that did: what was refused under it is settled by it."""
        try:
            return self.in_force.policy
        except ConfigError:
            return self.in_force.last


class Turned(NamedTuple):
    """A message that was refused, and why."""

    message: Any
    refusal: Refused


class Settling:
    """Settles the refused messages of one receiver.

    Args:
        below: The receiver, unprotected.
        place: Where it reads.
        make_sender: Makes an unprotected sender to an entity of the same namespace.
    """

    def __init__(self, below: Below, place: Place, make_sender: Callable[[str], Any]) -> None:
        self._below = below
        self._place = place
        self._make_sender = make_sender
        self._senders: dict[str, Any] = {}
        self._quiet = QuietLog(_log)
        self._unsaved: deque[tuple[Any, str | None, str]] = deque()
        """Messages that only we have now, each with its verdict and where it belongs."""

    def settle(self, refused: list[Turned]) -> Flow[None]:
        """Settle *refused* messages as their policy says; save those that were kept."""
        if not self._place.deletes:
            for turned in refused:
                done = yield from self._settle(turned)
                self._quiet.warning(
                    "%s refused at %s: %s", turned.refusal.verdict, self._place.entity_path, done
                )
        elif refused:
            try:
                yield from self.save()
            except Exception as error:  # noqa: BLE001 - kept here, and tried again before anything else is received
                _log.warning("quarantining failed at %s: %s", self._place.entity_path, type(error).__name__)

    def keep(self, turned: Turned) -> None:
        """Keep a refused message of which the broker has nothing any more, where its policy says so."""
        policy = self._place.policy
        if policy.outcome(turned.refusal.verdict) in ("discard", "leave") or policy.quarantine is None:
            done = "gone, as it was received and deleted"
        else:
            done = "kept until it is in the quarantine"
            self._unsaved.append((turned.message, turned.refusal.verdict.value, policy.quarantine))
        self._quiet.warning("%s refused at %s: %s", turned.refusal.verdict, self._place.entity_path, done)

    def _settle(self, turned: Turned) -> Flow[str]:
        policy, message = self._place.policy, turned.message
        match policy.outcome(turned.refusal.verdict):
            case "dead-letter" if not self._place.sub_queue:
                # Both stand in clear at the broker, and so say nothing of the message.
                reason = {"reason": turned.refusal.verdict.value, "error_description": str(turned.refusal)}
                if (yield from self._do("dead_letter_message", message, **reason)):
                    return "dead-lettered"
            case "quarantine" if self._leads_elsewhere(policy.quarantine):
                if (yield from self._copied(turned)) and (yield from self._do("complete_message", message)):
                    return "copied to the quarantine and completed"
            case "discard":
                if (yield from self._do("complete_message", message)):
                    return "completed"
            case "leave":
                return "left there, as its policy only observes"
            case _:
                pass
        return "left there; it comes again when its lock ends"

    def _leads_elsewhere(self, quarantine: str | None) -> bool:
        return quarantine is not None and (quarantine != self._place.destination or self._place.sub_queue)

    def _do(self, what: str, message: Any, **options: Any) -> Flow[bool]:
        """Settle one message, and tell whether the broker did. The text of an error may quote a message, so only its kind is logged."""
        try:
            yield self._below.step(what, message, **options)
        except Exception as error:  # noqa: BLE001 - a lost lock, a broken connection: the message comes again, and costs no other
            _log.warning("%s failed at %s: %s", what, self._place.entity_path, type(error).__name__)
            return False
        return True

    def abandon(self, message: Any) -> Flow[bool]:
        """Give *message* back to the broker, and tell whether it took it."""
        return (yield from self._do("abandon_message", message))

    # -- copies ----------------------------------------------------------------------------------------------------

    def _copied(self, turned: Turned) -> Flow[bool]:
        """Copy a refused message to the quarantine, and tell whether the broker confirmed it."""
        quarantine = self._place.policy.quarantine or ""
        try:
            yield from self._send(quarantine, turned.message, turned.refusal.verdict.value)
        except Exception as error:  # noqa: BLE001 - the message is left, and comes again
            _log.warning("quarantining failed at %s: %s", self._place.entity_path, type(error).__name__)
            return False
        return True

    def _send(self, destination: str, message: Any, verdict: str | None) -> Flow[None]:
        sender = self._senders.get(destination)
        if sender is None:
            sender = self._senders[destination] = self._make_sender(destination.partition(":")[2])
        raw = as_it_came(message)
        lay = self._place.destination
        copy = copy_of(raw, verdict, lay)
        try:
            yield lambda: sender.send_messages(copy)
        except MessageSizeExceededError:
            if not self._place.deletes or verdict in (None, Verdict.KEY_UNAVAILABLE.value):
                raise  # the broker has it yet, or it is a good one
            # One that nobody can keep would hold up all that come after it.
            part = shown(raw, verdict, lay)
            yield lambda: sender.send_messages(part)

    @property
    def has_unsaved(self) -> bool:
        """Whether there is something that only we have."""
        return bool(self._unsaved)

    def save(self) -> Flow[None]:
        """Send what only we have.

        Raises:
            Exception: What the client raised; the message is kept.
        """
        while self._unsaved:
            message, verdict, destination = self._unsaved[0]
            yield from self._send(destination, message, verdict)
            self._unsaved.popleft()

    def close(self, held: list[Any]) -> Flow[None]:
        """End: save what only we have, *held* messages of a deleting receiver among them, then close the senders."""
        place = self._place
        for message in held:
            # Not refused, so without a quarantine it goes back to where it was sent.
            verdict = None if place.policy.quarantine is None else Verdict.KEY_UNAVAILABLE.value
            self._unsaved.append((message, verdict, place.policy.quarantine or place.destination))
        try:
            yield from self.save()
        except Exception as error:  # noqa: BLE001 - whoever closes has other things to close
            left = len(self._unsaved)
            _log.error(
                "%d received and deleted at %s are lost: %s", left, place.entity_path, type(error).__name__
            )
        finally:
            yield from self._close_senders()

    def _close_senders(self) -> Flow[None]:
        senders, self._senders = list(self._senders.values()), {}
        for sender in senders:
            try:
                yield sender.close
            except Exception as error:  # noqa: BLE001 - likewise
                _log.warning("closing a sender failed: %s", type(error).__name__)
