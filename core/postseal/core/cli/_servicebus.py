"""Azure Service Bus: a namespace or an emulator that runs already, with azure-servicebus."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode, ServiceBusSubQueue

from postseal.core import Sealer
from postseal.core.cli._broker import CONTENT_TYPE, Held, Until
from postseal.core.cli._orders import Order
from postseal.servicebus import protect

__all__ = ["ServiceBus"]

_PLACES: Final = ("orders", "refunds")
_SECONDS: Final = 1.0
_AT_ONCE: Final = 50


class ServiceBus:
    """Two queues that are there already; what lies on them is dropped first.

    Args:
        connection_string: Of a namespace with the queues ``orders`` and ``refunds``, which nothing else uses.
    """

    name = "Service Bus"
    scheme = "servicebus"
    settled = "in the queues' $deadletterqueue, with the verdict as reason"

    def __init__(self, connection_string: str) -> None:
        self._connection_string = connection_string
        self._bare = self._client()
        self.where = self._bare.fully_qualified_namespace
        self._consumer: ServiceBusClient | None = None
        self._receivers: list[Any] = []
        for place in _PLACES:
            self._empty(place, None)
            self._empty(place, ServiceBusSubQueue.DEAD_LETTER)

    # -- with the adapter: what a program looks like ---------------------------------------------------------------

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Send as any program does; `protect` is the one line."""
        with protect(self._client(), sealer) as client, client.get_queue_sender("orders") as sender:
            sender.send_messages(
                [ServiceBusMessage(order.to_json(), content_type=CONTENT_TYPE) for order in orders]
            )

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Receive as any program does: what is refused never gets here."""
        if self._consumer is None:
            self._consumer = protect(self._client(), sealer)
            self._receivers = [self._consumer.get_queue_receiver(place) for place in _PLACES]
        while not done():
            for receiver in self._receivers:
                for message in receiver.receive_messages(_AT_ONCE, max_wait_time=0.2):
                    handle(b"".join(message.body))
                    receiver.complete_message(message)

    # -- with bare clients: what an administrator can do -----------------------------------------------------------

    def look(self, count: int) -> list[Held]:
        """Peek at *count* messages of the queue ``orders``."""
        with self._bare.get_queue_receiver("orders") as receiver:
            return [_held(message) for message in receiver.peek_messages(count)]

    def put(self, place: str, message: Held) -> None:
        """Send *message* as it is."""
        with self._bare.get_queue_sender(place) as sender:
            sender.send_messages(ServiceBusMessage(message.body, content_type=message.content_type))

    def refused(self) -> int:
        """Count the dead letters."""
        return sum(len(self._peek_dead(place)) for place in _PLACES)

    def envelope(self, body: bytes) -> bytes:
        """Return *body*: it is the envelope itself."""
        return body

    def body(self, envelope: bytes) -> bytes:
        """Return *envelope*, likewise."""
        return envelope

    def close(self) -> None:
        """Let go of all clients."""
        for receiver in self._receivers:
            receiver.close()
        if self._consumer is not None:
            self._consumer.close()
        self._bare.close()

    def _client(self) -> ServiceBusClient:
        return ServiceBusClient.from_connection_string(self._connection_string)

    def _peek_dead(self, place: str) -> list[Any]:
        dead = self._bare.get_queue_receiver(place, sub_queue=ServiceBusSubQueue.DEAD_LETTER)
        with dead as receiver:
            return list(receiver.peek_messages(_AT_ONCE))

    def _empty(self, place: str, sub_queue: ServiceBusSubQueue | None) -> None:
        taking = self._bare.get_queue_receiver(
            place, sub_queue=sub_queue, receive_mode=ServiceBusReceiveMode.RECEIVE_AND_DELETE
        )
        with taking as receiver:
            while receiver.receive_messages(_AT_ONCE, max_wait_time=_SECONDS):
                pass


def _held(message: Any) -> Held:
    return Held(b"".join(message.body), None, message.content_type)
