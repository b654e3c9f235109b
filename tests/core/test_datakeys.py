"""The caches of data keys: exact caps, one call however many ask, and what happens when the key service is slow, away or says no."""

from __future__ import annotations

import asyncio
import gc
import logging
import pickle
import threading
import traceback
import weakref
from collections import Counter
from functools import partial

import pytest

from postseal.core import ConfigError, DataKeyLimits, KeyRefused, KeyUnavailable, OpeningLimits, TooLarge
from postseal.core.crypto import MessageKey
from postseal.core.datakeys import OpeningKeys, SealingKeys
from postseal.core.datakeys.flights import MAX_CALLS
from postseal.core.datakeys.leases import RETRY_AFTER
from postseal.core.datakeys.opening import NEGATIVE_AGE
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from tests.core.stand_ins import (
    CONTEXT,
    PATIENCE,
    Clock,
    Message,
    WatchedKeys,
    broken,
    flat,
    forms_of,
    in_tasks,
    in_threads,
    local_keys,
    open_gate_when_joined,
    shown_by_tracebacks,
    until,
)

THREADS = 64
TASKS = 1000


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> WatchedKeys:
    return WatchedKeys()


def sealing(provider, clock, **limits) -> SealingKeys:
    return SealingKeys(provider, CONTEXT, DataKeyLimits(**limits), clock=clock)


def opening(provider, clock, **limits) -> OpeningKeys:
    return OpeningKeys(provider, CONTEXT.policy, OpeningLimits(**limits), clock=clock)


def take_many(keys: SealingKeys, count: int, size: int = 1) -> list[bytes]:
    return [keys.take(size).key.commitment for _ in range(count)]


# -- caps ------------------------------------------------------------------------------------------------------------


def test_a_data_key_seals_exactly_its_number_of_messages(provider, clock):
    """D4: 16 threads, 8,000 messages, 100 for each key: 80 calls, no key used more or less."""
    keys = sealing(provider, clock, max_messages=100)
    used = Counter(flat(in_threads(*[lambda: take_many(keys, 500)] * 16)))
    assert set(used.values()) == {100}
    assert provider.calls in (80, 81)  # the next one may have been made ahead of time


def test_a_thread_that_holds_the_last_permit_seals_with_its_key_though_another_was_made(provider, clock):
    """The caps are exact: no message of a data key goes unused because its successor came in between."""
    keys = sealing(provider, clock, max_messages=3)
    first, same = keys.take(1), keys.take(1)
    assert same is first
    assert first.permits == [None]
    held = first.permits.pop()  # where a thread is between its permit and its look at the clock
    assert keys.take(1) is not first
    assert clock() < first.expires
    first.permits.append(held)


def test_a_data_key_seals_exactly_its_number_of_bytes(provider, clock):
    keys = sealing(provider, clock, max_bytes=1000)
    used = Counter(flat(in_threads(*[lambda: take_many(keys, 500, size=10)] * 16)))
    assert set(used.values()) == {100}
    assert provider.calls in (80, 81)


def test_bodies_of_many_sizes_never_exceed_the_bytes_of_a_data_key(provider, clock):
    keys = sealing(provider, clock, max_bytes=100)

    def seal(first: int) -> list[tuple[bytes, int]]:
        return [(keys.take(size).key.commitment, size) for size in range(first, 100, 16)]

    used: Counter[bytes] = Counter()
    for commitment, size in flat(in_threads(*(partial(seal, first) for first in range(16)))):
        used[commitment] += size
    assert used.total() == sum(range(100))
    assert max(used.values()) <= 100
    assert provider.calls - len(used) in (0, 1)


def test_a_data_key_ends_at_exactly_its_age(provider, clock):
    keys = sealing(provider, clock, max_age=10, max_stale=0)
    first = set(flat(in_threads(*[lambda: take_many(keys, 50)] * 16)))
    provider.failing = KeyUnavailable("away")  # else it would be changed a little before
    clock.pass_(9.999)
    last = set(flat(in_threads(*[lambda: take_many(keys, 50)] * 16)))
    clock.pass_(0.001)
    assert {type(error) for error in in_threads(*[lambda: keys.take(1)] * 16)} == {KeyUnavailable}
    assert first == last
    assert len(first) == 1


