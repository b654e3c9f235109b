"""Data keys that are asked for again before they end: no message waits, and what the key service says then holds at once."""

from __future__ import annotations

import asyncio
import threading
from functools import partial

import pytest

from postseal.core import DataKeyLimits, KeyRefused, KeyUnavailable, OpeningLimits
from postseal.core.crypto import MessageKey
from postseal.core.datakeys import Flights, OpeningKeys, SealingKeys
from postseal.core.datakeys import opening as opening_room
from postseal.core.datakeys import sealing as sealing_room
from postseal.core.datakeys.flights import MAX_CALLS
from postseal.core.datakeys.leases import (
    AWAY_FOR,
    OPENING_AHEAD,
    RETRY_AFTER,
    SEALING_AHEAD,
    SLOW,
    Lease,
    jitter,
)
from postseal.core.keys import KeyContext
from tests.core.kit import HERE, Party, policy
from tests.core.stand_ins import CONTEXT, PATIENCE, Clock, Message, WatchedKeys, flat, in_tasks, in_threads

AGE = 1000
DUE = 981
"""Seconds after which any data key is due, and none has ended."""


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> WatchedKeys:
    return WatchedKeys()


def sealing(provider, clock, **limits) -> SealingKeys:
    return SealingKeys(
        provider, CONTEXT, DataKeyLimits(**{"max_age": AGE, "max_stale": 0, **limits}), clock=clock
    )


def opening(provider, clock, **limits) -> OpeningKeys:
    limits = OpeningLimits(**{"max_age": AGE, "max_stale": 0, **limits})
    return OpeningKeys(provider, CONTEXT.policy, limits, clock=clock)


@pytest.fixture(params=["seal", "open"])
def asked(request, provider, clock):
    """A cache that holds a key, and how a thread and a task ask it."""

    def make(**limits):
        if request.param == "seal":
            keys = sealing(provider, clock, **limits)
            thread, task = partial(keys.take, 1), partial(keys.take_async, 1)
        else:
            message, keys = Message(provider.inner), opening(provider, clock, **limits)
            thread, task = partial(message.fetch, keys), partial(message.fetch_async, keys)
        thread()
        return keys, thread, task

    return make


def landed(keys: SealingKeys | OpeningKeys) -> None:
    """Wait for what was asked ahead of time."""
    for thread in threading.enumerate():
        if thread.name == "postseal-data-key":
            thread.join(PATIENCE)
    assert not keys._flights._flights


# -- no message waits ----------------------------------------------------------------------------------------------------


def test_no_message_waits_at_the_end_of_a_key_that_is_in_use(asked, provider, clock):
    """The gate is closed whenever a message asks: it would wait for ever."""
    keys, ask, _ = asked()
    for _ in range(5):
        provider.gate.clear()
        clock.pass_(DUE)
        ask()
        provider.gate.set()
        landed(keys)
    provider.gate.clear()
    clock.pass_(AGE - DUE)
    ask()
    assert provider.calls == 6
    assert set(keys.states()) == {"fresh"}


def test_no_task_waits_either_nor_yields(asked, provider, clock):
    keys, _, ask = asked()
    provider.gate.clear()
    clock.pass_(DUE)
    with pytest.raises(StopIteration):
        ask().send(None)
    provider.gate.set()
    landed(keys)
    provider.gate.clear()
    clock.pass_(AGE - DUE)
    with pytest.raises(StopIteration):
        ask().send(None)
    provider.gate.set()
    assert provider.calls == 2


def test_64_threads_and_1000_tasks_at_a_key_that_is_due_make_one_call(asked, provider, clock):
    keys, ask, ask_async = asked()
    provider.gate.clear()
    clock.pass_(DUE)
    got = in_threads(*[ask] * 64, lambda: in_tasks(*[ask_async] * 1000))
    assert len({id(key) for key in [*got[:-1], *got[-1]]}) == 1
    provider.gate.set()
    landed(keys)
    assert provider.calls == 2


def test_an_opened_key_goes_on_as_the_same_object(provider, clock):
    """So that what was learnt of its messages holds."""
    message, keys = Message(provider.inner), opening(provider, clock)
    first = message.fetch(keys)
    clock.pass_(DUE)
    message.fetch(keys)
    landed(keys)
    clock.pass_(DUE)
    assert message.fetch(keys) is first


@pytest.mark.usefixtures("way", "asks_at_once")
def test_the_short_way_of_a_data_key_lives_as_long_as_it_is_renewed():
    one = Party(policy(opening=OpeningLimits(max_age=AGE)))
    envelope = one.seal(b"body", destination=HERE)
    one.open(envelope, destination=HERE)
    way = one.sealer._incoming[HERE]
    (learnt,) = way.learnt.values()
    for _ in range(5):
        one.clock.ms += DUE * 1000
        one.open(envelope, destination=HERE)
    assert one.keys.unwrapped == 6
    assert way.quick(envelope) is not None
    assert len(way.learnt) == 1
    del learnt


