"""The cache of data keys: why a key service is asked once for a million messages instead of once for each.

`SealingKeys` hands out the data key of one policy and destination until its age, message count or byte count ends. `OpeningKeys` keeps
unwrapped data keys for a while; that while is the revocation window. In both, however many threads and tasks ask for one key at once,
one call is made; a forked child begins with nothing; and where the service does not answer, a key may serve past its age, but never
where the service says no.

Source: SPEC.md 6.4; design of the AWS Encryption SDK's caching (limits by age, messages and bytes).
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING, Final, Generic, TypeVar

from postseal.core.crypto import MessageKey, equal, sha256
from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable, NotMine, PostsealError, TooLarge
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyBroken, KeyContext, KeyProvider, NewDataKey, Recipient
from postseal.core.values import Value

if TYPE_CHECKING:
    from concurrent.futures import Future

__all__ = [
    "Calls",
    "DataKeyLimits",
    "OpenedKey",
    "OpeningKeys",
    "OpeningLimits",
    "SealingKey",
    "SealingKeys",
    "copy_of",
]

MAX_MESSAGES: Final = 2**28
MAX_BYTES: Final = 2**38
RETRY_AFTER: Final = 2.0
"""Seconds for which a stale key is served before the service is asked again."""
NEGATIVE_AGE: Final = 30.0
"""Seconds for which a wrapped key that did not unwrap is refused without a call."""
PERMITS: Final = 256
"""Messages counted at once, under one taking of the lock; their permits take 2 kB for each destination."""
MAX_CREW: Final = 32
"""Threads that ask the key service for tasks, at most. Beyond, calls wait their turn; a boto3 client has 10 connections."""

Clock = Callable[[], float]
Write = Callable[[bytes, bytes, int | None, bool], bytes]
"""Seals a body, with its ``external_aad`` as an encoded byte string, an expiry in seconds since the epoch, and whether it was counted.
What was not takes a permit, or returns no bytes where there is none."""
_T = TypeVar("_T")
_E = TypeVar("_E", bound=Exception)


def _positive(value: float, what: str, most: float) -> None:
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= most:
        raise ConfigError(f"{what} must be over 0 and at most {most:,}: {value!r}")


class DataKeyLimits(Value):
    """How long a data key seals. The first limit reached ends it; all count from its creation.

    Args:
        max_age: Seconds.
        max_messages: Messages, at most 2**28. 1 makes a key for each message.
        max_bytes: Bytes of bodies, at most 2**38. Each body counts as one byte at least, and as ``max_bytes // max_messages`` at least.
        max_stale: Seconds past *max_age* for which it goes on sealing while the key service does not answer; 0 for none.

    Raises:
        ConfigError: A limit is out of its range.
    """

    __slots__ = ("max_age", "max_bytes", "max_messages", "max_stale")

    max_age: float
    max_messages: int
    max_bytes: int
    max_stale: float

    def __init__(
        self,
        *,
        max_age: float = 600.0,
        max_messages: int = 2**20,
        max_bytes: int = 64 * 2**30,
        max_stale: float = 3600.0,
    ) -> None:
        self._set(max_age=max_age, max_messages=max_messages, max_bytes=max_bytes, max_stale=max_stale)
        _positive(max_age, "data_key.max_age", 30 * 86400)
        # SP 800-38D 8.3 and SPEC.md 6.4: random nonces stay distinct up to 2**28 with probability 1 - 2**-40.
        _positive(max_messages, "data_key.max_messages", MAX_MESSAGES)
        # RFC 8446 5.5: 2**24.5 records of 2**14 bytes keep AES-GCM's advantage near 2**-57.
        _positive(max_bytes, "data_key.max_bytes", MAX_BYTES)
        if max_stale:
            _positive(max_stale, "data_key.max_stale", 30 * 86400)


class OpeningLimits(Value):
    """How long an unwrapped data key opens without asking again.

    Args:
        max_age: Seconds. This is the revocation window: a right withdrawn takes effect within it.
        max_stale: Seconds past *max_age* for which it goes on opening while the key service does not answer; 0 for none.
        max_keys: Data keys kept; the least recently used goes first.

    Raises:
        ConfigError: A limit is out of its range.
    """

    __slots__ = ("max_age", "max_keys", "max_stale")

    max_age: float
    max_stale: float
    max_keys: int

    def __init__(self, *, max_age: float = 300.0, max_stale: float = 3600.0, max_keys: int = 1024) -> None:
        self._set(max_age=max_age, max_stale=max_stale, max_keys=max_keys)
        _positive(max_age, "opening.max_age", 30 * 86400)
        _positive(max_keys, "opening.max_keys", 2**20)
        if max_stale:
            _positive(max_stale, "opening.max_stale", 30 * 86400)


class SealingKey:
    """A data key that seals: its cipher, and itself wrapped. Its bytes are not kept."""

    __slots__ = ("context", "expires", "expiring_writers", "key", "permits", "recipients", "writers")

    def __init__(self, key: MessageKey, recipients: tuple[Recipient, ...], context: KeyContext) -> None:
        self.key = key
        self.expires = 0.0
        """On the monotonic clock: until then it seals more than the message it was made for."""
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


class OpenedKey:
    """A data key that opens, until *expires* on the monotonic clock."""

    __slots__ = ("expires", "fresh_until", "key", "used", "what")

    def __init__(self, key: MessageKey, what: object, now: float, limits: OpeningLimits) -> None:
        self.key = key
        self.what = what
        """Names the recipients that it was unwrapped from."""
        self.expires = now + limits.max_age
        self.fresh_until = self.expires
        """When its age really ends; *expires* is later than that only while it is served stale."""
        self.used = now

    def __repr__(self) -> str:
        return "<OpenedKey>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


class _Flight(Generic[_T]):
    """A call under way."""

    __slots__ = ("landed", "what")

    def __init__(self, what: object) -> None:
        from concurrent.futures import Future  # noqa: PLC0415 - it loads logging and more; misses are rare

        self.what = what
        self.landed: Future[tuple[_T, None] | tuple[None, Exception]] = Future()
        """What the call returned or raised. Never an exception of the future's own: asyncio takes some of those amiss."""
        self.landed.set_running_or_notify_cancel()  # nobody who waits can cancel it


