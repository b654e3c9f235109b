"""What all rooms on the wire share: clients, links that end, faults, and time. On the engine's thread only."""

import logging
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from proton import Connection, Endpoint, Event, Handler, Transport
from proton.reactor import Container

from . import settling, tokens
from .broker import Broker
from .errors import BrokerError, Unauthorized
from .faults import Action, Faults, Point

_log = logging.getLogger(__name__)

# How long what was written may take to leave, in seconds, before a fault ends the connection.
_LEAVES = 0.05


# proton's links and deliveries take attributes of ours: `path` on each link, `receiver` or `refused` on some, and
# `token` on each delivery. Their types admit None nearly everywhere, so here they are Any.
Link = Any
Delivery = Any


@dataclass(slots=True, eq=False)
class Client:
    """What is known of a connection."""

    connection: Connection
    transport: Transport
    # What it showed tokens for, and until when.
    allowed: dict[str, float] = field(default_factory=dict)
    # Where answers to its requests go, by the address that it asked at.
    answers: dict[str, Link] = field(default_factory=dict)

    def demand(self, path: str, now: float) -> None:
        """Go on only with a token for *path*.

        Raises:
            Unauthorized: It showed none, or it is expired.
        """
        if not any(until > now and tokens.within(path, resource) for resource, until in self.allowed.items()):
            raise Unauthorized(f"no token for {path}")


class Wire:
    """Clients, links that end, faults, and time.

    Args:
        broker: What is served.
        faults: What goes wrong.
        clock: Gives the time in seconds since 1970.
        container: proton's reactor.
        turn: Called after anything happened.
    """

    def __init__(
        self,
        broker: Broker,
        faults: Faults,
        *,
        clock: Callable[[], float],
        container: Container,
        turn: Callable[[], None],
    ) -> None:
        self.broker = broker
        self.faults = faults
        self.clock = clock
        self.clients: dict[Connection, Client] = {}
        self.errors: list[Exception] = []
        # Told of each link that is over.
        self.on_ended: Callable[[Link], None] = lambda _: None
        self._container = container
        self._turn = turn

    def later(self, seconds: float, act: Callable[[], None]) -> None:
        """Have *act* done in so many seconds."""

        def then() -> None:
            try:
                act()
            except Exception as error:  # noqa: BLE001 - it is told when the server stops
                self.failed(error)
            self._turn()

        self._container.schedule(seconds, _Timer(then))

    def failed(self, error: Exception) -> None:
        """Note an error of our own."""
        _log.error("the test server failed", exc_info=error)
        self.errors.append(error)

    def end(self, link: Link, error: BrokerError) -> None:
        """Detach a link, and say why."""
        if link.connection not in self.clients or link.state & Endpoint.LOCAL_CLOSED:
            return
        self.on_ended(link)
        link.condition = settling.condition(error)
        link.open()
        link.close()

    def drop(self, connection: Connection) -> None:
        """End a connection without a word, as a cut cable does."""
        client = self.clients.pop(connection, None)
        if client is None:
            return
        self._end_all(connection)
        # As proton's own IOHandler does with a broken socket.
        selectable = client.transport._selectable
        client.transport.close_tail()
        client.transport.close_head()
        if selectable is not None:
            selectable.terminate()
            selectable._transport = None
            client.transport._selectable = None
            selectable.update()

    def forget(self, connection: Connection) -> None:
        """Forget a client that is gone."""
        if self.clients.pop(connection, None) is not None:
            self._end_all(connection)

    def fate(
        self,
        point: Point,
        link: Link,
        go_on: Callable[[], None],
        *,
        refuse: Callable[[BrokerError], None] | None = None,
        lose: Callable[[], None] = lambda: None,
        undo: Callable[[], None] = lambda: None,
        entity: str | None = None,
    ) -> None:
        """Go on, unless a fault waits at this point: then do as it says.

        Args:
            point: On the way of a message.
            link: On which it travels.
            go_on: What is done without a fault, or after it.
            refuse: How the client is told of an error here; by default the link ends with it.
            lose: Ends the lock that a fault takes away.
            undo: Takes back what was begun, where *go_on* will never be.
            entity: Whose faults strike; by default that of the link.
        """
        fault = self.faults.strike(point, link.path if entity is None else entity)
        if fault is None:
            go_on()
            return
        _log.info("fault: %s", fault)
        if fault.action is Action.SLOW:
            self.later(fault.seconds, go_on)
        elif fault.action is Action.LOSE_LOCK:
            lose()
            go_on()
        else:
            undo()
            if fault.action is Action.DROP:
                connection = link.connection
                self.later(
                    _LEAVES if point is Point.DELIVERED else 0,
                    lambda: self.drop(connection),
                )
            elif fault.action is Action.REFUSE and refuse is not None:
                refuse(fault.error)
            elif fault.action in (Action.DETACH, Action.REFUSE):
                self.end(link, fault.error)

    def _end_all(self, connection: Connection) -> None:
        link = connection.link_head(0)
        while link is not None:
            self.on_ended(link)
            link = link.next(0)


class _Timer(Handler):
    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_timer_task(self, _: Event) -> None:
        self._call()


def path_of(address: str | None) -> str:
    """Give the path of an entity, whether or not its address names scheme and host."""
    address = address or ""
    if "://" in address:
        address = address.split("://", 1)[1].partition("/")[2]
    return address.strip("/")
