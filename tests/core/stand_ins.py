"""What the tests of keys put in the place of time, threads and a key service."""

from __future__ import annotations

import asyncio
import base64
import itertools
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Sequence
from typing import Any

from postseal.core import UnsafeLocalKeys, UnsafeLocalKeysWarning
from postseal.core.crypto import MessageKey
from postseal.core.datakeys import OpeningKeys, SealingKeys
from postseal.core.keys import KeyContext, KeyProvider, NewDataKey, Recipient
from postseal.core.wire import encode_recipients

CONTEXT = KeyContext("orders", "kafka:orders")
PATIENCE = 60
"""Seconds after which something that should have happened is given up. No test waits for it to pass."""


class Clock:
    """A monotonic clock that moves when told to."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now

    def pass_(self, seconds: float) -> None:
        self.now += seconds


def local_keys(key_id: str = "test") -> UnsafeLocalKeys:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UnsafeLocalKeysWarning)
        return UnsafeLocalKeys.ephemeral(key_id)


class WatchedKeys:
    """A key provider that counts its calls, raises `failing` where that is set, and waits for `gate` where that is closed."""

    def __init__(self, inner: KeyProvider | None = None) -> None:
        self.inner = inner or local_keys()
        self.failing: BaseException | None = None
        self.gate = threading.Event()
        self.gate.set()
        self.called = threading.Event()
        """Set as soon as a call has begun."""
        self.made: list[bytes] = []
        """Every data key, in clear."""
        self.unwraps: list[Sequence[Recipient]] = []
        self.most_at_once = 0
        self._now = 0
        self._lock = threading.Lock()

    @property
    def calls(self) -> int:
        return len(self.made) + len(self.unwraps)

    def generate(self, context: KeyContext) -> NewDataKey:
        made = self.inner.generate(context)
        with self._lock:
            self.made.append(made.data_key)
        self._wait()
        return made

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        return self.inner.wrap(data_key, context)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        with self._lock:
            self.unwraps.append(recipients)
        self._wait()
        return self.inner.unwrap(recipients, context)

    def _wait(self) -> None:
        with self._lock:
            self._now += 1
            self.most_at_once = max(self.most_at_once, self._now)
        self.called.set()
        try:
            assert self.gate.wait(PATIENCE), "nobody opened the gate"
            if self.failing is not None:
                raise self.failing
        finally:
            with self._lock:
                self._now -= 1


def open_gate_when_joined(
    keys: SealingKeys | OpeningKeys, provider: WatchedKeys, count: int, monkeypatch: Any
) -> None:
    """Close the provider's gate until *count* threads and tasks have asked for a data key: by number, not by time."""
    provider.gate.clear()
    joined = 0
    lock = threading.Lock()
    join = keys._flights._join

    def counted(what):
        nonlocal joined
        flight = join(what)
        with lock:
            joined += 1
            if joined == count:
                provider.gate.set()
        return flight

    monkeypatch.setattr(keys._flights, "_join", counted)


def join_threads(name: str) -> None:
    """Wait for the threads of that *name*: each ends when it has nothing left to do."""
    for thread in threading.enumerate():
        if thread.name == name:
            thread.join(PATIENCE)


def in_threads(*calls: Callable[[], Any]) -> list[Any]:
    """Make each call in a thread of its own. Return what each returned or raised."""
    outcomes: list[Any] = [None] * len(calls)

    def run(index: int) -> None:
        try:
            outcomes[index] = calls[index]()
        except BaseException as error:  # noqa: BLE001 - told to the test
            outcomes[index] = error

    threads = [threading.Thread(target=run, args=(index,), daemon=True) for index in range(len(calls))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(PATIENCE)
        assert not thread.is_alive(), "a thread hangs"
    return outcomes


def in_tasks(*calls: Callable[[], Any]) -> list[Any]:
    """Await each call in a task of its own. Return what each returned or raised."""

    async def run() -> list[Any]:
        return await asyncio.gather(*(call() for call in calls), return_exceptions=True)

    return asyncio.run(run())


def flat(lists: Iterable[list[Any]]) -> list[Any]:
    return list(itertools.chain.from_iterable(lists))


async def until(so: Callable[[], bool]) -> None:
    """Let the loop turn until something is so that another thread does."""
    while not so():  # noqa: ASYNC110 - no asyncio.Event can be set from a thread
        await asyncio.sleep(0)


class Message:
    """A data key wrapped by *provider*, and all that an envelope says of it."""

    def __init__(self, provider: KeyProvider, context: KeyContext = CONTEXT) -> None:
        made = provider.generate(context)
        self.data_key = made.data_key
        self.destination = context.destination
        self.commitment = MessageKey(made.data_key).commitment
        self.recipients = made.recipients

    def forged(self, *recipients: Recipient) -> Message:
        """Return a message that names the same data key and carries other recipients."""
        other = object.__new__(Message)
        other.__dict__.update(self.__dict__)
        other.recipients = recipients
        return other

    def _asked(self) -> tuple[str, bytes, Sequence[Recipient], bytes]:
        return self.destination, self.commitment, self.recipients, encode_recipients(self.recipients)

    def fetch(self, keys: OpeningKeys) -> Any:
        return keys.fetch(*self._asked())

    async def fetch_async(self, keys: OpeningKeys) -> Any:
        return await keys.fetch_async(*self._asked())


def broken(recipient: Recipient) -> Recipient:
    """Flip the last bit of the wrapped key."""
    wrapped = recipient.wrapped_key
    return recipient._replace(wrapped_key=wrapped[:-1] + bytes([wrapped[-1] ^ 1]))


def forms_of(key: bytes) -> list[str]:
    """What a data key looks like in a text: raw, escaped, hex, base64."""
    return [
        key.decode("latin-1"),
        repr(key)[2:-1],
        key.hex(),
        base64.b64encode(key).decode().rstrip("="),
        base64.urlsafe_b64encode(key).decode().rstrip("="),
        str(list(key)),
    ]


def shown_by_tracebacks(error: BaseException) -> str:
    """What an error reporter prints that shows the locals of every frame, but for the tests' own."""
    told = traceback.TracebackException.from_exception(error, capture_locals=True)
    parts = [told]
    while parts[-1].__cause__ or parts[-1].__context__:
        parts.append(parts[-1].__cause__ or parts[-1].__context__)
    frames = [frame for part in parts for frame in part.stack if "/tests/" not in frame.filename]
    return "".join(f"{name}={value}" for frame in frames for name, value in (frame.locals or {}).items())