def test_a_body_of_all_the_bytes_is_sealed_and_one_more_byte_is_too_large(provider, clock):
    keys = sealing(provider, clock, max_bytes=100)
    keys.take(100)
    with pytest.raises(TooLarge, match="101"):
        keys.take(101)
    with pytest.raises(TooLarge):
        asyncio.run(keys.take_async(101))
    assert provider.calls == 1


def test_an_empty_body_counts_as_a_message(provider, clock):
    keys = sealing(provider, clock, max_messages=2)
    assert len(set(take_many(keys, 4, size=0))) == 2


def test_one_message_for_each_key_makes_as_many_keys_as_messages(provider, clock):
    """A7: max_messages = 1."""
    keys = sealing(provider, clock, max_messages=1)
    commitments = flat(in_threads(*[lambda: take_many(keys, 10)] * 16))
    commitments += [key.key.commitment for key in in_tasks(*[partial(keys.take_async, 1)] * 40)]
    assert len(set(commitments)) == len(commitments) == 200
    assert provider.calls == 200


def test_every_call_serves_at_least_the_message_it_was_made_for(provider):
    """Else a key whose age is shorter than the way back would be asked for without end."""
    ticking = iter(range(10_000))
    keys = SealingKeys(provider, CONTEXT, DataKeyLimits(max_age=0.5), clock=lambda: float(next(ticking)))
    keys.take(1)
    asyncio.run(keys.take_async(1))
    assert provider.calls == 2


@pytest.mark.parametrize(
    "wrong",
    [{"max_age": 0}, {"max_messages": 0}, {"max_messages": 2**28 + 1}, {"max_bytes": -1}, {"max_bytes": 2**38 + 1}, {"max_stale": -1}, {"max_age": True}, {"max_age": float("nan")}, {"max_age": "10m"}],
    ids=str,
)  # fmt: skip
def test_limits_of_sealing_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=f"data_key.{next(iter(wrong))}"):
        DataKeyLimits(**wrong)


@pytest.mark.parametrize("wrong", [{"max_age": 0}, {"max_keys": 0}, {"max_stale": -1}], ids=str)
def test_limits_of_opening_out_of_range_are_named(wrong):
    with pytest.raises(ConfigError, match=f"opening.{next(iter(wrong))}"):
        OpeningLimits(**wrong)


def test_a_data_key_of_a_wrong_size_is_not_used(clock):
    class ShortKeys(WatchedKeys):
        def generate(self, context: KeyContext) -> NewDataKey:
            return super().generate(context)._replace(data_key=bytes(16))

    with pytest.raises(KeyRefused, match="size"):
        sealing(ShortKeys(), clock).take(1)


# -- one call, however many ask ----------------------------------------------------------------------------------------


@pytest.fixture(params=["seal", "open"])
def asked(request, provider, clock):
    """A cache, and how a thread and a task ask it: for a data key to seal with, for one to open with."""
    if request.param == "seal":
        keys = sealing(provider, clock, max_age=60, max_stale=0)
        return keys, partial(keys.take, 1), partial(keys.take_async, 1)
    message = Message(provider.inner)
    keys = opening(provider, clock, max_age=60, max_stale=0)
    return keys, partial(message.fetch, keys), partial(message.fetch_async, keys)


def test_64_threads_make_one_call_cold_and_one_at_expiry(asked, provider, clock, monkeypatch):
    keys, ask, _ = asked
    open_gate_when_joined(keys, provider, THREADS, monkeypatch)
    assert len({id(key.key) for key in in_threads(*[ask] * THREADS)}) == 1
    assert provider.calls == 1
    clock.pass_(60)
    open_gate_when_joined(keys, provider, THREADS, monkeypatch)
    assert len({id(key.key) for key in in_threads(*[ask] * THREADS)}) == 1
    assert provider.calls == 2


def test_1000_tasks_make_one_call_cold_and_one_at_expiry(asked, provider, clock, monkeypatch):
    keys, _, ask = asked
    open_gate_when_joined(keys, provider, TASKS, monkeypatch)
    assert len({id(key.key) for key in in_tasks(*[ask] * TASKS)}) == 1
    assert provider.calls == 1
    clock.pass_(60)
    open_gate_when_joined(keys, provider, TASKS, monkeypatch)
    assert len({id(key.key) for key in in_tasks(*[ask] * TASKS)}) == 1
    assert provider.calls == 2


