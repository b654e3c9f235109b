"""The broker on the wire: links, credit, deliveries and settlements, on proton's engine.

Everything happens on the engine's own thread; `Engine.call` brings work there.
"""

import logging
import uuid
from collections import deque
from collections.abc import Callable
from concurrent.futures import Future
from dataclasses import dataclass, field
from typing import Any

from proton import Connection, Data, Delivery, Endpoint, Event, Handler, Link, Message, Transport, symbol
from proton.reactor import ApplicationEvent, Container, EventInjector

from . import settling, tokens
from .broker import Broker
from .encoding import Malformed, text
from .errors import BadRequest, BrokerError, NotAllowed, SessionLockLost, TimedOut, TooLarge, Unauthorized
from .faults import Action, Faults, Point
from .management import Management, refusal, reply
from .message import Sent, arrived
from .queue import Entry, Lock, Queue, Session

_log = logging.getLogger(__name__)

# How many messages a sender may have on their way.
_CREDIT = 200
_SESSION_FILTER = "com.microsoft:session-filter"
# Ticks of 100 ns from the year 1 to 1970, in which Azure tells the end of a session's lock.
_EPOCH = 621_355_968_000_000_000
# How long a receiver waits for a session where it does not say. Source: the SDK, which waits a little longer.
_SESSION_PATIENCE = 60.0
# How long a sender that is refused has, in seconds, to send what can be refused with the reason.
_REFUSAL = 0.2


@dataclass(slots=True, eq=False)
class Receiver:
    """A client that receives: our sending link to it."""

    link: Link
    queue: Queue
    remove: bool
    # With sessions: which, and the lock by which it is ours.
    session: Session | None = None
    lock: Lock | None = None


@dataclass(slots=True, eq=False)
class Client:
    """What is known of a connection."""

    connection: Connection
    transport: Transport
    # What it showed tokens for, and until when.
    allowed: dict[str, float] = field(default_factory=dict)
    answers: dict[str, Link] = field(default_factory=dict)
    receivers: list[Receiver] = field(default_factory=list)


