"""Data keys by reference: what all messages of a data key have in common is published once, and each message names it in 16 bytes.

A producer goes on sending whole envelopes until its record is confirmed to be published, so no message waits for a store, and none names
what is not there. A consumer looks a record up once, and keeps it.

Source: SPEC.md 3.6.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable
from functools import partial
from typing import Final

from postseal.core.datakeys import Write
from postseal.core.errors import ConfigError, Refused, Verdict
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import ReferenceStore
from postseal.core.shortening import Record, is_short, read_short
from postseal.core.signing import Ask
from postseal.core.wire import decode

__all__ = ["References", "is_short"]

MAX_RECORDS: Final = 1024
"""Records kept; as many as data keys are (`OpeningLimits.max_keys`)."""
MAX_MISSING: Final = 4096
MISSING_AGE: Final = 2.0
"""Seconds for which a record that is not there is not asked for again."""
TRY_AGAIN: Final = 5.0
"""Seconds after which a record that could not be published is tried again."""


class _Publication:
    """A record on its way to the store."""

    __slots__ = ("next_try", "ready", "record")

    def __init__(self, record: Record) -> None:
        self.record = record
        self.ready = False
        self.next_try = 0.0
        """On the monotonic clock."""


class References:
    """The records of one sealer: those that it publishes, and those that it looked up.

    Args:
        store: Where they are.
        clock: Monotonic, in seconds.

    Raises:
        ConfigError: *store* is none.
    """

    def __init__(self, store: ReferenceStore, *, clock: Callable[[], float] = time.monotonic) -> None:
        if not isinstance(store, ReferenceStore):
            raise ConfigError(
                f"references must be a store, such as SqliteReferences(path), not {type(store).__name__}"
            )
        self._store = store
        self._clock = clock
        self._records: dict[bytes, Record] = {}
        self._missing: dict[bytes, float] = {}
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Forget what is being published: a forked child has no thread that does it. What was looked up stays; it is no secret."""
        self._lock = threading.Lock()
        self._queue: deque[_Publication] = deque()
        self._works = False

    # -- the producer's side ---------------------------------------------------------------------------------------

    def shortening(self, write: Write) -> Write:
        """Return a function that does as *write* does, and shortens what it gave, from when the record of the first is published."""
        publication: _Publication | None = None

        def write_short(body: bytes, external: bytes, expires: int | None, counted: bool) -> bytes:
            nonlocal publication
            envelope = write(body, external, expires, counted)
            if publication is None:
                if not envelope:
                    return envelope
                publication = _Publication(Record(decode(envelope)))
            if publication.ready:
                return publication.record.shorten(envelope) if envelope else envelope
            self._announce(publication)
            return envelope

        return write_short

    def _announce(self, publication: _Publication) -> None:
        """Have *publication* published by the thread that does, if it is due."""
        if self._clock() < publication.next_try:
            return
        with self._lock:
            if publication.ready or self._clock() < publication.next_try:
                return
            publication.next_try = float("inf")  # by who publishes
            self._queue.append(publication)
            if self._works:
                return
            self._works = True
        try:
            threading.Thread(target=self._work, name="postseal-references", daemon=True).start()
        except RuntimeError:  # the system has no more threads for us
            with self._lock:
                self._works = False
                self._queue.clear()
            publication.next_try = self._clock() + TRY_AGAIN

    def _work(self) -> None:
        while True:
            with self._lock:
                if not self._queue:
                    self._works = False
                    return
                publication = self._queue.popleft()
            self._publish(publication)

    def _publish(self, publication: _Publication) -> None:
        record = publication.record
        try:
            self._store.put(record.reference, record.data)
        except Exception:  # noqa: BLE001 - whatever it is, envelopes go out whole, as before
            publication.next_try = self._clock() + TRY_AGAIN
        else:
            self._keep(record)
            publication.ready = True

    # -- the consumer's side ---------------------------------------------------------------------------------------

    def whole(self, data: bytes) -> bytes:
        """Return the whole envelope of *data*, which is in the short form.

        Raises:
            Ask: Its record has to be looked up.
            Refused: *malformed*, or *unknown-key*: no such record was published.
        """
        short = read_short(data)
        record = self._records.get(short.reference)
        if record is not None:
            return record.whole(short)
        until = self._missing.get(short.reference)
        if until is not None and self._clock() < until:
            raise _unknown()
        raise Ask(("reference", short.reference), partial(self._look_up, short.reference))

    def known(self, data: bytes) -> bytes:
        """Return the whole envelope of *data* where its record is at hand; else *data*."""
        try:
            return self.whole(data) if is_short(data) else data
        except (Ask, Refused):
            return data

    def fetch(self, data: bytes) -> bytes:
        """Return the whole envelope of *data*, asking the store where it must be asked: for tools.

        Raises:
            Refused: As `whole`.
            KeyUnavailable: The store did not answer.
            KeyRefused: It said no.
        """
        try:
            return self.whole(data)
        except Ask as ask:
            ask.call()
            return self.whole(data)

    def _look_up(self, reference: bytes) -> None:
        if reference in self._records:
            return  # by the call that ended between our look and ours
        data = self._store.get(reference)
        if data is None:
            self._note_missing(reference)
            raise _unknown()
        self._keep(Record.read(data, reference))

    def _keep(self, record: Record) -> None:
        with self._lock:
            while len(self._records) >= MAX_RECORDS:
                del self._records[next(iter(self._records))]
            self._records[record.reference] = record

    def _note_missing(self, reference: bytes) -> None:
        with self._lock:
            self._missing.pop(reference, None)
            while len(self._missing) >= MAX_MISSING:
                del self._missing[next(iter(self._missing))]
            self._missing[reference] = self._clock() + MISSING_AGE


def _unknown() -> Refused:
    return Refused(Verdict.UNKNOWN_KEY, "no record was published under its reference")