class _Flights(Generic[_T]):
    """One call in flight for each thing asked for, whoever asks: threads wait for it, tasks await it.

    A thread that leads makes the call itself. For a task that leads, a thread of the crew makes it: not one of the loop's pool, which
    may be full of threads that wait for this very flight, while the crew waits for none. The crew is bounded, so that a flood of
    messages with different wrapped keys cannot make a thread for each.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._flights: dict[object, _Flight[_T]] = {}
        self._queue: deque[tuple[_Flight[_T], Callable[[], _T]]] = deque()
        self._crew = 0

    def run(self, what: object, call: Callable[[], _T]) -> tuple[_T, bool]:
        """Make the call, or wait for the one under way. Return what it returned, and whether it was ours."""
        flight, leads = self._join(what)
        if leads:
            self._fly(flight, call)
        return _outcome(flight.landed.result()), leads

    async def run_async(self, what: object, call: Callable[[], _T]) -> tuple[_T, bool]:
        """Like `run`, without blocking the loop. A cancelled task leaves the call under way for the others."""
        import asyncio  # noqa: PLC0415 - who has no loop need not load it

        flight, leads = self._join(what)
        if leads:
            self._board(flight, call)
        return _outcome(await asyncio.wrap_future(flight.landed)), leads

    def _join(self, what: object) -> tuple[_Flight[_T], bool]:
        with self._lock:
            flight = self._flights.get(what)
            if flight is not None:
                return flight, False
            flight = self._flights[what] = _Flight(what)
            return flight, True

    def _fly(self, flight: _Flight[_T], call: Callable[[], _T]) -> None:
        try:
            result = call()
        except Exception as error:
            self._fail(flight, copy_of(error))
            raise
        except BaseException as error:
            # Ctrl-C is for the thread that it struck. The others may try again.
            self._fail(flight, KeyUnavailable(f"the call was ended by {type(error).__name__}"))
            raise
        else:
            self._land(flight)
            flight.landed.set_result((result, None))

    def _fail(self, flight: _Flight[_T], error: Exception) -> None:
        self._land(flight)
        flight.landed.set_result((None, error))

    def _land(self, flight: _Flight[_T]) -> None:
        with self._lock:
            self._flights.pop(flight.what, None)

    def _board(self, flight: _Flight[_T], call: Callable[[], _T]) -> None:
        """Have a thread of the crew make the call."""
        with self._lock:
            self._queue.append((flight, call))
            if self._crew >= MAX_CREW:
                return
            self._crew += 1
        try:
            threading.Thread(target=self._work, name="postseal-data-key", daemon=True).start()
        except RuntimeError as error:  # the system has no more threads for us
            with self._lock:
                self._crew -= 1
                stranded = () if self._crew else tuple(self._queue)
                if stranded:
                    self._queue.clear()
            for waiting, _ in stranded:
                self._fail(waiting, KeyUnavailable(f"no thread to ask the key service in: {error}"))

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._crew -= 1
                    return
                flight, call = self._queue.popleft()
            with suppress(BaseException):  # whoever waits was told; the crew goes on
                self._fly(flight, call)


def _outcome(landed: tuple[_T, None] | tuple[None, Exception]) -> _T:
    result, error = landed
    if error is not None:
        raise copy_of(error)
    return result  # type: ignore[return-value]  # mypy does not narrow one element of a tuple by the other


def copy_of(error: _E) -> _E:
    """Copy *error* without its traceback, for one of those who wait for it.

    One object raised in many threads would mix their tracebacks, and keep alive what their frames hold: bodies. What is none of our
    errors is a bug of the provider: then the traceback is worth more.
    """
    if not isinstance(error, PostsealError):
        return error
    import copy  # noqa: PLC0415 - calls seldom fail

    try:
        copied = copy.copy(error)
    except TypeError:  # a subclass that is not made from its own arguments
        return error
    copied.__cause__ = error.__cause__
    return copied


class Calls(Generic[_T]):
    """Calls for what is no data key: one in flight for each thing asked."""

    def __init__(self) -> None:
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget who waits: in a forked child they do not exist."""
        self._flights: _Flights[_T] = _Flights()

    def run(self, what: object, call: Callable[[], _T]) -> _T:
        """Make the call, or wait for the one under way."""
        return self._flights.run(what, call)[0]

    async def run_async(self, what: object, call: Callable[[], _T]) -> _T:
        """Like `run`, without blocking the loop."""
        return (await self._flights.run_async(what, call))[0]


