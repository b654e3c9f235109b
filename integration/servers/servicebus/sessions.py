"""The sessions of one queue: who holds which, and what is kept with them."""

import uuid
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from typing import Protocol

from .deadlines import Deadlines
from .entries import Entry, Lock, Session
from .errors import SessionLocked, SessionLockLost


class Held(Protocol):
    """What sessions must know and do about messages."""

    @property
    def path(self) -> str:
        """The queue's name."""
        ...

    def held_in(self, session: str) -> Iterable[Entry]:
        """List the messages of a session that are locked."""
        ...

    def first_in(self) -> Mapping[str, int]:
        """Give the first available message of each session that has one, by its sequence number."""
        ...

    def names(self) -> set[str]:
        """List the sessions of all messages."""
        ...

    def give_back(self, token: uuid.UUID) -> None:
        """End a lock: a delivery that failed."""
        ...


class Sessions:
    """The sessions of a queue. The locks of their messages end with theirs.

    Args:
        queue: Where the messages are.
        lock_duration: In seconds.
        deadlines: Where the ends of locks wait; its clock is ours.
        ready: Called when a session may have become available.
    """

    def __init__(
        self, queue: Held, *, lock_duration: float, deadlines: Deadlines, ready: Callable[[], None]
    ) -> None:
        self._queue = queue
        self._lock_duration = lock_duration
        self._deadlines = deadlines
        self._ready = ready
        self._known: dict[str, Session] = {}

    def accept(self, name: str | None) -> Session | None:
        """Lock a session for a receiver: this one, or the next that has a message; nothing where none has.

        Raises:
            SessionLocked: Another holds it.
        """
        if name is None:
            first = {
                sequence: found for found, sequence in self._queue.first_in().items() if self._is_free(found)
            }
            if not first:
                return None
            name = first[min(first)]
        if not self._is_free(name):
            raise SessionLocked(f"session {name} of {self._queue.path} is locked by another receiver")
        session = self._known.setdefault(name, Session(name))
        session.lock = Lock(uuid.uuid4(), 0)
        self.renew(session)
        return session

    def find(self, name: str) -> Session:
        """Find a session that is locked.

        Raises:
            SessionLockLost: It is not.
        """
        if self._is_free(name):
            raise SessionLockLost(f"session {name} of {self._queue.path} is not locked")
        return self._known[name]

    def renew(self, session: Session) -> float:
        """Lock a session for another while, and tell until when, in seconds since 1970.

        Raises:
            SessionLockLost: It is locked by nobody.
        """
        if session.lock is None:
            raise SessionLockLost(f"session {session.name} of {self._queue.path} is not locked")
        session.lock.until = self._deadlines.clock() + self._lock_duration
        for entry in self._queue.held_in(session.name):
            assert entry.lock is not None
            entry.lock.until = session.lock.until
        self._deadlines.at(session.lock.until, partial(self._check, session))
        return session.lock.until

    def leave(self, session: Session) -> None:
        """End the lock of a session. What was locked in it becomes available again."""
        held = list(self._queue.held_in(session.name))
        session.lock = None
        for entry in held:
            assert entry.lock is not None
            self._queue.give_back(entry.lock.token)
        self._ready()

    def set_state(self, name: str, state: bytes | None) -> None:
        """Keep *state* with a session."""
        session = self._known.setdefault(name, Session(name))
        session.state, session.changed_at = state, self._deadlines.clock()

    def names(self, changed_since: float | None = None) -> list[str]:
        """List sessions that have messages or a state; or those whose state changed since."""
        if changed_since is not None:
            return sorted(
                name for name, session in self._known.items() if session.changed_at >= changed_since
            )
        kept = {name for name, session in self._known.items() if session.state is not None}
        return sorted(kept | self._queue.names())

    def _is_free(self, name: str) -> bool:
        return name not in self._known or self._known[name].lock is None

    def _check(self, session: Session) -> None:
        if session.lock is not None and session.lock.until <= self._deadlines.clock():
            self.leave(session)