def test_threads_and_tasks_of_several_loops_make_one_call(asked, provider, monkeypatch):
    keys, ask, ask_async = asked
    open_gate_when_joined(keys, provider, 32 + 4 * 50, monkeypatch)
    loops = [lambda: in_tasks(*[ask_async] * 50)] * 4
    outcomes = in_threads(*[ask] * 32, *loops)
    got = outcomes[:32] + flat(outcomes[32:])
    assert len(got) == 232
    assert len({id(key.key) for key in got}) == 1
    assert provider.calls == 1


def test_the_loop_goes_on_while_the_key_service_is_slow(asked, provider):
    """The gate opens only after 1,000 beats of another task: a blocked loop would never get there."""
    _, _, ask = asked
    provider.gate.clear()

    async def beat() -> int:
        beats = 0
        while beats < 1000:
            beats += 1
            await asyncio.sleep(0)
        provider.gate.set()
        return beats

    async def run():
        return await asyncio.gather(ask(), beat())

    key, beats = asyncio.run(run())
    assert isinstance(key.key, MessageKey)
    assert beats == 1000


def test_a_cached_key_is_had_without_yielding(asked):
    """What does not yield costs no turn of the loop."""
    _, ask, ask_async = asked
    ask()
    with pytest.raises(StopIteration):
        ask_async().send(None)


def test_a_cancelled_leader_leaves_the_call_to_the_others(asked, provider):
    _, _, ask = asked
    provider.gate.clear()

    async def run():
        leader = asyncio.ensure_future(ask())
        await until(provider.called.is_set)
        others = [asyncio.ensure_future(ask()) for _ in range(10)]
        await asyncio.sleep(0)
        leader.cancel()
        await asyncio.wait([leader])
        assert leader.cancelled()
        provider.gate.set()
        return await asyncio.gather(*others)

    assert len({id(key.key) for key in asyncio.run(run())}) == 1
    assert provider.calls == 1


def test_a_loop_that_ends_during_a_call_leaves_no_noise(asked, provider, caplog):
    """A program that stops while the key service is slow: nothing is logged when the call comes back."""
    _, _, ask_async = asked
    provider.gate.clear()

    async def run():
        task = asyncio.ensure_future(ask_async())
        await until(provider.called.is_set)
        task.cancel()

    asyncio.run(run())
    crew = [thread for thread in threading.enumerate() if thread.name == "postseal-data-key"]
    assert crew
    provider.gate.set()
    for thread in crew:
        thread.join(PATIENCE)
    gc.collect()
    assert not caplog.records


def test_all_who_wait_get_the_error_and_the_next_tries_again(asked, provider, monkeypatch):
    keys, ask, ask_async = asked
    provider.failing = KeyUnavailable("away")
    open_gate_when_joined(keys, provider, THREADS + 50, monkeypatch)
    outcomes = in_threads(*[ask] * THREADS, lambda: in_tasks(*[ask_async] * 50))
    errors = outcomes[:THREADS] + outcomes[THREADS]
    assert {(type(error), str(error)) for error in errors} == {(KeyUnavailable, "away")}
    # One object raised in many threads would mix their tracebacks, and keep alive what their frames hold.
    assert len({id(error) for error in errors}) == len(errors)
    assert provider.calls == 1
    provider.failing = None
    assert isinstance(ask().key, MessageKey)
    assert provider.calls == 2


def test_the_cause_of_an_error_reaches_all_who_wait(asked, provider, monkeypatch):
    keys, ask, _ = asked
    provider.failing = KeyUnavailable("away")
    provider.failing.__cause__ = cause = TimeoutError("the connection")
    open_gate_when_joined(keys, provider, 8, monkeypatch)
    assert {error.__cause__ for error in in_threads(*[ask] * 8)} == {cause}


def test_a_bug_of_the_provider_shows_as_what_it_is(asked, provider):
    _, ask, ask_async = asked
    provider.failing = ZeroDivisionError("a bug")
    with pytest.raises(ZeroDivisionError, match="a bug"):
        ask()
    with pytest.raises(ZeroDivisionError, match="a bug"):
        asyncio.run(ask_async())


