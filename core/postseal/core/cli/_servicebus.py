"""Azure Service Bus: a namespace or an emulator that runs already, with azure-servicebus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from typing import Any, Final

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.exceptions import ServiceBusError

from postseal.core import ConfigError, Sealer
from postseal.core.cli._broker import CONTENT_TYPE, Held, Until
from postseal.core.cli._orders import Order
from postseal.servicebus import protect

__all__ = ["ServiceBus"]

_PLACES: Final = ("orders", "refunds")
_AT_ONCE: Final = 50


class ServiceBus:
    """Two queues that are there already, and empty.

    Args:
        connection_string: Of a namespace with the queues ``orders`` and ``refunds``, which nothing else uses.

    Raises:
        ConfigError: It cannot be reached, or something lies there: that is not ours to remove, and would be counted.
    """

    name = "Service Bus"
    scheme = "servicebus"
    settled = "in $deadletterqueue"

    def __init__(self, connection_string: str) -> None:
        self._connection_string = connection_string
        self._open = ExitStack()
        self._receivers: list[Any] = []
        try:
            self._connect()
        except ServiceBusError as error:
            self._open.close()
            raise ConfigError(f"Service Bus does not let us in: {error}") from error
        if self._orders.peek_messages() or self.refused():
            self._open.close()
            raise ConfigError(
                "the Service Bus queues orders and refunds must be empty, and hold no dead letters: they would be counted"
            )

    def _connect(self) -> None:
        # Links take half a second to open and as long to close, so an administrator's stay open.
        bare = self._open.enter_context(self._client())
        self.where = bare.fully_qualified_namespace
        self._senders = {place: self._open.enter_context(bare.get_queue_sender(place)) for place in _PLACES}
        self._orders = self._open.enter_context(bare.get_queue_receiver("orders"))
        self._dead = [
            self._open.enter_context(bare.get_queue_receiver(place, sub_queue=ServiceBusSubQueue.DEAD_LETTER))
            for place in _PLACES
        ]

    # -- with the adapter: what a program looks like ---------------------------------------------------------------

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Send as any program does; `protect` is the one line."""
        with protect(self._client(), sealer) as client, client.get_queue_sender("orders") as sender:
            sender.send_messages(
                [ServiceBusMessage(order.to_json(), content_type=CONTENT_TYPE) for order in orders]
            )

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Receive as any program does: what is refused never gets here."""
        if not self._receivers:
            client = self._open.enter_context(protect(self._client(), sealer))
            # Entered, so that their links are open: a wait as short as ours is over before that.
            opening = (client.get_queue_receiver(place) for place in _PLACES)
            self._receivers = [self._open.enter_context(receiver) for receiver in opening]
        while not done():
            for receiver in self._receivers:
                for message in receiver.receive_messages(_AT_ONCE, max_wait_time=0.2):
                    handle(b"".join(message.body))
                    receiver.complete_message(message)

    # -- with bare clients: what an administrator can do -----------------------------------------------------------

    def look(self, count: int) -> list[Held]:
        """Peek at *count* messages of the queue ``orders``."""
        return [_held(message) for message in self._orders.peek_messages(count)]

    def put(self, place: str, message: Held) -> None:
        """Send *message* as it is."""
        self._senders[place].send_messages(ServiceBusMessage(message.body, content_type=message.content_type))

    def refused(self) -> int:
        """Count the dead letters."""
        return sum(len(receiver.peek_messages(_AT_ONCE)) for receiver in self._dead)

    def envelope(self, body: bytes) -> bytes:
        """Return *body*: it is the envelope itself."""
        return body

    def body(self, envelope: bytes) -> bytes:
        """Return *envelope*, likewise."""
        return envelope

    def close(self) -> None:
        """Let go of all clients."""
        self._open.close()

    def _client(self) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self._connection_string)


def _held(message: Any) -> Held:
    return Held(b"".join(message.body), None, message.content_type)
