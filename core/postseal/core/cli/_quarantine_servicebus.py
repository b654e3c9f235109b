"""Quarantine queues of Service Bus, and dead-letter sub-queues."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

from azure.servicebus import ServiceBusClient
from azure.servicebus.exceptions import ServiceBusError

from postseal.core.cli._held import Held, Quarantine, aud_of, named
from postseal.core.errors import ConfigError
from postseal.servicebus._copies import copy_of
from postseal.servicebus._message import envelope_of

__all__ = ["connect"]

_DEAD: Final = "/$deadletterqueue"
_WAIT: Final = 2.0
_VERDICT: Final = b"postseal-verdict"
_DESTINATION: Final = b"postseal-destination"


def connect(name: str, address: str | None) -> ServiceBusQuarantine:
    """Connect to the queue *name*, or to the dead letters of one: ``orders/$deadletterqueue``."""
    return ServiceBusQuarantine(ServiceBusClient.from_connection_string(str(address)), name)


class ServiceBusQuarantine(Quarantine):
    """A quarantine queue."""

    def __init__(self, client: Any, path: str) -> None:
        self._client = client
        dead = path.lower().endswith(_DEAD)
        options = {"sub_queue": "deadletter"} if dead else {}
        self._receiver = client.get_queue_receiver(path[: -len(_DEAD)] if dead else path, **options)
        self._senders: dict[str, Any] = {}
        self._locked: dict[str, Any] = {}

    def each(self, *, taking: bool) -> Iterator[Held]:
        """Peek, which counts as no delivery; to take out, receive until nothing comes any more."""
        try:
            number = 1
            while messages := self._next(number, taking=taking):
                for message in messages:
                    held = _held(message)
                    if taking:
                        self._locked[held.id] = message
                    yield held
                number = messages[-1].sequence_number + 1
        except ServiceBusError as error:
            raise ConfigError(f"Service Bus does not answer: {type(error).__name__}") from error

    def _next(self, number: int, *, taking: bool) -> list[Any]:
        found: list[Any] = (
            self._receiver.receive_messages(20, max_wait_time=_WAIT)
            if taking
            else self._receiver.peek_messages(20, sequence_number=number)
        )
        return found

    def send_back(self, held: Held, destination: str) -> None:
        """Send it to its queue or topic."""
        self._send(held, copy_of(held.native.raw_amqp_message, None), destination)

    def move(self, held: Held, body: bytes, destination: str) -> None:
        """Send it to that queue."""
        raw, verdict = held.native.raw_amqp_message, held.verdict
        self._send(held, copy_of(raw, verdict, held.source or "", body=body), destination)

    def _send(self, held: Held, message: Any, destination: str) -> None:
        name = named(destination, "servicebus")
        if name not in self._senders:
            self._senders[name] = self._client.get_queue_sender(name)
        try:
            self._senders[name].send_messages(message)
        except ServiceBusError as error:
            raise ConfigError(
                f"Service Bus did not take {held.id} for {name!r}: {type(error).__name__}"
            ) from error

    def take_out(self, messages: Sequence[Held]) -> None:
        """Complete them."""
        for held in messages:
            self._receiver.complete_message(held.native)
            self._locked.pop(held.id, None)

    def close(self) -> None:
        """Abandon the rest, and close."""
        for message in self._locked.values():
            self._receiver.abandon_message(message)
        for each in (self._receiver, *self._senders.values(), self._client):
            each.close()


def _held(message: Any) -> Held:
    raw = message.raw_amqp_message
    body = envelope_of(raw)
    properties = message.application_properties or {}
    verdict = properties.get(_VERDICT) or message.dead_letter_reason
    return Held(
        id=str(message.sequence_number),
        body=body,
        verdict=_text(verdict),
        source=_text(properties.get(_DESTINATION)) or aud_of(body, "servicebus"),
        at=message.enqueued_time_utc,
        native=message,
    )


def _text(value: Any) -> str | None:
    if isinstance(value, bytes):
        return value.decode("utf-8", "replace")
    return value if isinstance(value, str) else None