def test_an_interrupt_strikes_only_the_thread_it_was_for(asked, provider, monkeypatch):
    """Ctrl-C in one thread must not end the others, or their event loops; for them it is a passing fault."""
    keys, ask, _ = asked
    provider.failing = KeyboardInterrupt()
    open_gate_when_joined(keys, provider, 8, monkeypatch)
    kinds = Counter(type(error) for error in in_threads(*[ask] * 8))
    assert kinds == {KeyboardInterrupt: 1, KeyUnavailable: 7}


@pytest.mark.parametrize("error", [StopIteration(), asyncio.CancelledError()], ids=repr)
def test_no_error_of_a_provider_makes_a_task_hang_or_seem_cancelled(asked, provider, error):
    _, _, ask = asked
    provider.failing = error

    async def run():
        task = asyncio.ensure_future(ask())
        await asyncio.wait([task], timeout=PATIENCE)
        return task.done(), task.cancelled()

    assert asyncio.run(run()) == (True, False)


def test_where_no_thread_can_be_had_nobody_waits_for_ever(asked, provider, monkeypatch):
    _, ask, ask_async = asked

    def refuse(thread):
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refuse)
        errors = in_tasks(ask_async, ask_async)
    assert [str(error) for error in errors] == [
        "no thread to ask the key service in: can't start new thread"
    ] * 2
    assert {type(error) for error in errors} == {KeyUnavailable}
    assert isinstance(ask().key, MessageKey)


def test_a_flood_of_different_wrapped_keys_makes_a_bounded_crew(provider, clock):
    """1,000 tasks that each need another data key do not make 1,000 threads and connections."""
    keys = opening(provider, clock)
    messages = [Message(provider.inner) for _ in range(200)]
    provider.gate.clear()

    async def run():
        tasks = [asyncio.ensure_future(message.fetch_async(keys)) for message in messages]
        await until(lambda: len(provider.unwraps) == MAX_CALLS)
        provider.gate.set()
        return await asyncio.gather(*tasks)

    opened = asyncio.run(run())
    assert [key.key.commitment for key in opened] == [message.commitment for message in messages]
    assert provider.most_at_once == MAX_CALLS
    assert provider.calls == 200


# -- when the key service is away or says no ---------------------------------------------------------------------------


@pytest.fixture
def served(asked, provider):
    """A cache that holds a key, its age being 60 seconds and its stale time as *stale* says."""

    def make(stale: float):
        keys, ask, _ = asked
        keys._limits = keys._limits.replace(max_stale=stale)
        ask()
        return keys, ask

    return make


def test_an_old_key_serves_while_the_service_is_away_and_no_longer_than_allowed(served, provider, clock):
    _, ask = served(stale=100)
    provider.failing = KeyUnavailable("away")
    clock.pass_(60)
    assert isinstance(ask().key, MessageKey)
    clock.pass_(99.999)
    assert isinstance(ask().key, MessageKey)
    clock.pass_(0.001)
    with pytest.raises(KeyUnavailable, match="away"):
        ask()
    clock.pass_(-50)  # had it been kept, it could serve now
    with pytest.raises(KeyUnavailable, match="away"):
        ask()


@pytest.mark.usefixtures("asks_at_once")
def test_an_old_key_asks_for_a_new_one_only_now_and_then(served, provider, clock):
    _, ask = served(stale=100)
    provider.failing = KeyUnavailable("away")
    clock.pass_(60)
    for _ in range(50):
        ask()
    assert provider.calls == 2
    clock.pass_(RETRY_AFTER)
    for _ in range(50):
        ask()
    assert provider.calls == 3


@pytest.mark.usefixtures("asks_at_once")
def test_a_stale_key_is_renewed_when_the_service_is_back(served, provider, clock):
    """No message waits for that, and from then on it is fresh for another age."""
    keys, ask = served(stale=100)
    provider.failing = KeyUnavailable("away")
    clock.pass_(61)
    ask()
    assert keys.states() == ["stale"]
    provider.failing = None
    clock.pass_(RETRY_AFTER)
    ask()
    ask()
    assert set(keys.states()) == {"fresh"}
    provider.failing = KeyUnavailable("away")
    clock.pass_(59)
    assert isinstance(ask().key, MessageKey)


def test_without_a_stale_time_an_old_key_never_serves(served, provider, clock):
    _, ask = served(stale=0)
    provider.failing = KeyUnavailable("away")
    clock.pass_(60)
    with pytest.raises(KeyUnavailable):
        ask()