def test_a_producer_goes_over_to_the_new_key_at_once_and_not_at_the_end(provider, clock):
    """So that consumers do not ask again for the old one: they find theirs due a little later than producers do."""
    keys = sealing(provider, clock)
    old = keys.take(1)
    clock.pass_(DUE)
    assert keys.take(1) is old
    landed(keys)
    assert keys.take(1) is not old
    assert max(OPENING_AHEAD) <= min(SEALING_AHEAD)


def test_producers_that_began_at_once_do_not_ask_at_once():
    dues = [
        Lease(0, AGE, 0, ahead=SEALING_AHEAD, drawn=drawn).due
        for drawn in (0.0, 1.0, *(jitter() for _ in range(100)))
    ]
    assert (max(dues), min(dues)) == (dues[0], dues[1]) == (960, 930)
    assert len(set(dues)) > 50


def test_a_slow_key_service_is_asked_twice_as_long_before():
    assert Lease(0, 10, 0, ahead=OPENING_AHEAD, took=2).due == 6
    assert Lease(0, 10, 0, ahead=OPENING_AHEAD, took=20).due == 5


def test_a_key_out_of_use_costs_no_call(asked, provider, clock):
    asked()
    clock.pass_(10 * AGE)
    assert provider.calls == 1
    assert not [thread for thread in threading.enumerate() if thread.name == "postseal-data-key"]


# -- by number -----------------------------------------------------------------------------------------------------------


def test_no_message_waits_when_the_messages_of_a_data_key_are_used_up(provider, clock):
    keys = sealing(provider, clock, max_messages=100)
    keys.take(1)
    for turn in range(5):
        provider.gate.clear()
        used = {keys.take(1).key.commitment for _ in range(100 if turn else 99)}
        assert len(used) == 1
        provider.gate.set()
        landed(keys)
    assert provider.calls == 6


def test_no_message_waits_when_the_bytes_of_a_data_key_are_used_up(provider, clock):
    keys = sealing(provider, clock, max_bytes=2**20 * 10, max_messages=2**20)
    keys.take(2**20)
    provider.gate.clear()
    assert len({keys.take(2**20).key.commitment for _ in range(9)}) == 1
    provider.gate.set()
    landed(keys)
    provider.gate.clear()
    keys.take(2**20)
    provider.gate.set()
    assert provider.calls == 2


def test_a_data_key_that_is_used_slowly_has_its_successor_made_late(provider, clock):
    """Made at half, it would be old when its turn comes. At this pace half of it lasts for 500 seconds."""
    keys = sealing(provider, clock, max_messages=1000, max_age=2000)
    for _ in range(700):
        keys.take(1)
        clock.pass_(1)
    landed(keys)
    assert provider.calls == 1
    for _ in range(299):
        keys.take(1)
        clock.pass_(1)
    landed(keys)
    assert provider.calls == 2


# -- what the service says ------------------------------------------------------------------------------------------------


def test_a_key_that_is_refused_ahead_of_time_serves_no_longer(asked, provider, clock):
    """A13: within the window, and not at its end."""
    keys, ask, _ = asked(max_stale=AGE)
    held = ask()
    provider.failing = KeyRefused("disabled")
    clock.pass_(DUE)
    ask()
    landed(keys)
    assert held.expires == 0
    with pytest.raises(KeyRefused, match="disabled"):
        ask()
    assert keys.states() == []


def test_a_service_that_is_away_is_asked_now_and_then_and_no_message_waits(asked, provider, clock):
    """B14: the old key serves to its end and past it, for as long as it may; the gate shows that nobody waits."""
    keys, ask, _ = asked(max_stale=600)
    provider.failing = KeyUnavailable("away")
    clock.pass_(DUE)
    while clock.now < 1000 + AGE + 590:
        provider.gate.clear()
        for _ in range(20):
            ask()
        provider.gate.set()
        landed(keys)
        clock.pass_(RETRY_AFTER)
    assert provider.calls == pytest.approx(1 + (AGE - DUE + 590) / RETRY_AFTER, abs=3)
    assert keys.states() == ["stale"]
    provider.failing = None
    ask()
    landed(keys)
    assert set(keys.states()) == {"fresh"}


def test_a_call_without_an_answer_holds_up_nobody_past_the_end(asked, provider, clock):
    """A black hole: what was asked ahead hangs. After SLOW seconds that counts as no answer."""
    keys, ask, _ = asked(max_stale=600)
    provider.gate.clear()
    clock.pass_(DUE)
    ask()
    assert AGE - DUE >= SLOW
    clock.pass_(AGE - DUE)
    for _ in range(100):
        ask()
        clock.pass_(1)
    assert keys.states() == ["stale"]
    provider.failing = KeyRefused("disabled, said at last")
    provider.gate.set()
    landed(keys)
    assert keys.states() == []
    assert provider.calls == 2


def test_a_message_waits_for_a_call_without_an_answer_no_longer_than_it_must(
    asked, provider, clock, monkeypatch
):
    """After a pause: it has the service asked, and after SLOW seconds the old key serves, stale; in threads and tasks."""
    for module in (sealing_room, opening_room):
        monkeypatch.setattr(module, "SLOW", 0.01)
    keys, ask, ask_async = asked(max_stale=600)
    provider.gate.clear()
    clock.pass_(AGE)
    assert isinstance(ask().key, MessageKey)
    clock.pass_(AWAY_FOR)
    assert isinstance(asyncio.run(ask_async()).key, MessageKey)
    provider.gate.set()
    landed(keys)
    assert provider.calls == 2


