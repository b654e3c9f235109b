"""The broker on the wire: proton's reactor, its events, and work brought to its thread."""

from collections.abc import Callable
from concurrent.futures import Future
from functools import wraps
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


def _of_client(handle: Callable[["Engine", Any], None]) -> Callable[["Engine", Any], None]:
    """Let *handle* see the events of clients that are still there, and no error of ours end the reactor."""

    @wraps(handle)
    def guarded(engine: "Engine", event: Any) -> None:
        if event.connection in engine.wire.clients:
            try:
                handle(engine, event)
            except Exception as error:  # noqa: BLE001 - it is told when the server stops
                engine.wire.failed(error)
                engine.wire.drop(event.connection)
            engine.turn()

    return guarded


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
        self.wire = Wire(broker, faults, clock=clock, container=self._container, turn=self.turn)
        self._senders = Senders(self.wire)
        self._receivers = Receivers(self.wire)
        self._requests = Requests(self.wire, key)
        self.wire.on_ended = self._receivers.ended
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
        self.wire.later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._acceptor = self._container.listen(self._url)

    def _drop_all(self) -> None:
        for connection in list(self.wire.clients):
            self.wire.drop(connection)

    def on_work(self, event: Any) -> None:
        """Do what another thread asked for."""
        work, done = event.subject
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is handed to the thread that asked
            done.set_exception(error)
        self.turn()

    def on_connection_bound(self, event: Any) -> None:
        """Let everybody in: tokens come later, by `$cbs`."""
        event.transport.sasl().allowed_mechs("ANONYMOUS")

    def on_connection_remote_open(self, event: Any) -> None:
        """Know a client."""
        self.wire.clients[event.connection] = Client(event.connection, event.transport)
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
            self.wire.forget(event.connection)
        self.turn()

    @_of_client
    def on_link_remote_open(self, event: Any) -> None:
        """Open what a client attaches to, or say why not."""
        link, client = event.link, self.wire.clients[event.connection]
        # Told back, also where the link is refused: without them the SDK waits for ever.
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode = link.remote_snd_settle_mode
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        link.path = path_of(link.remote_source.address if link.is_sender else link.remote_target.address)
        turn_away = self.wire.end if link.is_sender else self._senders.turn_away
        if is_asked(link.path):
            self._attach(link, lambda: self._requests.attach(client, link), turn_away)
        else:
            room = self._receivers if link.is_sender else self._senders
            self.wire.fate(
                Point.ATTACH,
                link,
                lambda: self._attach(link, lambda: room.attach(client, link), turn_away),
                refuse=lambda error: turn_away(link, error),
            )

    @staticmethod
    def _attach(
        link: Link, attach: Callable[[], None], turn_away: Callable[[Link, BrokerError], None]
    ) -> None:
        try:
            attach()
        except BrokerError as error:
            turn_away(link, error)

    @_of_client
    def on_link_remote_close(self, event: Any) -> None:
        """End what a client ended."""
        self._receivers.ended(event.link)
        event.link.close()

    @_of_client
    def on_link_remote_detach(self, event: Any) -> None:
        """End what a client detached: nothing of ours can be taken up again."""
        self._receivers.ended(event.link)
        event.link.detach()

    @_of_client
    def on_link_flow(self, event: Any) -> None:
        """Use new credit."""
        self._receivers.flow(event.link)

    @_of_client
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
                self._requests.arrived(self.wire.clients[link.connection], link, delivery, raw)
            else:
                self._senders.arrived(link, delivery, raw)

    @property
    def errors(self) -> list[Exception]:
        """What went wrong inside, which no test asked for."""
        return self.wire.errors

    def turn(self) -> None:
        """After anything happened: do what is due, hand out what became available, and wake up in time."""
        self.broker.tick()
        self._receivers.turn()
        due = self.broker.tick()
        if due < self._wakes_at:
            self._wakes_at = due
            self.wire.later(max(0.0, due - self.wire.clock()), self._wake)

    def _wake(self) -> None:
        self._wakes_at = FOREVER
