"""Data keys unwrapped for one policy, to open with."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Final, NamedTuple, TypeVar

from postseal.core.crypto import MessageKey, equal, sha256
from postseal.core.datakeys.counts import CacheTallies
from postseal.core.datakeys.flights import Flights, copy_of
from postseal.core.datakeys.leases import OPENING_AHEAD, SLOW, Clock, KeyState, Lease, jitter
from postseal.core.datakeys.limits import OpeningLimits
from postseal.core.errors import KeyBroken, KeyRefused, KeyUnavailable, NotMine, PostsealError
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import KeyContext, KeyProvider, Recipient

if TYPE_CHECKING:
    from postseal.core.datakeys.rationing import Rations

__all__ = ["OpenedKey", "OpeningKeys"]

_T = TypeVar("_T")
NEGATIVE_AGE: Final = 30.0
"""Seconds for which a wrapped key that did not unwrap is refused without a call."""


class OpenedKey:
    """A data key that opens: its cipher, and the wrapped form that it came from."""

    __slots__ = ("expires", "key", "lease", "recipients", "used", "what")

    def __init__(self, key: MessageKey, what: object, recipients: Sequence[Recipient], lease: Lease) -> None:
        self.key = key
        self.what = what
        """Names *recipients*."""
        self.recipients = recipients
        self.lease = lease
        self.expires = lease.due
        """On the monotonic clock: until then it opens, with nothing looked at."""
        self.used = lease.begins

    def __repr__(self) -> str:
        return "<OpenedKey>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


class _Wanted(NamedTuple):
    """A data key as one message asks for it."""

    destination: str
    commitment: bytes
    recipients: Sequence[Recipient]
    what: object
    """Names all of it: a flight or a failure belongs to these very recipients."""

    @property
    def place(self) -> tuple[str, bytes]:
        """Where it is kept."""
        return self.destination, self.commitment


class OpeningKeys:
    """Data keys unwrapped for one policy, by destination and commitment.

    A key is found by its commitment, which every header carries. It is only ever put there after the commitment was derived again from
    what the provider unwrapped, so nothing that a message claims can place a key, and a flight or a failure belongs to the exact
    recipients of one message: a forged one cannot make an honest one fail.

    A key in use is asked for again when it is due. It is then the same object as before, which goes on for another age: what was learnt of
    its messages holds.

    Args:
        provider: Unwraps data keys.
        policy: The policy's name.
        limits: How long they open, how many are kept.
        clock: Monotonic, in seconds.
        flights: Make the calls: those of all caches that ask the same key service.
        tallies: Count what happens.
        draw: From 0 to 1; for the time at which a key is due.
    """

    def __init__(
        self,
        provider: KeyProvider,
        policy: str,
        limits: OpeningLimits,
        *,
        clock: Clock = time.monotonic,
        flights: Flights | None = None,
        tallies: CacheTallies | None = None,
        draw: Callable[[], float] = jitter,
    ) -> None:
        self._provider = provider
        self._policy = policy
        self._limits = limits
        self._clock = clock
        self._flights = flights or Flights(clock)
        self._tallies = tallies or CacheTallies()
        self._draw = draw
        self._keys: dict[tuple[str, bytes], OpenedKey] = {}
        self.begin_again()
        begin_again_in_child(self)

    @property
    def held(self) -> int:
        """How many data keys are here."""
        return len(self._keys)

    def states(self) -> list[KeyState]:
        """Return the state of each data key that is here."""
        with self._lock:
            now = self._clock()
            return [key.lease.state(now) for key in self._keys.values()]

    def begin_again(self) -> None:
        """Forget all data keys and failures, and all threads and tasks that wait: in a forked child they do not exist."""
        self._lock = threading.Lock()
        self._era = 0
        for key in self._keys.values():
            key.expires = 0.0  # the sealer may hold it, too
        self._keys = {}
        self._failures: dict[object, tuple[float, PostsealError]] = {}
        self._rations: Rations | None = None
        self._proven: dict[object, None] = {}
        """Wrapped keys that opened once, by name: not forged, and so not rationed."""

    # -- what is here ----------------------------------------------------------------------------------------------

    def cached(self, destination: str, commitment: bytes) -> OpenedKey | None:
        """Return the data key of that commitment if it is here and may serve; have the service asked again where it is due."""
        key = self._keys.get((destination, commitment))
        if key is None:
            return None
        now = self._clock()
        if now >= key.expires and not self._goes_on(key, destination, commitment, now):
            return None
        key.used = now
        return key

    def _goes_on(self, key: OpenedKey, destination: str, commitment: bytes, now: float) -> bool:
        """Tell whether *key* may serve, though it has to be looked at."""
        with self._lock:
            if self._keys.get((destination, commitment)) is not key:
                return False
            wanted, lease = _Wanted(destination, commitment, key.recipients, key.what), key.lease
            if now >= lease.ends and self._flights.hangs((self, key.what)):
                lease.away(now)
            until = lease.until(now)
            if until is None:
                if now >= lease.last:
                    del self._keys[wanted.place]
                return False
            if now >= lease.ends and until > key.expires:
                self._tallies.stale.tick()
            key.expires = until
            asks, era = lease.asks(now), self._era
        if asks:
            self._tallies.ahead.tick()
            if not self._flights.begin((self, wanted.what), partial(self._ask, wanted, era)):
                self._look_again(wanted)
        return True

    def _look_again(self, wanted: _Wanted) -> None:
        """Have whoever opens with this key look whether to ask again, before its end."""
        with self._lock:
            if (key := self._keys.get(wanted.place)) is not None:
                key.expires = min(key.expires, key.lease.until(self._clock()) or 0.0)

    def at_hand(self, destination: str, commitment: bytes, recipients_bytes: bytes) -> OpenedKey | None:
        """Answer as `fetch` would, where that is known; None where the key service would be asked.

        Raises:
            KeyRefused, KeyBroken, NotMine: The service said so of these very recipients a short while ago.
        """
        if (key := self.cached(destination, commitment)) is not None:
            return key
        self._raise_known_failure(_name(destination, commitment, recipients_bytes))
        return None

    def drop(self) -> None:
        """Forget all data keys and all failures, and do not keep what is under way."""
        with self._lock:
            self._era += 1
            for key in self._keys.values():
                key.expires = 0.0
            self._keys.clear()
            self._failures.clear()
            self._proven.clear()
            self._rations = None

    # -- asking for what is not ------------------------------------------------------------------------------------

    def fetch(
        self,
        destination: str,
        commitment: bytes,
        recipients: Sequence[Recipient],
        recipients_bytes: bytes,
        origin: object = None,
    ) -> OpenedKey:
        """Return the data key of that commitment, having the key service unwrap it where it is not cached.

        Args:
            destination: What the header says, after it was found to be a right one.
            commitment: What the header says.
            recipients: What the message carried.
            recipients_bytes: The same as bytes; names the flight and the failure.
            origin: Whose signature was verified; None where none was. What fails is on this account.

        Raises:
            NotMine: None of the recipients is ours.
            KeyBroken: Changed bytes, another context, or a key that does not match the commitment.
            KeyRefused: The service said no.
            KeyUnavailable: No answer, and no key that may go on; or too many wrapped keys of this origin failed. Retrying may help.
        """
        if (key := self.cached(destination, commitment)) is not None:
            return key
        wanted = _wanted(destination, commitment, recipients, recipients_bytes)
        self._admit(wanted, origin)
        try:
            call = partial(self._unwrap, wanted, origin)
            return self._flights.run((self, wanted.what), call, self._patience(wanted))[0]
        except KeyUnavailable:
            if (stale := self._stale(wanted)) is None:
                raise
            return stale

    async def fetch_async(
        self,
        destination: str,
        commitment: bytes,
        recipients: Sequence[Recipient],
        recipients_bytes: bytes,
        origin: object = None,
    ) -> OpenedKey:
        """Like `fetch`, without blocking the loop."""
        if (key := self.cached(destination, commitment)) is not None:
            return key
        wanted = _wanted(destination, commitment, recipients, recipients_bytes)
        self._admit(wanted, origin)
        try:
            call = partial(self._unwrap, wanted, origin)
            return (await self._flights.run_async((self, wanted.what), call, self._patience(wanted)))[0]
        except KeyUnavailable:
            if (stale := self._stale(wanted)) is None:
                raise
            return stale

    def _patience(self, wanted: _Wanted) -> float | None:
        """Return for how long a message is to wait: without end where there is no key that may go on without an answer."""
        key = self._keys.get(wanted.place)
        if key is None or not key.lease.ends <= self._clock() < key.lease.last:
            return None
        return SLOW

    def _stale(self, wanted: _Wanted) -> OpenedKey | None:
        """Return the data key as `cached` does, now that a message has waited and had no answer."""
        with self._lock:
            if (key := self._keys.get(wanted.place)) is not None:
                key.lease.away(self._clock())
        return self.cached(wanted.destination, wanted.commitment)

    def _raise_known_failure(self, what: object) -> None:
        failure = self._failures.get(what)
        if failure is not None and self._clock() < failure[0]:
            self._tallies.negative.tick()
            raise copy_of(failure[1])

    def _admit(self, wanted: _Wanted, origin: object) -> None:
        """Let a message wait for the key service, unless it is known what that says, or too many others have failed."""
        self._raise_known_failure(wanted.what)
        if self._rations is not None and not self._flights.under_way((self, wanted.what)):
            with self._lock:
                if (
                    (rations := self._rations) is not None
                    and wanted.what not in self._proven
                    and not rations.admits(origin, wanted.what, self._clock())
                ):
                    self._tallies.rationed.tick()
                    raise KeyUnavailable(
                        "wrapped keys like this one, which was never opened here, have failed too often: it is asked for later"
                    )
        self._tallies.misses.tick()

    def _unwrap(self, wanted: _Wanted, origin: object) -> OpenedKey:
        """Ask, for the messages that wait."""
        if (key := self.cached(wanted.destination, wanted.commitment)) is not None:
            return key  # by the flight that landed between our look and ours
        self._raise_known_failure(wanted.what)  # likewise
        try:
            key = self._ask(wanted, self._era)
        except (KeyRefused, KeyBroken, NotMine) as error:
            if not isinstance(error, NotMine) or error.__cause__ is not None:  # else no service was asked
                self._ration(origin)
            raise
        if self._rations is not None:
            with self._lock:
                if self._rations is not None:
                    self._rations.succeeded(origin, self._clock())
        return key

    def _ration(self, origin: object) -> None:
        """Note that a call failed for something that may have been forged."""
        from postseal.core.datakeys.rationing import Rations  # noqa: PLC0415 - loaded when the first one fails

        with self._lock:
            if self._rations is None:
                self._rations = Rations(self._limits.max_failures)
            self._rations.failed(origin, self._clock())

    def _ask(self, wanted: _Wanted, era: int) -> OpenedKey:
        """Ask the key service, and note what it said."""
        try:
            key = self._unwrapped(wanted)
        except KeyUnavailable:
            with self._lock:
                if (known := self._keys.get(wanted.place)) is not None:
                    known.lease.away(self._clock())
            self._look_again(wanted)
            raise
        except (KeyRefused, KeyBroken, NotMine) as error:
            self._note_failure(wanted, error, era)
            raise
        return self._kept(wanted, key, era)

    def _unwrapped(self, wanted: _Wanted) -> OpenedKey:
        begun = self._clock()
        with self._tallies.call():
            data_key = self._provider.unwrap(wanted.recipients, KeyContext(self._policy, wanted.destination))
        try:
            key = MessageKey(data_key)
        except ValueError as error:
            raise KeyBroken(str(error)) from None
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        if not equal(key.commitment, wanted.commitment):
            raise KeyBroken("the data key is not the one that the header is committed to")
        limits = self._limits
        lease = Lease(
            begun,
            limits.max_age,
            limits.max_stale,
            ahead=OPENING_AHEAD,
            took=self._clock() - begun,
            drawn=self._draw(),
        )
        return OpenedKey(key, wanted.what, wanted.recipients, lease)

    def _kept(self, wanted: _Wanted, key: OpenedKey, era: int) -> OpenedKey:
        with self._lock:
            if era != self._era:
                key.expires = 0.0  # it opens the message that it was fetched for, no more
                return key
            _put(self._proven, wanted.what, None, self._limits.max_keys)
            known = self._keys.get(wanted.place)
            if known is not None:  # of one commitment, so the same key
                known.what, known.recipients, known.lease = key.what, key.recipients, key.lease
                known.expires = key.expires
                return known
            while len(self._keys) >= self._limits.max_keys:
                oldest = min(self._keys, key=lambda place: self._keys[place].used)
                self._keys.pop(oldest).expires = 0.0
            self._keys[wanted.place] = key
            return key

    def _note_failure(self, wanted: _Wanted, error: PostsealError, era: int) -> None:
        """Remember that these recipients do not open, and drop the data key that came from the very same."""
        failure = copy_of(error)
        with self._lock:
            if era != self._era:
                return
            known = self._keys.get(wanted.place)
            if known is not None and known.what == wanted.what:
                del self._keys[wanted.place]
                known.expires = 0.0
            self._proven.pop(wanted.what, None)
            _put(self._failures, wanted.what, (self._clock() + NEGATIVE_AGE, failure), self._limits.max_keys)


def _put(things: dict[object, _T], what: object, thing: _T, most: int) -> None:
    """Put *thing* behind all others; the foremost go where there are more than *most*."""
    things.pop(what, None)
    while len(things) >= most:
        del things[next(iter(things))]
    things[what] = thing


def _name(destination: str, commitment: bytes, recipients_bytes: bytes) -> object:
    return destination, commitment, sha256(recipients_bytes)


def _wanted(
    destination: str, commitment: bytes, recipients: Sequence[Recipient], recipients_bytes: bytes
) -> _Wanted:
    return _Wanted(destination, commitment, recipients, _name(destination, commitment, recipients_bytes))