class Engine(Handler):
    """Serve a broker on a loopback port.

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
        self._management = Management(broker)
        self._key = key
        self._clock = clock
        self._url = f"{host}:{port}"
        self._clients: dict[Connection, Client] = {}
        self._receivers: dict[Queue, deque[Receiver]] = {}
        self._without_session: list[tuple[Receiver, float]] = []
        self._wakes_at = float("inf")
        self._container = Container(self)
        self._injector = EventInjector()
        self._container.selectable(self._injector)
        self._acceptor = self._container.listen(self._url)

    # Life.

    def run(self) -> None:
        """Serve until `stop`; on the thread that all else happens on."""
        self._container.run()

    def call(self, work: Callable[[], Any], *, timeout: float = 30) -> Any:
        """Have *work* done on the engine's thread, and give what it gives."""
        done: Future[Any] = Future()
        self._injector.trigger(ApplicationEvent("work", subject=(work, done)))
        return done.result(timeout)

    def stop(self) -> None:
        """End all connections and `run`; on the engine's thread."""
        self._acceptor.close()
        self._drop_all()
        self._injector.close()
        self._container.stop()

    def outage(self, seconds: float) -> None:
        """End all connections, refuse new ones for some *seconds*, then go on with all messages; on the engine's thread."""
        self._acceptor.close()
        self._drop_all()
        self._later(seconds, self._listen_again)

    def _listen_again(self) -> None:
        self._acceptor = self._container.listen(self._url)

    def on_work(self, event: Event) -> None:
        """Do what another thread asked for."""
        work, done = event.subject
        try:
            done.set_result(work())
        except Exception as error:  # noqa: BLE001 - it is handed to the thread that asked
            done.set_exception(error)
        self._turn()

    # Connections.

    def on_connection_bound(self, event: Event) -> None:
        """Let everybody in: tokens come later, by `$cbs`."""
        event.transport.sasl().allowed_mechs("ANONYMOUS")

    def on_connection_remote_open(self, event: Event) -> None:
        """Answer."""
        self._clients[event.connection] = Client(event.connection, event.transport)
        event.connection.open()

    def on_session_remote_open(self, event: Event) -> None:
        """Answer."""
        event.session.open()

    def on_session_remote_close(self, event: Event) -> None:
        """Answer."""
        event.session.close()

    def on_connection_remote_close(self, event: Event) -> None:
        """Answer."""
        event.connection.close()

    def on_transport_closed(self, event: Event) -> None:
        """Forget a client. Locks of messages stay; those of sessions end."""
        client = self._clients.pop(event.connection, None) if event.connection else None
        if client is not None:
            self._forget(client)
            self._turn()

    def _forget(self, client: Client) -> None:
        for receiver in list(client.receivers):
            self._leave(client, receiver)

    def _drop(self, connection: Connection) -> None:
        # As IOHandler does with a broken socket: nothing more is written.
        client = self._clients.pop(connection, None)
        if client is None:
            return
        self._forget(client)
        selectable = client.transport._selectable  # noqa: SLF001 - proton has no other way to end it without a word
        client.transport.close_tail()
        client.transport.close_head()
        if selectable is not None:
            selectable.terminate()
            selectable._transport = None  # noqa: SLF001 - likewise
            client.transport._selectable = None  # noqa: SLF001 - likewise
            selectable.update()

    def _drop_all(self) -> None:
        for connection in list(self._clients):
            self._drop(connection)

    # Links.

    def on_link_remote_open(self, event: Event) -> None:
        """Open what a client attaches to, or say why not."""
        link = event.link
        client = self._clients[event.connection]
        remote = link.remote_source if link.is_sender else link.remote_target
        address = _path(remote.address or "")
        link.source.copy(link.remote_source)
        link.target.copy(link.remote_target)
        link.snd_settle_mode = link.remote_snd_settle_mode
        link.rcv_settle_mode = link.remote_rcv_settle_mode
        link.path = address
        path, _, last = address.rpartition("/")
        if address.lower() == "$cbs" or last.lower() == "$management":
            self._attach_answering(client, link, address, path if address.lower() != "$cbs" else "")
            return
        attach = self._attach_receiver if link.is_sender else self._attach_sender
        self._fate(
            Point.ATTACH,
            link,
            lambda: self._or_detach(link, lambda: attach(client, link, address)),
            refuse=lambda error: self._detach(link, error),
        )
        self._turn()

    def _attach_answering(self, client: Client, link: Link, address: str, path: str) -> None:
        if path and not self._is_allowed(client, path):
            self._detach(link, Unauthorized(f"no token for {path}"))
            return
        if link.is_sender:
            client.answers[address] = link
        link.open()
        if link.is_receiver:
            link.flow(_CREDIT)

    def _attach_sender(self, client: Client, link: Link, path: str) -> None:
        self._demand_token(client, path)
        link.max_message_size = self.broker.largest(path)
        link.open()
        link.flow(_CREDIT)

    def _attach_receiver(self, client: Client, link: Link, path: str) -> None:
        self._demand_token(client, path)
        queue = self.broker.queue(path)
        receiver = Receiver(link, queue, remove=link.remote_snd_settle_mode == Link.SND_SETTLED)
        filters = _value(link.remote_source.filter) or {}
        if queue.options.requires_session != (_SESSION_FILTER in filters):
            needs = "requires" if queue.options.requires_session else "knows no"
            raise NotAllowed(f"{path} {needs} sessions")
        link.receiver = receiver
        if not queue.options.requires_session:
            link.open()
            self._serve(client, receiver)
            return
        name = text(filters[_SESSION_FILTER])
        session = queue.accept(name)
        if session is None:
            given = (link.remote_properties or {}).get(symbol("com.microsoft:timeout"))
            patience = _SESSION_PATIENCE if given is None else int(given) / 1000
            self._without_session.append((receiver, self._clock() + patience))
            self._later(patience, lambda: None)
        else:
            self._open_session(client, receiver, session)

    def _open_session(self, client: Client, receiver: Receiver, session: Session) -> None:
        assert session.lock is not None
        receiver.session, receiver.lock = session, session.lock
        link = receiver.link
        link.source.filter.clear()
        link.source.filter.put_dict({symbol(_SESSION_FILTER): session.name})
        until = int(session.lock.until * 10_000_000) + _EPOCH
        link.properties = {symbol("com.microsoft:locked-until-utc"): until}
        link.open()
        self._serve(client, receiver)

    def _serve(self, client: Client, receiver: Receiver) -> None:
        client.receivers.append(receiver)
        self._receivers.setdefault(receiver.queue, deque()).append(receiver)

    def on_link_remote_close(self, event: Event) -> None:
        """End what a client ended."""
        self._ended(event.link)
        event.link.close()
        self._turn()

    def on_link_remote_detach(self, event: Event) -> None:
        """End what a client detached: nothing of ours can be taken up again."""
        self._ended(event.link)
        event.link.detach()
        self._turn()

    def _ended(self, link: Link) -> None:
        receiver: Receiver | None = getattr(link, "receiver", None)
        client = self._clients.get(link.connection)
        if receiver is not None and client is not None:
            self._leave(client, receiver)

    def _leave(self, client: Client, receiver: Receiver) -> None:
        if receiver not in client.receivers:
            self._without_session = [one for one in self._without_session if one[0] is not receiver]
            return
        client.receivers.remove(receiver)
        self._receivers[receiver.queue].remove(receiver)
        if receiver.session is not None and receiver.session.lock is receiver.lock:
            receiver.queue.leave(receiver.session)

    def _detach(self, link: Link, error: BrokerError) -> None:
        self._ended(link)
        if link.is_receiver and link.state & Endpoint.LOCAL_UNINIT:
            # The SDK sends as soon as it is attached, and then knows no reason but that of its message. So the message
            # is awaited and refused first.
            link.open()
            link.refused = error
            link.flow(1)
            self._later(_REFUSAL, lambda: self._end(link, error))
        else:
            self._end(link, error)

    def _end(self, link: Link, error: BrokerError) -> None:
        if link.connection in self._clients and not link.state & Endpoint.LOCAL_CLOSED:
            link.condition = settling.condition(error)
            link.open()
            link.close()

    def _or_detach(self, link: Link, act: Callable[[], None]) -> None:
        try:
            act()
        except BrokerError as error:
            self._detach(link, error)

    def _demand_token(self, client: Client, path: str) -> None:
        if not self._is_allowed(client, path):
            raise Unauthorized(f"no token for {path}")

    def _is_allowed(self, client: Client, path: str) -> bool:
        return any(
            until > self._clock() and tokens.within(path, resource)
            for resource, until in client.allowed.items()
        )

    # What arrives.

    def on_delivery(self, event: Event) -> None:
        """Take a message, or hear what became of one."""
        link, delivery = event.link, event.delivery
        if link.is_sender:
            if delivery.updated and hasattr(delivery, "token"):
                self._settled(link, delivery)
        elif delivery.readable and not delivery.partial:
            raw = link.recv(delivery.pending) or b""
            link.advance()
            self._arrived(link, delivery, bytes(raw))
        self._turn()

    def _arrived(self, link: Link, delivery: Delivery, raw: bytes) -> None:
        client = self._clients[link.connection]
        path: str = link.path
        refused: BrokerError | None = getattr(link, "refused", None)
        if refused is not None:
            self._reject(delivery, refused)
            self._end(link, refused)
            return
        link.flow(1)
        if path.lower() == "$cbs":
            self._accept(delivery)
            self._token(client, link, _read(raw))
        elif path.lower().endswith("/$management"):
            self._accept(delivery)
            self._manage(client, link, path, _read(raw))
        else:
            self._fate(
                Point.SEND,
                link,
                lambda: self._enqueue(link, delivery, raw),
                refuse=lambda error: self._reject(delivery, error),
            )

    def _token(self, client: Client, link: Link, request: Message) -> None:
        audience = str((request.properties or {}).get("name", ""))

        def refuse(error: BrokerError) -> None:
            error.status = 401
            self._answer(client, link.path, refusal(request, error))

        def allow() -> None:
            try:
                until = tokens.check(str(request.body), audience, key=self._key, clock=self._clock)
            except Unauthorized as error:
                refuse(error)
                return
            client.allowed[_path(audience)] = until
            self._answer(client, link.path, reply(request, 202, text="Accepted"))

        self._fate(Point.TOKEN, link, allow, refuse=refuse, entity=_path(audience))

    def _manage(self, client: Client, link: Link, path: str, request: Message) -> None:
        entity = path.rpartition("/")[0]

        def refuse(error: BrokerError) -> None:
            self._answer(client, path, refusal(request, error))

        def act() -> None:
            answer = self._management.answer(request, entity)
            self._turn()
            self._fate(
                Point.MANAGED, link, lambda: self._answer(client, path, answer), refuse=refuse, entity=entity
            )

        self._fate(Point.MANAGE, link, act, refuse=refuse, entity=entity)

    def _answer(self, client: Client, address: str, message: Message) -> None:
        link = client.answers.get(address)
        if link is not None:
            link.delivery(uuid.uuid4().bytes)
            link.stream(message.encode())
            link.current.settle()
            link.advance()

    def _enqueue(self, link: Link, delivery: Delivery, raw: bytes) -> None:
        path: str = link.path
        try:
            if len(raw) > self.broker.largest(path):
                raise TooLarge(f"{len(raw)} bytes, and {path} takes {self.broker.largest(path)}")
            for message in arrived(raw):
                self.broker.send(path, message, at=message.scheduled_at)
        except BrokerError as error:
            self._reject(delivery, error)
        except Malformed as error:
            self._reject(delivery, BadRequest(str(error)))
        else:
            self._turn()
            self._fate(
                Point.SENT,
                link,
                lambda: self._accept(delivery),
                refuse=lambda error: self._reject(delivery, error),
            )

    def _accept(self, delivery: Delivery) -> None:
        delivery.update(Delivery.ACCEPTED)
        delivery.settle()

    def _reject(self, delivery: Delivery, error: BrokerError) -> None:
        settling.refuse(delivery, error)

    # What is handed out.

    def on_link_flow(self, event: Event) -> None:
        """Use new credit."""
        receiver: Receiver | None = getattr(event.link, "receiver", None)
        if receiver is not None:
            self._hand_out(receiver.queue)
            if event.link.drain_mode:
                event.link.drained()
        self._turn()

    def _hand_out(self, queue: Queue) -> None:
        """Give each receiver with credit its turn, until all have enough or nothing is left."""
        receivers = self._receivers.get(queue)
        idle = 0
        while receivers and idle < len(receivers):
            receiver = receivers[0]
            receivers.rotate(-1)
            entry = None
            if receiver.link.credit > 0 and (receiver.session is None or receiver.session.lock is receiver.lock):
                entry = queue.take(receiver.session, remove=receiver.remove)
            if entry is None:
                idle += 1
            else:
                idle = 0
                self._deliver(receiver, entry)

    def _deliver(self, receiver: Receiver, entry: Entry) -> None:
        link = receiver.link

        def back() -> None:
            if entry.lock is not None:
                receiver.queue.release(entry.lock.token)

        def send() -> None:
            assert isinstance(entry.content, Sent)
            token = entry.lock.token if entry.lock else uuid.uuid4()
            delivery = link.delivery(token.bytes_le)
            link.stream(entry.content.handed_out(entry))
            if receiver.remove:
                delivery.settle()
            else:
                delivery.token = token
            link.advance()
            self._fate(Point.DELIVERED, link, lambda: None, lose=lambda: self._lose(receiver, entry))

        self._fate(
            Point.DELIVER, link, send, refuse=lambda error: self._detach(link, error), before=back,
        )

    def _lose(self, receiver: Receiver, entry: Entry) -> None:
        if receiver.session is not None:
            receiver.queue.leave(receiver.session)
        elif entry.lock is not None:
            receiver.queue.lose(entry.lock.token)

    def _settled(self, link: Link, delivery: Delivery) -> None:
        receiver: Receiver = link.receiver
        token: uuid.UUID = delivery.token
        del delivery.token

        def act() -> None:
            try:
                if receiver.session is not None and receiver.session.lock is not receiver.lock:
                    raise SessionLockLost(f"the lock on the session of {link.path} is lost")
                settling.apply(receiver.queue, token, delivery)
            except BrokerError as error:
                settling.refuse(delivery, error)
                return
            self._turn()
            self._fate(Point.SETTLED, link, lambda: settling.confirm(delivery), refuse=refuse)

        def refuse(error: BrokerError) -> None:
            settling.refuse(delivery, error)

        self._fate(
            Point.SETTLE, link, act, refuse=refuse, lose=lambda: self._lose_token(receiver, token)
        )

    def _lose_token(self, receiver: Receiver, token: uuid.UUID) -> None:
        if receiver.session is not None:
            receiver.queue.leave(receiver.session)
        else:
            receiver.queue.lose(token)

    # Faults.

    def _fate(
        self,
        point: Point,
        link: Link,
        go_on: Callable[[], None],
        *,
        refuse: Callable[[BrokerError], None] | None = None,
        lose: Callable[[], None] | None = None,
        before: Callable[[], None] = lambda: None,
        entity: str | None = None,
    ) -> None:
        """Go on, unless a fault waits at this point: then do as it says. *before* undoes what was begun."""
        fault = self.faults.strike(point, link.path if entity is None else entity)
        if fault is None:
            go_on()
            return
        _log.info("fault: %s", fault)
        if fault.action is Action.SLOW:
            self._later(fault.seconds, go_on)
            return
        if fault.action is Action.LOSE_LOCK:
            (lose or (lambda: None))()
            go_on()
            return
        before()
        if fault.action is Action.DROP:
            connection = link.connection
            # What is already written is let out: the other side has it when the connection ends.
            delay = 0.05 if point is Point.DELIVERED else 0
            self._later(delay, lambda: self._drop(connection))
        elif fault.action is Action.DETACH or (fault.action is Action.REFUSE and refuse is None):
            self._detach(link, fault.error)
        elif fault.action is Action.REFUSE and refuse is not None:
            refuse(fault.error)

    # Time.

    def _turn(self) -> None:
        """After anything happened: hand out what became available, end what is over, and wake up in time."""
        due = self.broker.tick()
        self._end_lost_sessions()
        while woken := self.broker.take_woken():
            for queue in woken:
                self._give_sessions(queue)
                self._hand_out(queue)
        if due < self._wakes_at:
            self._wakes_at = due
            self._container.schedule(max(0.0, due - self._clock()), _Call(self._wake))

    def _wake(self) -> None:
        self._wakes_at = float("inf")
        self._turn()

    def _later(self, seconds: float, act: Callable[[], None]) -> None:
        def then() -> None:
            act()
            self._turn()

        self._container.schedule(seconds, _Call(then))

    def _end_lost_sessions(self) -> None:
        for receivers in list(self._receivers.values()):
            for receiver in list(receivers):
                if receiver.session is not None and receiver.session.lock is not receiver.lock:
                    self._detach(receiver.link, SessionLockLost("the lock on the session is lost"))
        now = self._clock()
        for receiver, patience_ends in list(self._without_session):
            if patience_ends <= now:
                self._detach(receiver.link, TimedOut("no session became available in time"))

    def _give_sessions(self, queue: Queue) -> None:
        for waiting in list(self._without_session):
            receiver, _ = waiting
            session = queue.accept(None) if receiver.queue is queue else None
            if session is not None:
                self._without_session.remove(waiting)
                self._open_session(self._clients[receiver.link.connection], receiver, session)


class _Call(Handler):
    def __init__(self, call: Callable[[], None]) -> None:
        self._call = call

    def on_timer_task(self, _: Event) -> None:
        self._call()


def _path(address: str) -> str:
    """Give the path of an entity, whether or not its address names scheme and host."""
    if "://" in address:
        address = address.split("://", 1)[1].partition("/")[2]
    return address.strip("/")


def _read(raw: bytes) -> Message:
    message = Message()
    message.decode(raw)
    return message


def _value(data: Data) -> Any:
    data.rewind()
    found = data.get_object() if data.next() is not None else None
    data.rewind()
    return found
