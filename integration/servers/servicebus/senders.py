"""Clients that send: our receiving links."""

from proton import Endpoint, symbol, ulong

from .encoding import Malformed
from .errors import BadRequest, BrokerError, TooLarge
from .faults import Point
from .message import arrived
from .settling import accept, refuse
from .wire import Client, Delivery, Link, Wire

# How many messages a sender may have on their way.
_CREDIT = 200
# How long a sender that is refused has, in seconds, to send what can be refused with the reason.
_REFUSAL = 0.2


class Senders:
    """Takes what clients send.

    Args:
        wire: What is shared.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire

    def attach(self, client: Client, link: Link) -> None:
        """Let a client send.

        Raises:
            Unauthorized: It showed no token for that entity.
            EntityNotFound: There is nothing of that name.
            NotAllowed: Nothing can be sent there.
        """
        client.demand(link.path, self._wire.clock())
        largest = self._wire.broker.largest(link.path)
        link.max_message_size = largest
        # By this the SDK fills its batches; without it, it assumes 256 KiB.
        link.properties = {symbol("com.microsoft:max-message-batch-size"): ulong(largest)}
        link.open()
        link.flow(_CREDIT)

    def turn_away(self, link: Link, error: BrokerError) -> None:
        """Refuse a link.

        The SDK sends as soon as it is attached, and then knows no reason but that of its message. So the message is
        awaited a moment and refused first.
        """
        if not link.state & Endpoint.LOCAL_UNINIT:
            self._wire.end(link, error)
            return
        link.open()
        link.refused = error
        link.flow(1)
        self._wire.later(_REFUSAL, lambda: self._wire.end(link, error))

    def arrived(self, link: Link, delivery: Delivery, raw: bytes) -> None:
        """Take a message."""
        turned_away: BrokerError | None = getattr(link, "refused", None)
        if turned_away is not None:
            refuse(delivery, turned_away)
            self._wire.end(link, turned_away)
            return
        link.flow(1)
        self._wire.fate(
            Point.SEND,
            link,
            lambda: self._enqueue(link, delivery, raw),
            refuse=lambda error: refuse(delivery, error),
        )

    def _enqueue(self, link: Link, delivery: Delivery, raw: bytes) -> None:
        broker = self._wire.broker
        try:
            if len(raw) > broker.largest(link.path):
                raise TooLarge(f"{len(raw)} bytes, and {link.path} takes {broker.largest(link.path)}")
            for message in arrived(raw):
                broker.send(link.path, message, at=message.scheduled_at)
        except BrokerError as error:
            refuse(delivery, error)
        except Malformed as error:
            refuse(delivery, BadRequest(str(error)))
        else:
            self._wire.fate(
                Point.SENT, link, lambda: accept(delivery), refuse=lambda error: refuse(delivery, error)
            )