def test_a_key_that_the_service_refuses_serves_no_longer(served, provider, clock):
    """A13: refused is authoritative, also where the service then goes away."""
    _, ask = served(stale=10_000)
    clock.pass_(60)
    provider.failing = KeyRefused("disabled")
    with pytest.raises(KeyRefused):
        ask()
    clock.pass_(NEGATIVE_AGE)
    provider.failing = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        ask()


def test_a_stale_key_seals_no_more_messages_than_it_may(provider, clock):
    keys = sealing(provider, clock, max_age=60, max_messages=10, max_stale=1000)
    take_many(keys, 3)
    provider.failing = KeyUnavailable("away")
    clock.pass_(60)
    take_many(keys, 7)
    with pytest.raises(KeyUnavailable):
        keys.take(1)


def test_a_key_used_up_does_not_go_on_when_the_service_is_away(provider, clock):
    keys = sealing(provider, clock, max_bytes=100)
    keys.take(60)
    provider.failing = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        keys.take(50)
    assert keys.take(40).key is not None


# -- forged messages ---------------------------------------------------------------------------------------------------


def test_a_broken_wrapped_key_is_asked_for_once(provider, clock):
    message = Message(provider.inner)
    forged = message.forged(broken(message.recipients[0]))
    keys = opening(provider, clock)
    for _ in range(100):
        with pytest.raises(KeyBroken, match="changed"):
            forged.fetch(keys)
    errors = in_tasks(*[partial(forged.fetch_async, keys)] * 100)
    assert {type(error) for error in errors} == {KeyBroken}
    assert provider.calls == 1
    clock.pass_(NEGATIVE_AGE - 0.001)
    with pytest.raises(KeyBroken):
        forged.fetch(keys)
    assert provider.calls == 1
    clock.pass_(0.001)
    with pytest.raises(KeyBroken):
        forged.fetch(keys)
    assert provider.calls == 2


def test_who_comes_late_to_a_failure_does_not_call_again(provider, clock, monkeypatch):
    """Between looking for a known failure and joining the flight, another's flight may have failed and landed."""
    message = Message(provider.inner)
    forged = message.forged(broken(message.recipients[0]))
    keys = opening(provider, clock)
    run = keys._flights.run

    def late(what, call, patience):
        monkeypatch.setattr(keys._flights, "run", run)
        with pytest.raises(KeyBroken):
            forged.fetch(keys)
        return run(what, call, patience)

    monkeypatch.setattr(keys._flights, "run", late)
    with pytest.raises(KeyBroken):
        forged.fetch(keys)
    assert provider.calls == 1


@pytest.mark.parametrize("error", [NotMine("nobody's"), KeyRefused("no right")], ids=repr)
def test_a_refusal_is_remembered_for_the_same_time(provider, clock, error):
    message = Message(provider.inner)
    keys = opening(provider, clock)
    provider.failing = error
    for _ in range(10):
        with pytest.raises(type(error), match=str(error)):
            message.fetch(keys)
    assert provider.calls == 1
    provider.failing = None
    clock.pass_(NEGATIVE_AGE)
    assert message.fetch(keys).key.commitment == message.commitment


def test_a_service_that_was_away_is_asked_again_at_once(provider, clock):
    message = Message(provider.inner)
    keys = opening(provider, clock)
    provider.failing = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        message.fetch(keys)
    provider.failing = None
    assert message.fetch(keys).key.commitment == message.commitment


def test_remembered_failures_are_bounded(provider, clock):
    message = Message(provider.inner)
    keys = opening(provider, clock, max_keys=10)
    for number in range(100):
        with pytest.raises(NotMine):
            message.forged(Recipient(-65538, b"%d" % number, b"garbage")).fetch(keys)
    assert len(keys._failures) == 10


def test_a_forged_message_never_makes_the_honest_one_fail(provider, clock):
    """It names the honest data key, which anyone can read from an honest message, and carries garbage."""
    message = Message(provider.inner)
    forged = message.forged(broken(message.recipients[0]))
    keys = opening(provider, clock)
    with pytest.raises(KeyBroken):
        forged.fetch(keys)
    assert message.fetch(keys).key.commitment == message.commitment
    assert provider.calls == 2