class SealingKeys:
    """The data key with which one policy seals to one destination now.

    A lock around the count would cost each message more than counting it. So small messages are counted many at once, ahead of time, and
    each then takes a *permit*: an element off a list, which is one step, so that no two threads get the same. A small message has at most
    ``max_bytes // max_messages`` bytes and counts as that many; larger ones are counted one by one.

    Args:
        provider: Makes data keys.
        context: What their wrapped forms are bound to.
        limits: When one ends.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        provider: KeyProvider,
        context: KeyContext,
        limits: DataKeyLimits,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._provider = provider
        self._context = context
        self._limits = limits
        self._clock = clock
        self.small = int(limits.max_bytes // limits.max_messages) or 1
        """Bytes of the largest message for which a permit is enough."""
        self.key: SealingKey | None = None
        """The current data key, whether or not it has ended. Sealing with it needs a permit, or `cached`."""
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget the data key, and all threads and tasks that wait for one: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._flights: _Flights[SealingKey] = _Flights()
        self._era = 0
        self._forget()

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
            key.permits.append(None)  # nothing was sealed; and the key may yet go on, stale
        return self._counted(size)

    def _counted(self, size: int) -> SealingKey | None:
        """Do what `cached` does under the lock, and count small messages ahead."""
        with self._lock:
            key = self.key
            if key is None or self._clock() >= key.expires or not self._count(key, size):
                return None
            if size <= self.small:
                ahead = int(min(PERMITS, self._messages_left, self._bytes_left // self.small))
                self._messages_left -= ahead
                self._bytes_left -= ahead * self.small
                key.permits.extend([None] * ahead)
            return key

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

    def take(self, size: int) -> SealingKey:
        """Return a data key for one message of *size* bytes, asking the key service where the current one has ended.

        Raises:
            KeyUnavailable: No answer, and no key that may go on. Retrying may help.
            KeyRefused: The service said no.
            TooLarge: *size* is over ``max_bytes``.
        """
        self._check(size)
        if self._limits.max_messages == 1:
            return self._make()
        while True:
            if (key := self.cached(size)) is not None:
                return key
            key, counted = self._flights.run(None, partial(self._renew, size))
            if counted:
                return key

    async def take_async(self, size: int) -> SealingKey:
        """Like `take`, without blocking the loop."""
        self._check(size)
        if self._limits.max_messages == 1:
            return (await self._flights.run_async(object(), self._make))[0]
        while True:
            if (key := self.cached(size)) is not None:
                return key
            key, counted = await self._flights.run_async(None, partial(self._renew, size))
            if counted:
                return key

    def current(self, commitment: bytes) -> MessageKey | None:
        """Return the data key that seals now if it is the one of that commitment; counts nothing."""
        key = self.key
        return key.key if key is not None and key.key.commitment == commitment else None

    def drop(self) -> None:
        """Forget the current data key, and do not keep one that is under way."""
        with self._lock:
            self._era += 1
            self._forget()

    def _forget(self) -> None:
        if self.key is not None:
            self.key.expires = 0.0  # a thread may be about to take one of its permits
        self.key = None
        self._messages_left = 0
        self._bytes_left = 0
        self._fresh_until = 0.0

    def _check(self, size: int) -> None:
        if size > self._limits.max_bytes:
            raise TooLarge(
                f"a body of {size:,} bytes is over data_key.max_bytes, {self._limits.max_bytes:,}: nothing was sealed"
            )

    def _make(self) -> SealingKey:
        made = self._provider.generate(self._context)
        return SealingKey(_message_key(made), made.recipients, self._context)

    def _renew(self, size: int) -> SealingKey:
        """Put a new data key in the place of the one that ended, or let that one go on where it may.

        One message of *size* bytes is counted for whoever leads the flight, so that each call serves at least one: others could use
        the key up before the leader looks again, or its age could be shorter than the look.
        """
        # Whoever led the flight before this one may have renewed it between our look and our flight.
        if (current := self.cached(size)) is not None:
            return current
        era = self._era
        try:
            key = self._make()
        except KeyUnavailable:
            if (stale := self._go_on_stale(size)) is not None:
                return stale
            raise
        except KeyRefused:
            self.drop()
            raise
        with self._lock:
            if era == self._era:
                # The one before is not ended by this: a thread that took the last of its permits seals with it, else it would go unused.
                self.key = key
                self._messages_left = self._limits.max_messages - 1
                self._bytes_left = self._limits.max_bytes - max(size, self.small)
                self._fresh_until = key.expires = self._clock() + self._limits.max_age
        return key

    def _go_on_stale(self, size: int) -> SealingKey | None:
        with self._lock:
            if (key := self.key) is None or not self._count(key, size):
                return None
            now = self._clock()
            last = self._fresh_until + self._limits.max_stale
            if now >= last:
                self._forget()
                return None
            key.expires = min(now + RETRY_AFTER, last)
            return key


def _message_key(made: NewDataKey) -> MessageKey:
    try:
        return MessageKey(made.data_key)
    except ValueError as error:
        raise KeyRefused(f"the key provider made a data key of a wrong size: {error}") from None


class OpeningKeys:
    """Data keys unwrapped for one policy, by destination and commitment.

    A key is found by its commitment, which every header carries. It is only ever put there after the commitment was derived again from
    what the provider unwrapped, so nothing that a message claims can place a key, and a flight or a failure belongs to the exact
    recipients of one message: a forged one cannot make an honest one fail.

    Args:
        provider: Unwraps data keys.
        policy: The policy's name.
        limits: How long they open, how many are kept.
        clock: Monotonic, in seconds.
    """

    def __init__(
        self,
        provider: KeyProvider,
        policy: str,
        limits: OpeningLimits,
        *,
        clock: Clock = time.monotonic,
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._keys: dict[tuple[str, bytes], OpenedKey] = {}
        self.begin_again()
        begin_again_in_child(self)

    @property
    def held(self) -> int:
        """How many data keys are here."""
        return len(self._keys)

    def begin_again(self) -> None:
        """Forget all data keys and failures, and all threads and tasks that wait: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._flights: _Flights[OpenedKey] = _Flights()
        self._era = 0
        for key in self._keys.values():
            key.expires = 0.0  # the sealer may hold it, too
        self._keys = {}
        self._failures: dict[object, tuple[float, PostsealError]] = {}

    def cached(self, destination: str, commitment: bytes) -> OpenedKey | None:
        """Return the data key of that commitment if it is here and its age has not ended."""
        key = self._keys.get((destination, commitment))
        if key is None:
            return None
        now = self._clock()
        if now >= key.expires:
            return None
        key.used = now
        return key

    def at_hand(self, destination: str, commitment: bytes, recipients_bytes: bytes) -> OpenedKey | None:
        """Answer as `fetch` would, where that is known; None where the key service would be asked.

        Raises:
            KeyRefused, KeyBroken, NotMine: The service said so of these very recipients a short while ago.
        """
        if (key := self.cached(destination, commitment)) is not None:
            return key
        self._raise_known_failure(self._name(destination, commitment, recipients_bytes))
        return None

    def fetch(
        self, destination: str, commitment: bytes, recipients: Sequence[Recipient], recipients_bytes: bytes
    ) -> OpenedKey:
        """Return the data key of that commitment, having the key service unwrap it where it is not cached.

        Args:
            destination: What the header says, after it was found to be a right one.
            commitment: What the header says.
            recipients: What the message carried.
            recipients_bytes: The same as bytes; names the flight and the failure.

        Raises:
            NotMine: None of the recipients is ours.
            KeyBroken: Changed bytes, another context, or a key that does not match the commitment.
            KeyRefused: The service said no.
            KeyUnavailable: No answer, and no key that may go on. Retrying may help.
        """
        if (key := self.cached(destination, commitment)) is not None:
            return key
        what = self._name(destination, commitment, recipients_bytes)
        self._raise_known_failure(what)
        return self._flights.run(what, partial(self._unwrap, what, destination, commitment, recipients))[0]

    async def fetch_async(
        self, destination: str, commitment: bytes, recipients: Sequence[Recipient], recipients_bytes: bytes
    ) -> OpenedKey:
        """Like `fetch`, without blocking the loop."""
        if (key := self.cached(destination, commitment)) is not None:
            return key
        what = self._name(destination, commitment, recipients_bytes)
        self._raise_known_failure(what)
        call = partial(self._unwrap, what, destination, commitment, recipients)
        return (await self._flights.run_async(what, call))[0]

    def drop(self) -> None:
        """Forget all data keys and all failures, and do not keep what is under way."""
        with self._lock:
            self._era += 1
            for key in self._keys.values():
                key.expires = 0.0
            self._keys.clear()
            self._failures.clear()

    @staticmethod
    def _name(destination: str, commitment: bytes, recipients_bytes: bytes) -> object:
        return destination, commitment, sha256(recipients_bytes)

    def _raise_known_failure(self, what: object) -> None:
        failure = self._failures.get(what)
        if failure is not None and self._clock() < failure[0]:
            raise copy_of(failure[1])

    def _unwrap(
        self, what: object, destination: str, commitment: bytes, recipients: Sequence[Recipient]
    ) -> OpenedKey:
        if (key := self.cached(destination, commitment)) is not None:
            return key  # by the flight that landed between our look and ours
        self._raise_known_failure(what)  # likewise
        begun = self._clock()
        era = self._era
        try:
            key = self._checked(what, destination, commitment, recipients, begun)
        except KeyUnavailable:
            if (stale := self._go_on_stale(destination, commitment)) is not None:
                return stale
            raise
        except (KeyRefused, KeyBroken, NotMine) as error:
            self._remember_failure(what, error, era)
            if isinstance(error, KeyRefused):
                self._forget(what, destination, commitment)
            raise
        self._keep(destination, commitment, key, era)
        return key

    def _checked(
        self,
        what: object,
        destination: str,
        commitment: bytes,
        recipients: Sequence[Recipient],
        begun: float,
    ) -> OpenedKey:
        data_key = self._provider.unwrap(recipients, KeyContext(self._policy, destination))
        try:
            key = MessageKey(data_key)
        except ValueError as error:
            raise KeyBroken(str(error)) from None
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        if not equal(key.commitment, commitment):
            raise KeyBroken("the data key is not the one that the header is committed to")
        return OpenedKey(key, what, begun, self._limits)

    def _keep(self, destination: str, commitment: bytes, key: OpenedKey, era: int) -> None:
        with self._lock:
            if era != self._era:
                key.expires = 0.0  # it opens the message that it was fetched for, no more
                return
            old = self._keys.pop((destination, commitment), None)
            if old is not None:
                old.expires = 0.0
            while len(self._keys) >= self._limits.max_keys:
                oldest = min(self._keys, key=lambda k: self._keys[k].used)
                self._keys.pop(oldest).expires = 0.0
            self._keys[destination, commitment] = key

    def _forget(self, what: object, destination: str, commitment: bytes) -> None:
        """Drop the data key that came from the very recipients that the service now refuses to open."""
        with self._lock:
            key = self._keys.get((destination, commitment))
            if key is not None and key.what == what:
                del self._keys[destination, commitment]
                key.expires = 0.0

    def _go_on_stale(self, destination: str, commitment: bytes) -> OpenedKey | None:
        with self._lock:
            key = self._keys.get((destination, commitment))
            if key is None:
                return None
            now = self._clock()
            last = key.fresh_until + self._limits.max_stale
            if now >= last:
                del self._keys[destination, commitment]
                return None
            key.expires = min(now + RETRY_AFTER, last)
            return key

    def _remember_failure(self, what: object, error: PostsealError, era: int) -> None:
        failure = copy_of(error)
        with self._lock:
            if era != self._era:
                return
            self._failures.pop(what, None)
            while len(self._failures) >= self._limits.max_keys:
                del self._failures[next(iter(self._failures))]
            self._failures[what] = (self._clock() + NEGATIVE_AGE, failure)