def test_without_a_stale_time_messages_wait_for_a_call_without_an_answer(asked, provider, clock):
    keys, ask, _ = asked()
    provider.gate.clear()
    clock.pass_(DUE)
    ask()
    clock.pass_(AGE)
    waiting = threading.Thread(target=ask, daemon=True)
    waiting.start()
    waiting.join(0.05)
    assert waiting.is_alive()
    provider.gate.set()
    waiting.join(PATIENCE)
    assert not waiting.is_alive()
    landed(keys)


def test_after_a_pause_the_service_is_asked_before_a_stale_key_serves(asked, provider, clock):
    """That it was away a while ago says nothing: it may have been told to refuse."""
    keys, ask, _ = asked(max_stale=600)
    provider.failing = KeyUnavailable("away")
    clock.pass_(DUE)
    ask()
    landed(keys)
    provider.failing = KeyRefused("disabled")
    clock.pass_(AGE - DUE + AWAY_FOR)
    with pytest.raises(KeyRefused):
        ask()


def test_a_bug_of_a_provider_found_ahead_of_time_shows_at_the_end(asked, provider, clock):
    keys, ask, _ = asked()
    provider.failing = ZeroDivisionError("a bug")
    clock.pass_(DUE)
    ask()
    landed(keys)
    clock.pass_(AGE - DUE)
    with pytest.raises(ZeroDivisionError):
        ask()


def test_where_no_thread_can_be_had_the_key_serves_to_its_end(asked, provider, clock, monkeypatch):
    def refuse(thread):
        raise RuntimeError("can't start new thread")

    keys, ask, _ = asked()
    clock.pass_(DUE)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        assert isinstance(ask().key, MessageKey)
    clock.pass_(RETRY_AFTER)
    ask()
    landed(keys)
    assert provider.calls == 2


# -- what ends -----------------------------------------------------------------------------------------------------------


def test_what_was_asked_ahead_is_not_kept_when_all_was_dropped(asked, provider, clock):
    keys, ask, _ = asked()
    provider.gate.clear()
    clock.pass_(DUE)
    ask()
    keys.drop()
    provider.gate.set()
    landed(keys)
    assert keys.states() == []


def test_the_thread_that_asked_ends_with_its_call(asked, provider, clock):
    keys, ask, _ = asked()
    clock.pass_(DUE)
    ask()
    landed(keys)
    assert not [thread for thread in threading.enumerate() if thread.name == "postseal-data-key"]


def test_purge_forgets_everything_that_key_services_said():
    """A13: what to do when a right was taken back: the next message asks anew."""
    one = Party(policy())
    forgotten = []
    one.keys.forget = lambda: forgotten.append(True)
    envelope = one.seal(b"body", destination=HERE)
    one.open(envelope, destination=HERE)
    one.sealer.purge()
    assert forgotten == [True]
    assert one.sealer.data_keys_at_hand == {"sealing": 0, "opening": 0}
    one.keys.fail = KeyRefused("disabled")
    for verb in (lambda: one.seal(b"body", destination=HERE), lambda: one.open(envelope, destination=HERE)):
        with pytest.raises(Exception, match=r"disabled|unknown-key"):
            verb()


# -- at once -------------------------------------------------------------------------------------------------------------


def test_calls_for_different_keys_are_bounded_over_all_caches_of_a_key_service(provider, clock):
    """Threads and tasks, to seal and to open: however many data keys are wanted at once."""
    flights = Flights(clock)
    seals = [
        SealingKeys(
            provider,
            KeyContext("orders", f"kafka:{number}"),
            DataKeyLimits(),
            clock=clock,
            flights=flights,
        )
        for number in range(60)
    ]
    opens = OpeningKeys(provider, CONTEXT.policy, OpeningLimits(), clock=clock, flights=flights)
    messages = [Message(provider.inner) for _ in range(60)]
    provider.gate.clear()

    async def tasks():
        asking = [asyncio.ensure_future(keys.take_async(1)) for keys in seals[30:]]
        asking += [asyncio.ensure_future(message.fetch_async(opens)) for message in messages[30:]]
        while provider.calls < MAX_CALLS:  # noqa: ASYNC110 - no asyncio.Event can be set from a thread
            await asyncio.sleep(0)
        provider.gate.set()
        return await asyncio.gather(*asking)

    got = in_threads(
        *(partial(keys.take, 1) for keys in seals[:30]),
        *(partial(message.fetch, opens) for message in messages[:30]),
        lambda: asyncio.run(tasks()),
    )
    assert len(flat([got[:-1], got[-1]])) == 120
    assert all(isinstance(key.key, MessageKey) for key in flat([got[:-1], got[-1]]))
    assert provider.calls == 120
    assert provider.most_at_once == MAX_CALLS