def test_a_forged_message_under_way_does_not_hold_or_fail_the_honest_one(provider, clock, monkeypatch):
    message = Message(provider.inner)
    forged = message.forged(broken(message.recipients[0]))
    keys = opening(provider, clock)

    def honest():
        assert provider.called.wait(PATIENCE)  # the forged one leads already
        return message.fetch(keys)

    open_gate_when_joined(keys, provider, 2, monkeypatch)
    failed, opened = in_threads(partial(forged.fetch, keys), honest)
    assert isinstance(failed, KeyBroken)
    assert opened.key.commitment == message.commitment


def test_another_data_key_under_the_honest_commitment_is_refused(provider, clock):
    """Without the commitment one ciphertext could be two messages. Source: SPEC.md 6.1."""
    message, other = Message(provider.inner), Message(provider.inner)
    keys = opening(provider, clock)
    with pytest.raises(KeyBroken, match="committed"):
        message.forged(*other.recipients).fetch(keys)
    assert message.fetch(keys).key.commitment == message.commitment


def test_a_forged_message_that_is_refused_does_not_drop_the_honest_key(provider, clock):
    """Whoever forges recipients that the service says no to must not end the honest key's time of grace."""
    message = Message(provider.inner)
    keys = opening(provider, clock, max_age=60, max_stale=1000)
    message.fetch(keys)
    clock.pass_(60)
    provider.failing = KeyRefused("not with these recipients")
    with pytest.raises(KeyRefused):
        message.forged(Recipient(-65538, b"test", b"garbage")).fetch(keys)
    provider.failing = KeyUnavailable("away")
    assert message.fetch(keys).key.commitment == message.commitment


def test_a_destination_does_not_open_with_the_key_of_another(provider, clock):
    """A8: the wrapped key is bound to its destination, the cached one too."""
    message = Message(provider.inner)
    keys = opening(provider, clock)
    message.fetch(keys)
    message.destination = "kafka:payments"
    with pytest.raises(KeyBroken):
        message.fetch(keys)


# -- what is kept ------------------------------------------------------------------------------------------------------


def test_the_least_recently_used_key_goes_first(provider, clock):
    keys = opening(provider, clock, max_keys=3)
    first, second, third, fourth = (Message(provider.inner) for _ in range(4))
    for message in (first, second, third):
        clock.pass_(1)
        message.fetch(keys)
    clock.pass_(1)
    gone = second.fetch(keys)
    clock.pass_(1)
    first.fetch(keys)
    clock.pass_(1)
    third.fetch(keys)
    clock.pass_(1)
    fourth.fetch(keys)
    assert len(keys._keys) == 3
    assert keys.cached(second.destination, second.commitment) is None
    assert gone.expires <= clock.now  # nor does it serve where somebody still holds it
    assert all(keys.cached(message.destination, message.commitment) for message in (first, third, fourth))


def test_the_window_of_revocation_begins_when_the_service_is_asked(provider, clock):
    """A13: an answer that took long is old when it arrives."""
    message = Message(provider.inner)
    keys = opening(provider, clock, max_age=60, max_stale=0)
    unwrap = provider.inner.unwrap

    def slowly(recipients, context):
        clock.pass_(59)
        return unwrap(recipients, context)

    provider.inner.unwrap = slowly
    message.fetch(keys)
    provider.failing = KeyUnavailable("away")
    clock.pass_(0.999)
    assert keys.cached(message.destination, message.commitment) is not None
    clock.pass_(0.001)
    assert keys.cached(message.destination, message.commitment) is None


def test_dropped_keys_are_asked_for_again(asked, provider):
    keys, ask, _ = asked
    old = ask()
    keys.drop()
    assert ask().key is not old.key
    assert provider.calls == 2


def test_a_key_under_way_when_all_were_dropped_is_not_kept(asked, provider):
    """It serves the message that it was asked for and no other."""
    keys, ask, _ = asked
    provider.gate.clear()

    def drop():
        assert provider.called.wait(PATIENCE)
        keys.drop()
        provider.gate.set()

    key, _ = in_threads(ask, drop)
    assert isinstance(key.key, MessageKey)
    ask()
    assert provider.calls == 2


def test_a_failure_is_forgotten_with_the_keys(provider, clock):
    message = Message(provider.inner)
    keys = opening(provider, clock)
    provider.failing = KeyRefused("no right")
    with pytest.raises(KeyRefused):
        message.fetch(keys)
    provider.failing = None
    keys.drop()
    assert message.fetch(keys).key.commitment == message.commitment


