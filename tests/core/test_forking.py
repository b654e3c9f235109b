"""A forked child takes over no data key and no lock, and waits for no call of its parent."""

from __future__ import annotations

import gc
import os
import signal
import threading
import warnings
from collections.abc import Callable

import pytest

from postseal.core import DataKeyLimits, OpeningLimits, Policy, Sealer
from postseal.core.datakeys import OpeningKeys, SealingKeys
from postseal.core.datakeys.flights import MAX_CALLS
from postseal.core.forking import ForkSafeLock, _living
from tests.core.stand_ins import CONTEXT, PATIENCE, Clock, Message, WatchedKeys, in_threads

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")


def in_child(call: Callable[[], object]) -> str:
    """Fork, make the call in the child, and return the `repr` of what it returned or raised."""
    readable, writable = os.pipe()
    with warnings.catch_warnings():
        # Python 3.12 and later warn of what these tests are about.
        warnings.filterwarnings("ignore", "This process .* is multi-threaded", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        try:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(PATIENCE)
            try:
                told = repr(call())
            except BaseException as error:  # noqa: BLE001 - told to the test
                told = repr(error)
            os.write(writable, told.encode())
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        told = pipe.read().decode()
    _, status = os.waitpid(pid, 0)
    assert status == 0, f"the child hung or died: {status}"
    return told


class Held:
    """A lock held by another thread for as long as the block lasts."""

    def __init__(self, lock) -> None:
        self._lock = lock
        self._holds, self._let_go = threading.Event(), threading.Event()
        self._thread = threading.Thread(target=self._hold, daemon=True)

    def _hold(self) -> None:
        with self._lock:
            self._holds.set()
            self._let_go.wait(PATIENCE)

    def __enter__(self) -> None:
        self._thread.start()
        assert self._holds.wait(PATIENCE)

    def __exit__(self, *_) -> None:
        self._let_go.set()
        self._thread.join(PATIENCE)


@pytest.fixture
def provider() -> WatchedKeys:
    return WatchedKeys()


@pytest.fixture(params=["seal", "open"])
def asked(request, provider):
    """A cache, and how to ask it."""
    if request.param == "seal":
        keys = SealingKeys(provider, CONTEXT, DataKeyLimits())
        return keys, lambda: keys.take(1)
    message = Message(provider.inner)
    keys = OpeningKeys(provider, CONTEXT.policy, OpeningLimits())
    return keys, lambda: message.fetch(keys)


def test_a_child_begins_with_no_data_key(asked, provider):
    _, ask = asked
    ask()

    def child():
        ask()
        ask()
        return provider.calls

    assert in_child(child) == "2"  # the parent's call, and one of its own
    ask()
    assert provider.calls == 1


def test_a_key_that_somebody_still_holds_opens_nothing_in_the_child(provider):
    message = Message(provider.inner)
    keys = OpeningKeys(provider, CONTEXT.policy, OpeningLimits())
    held = message.fetch(keys)
    assert in_child(lambda: held.expires) == "0.0"
    assert held.expires > 0


def test_a_child_does_not_wait_for_a_call_of_its_parent(asked, provider):
    _, ask = asked
    provider.gate.clear()
    caller = threading.Thread(target=ask, daemon=True)
    caller.start()
    assert provider.called.wait(PATIENCE)

    def child():
        provider.gate.set()
        ask()
        return provider.calls

    assert in_child(child) == "2"
    provider.gate.set()
    caller.join(PATIENCE)
    assert provider.calls == 1


def test_a_child_does_not_wait_for_what_its_parent_asked_ahead_of_time(provider):
    """Nor for a place among the calls at once, whoever had them all."""
    clock = Clock()
    message = Message(provider.inner)
    for keys, ask in (
        (
            opens := OpeningKeys(provider, "orders", OpeningLimits(), clock=clock),
            lambda: message.fetch(opens),
        ),
        (seals := SealingKeys(provider, CONTEXT, DataKeyLimits(), clock=clock), lambda: seals.take(1)),
    ):
        ask()
        provider.gate.clear()
        clock.pass_(599 if keys is seals else 299)
        ask()
        for _ in range(MAX_CALLS):
            keys._flights._places.acquire(blocking=False)

        def child():
            provider.gate.set()
            ask()  # noqa: B023 - called in this turn
            return keys.states()  # noqa: B023

        assert in_child(child) == "['fresh']"
        provider.gate.set()


@pytest.mark.parametrize("which", ["_lock", "_flights._lock"])
def test_a_child_does_not_wait_for_a_lock_of_its_parent(asked, provider, which):
    keys, ask = asked
    holder = keys._flights if "flights" in which else keys
    with Held(holder._lock):
        assert in_child(lambda: (ask(), keys.drop(), ask(), provider.calls)[-1]) == "2"


def test_a_sealer_seals_opens_and_closes_in_a_child_whoever_held_its_lock(provider):
    policy = Policy(name="orders", destinations=["kafka:*"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": provider})
    envelope = sealer.seal(b"before", destination="kafka:orders")

    def child():
        opened = sealer.open(envelope, destination="kafka:orders").body
        other = sealer.seal(b"after", destination="kafka:others")
        sealer.close()
        return opened, sealer.open(other, destination="kafka:others").body

    with Held(sealer._lock):
        assert in_child(child) == repr((b"before", b"after"))


def test_a_refused_message_is_audited_in_a_child_whoever_held_the_lock(provider):
    """E6: one event for it, as ever."""
    told = []
    policy = Policy(name="orders", destinations=["kafka:*"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": provider}, on_audit=told.append)

    def child():
        with pytest.raises(Exception, match="unprotected"):
            sealer.open(b"clear", destination="kafka:orders")
        return len(told)

    with Held(sealer.auditor._lock):
        assert in_child(child) == "1"


def test_parent_and_child_seal_with_different_keys(provider):
    keys = SealingKeys(provider, CONTEXT, DataKeyLimits())
    ours = keys.take(1).key.commitment
    theirs = in_child(lambda: keys.take(1).key.commitment)
    assert theirs != repr(ours)
    assert keys.take(1).key.commitment == ours


def test_a_lock_is_free_in_a_child_and_still_excludes_there():
    lock = ForkSafeLock()

    def child():
        counted = []

        def count():
            for _ in range(100):
                with lock:
                    seen = len(counted)
                    counted.append(seen)

        in_threads(*[count] * 8)
        return counted == list(range(800))

    with Held(lock):
        assert in_child(child) == "True"


def test_nothing_of_what_is_gone_stays_to_be_called_in_a_child(provider):
    """Else a process that makes sealers or destinations without end would grow without end."""
    gc.collect()
    before = len(_living)
    for _ in range(100):
        SealingKeys(provider, CONTEXT, DataKeyLimits())
        OpeningKeys(provider, CONTEXT.policy, OpeningLimits())
    gc.collect()
    assert len(_living) == before
