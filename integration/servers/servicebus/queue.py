"""One queue: what is active, locked, deferred or scheduled. No I/O; the clock is given.

Sequence numbers give the order. An abandoned message returns to its old place. A lock is a token and an end; the lock
of a message in a session ends with that of the session.
"""

import heapq
import uuid
from collections.abc import Callable, Iterable
from functools import partial

from .deadlines import FOREVER, Deadlines
from .entries import Content, Entry, Lock, Options, Session, State
from .errors import LockLost, MessageNotFound, NotAllowed, SessionLockLost, TooLarge
from .sessions import Sessions

DeadLettered = Callable[[Entry, str, str], None]


class Queue:
    """A queue, a subscription, or the dead letters of either.

    Args:
        path: Its name, as clients address it.
        options: What it does.
        deadlines: Where the ends of locks and lives wait; its clock is ours.
        ready: Called when a message may have become available.
        dead_lettered: Takes what is dead-lettered, with reason and description. Without it messages stay.
    """

    def __init__(
        self,
        path: str,
        options: Options,
        *,
        deadlines: Deadlines,
        ready: Callable[["Queue"], None] = lambda _: None,
        dead_lettered: DeadLettered | None = None,
    ) -> None:
        self.path = path
        self.options = options
        self.sessions = Sessions(
            self, lock_duration=options.lock_duration, deadlines=deadlines, ready=lambda: ready(self)
        )
        self._clock = deadlines.clock
        self._at = deadlines.at
        self._ready = ready
        self._dead_lettered = dead_lettered
        self._entries: dict[int, Entry] = {}
        self._locked: dict[uuid.UUID, Entry] = {}
        # Sequence numbers that may be handed out, by session; some are stale and passed over.
        self._available: dict[str | None, list[int]] = {}
        self._seen: dict[str, float] = {}
        self._last = 0

    def __len__(self) -> int:
        return len(self._entries)

    # Sending.

    def put(self, content: Content, *, at: float | None = None, entry: Entry | None = None) -> int:
        """Enqueue a message, now or *at* a later time, and give its sequence number.

        Args:
            content: The message.
            at: When it becomes active.
            entry: What it was in another queue: counts and stamps are kept.

        Raises:
            TooLarge: It is larger than this queue takes.
            NotAllowed: It names no session, and this queue requires one.
        """
        now = self._clock()
        if content.size > self.options.max_message_size:
            raise TooLarge(f"{content.size} bytes, and {self.path} takes {self.options.max_message_size}")
        if self.options.requires_session and content.session_id is None:
            raise NotAllowed(f"{self.path} requires sessions, and the message names none")
        if self._is_duplicate(content, now):
            return self._last
        later = at is not None and at > now
        begins = at if later and at is not None else now
        lives = min(
            FOREVER if content.ttl is None else content.ttl, self.options.default_message_time_to_live
        )
        self._last += 1
        new = Entry(
            self._last,
            content,
            enqueued_at=now,
            # What was dead-lettered does not expire.
            expires_at=begins + lives if self._dead_lettered is not None else FOREVER,
        )
        if entry is not None:
            new.delivery_count, new.stamps, new.source = (
                entry.delivery_count,
                dict(entry.stamps),
                entry.source,
            )
        self._entries[new.sequence] = new
        if later:
            new.state, new.due_at = State.SCHEDULED, begins
            self._watch(begins, new)
        else:
            self._offer(new)
        self._watch(new.expires_at, new)
        return new.sequence

    def cancel(self, sequences: Iterable[int]) -> None:
        """Drop scheduled messages.

        Raises:
            MessageNotFound: One of them is not scheduled; the others are dropped.
        """
        missing = []
        for sequence in sequences:
            entry = self._entries.get(sequence)
            if entry is None or entry.state is not State.SCHEDULED:
                missing.append(sequence)
            else:
                del self._entries[sequence]
        if missing:
            raise MessageNotFound(f"not scheduled in {self.path}: {missing}")

    # Receiving.

    def take(self, session: Session | None = None, *, remove: bool = False) -> Entry | None:
        """Hand out the next message: locked, or removed at once; nothing where there is none."""
        queue = self._available.get(session.name if session else None, [])
        while queue:
            entry = self._entries.get(heapq.heappop(queue))
            if entry is None or entry.state is not State.ACTIVE or entry.lock is not None:
                continue
            if self._expired(entry):
                continue
            self._hand_out(entry, session, remove=remove)
            return entry
        return None

    def take_deferred(
        self, sequences: Iterable[int], session: Session | None = None, *, remove: bool = False
    ) -> list[Entry]:
        """Hand out deferred messages, all of them or none.

        Raises:
            MessageNotFound: One is not deferred here.
        """
        found = [self._entries.get(sequence) for sequence in sequences]
        entries = [entry for entry in found if entry and entry.state is State.DEFERRED and entry.lock is None]
        if not entries or len(entries) != len(found):
            raise MessageNotFound(f"not deferred in {self.path}, or locked")
        for entry in entries:
            self._hand_out(entry, session, remove=remove)
        return entries

    def peek(self, first: int, count: int, session: str | None = None) -> list[Entry]:
        """Show messages from a sequence number on, whatever their state."""
        self._expire_all()
        return [
            entry
            for sequence, entry in self._entries.items()
            if sequence >= first and session in (None, entry.content.session_id)
        ][:count]

    # Settling.

    def complete(self, token: uuid.UUID) -> None:
        """Remove a locked message.

        Raises:
            LockLost: The token locks nothing, or not any more. So for all that settle.
        """
        del self._entries[self._unlock(token).sequence]

    def abandon(self, token: uuid.UUID) -> None:
        """Give a locked message back; after the last allowed delivery it is dead-lettered."""
        self._failed(self._unlock(token))

    def release(self, token: uuid.UUID) -> None:
        """Give a locked message back as if it had never been handed out."""
        self._offer(self._unlock(token))

    def defer(self, token: uuid.UUID) -> None:
        """Keep a locked message for those who ask for its sequence number."""
        entry = self._unlock(token)
        entry.state = State.DEFERRED
        entry.delivery_count += 1

    def dead_letter(self, token: uuid.UUID, reason: str = "", description: str = "") -> None:
        """Move a locked message to the dead letters."""
        self._bury(self._unlock(token), reason, description)

    def renew(self, token: uuid.UUID) -> float:
        """Lock a message for another while, and tell until when."""
        entry = self._of(token)
        assert entry.lock is not None
        entry.lock.until = self._clock() + self.options.lock_duration
        self._watch(entry.lock.until, entry)
        return entry.lock.until

    def give_back(self, token: uuid.UUID) -> None:
        """End a lock, whatever its time: a delivery that failed."""
        self._failed(self._unlock(token, late=True))

    # For the sessions.

    def held_in(self, session: str) -> list[Entry]:
        """List the messages of a session that are locked."""
        return [entry for entry in self._locked.values() if self._session_of(entry) == session]

    def first_in(self) -> dict[str, int]:
        """Give the first available message of each session that has one, by its sequence number."""
        found = {}
        for name, queue in self._available.items():
            available = [sequence for sequence in queue if self._is_available(sequence)]
            if name is not None and available:
                found[name] = min(available)
        return found

    def names(self) -> set[str]:
        """List the sessions of all messages."""
        found = {entry.content.session_id for entry in self._entries.values()}
        return {name for name in found if name is not None}

    # Time.

    def _watch(self, moment: float, entry: Entry) -> None:
        self._at(moment, partial(self._check, entry.sequence))

    def _check(self, sequence: int) -> None:
        entry, now = self._entries.get(sequence), self._clock()
        if entry is None:
            return
        if entry.lock is not None:
            if entry.lock.until <= now:
                self._failed(self._unlock(entry.lock.token, late=True))
        elif entry.state is State.SCHEDULED and entry.due_at <= now:
            # It is enqueued only now, so that it has its place and number only now.
            del self._entries[sequence]
            self._last += 1
            entry.sequence, entry.state, entry.enqueued_at = self._last, State.ACTIVE, now
            self._entries[entry.sequence] = entry
            self._watch(entry.expires_at, entry)
            self._offer(entry)
        else:
            self._expired(entry)

    # What these are made of.

    def _of(self, token: uuid.UUID, *, late: bool = False) -> Entry:
        entry = self._locked.get(token)
        if entry is None or entry.lock is None or (entry.lock.until <= self._clock() and not late):
            raise LockLost(f"the lock on the message in {self.path} is lost")
        return entry

    def _unlock(self, token: uuid.UUID, *, late: bool = False) -> Entry:
        entry = self._of(token, late=late)
        del self._locked[token]
        entry.lock = None
        return entry

    def _hand_out(self, entry: Entry, session: Session | None, *, remove: bool) -> None:
        if remove:
            del self._entries[entry.sequence]
            return
        if session is not None:
            if session.lock is None:
                raise SessionLockLost(f"session {session.name} of {self.path} is not locked")
            until = session.lock.until
        else:
            until = self._clock() + self.options.lock_duration
        entry.lock = Lock(uuid.uuid4(), until)
        self._locked[entry.lock.token] = entry
        if session is None:
            self._watch(until, entry)

    def _offer(self, entry: Entry) -> None:
        if entry.state is State.ACTIVE:
            heapq.heappush(self._available.setdefault(self._session_of(entry), []), entry.sequence)
            self._ready(self)

    def _failed(self, entry: Entry) -> None:
        entry.delivery_count += 1
        if entry.delivery_count >= self.options.max_delivery_count and self._dead_lettered is not None:
            self._bury(
                entry,
                "MaxDeliveryCountExceeded",
                f"Message could not be consumed after {entry.delivery_count} delivery attempts.",
            )
        else:
            self._offer(entry)

    def _bury(self, entry: Entry, reason: str, description: str) -> None:
        if self._dead_lettered is None:
            self._offer(entry)
            return
        del self._entries[entry.sequence]
        self._dead_lettered(entry, reason, description)

    def _expired(self, entry: Entry) -> bool:
        if entry.expires_at > self._clock() or entry.lock is not None or entry.state is State.SCHEDULED:
            return False
        if self.options.dead_lettering_on_message_expiration:
            self._bury(entry, "TTLExpiredException", "The message expired and was dead lettered.")
        else:
            del self._entries[entry.sequence]
        return True

    def _expire_all(self) -> None:
        for entry in list(self._entries.values()):
            self._expired(entry)

    def _is_duplicate(self, content: Content, now: float) -> bool:
        window = self.options.duplicate_detection
        if not window or content.message_id is None:
            return False
        self._seen = {name: seen for name, seen in self._seen.items() if seen > now - window}
        known = content.message_id in self._seen
        self._seen.setdefault(content.message_id, now)
        return known

    def _session_of(self, entry: Entry) -> str | None:
        return entry.content.session_id if self.options.requires_session else None

    def _is_available(self, sequence: int) -> bool:
        entry = self._entries.get(sequence)
        return entry is not None and entry.state is State.ACTIVE and entry.lock is None
