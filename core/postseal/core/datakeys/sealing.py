"""The data key with which one policy seals to one destination now."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from typing import Final

from postseal.core.crypto import MessageKey
from postseal.core.datakeys.counts import CacheTallies
from postseal.core.datakeys.flights import Flights
from postseal.core.datakeys.leases import SEALING_AHEAD, SLOW, Clock, KeyState, Lease, jitter
from postseal.core.datakeys.limits import DataKeyLimits
from postseal.core.errors import KeyRefused, KeyUnavailable, TooLarge
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, Recipient

__all__ = ["SealingKey", "SealingKeys", "Write"]

PERMITS: Final = 256
"""Messages counted at once, under one taking of the lock; their permits take 2 kB for each destination."""

Write = Callable[[bytes, bytes, int | None, bool], bytes]
"""Seals a body, with its ``external_aad`` as an encoded byte string, an expiry in seconds since the epoch, and whether it was counted.
What was not takes a permit, or returns no bytes where there is none."""


class SealingKey:
    """A data key that seals: its cipher, and itself wrapped. Its bytes are not kept."""

    __slots__ = ("context", "expires", "expiring_writers", "key", "lease", "permits", "recipients", "writers")

    def __init__(
        self, key: MessageKey, recipients: tuple[Recipient, ...], context: KeyContext, lease: Lease
    ) -> None:
        self.key = key
        self.lease = lease
        self.expires = 0.0
        """On the monotonic clock: until then it seals more than the message it was made for, with nothing looked at."""
        self.permits: list[None] = []
        """One for each small message that was counted ahead. Whoever takes one off may seal such a message, before *expires*."""
        self.recipients = recipients
        self.context = context
        self.writers: dict[str | None, Write] = {}
        """What seals with this key, by content type. Made by the sealer; goes when the key goes."""
        self.expiring_writers: dict[str | None, Write] = {}
        """The same for messages with an expiry."""

    def __repr__(self) -> str:
        return f"<SealingKey for {self.context.destination}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


class SealingKeys:
    """The data key with which one policy seals to one destination now, and the next one, where that was made ahead of time.

    A lock around the count would cost each message more than counting it. So small messages are counted many at once, ahead of time, and
    each then takes a *permit*: an element off a list, which is one step, so that no two threads get the same. A small message has at most
    ``max_bytes // max_messages`` bytes and counts as that many; larger ones are counted one by one.

    The next key is made when the current one is due: by its age, or because its messages or bytes, at the pace at which they go, will not
    last for as long. It takes over when the current one is due by age, or used up.

    Args:
        provider: Makes data keys.
        context: What their wrapped forms are bound to.
        limits: When one ends.
        clock: Monotonic, in seconds.
        flights: Make the calls: those of all caches that ask the same key service.
        tallies: Count what happens.
        draw: From 0 to 1; for the time at which a key is due.
    """

    def __init__(
        self,
        provider: KeyProvider,
        context: KeyContext,
        limits: DataKeyLimits,
        *,
        clock: Clock = time.monotonic,
        flights: Flights | None = None,
        tallies: CacheTallies | None = None,
        draw: Callable[[], float] = jitter,
    ) -> None:
        self._provider = provider
        self._context = context
        self._limits = limits
        self._clock = clock
        self._flights = flights or Flights(clock)
        self._tallies = tallies or CacheTallies()
        self._draw = draw
        self.small = int(limits.max_bytes // limits.max_messages) or 1
        """Bytes of the largest message for which a permit is enough."""
        self.key: SealingKey | None = None
        """The current data key, whether or not it has ended. Sealing with it needs a permit, or `cached`."""
        self._next: SealingKey | None = None
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget the data keys, and all threads and tasks that wait for one: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._era = 0
        self._forget()

    # -- the current key -------------------------------------------------------------------------------------------

    def cached(self, size: int) -> SealingKey | None:
        """Return the current data key and count one message of *size* bytes against it, or None where it has ended."""
        key = self.key
        if key is not None and size <= self.small:
            try:
                key.permits.pop()
            except IndexError:
                return self._counted(size)
            if self._clock() < key.expires:
                return key
            key.permits.append(None)  # nothing was sealed; and the key may yet go on
        return self._counted(size)

    def _counted(self, size: int) -> SealingKey | None:
        """Do what `cached` does under the lock, and count small messages ahead; have the next key made where it is time for it."""
        with self._lock:
            now = self._clock()
            key = self._counted_key(size, now)
            if key is None:
                return None
            asks = self._next is None and key.lease.asks(now, early=self._runs_out(key, now))
            if size <= self.small:
                # Never more than a quarter of what is left: so that it is seen in time that a key runs out.
                ahead = min(PERMITS, self._messages_left, self._bytes_left // self.small)
                ahead = min(ahead, max(1, self._messages_left // 4))
                self._messages_left -= ahead
                self._bytes_left -= ahead * self.small
                key.permits.extend([None] * ahead)
            era = self._era
        if asks:
            self._tallies.ahead.tick()
            if not self._flights.begin(self, partial(self._prepare, era)):
                self._look_again(key)
        return key

    def _counted_key(self, size: int, now: float) -> SealingKey | None:
        """Return the key that seals a message of *size* bytes, counted: the current one, or the next if that is there. Under the lock."""
        self._take_over(now)
        while (key := self.key) is not None:
            if self._goes_on(key, now) and self._count(key, size):
                return key
            if self._next is None:
                break
            self._turn_to(self._next, now)
        return None

    def _goes_on(self, key: SealingKey, now: float) -> bool:
        """Tell whether the age of *key* lets it seal, and until when nobody need look again. Under the lock."""
        lease = key.lease
        if now >= lease.ends and self._flights.hangs(self):
            lease.away(now)
        until = lease.until(now)
        if until is None:
            if now >= lease.last and self._next is None:
                self._forget()
            return False
        if now >= lease.ends and until > key.expires:
            self._tallies.stale.tick()
        key.expires = until
        return True

    def _count(self, key: SealingKey, size: int) -> bool:
        """Count one message of *size* bytes against *key*, the current one, if so much is left. Under the lock."""
        size = max(size, self.small)
        if self._messages_left <= 0 or self._bytes_left < size:
            with suppress(IndexError):  # what was counted ahead and not yet used is left, too
                while True:
                    key.permits.pop()
                    self._messages_left += 1
                    self._bytes_left += self.small
        if self._messages_left <= 0 or self._bytes_left < size:
            return False
        self._messages_left -= 1
        self._bytes_left -= size
        return True

    def _runs_out(self, key: SealingKey, now: float) -> bool:
        """Tell whether what is left of *key* lasts no longer, at its pace, than from its being due to its end. Not before half is used."""
        left = min(self._messages_left / self._limits.max_messages, self._bytes_left / self._limits.max_bytes)
        return left <= 1 / 2 and (now - self._since) * left <= (1 - left) * key.lease.ahead

    def _take_over(self, now: float) -> None:
        """Seal with the next key, where that is there and the current one is due by age. Under the lock."""
        if self._next is not None and self.key is not None and now >= self.key.lease.due:
            self._turn_to(self._next, now)

    def _turn_to(self, key: SealingKey, now: float) -> None:
        """Seal with *key* from now on. Under the lock.

        The one before is not ended by this: a thread that took the last of its permits seals with it, else it would go unused.
        """
        self.key, self._next = key, None
        self._messages_left = self._limits.max_messages
        self._bytes_left = self._limits.max_bytes
        self._since = now
        key.expires = key.lease.until(now) or 0.0

    def current(self, commitment: bytes) -> MessageKey | None:
        """Return the data key that seals now if it is the one of that commitment; counts nothing."""
        key = self.key
        return key.key if key is not None and key.key.commitment == commitment else None

    def states(self) -> list[KeyState]:
        """Return the state of each data key that is here."""
        with self._lock:
            now = self._clock()
            return [key.lease.state(now) for key in (self.key, self._next) if key is not None]

    # -- asking for one --------------------------------------------------------------------------------------------

    def take(self, size: int) -> SealingKey:
        """Return a data key for one message of *size* bytes, asking the key service where the current one has ended.

        Raises:
            KeyUnavailable: No answer, and no key that may go on. Retrying may help.
            KeyRefused: The service said no.
            TooLarge: *size* is over ``max_bytes``.
        """
        self._check(size)
        if self._limits.max_messages == 1:
            self._tallies.misses.tick()
            return self._flights.run(object(), self._make)[0]
        while True:
            if (key := self.cached(size)) is not None:
                return key
            self._tallies.misses.tick()
            try:
                made, counted = self._flights.run(self, partial(self._renew, size), self._patience())
            except KeyUnavailable:
                if (stale := self._stale(size)) is None:
                    raise
                return stale
            if counted:
                return made

    async def take_async(self, size: int) -> SealingKey:
        """Like `take`, without blocking the loop."""
        self._check(size)
        if self._limits.max_messages == 1:
            self._tallies.misses.tick()
            return (await self._flights.run_async(object(), self._make))[0]
        while True:
            if (key := self.cached(size)) is not None:
                return key
            self._tallies.misses.tick()
            try:
                made, counted = await self._flights.run_async(
                    self, partial(self._renew, size), self._patience()
                )
            except KeyUnavailable:
                if (stale := self._stale(size)) is None:
                    raise
                return stale
            if counted:
                return made

    def _patience(self) -> float | None:
        """Return for how long a message is to wait: without end where there is no key that may go on without an answer."""
        key = self.key
        if key is None or not key.lease.ends <= self._clock() < key.lease.last:
            return None
        return SLOW

    def _stale(self, size: int) -> SealingKey | None:
        """Return the current data key as `cached` does, now that a message has waited and had no answer."""
        with self._lock:
            if self.key is not None:
                self.key.lease.away(self._clock())
        return self.cached(size)

    def drop(self) -> None:
        """Forget the data keys, and do not keep one that is under way."""
        with self._lock:
            self._era += 1
            self._forget()

    def _forget(self) -> None:
        for key in (self.key, self._next):
            if key is not None:
                key.expires = 0.0  # a thread may be about to take one of its permits
        self.key = self._next = None
        self._messages_left = 0
        self._bytes_left = 0
        self._since = 0.0

    def _check(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise TooLarge(
                f"a body of {size:,} bytes is over data_key.max_bytes, {self._limits.max_bytes:,}: nothing was sealed"
            )

    def _renew(self, size: int) -> SealingKey:
        """Put a new data key in the place of the one that ended: the leader's part, while others wait.

        One message of *size* bytes is counted for whoever leads the flight, so that each call serves at least one: others could use
        the key up before the leader looks again, or its age could be shorter than the look.
        """
        # Whoever led the flight before this one may have renewed it between our look and our flight.
        if (current := self.cached(size)) is not None:
            return current
        era = self._era
        key = self._asked(era)
        with self._lock:
            if era == self._era:
                self._turn_to(key, self._clock())
                self._count(key, size)
        return key

    def _prepare(self, era: int) -> SealingKey:
        """Have the next data key made, while the current one seals."""
        key = self._asked(era)
        with self._lock:
            if era == self._era:
                self._next = key
                self._take_over(self._clock())
        return key

    def _asked(self, era: int) -> SealingKey:
        """Ask the key service, and note what it said of the current key."""
        try:
            return self._make()
        except KeyUnavailable:
            with self._lock:
                if (key := self.key) is not None and era == self._era:
                    key.lease.away(self._clock())
            if key is not None:
                self._look_again(key)
            raise
        except KeyRefused:
            self.drop()
            raise

    def _look_again(self, key: SealingKey) -> None:
        """Have whoever seals with *key* look whether to ask again, before its end."""
        with self._lock:
            key.expires = min(key.expires, key.lease.until(self._clock()) or 0.0)

    def _make(self) -> SealingKey:
        began = self._clock()
        with self._tallies.call():
            made = self._provider.generate(self._context)
        now, limits = self._clock(), self._limits
        lease = Lease(
            now,
            limits.max_age,
            limits.max_stale,
            ahead=SEALING_AHEAD,
            took=now - began,
            drawn=self._draw(),
        )
        return SealingKey(_message_key(made), made.recipients, self._context, lease)


def _message_key(made: NewDataKey) -> MessageKey:
    try:
        return MessageKey(made.data_key)
    except ValueError as error:
        raise KeyRefused(f"the key provider made a data key of a wrong size: {error}") from None