# -- what shows of a key -----------------------------------------------------------------------------------------------


def test_no_key_shows_in_any_text_of_what_holds_it(provider, clock, caplog):
    """D3: not in repr, str or a log at DEBUG."""
    caplog.set_level(logging.DEBUG)
    made = provider.generate(CONTEXT)
    message = Message(provider.inner)
    seal, open_ = sealing(provider, clock), opening(provider, clock)
    sealing_key, opened_key = seal.take(1), message.fetch(open_)
    things = [made, provider.inner, seal, open_, sealing_key, opened_key, sealing_key.key]
    text = caplog.text + "".join(f"{thing!r} {thing!s} {[thing]} {thing}" for thing in things)
    for key in (*provider.made, message.data_key):
        assert not [form for form in forms_of(key) if form in text]


def test_no_key_can_be_pickled(provider, clock):
    """D3: a key in a pickle is a key in a file."""
    made = provider.generate(CONTEXT)
    sealing_key = sealing(provider, clock).take(1)
    opened_key = Message(provider.inner).fetch(opening(provider, clock))
    for thing in (made, provider.inner, sealing_key, opened_key, sealing_key.key):
        with pytest.raises(TypeError, match="pickl"):
            pickle.dumps(thing)


def test_no_key_shows_in_a_traceback_with_locals(provider, clock):
    """D3: error reporters print the locals of every frame. The data key of another message must not be among them."""
    message, other = Message(provider.inner), Message(provider.inner)
    keys = opening(provider, clock)
    with pytest.raises(KeyBroken) as caught:
        message.forged(*other.recipients).fetch(keys)
    told = traceback.TracebackException.from_exception(caught.value, capture_locals=True)
    frames = "".join(
        f"{name}={value}"
        for frame in told.stack
        if "/tests/" not in frame.filename
        for name, value in (frame.locals or {}).items()
    )
    assert "recipients=" in frames  # locals were captured
    assert not [form for form in forms_of(other.data_key) if form in frames]


def test_no_key_shows_in_a_traceback_of_one_that_was_made_wrong(clock):
    """D3: nor in the error that reaches whoever seals, nor in its causes."""

    class LongKeys(WatchedKeys):
        def generate(self, context: KeyContext) -> NewDataKey:
            made = super().generate(context)
            return made._replace(data_key=made.data_key * 2)

    keys = LongKeys()
    with pytest.raises(KeyRefused) as caught:
        sealing(keys, clock).take(1)
    shown = shown_by_tracebacks(caught.value)
    assert "size=" in shown  # locals were captured
    (made,) = keys.made
    assert not [form for form in forms_of(made) if form in shown]


def test_no_key_shows_in_a_log_of_what_is_asked_ahead_and_fails(provider, clock, caplog, capfd):
    """D3: nor on stderr: nobody waits for that call, and its error shows nowhere."""
    caplog.set_level(logging.DEBUG)
    message, keys = Message(provider.inner), opening(provider, clock, max_age=60)
    message.fetch(keys)
    provider.inner.unwrap = lambda *_: message.data_key[:-1]
    clock.pass_(59.9)
    message.fetch(keys)
    for thread in threading.enumerate():
        if thread.name == "postseal-data-key":
            thread.join(PATIENCE)
    assert keys.states() == []
    told = caplog.text + "".join(capfd.readouterr())
    assert not [form for form in forms_of(message.data_key) if form[:20] in told]


def test_close_and_purge_leave_nothing_that_could_open(provider, clock):
    """What was dropped is referred to by nobody: neither the key nor its cipher is left."""
    seals, opens = sealing(provider, clock), opening(provider, clock)
    held = [weakref.ref(seals.take(1).key), weakref.ref(Message(provider.inner).fetch(opens).key)]
    assert all(each() is not None for each in held)
    seals.drop()
    opens.drop()
    gc.collect()
    assert [each() for each in held] == [None, None]


def test_the_current_key_is_told_by_its_commitment(provider, clock):
    keys = sealing(provider, clock)
    commitment = keys.take(1).key.commitment
    assert keys.current(commitment) is not None
    assert keys.current(bytes(32)) is None
    keys.drop()
    assert keys.current(commitment) is None


def test_local_keys_of_one_process_are_not_those_of_another():
    assert Message(local_keys()).recipients != Message(local_keys()).recipients
