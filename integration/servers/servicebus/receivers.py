"""Clients that receive: our sending links, with or without a session."""

import uuid
from collections import deque
from dataclasses import dataclass
from typing import Any

from proton import Data, symbol
from proton import Link as Links

from . import settling
from .encoding import text
from .entries import Entry, Lock, Session
from .errors import BrokerError, NotAllowed, SessionLockLost, TimedOut
from .faults import Point
from .message import Sent
from .queue import Queue
from .wire import Client, Delivery, Link, Wire

_SESSION_FILTER = "com.microsoft:session-filter"
# Ticks of 100 ns from the year 1 to 1970, in which Azure tells the end of a session's lock.
_EPOCH = 621_355_968_000_000_000
# How long a receiver waits for a session where it does not say. Source: the SDK, which waits a little longer.
_PATIENCE = 60.0


@dataclass(slots=True, eq=False)
class Receiver:
    """A client that receives."""

    link: Link
    queue: Queue
    remove: bool
    # With sessions: which, and the lock by which it is ours.
    session: Session | None = None
    lock: Lock | None = None

    @property
    def lost(self) -> bool:
        """Whether its session is not its own any more."""
        return self.session is not None and self.session.lock is not self.lock


class Receivers:
    """Hands messages out, and hears what becomes of them.

    Args:
        wire: What is shared.
    """

    def __init__(self, wire: Wire) -> None:
        self._wire = wire
        self._of: dict[Queue, deque[Receiver]] = {}
        # Those who want any session, and when they give up.
        self._waiting: list[tuple[Receiver, float]] = []

    def attach(self, client: Client, link: Link) -> None:
        """Let a client receive, at once or when a session is there for it.

        Raises:
            Unauthorized: It showed no token for that entity.
            EntityNotFound: There is nothing of that name.
            NotAllowed: It is a topic, or wants a session of a queue without, or none of one with.
            SessionLocked: Another receives from the session.
        """
        client.demand(link.path, self._wire.clock())
        queue = self._wire.broker.queue(link.path)
        receiver = Receiver(link, queue, remove=link.remote_snd_settle_mode == Links.SND_SETTLED)
        filters = _value(link.remote_source.filter) or {}
        if queue.options.requires_session != (_SESSION_FILTER in filters):
            needs = "requires" if queue.options.requires_session else "knows no"
            raise NotAllowed(f"{link.path} {needs} sessions")
        link.receiver = receiver
        if not queue.options.requires_session:
            self._open(receiver)
            return
        session = queue.sessions.accept(text(filters[_SESSION_FILTER]))
        if session is not None:
            self._open_session(receiver, session)
            return
        given = (link.remote_properties or {}).get(symbol("com.microsoft:timeout"))
        patience = _PATIENCE if given is None else int(given) / 1000
        self._waiting.append((receiver, self._wire.clock() + patience))
        self._wire.later(patience, lambda: None)

    def ended(self, link: Link) -> None:
        """Forget a receiver. Locks of messages stay, that of a session ends."""
        receiver: Receiver | None = getattr(link, "receiver", None)
        if receiver is None:
            return
        self._waiting = [one for one in self._waiting if one[0] is not receiver]
        if receiver in self._of.get(receiver.queue, ()):
            self._of[receiver.queue].remove(receiver)
            if not self._of[receiver.queue]:
                del self._of[receiver.queue]
            if receiver.session is not None and not receiver.lost:
                receiver.queue.sessions.leave(receiver.session)

    def flow(self, link: Link) -> None:
        """Use new credit."""
        receiver: Receiver | None = getattr(link, "receiver", None)
        if receiver is not None:
            self._hand_out(receiver.queue)
            if link.drain_mode:
                link.drained()

    def turn(self) -> None:
        """Hand out what became available, and end what is over."""
        self._end_lost()
        while woken := self._wire.broker.take_woken():
            for queue in woken:
                self._give_sessions(queue)
                self._hand_out(queue)

    def _open_session(self, receiver: Receiver, session: Session) -> None:
        assert session.lock is not None
        receiver.session, receiver.lock = session, session.lock
        link = receiver.link
        link.source.filter.clear()
        link.source.filter.put_dict({symbol(_SESSION_FILTER): session.name})
        until = int(session.lock.until * 10_000_000) + _EPOCH
        link.properties = {symbol("com.microsoft:locked-until-utc"): until}
        self._open(receiver)

    def _open(self, receiver: Receiver) -> None:
        receiver.link.open()
        self._of.setdefault(receiver.queue, deque()).append(receiver)

    def _give_sessions(self, queue: Queue) -> None:
        for waiting in list(self._waiting):
            receiver, _ = waiting
            session = queue.sessions.accept(None) if receiver.queue is queue else None
            if session is not None:
                self._waiting.remove(waiting)
                self._open_session(receiver, session)

    def _end_lost(self) -> None:
        for receivers in list(self._of.values()):
            for receiver in list(receivers):
                if receiver.lost:
                    self._wire.end(receiver.link, SessionLockLost("the lock on the session is lost"))
        now = self._wire.clock()
        for receiver, gives_up in list(self._waiting):
            if gives_up <= now:
                self._wire.end(receiver.link, TimedOut("no session became available in time"))

    # Deliveries.

    def _hand_out(self, queue: Queue) -> None:
        """Give each receiver with credit its turn, until all have enough or nothing is left."""
        receivers = self._of.get(queue)
        idle = 0
        while receivers and idle < len(receivers):
            receiver = receivers[0]
            receivers.rotate(-1)
            entry = None
            if receiver.link.credit > 0 and not receiver.lost:
                entry = queue.take(receiver.session, remove=receiver.remove)
            if entry is None:
                idle += 1
            else:
                idle = 0
                self._deliver(receiver, entry)

    def _deliver(self, receiver: Receiver, entry: Entry) -> None:
        link = receiver.link
        token = entry.lock.token if entry.lock else uuid.uuid4()

        def back() -> None:
            if entry.lock is not None:
                receiver.queue.release(token)

        def send() -> None:
            assert isinstance(entry.content, Sent)
            # .NET's order of bytes, in which the SDK reads the tag as a lock's token.
            delivery = link.delivery(token.bytes_le)
            link.stream(entry.content.handed_out(entry))
            if receiver.remove:
                delivery.settle()
            else:
                delivery.token = token
            link.advance()
            self._wire.fate(Point.DELIVERED, link, lambda: None, lose=lambda: _lose(receiver, token))

        self._wire.fate(Point.DELIVER, link, send, undo=back)

    def settled(self, link: Link, delivery: Delivery) -> None:
        """Apply what a receiver decided, and answer."""
        token: uuid.UUID | None = getattr(delivery, "token", None)
        if token is None:
            return
        del delivery.token
        receiver: Receiver = link.receiver

        def refuse(error: BrokerError) -> None:
            settling.refuse(delivery, error)

        def act() -> None:
            try:
                if receiver.lost:
                    raise SessionLockLost(f"the lock on the session of {link.path} is lost")
                settling.apply(receiver.queue, token, delivery)
            except BrokerError as error:
                refuse(error)
            else:
                self._wire.fate(Point.SETTLED, link, lambda: settling.confirm(delivery), refuse=refuse)

        self._wire.fate(Point.SETTLE, link, act, refuse=refuse, lose=lambda: _lose(receiver, token))


def _lose(receiver: Receiver, token: uuid.UUID) -> None:
    if receiver.session is not None:
        receiver.queue.sessions.leave(receiver.session)
    else:
        receiver.queue.give_back(token)


def _value(data: Data) -> Any:
    data.rewind()
    found = data.get_object() if data.next() is not None else None
    data.rewind()
    return found
