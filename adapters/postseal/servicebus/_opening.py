"""Opens received messages, one after the other, and sorts them by what became of them."""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, Final

from postseal.core import AuditEvent, ConfigError, KeyUnavailable, Refused, Sealer, Verdict
from postseal.core.replay import Receipt
from postseal.core.wire import decode
from postseal.servicebus._copies import keep_as_it_came
from postseal.servicebus._flow import Flow
from postseal.servicebus._message import beside_of, envelope_of, fields_of, show_opened
from postseal.servicebus._replies import demanded, hears
from postseal.servicebus._session import stands_for_a_state
from postseal.servicebus._settling import Place, Settling, Turned

__all__ = ["Opening", "Sorted", "receipt_of", "wrapped_key"]

_log: Final = logging.getLogger("postseal.servicebus")


class Sorted:
    """What became of the messages of one receive."""

    __slots__ = ("broken", "opened", "received", "refused", "withheld")

    def __init__(self, *, received: bool = True) -> None:
        self.received = received
        """Not only looked at: the broker has them no more where the receiver deletes."""
        self.opened: list[Any] = []
        self.refused: list[Turned] = []
        self.withheld: list[Any] = []
        self.broken: list[Exception] = []


class Opening:
    """Opens for one receiver.

    Args:
        sealer: Opens.
        place: Where the receiver reads.
        settling: Is told of messages that only we have.
        waits: Whether opening is awaited: the receiver is of asyncio.
    """

    def __init__(self, sealer: Sealer, place: Place, settling: Settling, *, waits: bool) -> None:
        self._sealer = sealer
        self._place = place
        self._settling = settling
        self._open: Callable[..., Any] = sealer.aopen if waits else sealer.open
        self.settled: Callable[..., Any] = sealer.asettled if waits else sealer.settled
        """Tells the ledger; awaited where opening is."""
        self.unsettled: Callable[..., Any] = sealer.aunsettled if waits else sealer.unsettled

    def sort(self, message: Any, batch: Sorted, away: set[bytes]) -> Flow[bool]:
        """Open *message*; tell whether it waits. *away* are wrapped keys that the service was asked for in vain."""
        key = wrapped_key(message) if away else None
        # Behind one that waits in its session, or of a key that the service was just asked for in vain.
        if (self._place.in_order and batch.withheld) or (key is not None and key in away):
            batch.withheld.append(message)
            return True
        try:
            yield from self._open_one(message, received=batch.received)
        except Refused as error:
            batch.refused.append(turned := Turned(message, error))
            if self._place.deletes and batch.received:
                self._settling.keep(turned)
        except KeyUnavailable:
            batch.withheld.append(message)
            if (key := wrapped_key(message)) is not None:
                away.add(key)
            return True
        except ConfigError:
            raise
        except Exception as error:  # noqa: BLE001 - a fault of a key provider or of ours, for which the others must not pay
            # The message stays with the broker. The text of the error may quote anything, so only its kind is logged.
            _log.error(
                "a message at %s could not be opened: %s", self._place.entity_path, type(error).__name__
            )
            batch.broken.append(error)
            if self._place.deletes:
                batch.withheld.append(message)
            return self._place.deletes
        else:
            batch.opened.append(message)
        return False

    def _open_one(self, message: Any, *, received: bool) -> Flow[None]:
        """Have *message* show its clear body."""
        raw, place = message.raw_amqp_message, self._place
        policy = place.in_force.policy
        if policy.consuming == "off":
            return
        coordinates = self._coordinates(message)
        try:
            fields = fields_of(raw.properties)
            beside = beside_of(fields, raw.application_properties, policy)
            beside |= demanded(self._sealer, policy, fields)
        except (AttributeError, KeyError, TypeError):
            raise self._refusal(
                "its properties are not of the types that AMQP demands", coordinates
            ) from None
        if stands_for_a_state(beside.get("content_encoding")):
            detail = "its content encoding is what a state of a session is bound to"
            raise self._refusal(detail, coordinates, Verdict.FORGED)
        opened = yield lambda: self._open(
            envelope_of(raw),
            destination=place.destination,
            coordinates=coordinates,
            reader=place.reader,
            is_delivery=received,
            **beside,
        )
        if opened.receipt is not None:
            message._postseal_receipt = opened.receipt  # noqa: SLF001 - ours, and not the client library's
        if opened.verdict is Verdict.CLEAR:
            return
        if place.deletes:  # should it have to go back, then sealed
            keep_as_it_came(message)
        try:
            show_opened(message, opened)
        except ValueError as error:
            raise self._refusal(str(error), coordinates) from None
        if fields.get("reply_to"):
            hears(self._sealer, fields, opened)

    def _refusal(
        self, detail: str, coordinates: dict[str, str | int], verdict: Verdict = Verdict.MALFORMED
    ) -> Refused:
        """Tell of a message that is refused here, not by the sealer."""
        refused = Refused(verdict, detail, destination=self._place.destination)
        self._sealer.auditor.tell(
            AuditEvent(
                time=datetime.now(UTC),
                verdict=refused.verdict,
                detail=detail,
                destination=self._place.destination,
                policy=self._place.policy.name,
                coordinates=coordinates,
                mode=self._place.policy.consuming,
            )
        )
        return refused

    def _coordinates(self, message: Any) -> dict[str, str | int]:
        """Where the broker has *message*: nothing in it is of the sender's making."""
        found: dict[str, str | int] = {"entity": self._place.entity_path}
        for name in ("sequence_number", "delivery_count"):
            if isinstance(value := getattr(message, name), int):
                found[name] = value
        return found


def receipt_of(message: Any) -> Receipt | None:
    """Return what the ledger is told when *message* is settled; None where that is nothing."""
    receipt: Receipt | None = getattr(message, "_postseal_receipt", None)
    return receipt


def wrapped_key(message: Any) -> bytes | None:
    """Return the wrapped keys that *message* carries, as they stand there, unverified; None where it carries none."""
    try:
        return decode(envelope_of(message.raw_amqp_message)).recipients_bytes or None
    except Refused:
        return None
