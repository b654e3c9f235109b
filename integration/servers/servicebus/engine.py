"""The broker on the wire: proton's reactor, its events, and work brought to its thread."""

from collections.abc import Callable
from concurrent.futures import Future
from typing import Any

from proton import Handler
from proton.reactor import ApplicationEvent, Container, EventInjector

from .broker import Broker
from .deadlines import FOREVER
from .errors import BrokerError
from .faults import Faults, Point
from .receivers import Receivers
from .requests import Requests, is_asked
from .senders import Senders
from .wire import Client, Link, Wire, path_of


class Engine(Handler):
    """Serve a broker on a port.

    Args:
        broker: What is served.
        faults: What goes wrong.
        host: The address to listen on.
        port: Likewise.
        key: With which clients sign their tokens.
        clock: Gives the time in seconds since 1970.
    """

    def __init__(
        self, broker: Broker, faults: Faults, *, host: str, port: int, key: str, clock: Callable[[], float]
    ) -> None:
        self.broker = broker
        self.faults = faults
        self._url = f"{host}:{port}"
        self._container = Container(self)
        self._wire = Wire(broker, faults, clock=clock, container=self._container, turn=self._turn)
        self._senders = Senders(self._wire)
        self._receivers = Receivers(self._wire)
        self._requests = Requests(self._wire, key)
        self._wire.on_ended = self._receivers.ended
        self._wakes_at = FOREVER
        self._injector = EventInjector()
        self._container.selectable(self._injector)
        self._acceptor = self._container.listen(self._url)

    def run(self) -> None:
        """Serve until `stop`; on the thread that all else happens on."""
        self._container.run()

    def call(self, work: Callable[[], Any]) -> Any:
        """Have *work* done on the engine's thread, and give what it gives."""
        done: Future[Any] = Future()
        self._injector.trigger(ApplicationEvent("work", subject=(work, done)))
        return done.result(30)

    # On the engine's thread.

    def stop(self) -> None:
        """End all connections and `run`."""
        self._acceptor.close()
        self._drop_all()
        self._injector.close()
        self._container.stop()

    def outage(self, seconds: float) -> None:
        """End all connections, refuse new ones for some *seconds*, then go on with all messages."""
        self._acceptor.close()
        self._drop_all()
        self._wire.later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._acceptor = self._container.listen(self._url)

    def _drop_all(self) -> None:
        for connection in list(self._wire.clients):
            self._wire.drop(connection)

    def on_work(self, event: Any) -> None:
        """Do what another thread asked for."""
        work, done = event.subject
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is handed to the thread that asked
            done.set_exception(error)
        self._turn()

    def on_connection_bound(self, event: Any) -> None:
        """Let everybody in: tokens come later, by `$cbs`."""
        event.transport.sasl().allowed_mechs("ANONYMOUS")

    def on_connection_remote_open(self, event: Any) -> None:
        """Know a client."""
        self._wire.clients[event.connection] = Client(event.connection, event.transport)
        event.connection.open()

    def on_session_remote_open(self, event: Any) -> None:
        """Answer."""
        event.session.open()

    def on_session_remote_close(self, event: Any) -> None:
        """Answer."""
        event.session.close()

    def on_connection_remote_close(self, event: Any) -> None:
        """Answer."""
        event.connection.close()

    def on_transport_closed(self, event: Any) -> None:
        """Forget a client."""
        if event.connection is not None:
            self._wire.forget(event.connection)
            self._turn()

    def on_link_remote_open(self, event: Any) -> None:
        """Open what a client attaches to, or say why not."""
        link, client = event.link, self._wire.clients[event.connection]
        # Told back, also where the link is refused: without them the SDK waits for ever.
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode = link.remote_snd_settle_mode
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        link.path = path_of(link.remote_source.address if link.is_sender else link.remote_target.address)
        turn_away = self._wire.end if link.is_sender else self._senders.turn_away
        if is_asked(link.path):
            self._attach(link, lambda: self._requests.attach(client, link), turn_away)
        else:
            room = self._receivers if link.is_sender else self._senders
            self._wire.fate(
                Point.ATTACH,
                link,
                lambda: self._attach(link, lambda: room.attach(client, link), turn_away),
                refuse=lambda error: turn_away(link, error),
            )
        self._turn()

    @staticmethod
    def _attach(
        link: Link, attach: Callable[[], None], turn_away: Callable[[Link, BrokerError], None]
    ) -> None:
        try:
            attach()
        except BrokerError as error:
            turn_away(link, error)

    def on_link_remote_close(self, event: Any) -> None:
        """End what a client ended."""
        self._receivers.ended(event.link)
        event.link.close()
        self._turn()

    def on_link_remote_detach(self, event: Any) -> None:
        """End what a client detached: nothing of ours can be taken up again."""
        self._receivers.ended(event.link)
        event.link.detach()
        self._turn()

    def on_link_flow(self, event: Any) -> None:
        """Use new credit."""
        self._receivers.flow(event.link)
        self._turn()

    def on_delivery(self, event: Any) -> None:
        """Take a message, or hear what became of one."""
        link, delivery = event.link, event.delivery
        if link.is_sender:
            if delivery.updated:
                self._receivers.settled(link, delivery)
        elif delivery.readable and not delivery.partial:
            raw = bytes(link.recv(delivery.pending) or b"")
            link.advance()
            if is_asked(link.path):
                self._requests.arrived(self._wire.clients[link.connection], link, delivery, raw)
            else:
                self._senders.arrived(link, delivery, raw)
        self._turn()

    def _turn(self) -> None:
        """After anything happened: do what is due, hand out what became available, and wake up in time."""
        self.broker.tick()
        self._receivers.turn()
        due = self.broker.tick()
        if due < self._wakes_at:
            self._wakes_at = due
            self._wire.later(max(0.0, due - self._wire.clock()), self._wake)

    def _wake(self) -> None:
        self._wakes_at = FOREVER
