"""What goes around key providers: it asks again, in time, in turn, or not at all; and no message is lost by it."""

from __future__ import annotations

import asyncio
import contextvars
import heapq
import os
import random
import subprocess
import sys
import threading
import time
from collections import Counter
from contextlib import suppress

import pytest

from postseal.core import (
    CombinedKeys,
    ConfigError,
    DataKeyLimits,
    KeyRefused,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
)
from postseal.core.errors import KeyBroken, NotMine
from postseal.core.keys import PublicKeys
from postseal.core.resilience import (
    Breaker,
    Deadline,
    Limited,
    Limiter,
    NotAsked,
    Retrying,
    measures,
    resilient,
)
from postseal.core.resilience._deadline import Threads
from tests.core.provider_contract import ProviderContract
from tests.core.stand_ins import (
    CONTEXT,
    Clock,
    WatchedKeys,
    forms_of,
    in_threads,
    local_keys,
    shown_by_tracebacks,
)

HERE = "kafka:orders"
AWAY = KeyUnavailable("no answer")
FAR = 50
"""Seconds that no test waits for."""


def patient(inner, **options):
    """Retry without waiting; note how long it would have."""
    waits = []
    return Retrying(inner, sleep=waits.append, **options), waits


class Failing(WatchedKeys):
    """Raises what it is given, call by call; then it works."""

    def __init__(self, *errors, inner=None):
        super().__init__(inner)
        self.errors = list(errors)
        self.asked = 0

    def _next(self):
        self.asked += 1
        if self.errors and (error := self.errors.pop(0)) is not None:
            raise error

    def generate(self, context):
        self._next()
        return super().generate(context)

    def wrap(self, data_key, context):
        self._next()
        return super().wrap(data_key, context)

    def unwrap(self, recipients, context):
        self._next()
        return super().unwrap(recipients, context)


def told(provider, metric):
    return {measure.what: measure.value for measure in measures(provider) if measure.metric.endswith(metric)}


# -- each is a key provider --------------------------------------------------------------------------------------------


class TestRetrying(ProviderContract):
    @pytest.fixture
    def provider(self):
        return Retrying(local_keys("ours"))

    @pytest.fixture
    def stranger(self):
        return Retrying(local_keys("theirs"))


class TestDeadline(ProviderContract):
    @pytest.fixture
    def provider(self):
        return Deadline(local_keys("ours"), FAR)

    @pytest.fixture
    def stranger(self):
        return Deadline(local_keys("theirs"), FAR)


class TestAll(ProviderContract):
    @pytest.fixture
    def provider(self):
        return resilient(local_keys("ours"), deadline=FAR, limiter=Limiter(1000, per=1))

    @pytest.fixture
    def stranger(self):
        return resilient(local_keys("theirs"), deadline=FAR)


class TestHedged(ProviderContract):
    @pytest.fixture
    def provider(self):
        return CombinedKeys([local_keys("ours-1"), local_keys("ours-2")], hedge=FAR)

    @pytest.fixture
    def stranger(self):
        return CombinedKeys([local_keys("theirs-1"), local_keys("theirs-2")], hedge=FAR)


def every_decorator(inner):
    return [
        Retrying(inner),
        Breaker(inner),
        Deadline(inner, FAR),
        Limited(inner, Limiter(1000, per=1)),
        resilient(inner, limiter=Limiter(1000, per=1)),
    ]


@pytest.mark.parametrize("which", range(5))
def test_no_data_key_shows_in_a_traceback_of_wrapping(which):
    """D3."""
    provider = every_decorator(Failing(*[KeyRefused("no")] * 9))[which]
    data_key = os.urandom(32)
    with pytest.raises(KeyRefused) as caught:
        provider.wrap(data_key, CONTEXT)
    shown = shown_by_tracebacks(caught.value)
    # The stand-in's own frame is a test's, and is not shown.
    assert not [form for form in forms_of(data_key) if form in shown]


@pytest.mark.parametrize("which", range(5))
@pytest.mark.parametrize(
    "error", [KeyRefused("no"), KeyBroken("changed"), NotMine("whose?")], ids=lambda e: type(e).__name__
)
def test_what_the_service_says_is_believed_at_once(which, error):
    """A refusal is never tried again."""
    inner = Failing(error)
    with pytest.raises(type(error)) as caught:
        every_decorator(inner)[which].unwrap([], CONTEXT)
    assert caught.value is error
    assert inner.asked == 1


@pytest.mark.parametrize("which", range(5))
def test_what_else_the_inner_one_has_is_there(which):
    class Known(WatchedKeys):
        public_key_fingerprints = frozenset({b"f" * 32})
        version = 7

    provider = every_decorator(Known())[which]
    assert isinstance(provider, PublicKeys)
    assert provider.public_key_fingerprints == {b"f" * 32}
    assert provider.version == 7
    assert every_decorator(WatchedKeys())[which].public_key_fingerprints == frozenset()
    with pytest.raises(AttributeError):
        provider.nothing_of_the_kind  # noqa: B018


def test_what_is_no_key_provider_is_not_gone_around():
    with pytest.raises(ConfigError, match="KeyProvider, not str"):
        Breaker("keys")
    with pytest.raises(ConfigError, match="Limiter, not int"):
        Limited(local_keys(), 400)


@pytest.mark.parametrize(
    ("make", "what"),
    [
        (lambda: Retrying(local_keys(), attempts=0), "retry.attempts"),
        (lambda: Retrying(local_keys(), first_wait=0), "retry.first_wait"),
        (lambda: Retrying(local_keys(), max_wait=-1), "retry.max_wait"),
        (lambda: Retrying(local_keys(), budget=20), "retry.budget"),
        (lambda: Breaker(local_keys(), failures=True), "breaker.failures"),
        (lambda: Breaker(local_keys(), wait="2s"), "breaker.wait"),
        (lambda: Breaker(local_keys(), max_wait=0), "breaker.max_wait"),
        (lambda: Deadline(local_keys(), 0), "deadline"),
        (lambda: Limiter(0, per=1), "limit.calls"),
        (lambda: Limiter(1, per=0), "limit.per"),
        (lambda: Limiter(1, per=1, max_wait=float("nan")), "limit.max_wait"),
        (lambda: CombinedKeys([local_keys()], hedge=-1), "hedge"),
    ],
)
def test_an_option_that_cannot_be_is_named(make, what):
    with pytest.raises(ConfigError, match=f"^{what} must be"):
        make()


# -- again -------------------------------------------------------------------------------------------------------------


def test_it_asks_again_until_there_is_an_answer():
    inner = Failing(AWAY, AWAY)
    provider, waits = patient(inner)
    made = provider.generate(CONTEXT)
    assert inner.asked == 3
    assert len(waits) == 2
    assert provider.unwrap(made.recipients, CONTEXT) == made.data_key
    assert told(provider, "retries") == {"": 2}


def test_it_gives_up_after_its_attempts_with_what_was_said_last():
    last = KeyUnavailable("the third")
    inner = Failing(AWAY, AWAY, last)
    with pytest.raises(KeyUnavailable) as caught:
        patient(inner)[0].generate(CONTEXT)
    assert caught.value is last
    assert inner.asked == 3


def test_waits_are_random_and_double_up_to_their_most():
    """Full jitter: no two processes ask in step."""
    rounds = []
    for _ in range(200):
        provider, waits = patient(Failing(*[AWAY] * 9), attempts=5, first_wait=1.0, max_wait=3.0)
        with pytest.raises(KeyUnavailable):
            provider.generate(CONTEXT)
        rounds.append(waits)
    for wait, most in zip(zip(*rounds, strict=True), (1.0, 2.0, 3.0, 3.0), strict=True):
        assert 0 <= min(wait) < most / 4
        assert most * 3 / 4 < max(wait) <= most


def test_a_service_that_answers_nobody_is_soon_asked_once_for_each_call():
    """Retries do not double the load on what is down."""
    inner = Failing(*[AWAY] * 1000)
    provider, _ = patient(inner)
    for _ in range(100):
        with pytest.raises(KeyUnavailable):
            provider.generate(CONTEXT)
    assert inner.asked == 100 + 10
    assert told(provider, "not_asked") == {"budget": 95}


def test_answers_give_the_budget_back():
    inner = Failing(*[AWAY] * 21)
    provider, _ = patient(inner, attempts=2, budget=0.5)
    for _ in range(11):
        with pytest.raises(KeyUnavailable):
            provider.generate(CONTEXT)
    inner.errors = [None, None, AWAY]  # two answers are worth one further try
    for _ in range(3):
        provider.generate(CONTEXT)
    assert told(provider, "retries") == {"": 11}


def test_a_refusal_gives_the_budget_back_too():
    """It is an answer."""
    inner = Failing(*[AWAY] * 21, KeyRefused("no"), AWAY)
    provider, _ = patient(inner, attempts=2, budget=1.0)
    for error in [KeyUnavailable] * 11 + [KeyRefused]:
        with pytest.raises(error):
            provider.generate(CONTEXT)
    provider.generate(CONTEXT)


def test_what_was_not_even_asked_is_not_tried_again():
    inner = Failing(NotAsked("the breaker is open"), None)
    provider, waits = patient(inner)
    with pytest.raises(NotAsked):
        provider.generate(CONTEXT)
    assert inner.asked == 1
    assert waits == []


def test_without_tenacity_it_says_which_extra_brings_it():
    code = """
import sys
sys.modules["tenacity"] = None
from postseal.core.resilience import Breaker, Deadline, Retrying
from postseal.core import UnsafeLocalKeys, PostsealError
import warnings; warnings.simplefilter("ignore")
keys = Breaker(Deadline(UnsafeLocalKeys.ephemeral()))
try:
    Retrying(keys)
except ImportError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert "pip install 'postseal[resilience]'" in done.stdout


def test_a_sealer_loads_none_of_it_unless_it_is_used():
    code = "import postseal.core, sys; postseal.core.Sealer; print([n for n in sys.modules if 'resilience' in n or 'tenacity' in n])"
    assert (
        subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        == "[]\n"
    )


# -- in time -----------------------------------------------------------------------------------------------------------


def test_a_call_that_takes_too_long_is_unavailable_and_is_waited_for_no_more():
    inner = WatchedKeys()
    inner.gate.clear()
    provider = Deadline(inner, 0.01, name="main")
    try:
        with pytest.raises(KeyUnavailable, match=r"^keys\.main generate: no answer within 0\.01 s$"):
            provider.generate(CONTEXT)
        assert told(provider, "timeouts") == {"": 1}
    finally:
        inner.gate.set()
    assert Deadline(inner, FAR).generate(CONTEXT).data_key in inner.made


def test_calls_that_never_end_do_not_take_all_threads():
    inner = WatchedKeys()
    inner.gate.clear()
    provider = Deadline(inner, 0.01)
    provider._threads = Threads(most=3)
    try:
        for _ in range(3):
            with pytest.raises(KeyUnavailable, match="no answer"):
                provider.generate(CONTEXT)
        with pytest.raises(KeyUnavailable, match="3 calls wait for an answer already"):
            provider.generate(CONTEXT)
    finally:
        inner.gate.set()
    in_threads(lambda: [time.sleep(0.01) for _ in range(1000) if provider._threads._now])
    assert provider._threads._now == 0
    provider.generate(CONTEXT)


def test_no_thread_to_ask_in_is_unavailable(monkeypatch):
    def refuse(_):
        raise RuntimeError("can't start new thread")

    provider = Deadline(WatchedKeys(), FAR)
    monkeypatch.setattr(threading.Thread, "start", refuse)
    with pytest.raises(KeyUnavailable, match="no thread"):
        provider.generate(CONTEXT)
    assert provider._threads._now == 0


def test_what_is_traced_belongs_to_who_asked():
    variable = contextvars.ContextVar("span", default="nobody")

    class Traced(WatchedKeys):
        def generate(self, context):
            self.seen = variable.get()
            return super().generate(context)

    inner = Traced()
    variable.set("the caller")
    Deadline(inner, FAR).generate(CONTEXT)
    assert inner.seen == "the caller"


# -- not at all --------------------------------------------------------------------------------------------------------


@pytest.fixture
def clock():
    return Clock()


def broken_off(inner, clock, **options):
    """A breaker that opens for exactly its time."""
    return Breaker(inner, clock=clock, jitter=lambda: 0.5, **options)


def fails(provider, kind, times=1):
    for _ in range(times):
        with pytest.raises(KeyUnavailable) as caught:
            provider.generate(CONTEXT)
        assert type(caught.value) is kind


def test_it_asks_no_more_after_so_many_failures_in_a_row_and_finds_out_with_one_call(clock):
    inner = WatchedKeys()
    inner.failing = AWAY
    provider = broken_off(inner, clock, name="main")
    fails(provider, KeyUnavailable, 5)
    fails(provider, NotAsked, 100)
    assert len(inner.made) == 5
    assert told(provider, "breaker") == {
        "wrap": 1,
        "unwrap": 0,
    }
    assert told(provider, "not_asked") == {"breaker": 100}
    clock.pass_(2.0)
    inner.failing = None
    provider.generate(CONTEXT)
    assert told(provider, "breaker") == {"wrap": 0, "unwrap": 0}
    provider.generate(CONTEXT)


def test_the_time_doubles_each_time_that_there_is_no_answer_up_to_its_most(clock):
    inner = WatchedKeys()
    inner.failing = AWAY
    provider = broken_off(inner, clock, wait=2, max_wait=5)
    fails(provider, KeyUnavailable, 5)
    for wait in (2, 4, 5, 5):
        clock.pass_(wait - 0.001)
        fails(provider, NotAsked)
        clock.pass_(0.001)
        fails(provider, KeyUnavailable)


def test_an_answer_in_between_begins_the_count_again(clock):
    inner = Failing(*[AWAY] * 4, None, *[AWAY] * 4, KeyRefused("no"), *[AWAY] * 4, None)
    provider = broken_off(inner, clock)
    for _ in range(3):
        fails(provider, KeyUnavailable, 4)
        with suppress(KeyRefused):
            provider.generate(CONTEXT)
    assert inner.asked == 15


def test_whoever_forges_neither_opens_nor_closes_it(clock):
    """Broken and not mine say nothing of the service: it may not have been asked, and whoever forges chooses."""
    inner = Failing(
        *[KeyBroken("changed")] * 20, *[AWAY] * 3, NotMine("whose?"), KeyBroken("changed"), AWAY, AWAY
    )
    provider = broken_off(inner, clock)
    for error in [KeyBroken] * 20 + [KeyUnavailable] * 3 + [NotMine, KeyBroken] + [KeyUnavailable] * 2:
        with pytest.raises(error):
            provider.unwrap([], CONTEXT)
    with pytest.raises(NotAsked):
        provider.unwrap([], CONTEXT)
    clock.pass_(2)
    inner.errors = [KeyBroken("changed"), AWAY]
    with pytest.raises(KeyBroken):
        provider.unwrap([], CONTEXT)
    with pytest.raises(KeyUnavailable) as caught:  # it was not closed by that: this call finds out
        provider.unwrap([], CONTEXT)
    assert type(caught.value) is KeyUnavailable
    with pytest.raises(NotAsked):
        provider.unwrap([], CONTEXT)


def test_only_one_call_finds_out_however_many_threads_ask(clock):
    inner = WatchedKeys()
    inner.failing = AWAY
    provider = broken_off(inner, clock)
    fails(provider, KeyUnavailable, 5)
    clock.pass_(2)
    inner.failing = None
    inner.gate.clear()
    inner.called.clear()
    first = threading.Thread(target=provider.generate, args=[CONTEXT])
    first.start()
    assert inner.called.wait(FAR)
    outcomes = in_threads(*[lambda: provider.generate(CONTEXT)] * 63)
    assert {type(outcome) for outcome in outcomes} == {NotAsked}
    inner.gate.set()
    first.join()
    assert len(inner.made) == 6
    provider.generate(CONTEXT)


def test_a_call_that_finds_out_and_is_interrupted_leaves_it_to_the_next(clock):
    inner = Failing(*[AWAY] * 5, KeyboardInterrupt(), None)
    provider = broken_off(inner, clock)
    fails(provider, KeyUnavailable, 5)
    clock.pass_(2)
    with pytest.raises(KeyboardInterrupt):
        provider.generate(CONTEXT)
    provider.generate(CONTEXT)


def test_making_and_opening_have_a_breaker_each(clock):
    """With a public key, wrapping is done here while the service is away: that does not mean that it unwraps."""
    inner = WatchedKeys()
    made = inner.generate(CONTEXT)
    provider = broken_off(inner, clock)
    inner.failing = AWAY
    for _ in range(5):
        with pytest.raises(KeyUnavailable):
            provider.unwrap(made.recipients, CONTEXT)
    inner.failing = None
    provider.generate(CONTEXT)
    with pytest.raises(NotAsked):
        provider.unwrap(made.recipients, CONTEXT)


def test_waiting_for_a_quota_in_vain_says_nothing_of_the_service(clock):
    inner = Failing(*[NotAsked("the quota")] * 50)
    provider = broken_off(inner, clock)
    fails(provider, NotAsked, 50)
    assert inner.asked == 50


def test_processes_do_not_find_out_in_step():
    waits = set()
    for at in (0.0, 0.25, 0.999):
        clock = Clock()
        provider = Breaker(Failing(*[AWAY] * 9), clock=clock, jitter=lambda at=at: at, wait=10, max_wait=100)
        fails(provider, KeyUnavailable, 5)
        begun = clock.now
        while True:
            clock.pass_(0.5)
            with pytest.raises(KeyUnavailable) as caught:
                provider.generate(CONTEXT)
            if type(caught.value) is KeyUnavailable:
                break
        waits.add(clock.now - begun)
    assert waits == {8.0, 9.0, 12.0}


# -- in turn -----------------------------------------------------------------------------------------------------------


class Simulated:
    """Many callers at once, on one clock that moves as they wait: a call ends at its time, wherever somebody waits."""

    def __init__(self, calls, per, **options):
        self.clock = Clock()
        self.limiter = Limiter(calls, per=per, clock=self.clock, pause=self._pause, **options)
        self.ends = []
        self.counted = []
        """When the service counted each."""

    def _pause(self, condition, seconds):
        condition.release()
        self.until(self.clock.now + seconds, at_most_one=True)
        condition.acquire()

    def until(self, end, *, at_most_one=False):
        """Let time pass to *end*, or to the first call that ends before."""
        while self.ends and self.ends[0] <= end:
            self.clock.now = max(self.clock.now, heapq.heappop(self.ends))
            self.limiter.end()
            if at_most_one:
                return
        self.clock.now = max(self.clock.now, end)

    def call(self, latency, line="orders"):
        self.limiter.begin(line)
        heapq.heappush(self.ends, self.clock.now + latency)
        # Anywhere on its way.
        self.counted.append(self.clock.now + latency * random.random())

    def throttled(self, calls, per):
        """How many the service would have refused, whenever it begins to count."""
        counted = sorted(self.counted)
        return sum(later - one < per - 1e-9 for one, later in zip(counted, counted[calls:], strict=False))


@pytest.mark.parametrize("latency", [(0.001, 0.002), (0.02, 0.3)], ids=["near", "far"])
def test_a_backlog_drains_in_the_best_time_and_nothing_is_throttled(latency):
    """5,000 old keys at a quota of 400 in 10 s: 120 s are the least that it can take, as the 4,801st may not come before."""
    world = Simulated(400, 10.0, max_wait=600)
    begun = world.clock.now
    for _ in range(5000):
        if len(world.ends) == 32:  # as many ask at once as a cache has threads for its tasks
            world.until(world.ends[0])
        world.call(random.uniform(*latency))
    while world.ends:
        world.until(world.ends[0])
    assert world.throttled(400, 10.0) == 0
    assert 120 <= world.clock.now - begun <= 132
    assert world.throttled(399, 10.0) > 0  # the measure sees one too many


def test_nothing_is_throttled_wherever_calls_are_counted_on_their_way():
    """Calls of a second and more, and idle times in between, which save up no more than a tenth of the quota."""
    for seed in range(20):
        random.seed(seed)
        world = Simulated(20, 5.0, max_wait=600)
        for _ in range(300):
            if random.random() < 0.05:
                world.until(world.clock.now + random.uniform(0, 12))
            world.call(random.choice([0.001, 0.1, 1.0, 7.0]))
        assert world.throttled(20, 5.0) == 0


def test_a_few_calls_begin_at_once_and_more_are_spread_evenly():
    world = Simulated(100, 10.0)
    begun = []
    for _ in range(30):
        world.call(0.001)
        begun.append(world.clock.now - 1000.0)
    assert [round(one, 6) for one in begun] == [0.0] * 10 + [round(0.1 * n, 6) for n in range(1, 21)]


class Counting(WatchedKeys):
    """A key service that throttles by its own clock, and takes its time."""

    def __init__(self, calls, per):
        super().__init__()
        self.calls_allowed, self.per = calls, per
        self.times = []
        self.throttled = 0
        self.order = []

    def unwrap(self, recipients, context):
        with self._lock:
            now = time.monotonic()
            self.times.append(now)
            if sum(now - one < self.per for one in self.times) > self.calls_allowed:
                self.throttled += 1
                raise KeyUnavailable("throttled")
            self.order.append(context.destination)
        return self.inner.unwrap(recipients, context)


def sealers(keys, *, limits=None, **options):
    """A producer on the bare key service, and a consumer on *keys* around it."""
    policy = Policy(
        name="orders",
        destinations=["kafka:*"],
        keys=["main"],
        data_key=DataKeyLimits(max_messages=1),
        opening=limits or OpeningLimits(),
    )
    return [Sealer(sender="shop", policies=[policy], keys={"main": one}, **options) for one in keys]


def test_threads_wait_their_turn_and_no_message_is_lost():
    """B14: 300 messages under as many data keys, 64 threads, 100 calls in 0.2 s."""
    service = Counting(100, 0.2)
    producer, consumer = sealers([service.inner, Limited(service, Limiter(100, per=0.2))])
    envelopes = [producer.seal(b"%d" % number, destination=HERE) for number in range(300)]
    opened = in_threads(
        *[
            lambda at=at: [consumer.open(each, destination=HERE).body for each in envelopes[at::64]]
            for at in range(64)
        ]
    )
    assert sorted(body for each in opened for body in each) == sorted(b"%d" % number for number in range(300))
    assert service.throttled == 0


def test_tasks_await_their_turn_and_the_loop_goes_on_meanwhile():
    service = Counting(100, 0.2)
    producer, consumer = sealers([service.inner, Limited(service, Limiter(100, per=0.2))])
    envelopes = [producer.seal(b"%d" % number, destination=HERE) for number in range(300)]

    async def main():
        ticks = 0

        async def tick():
            nonlocal ticks
            while True:
                await asyncio.sleep(0.001)
                ticks += 1

        ticking = asyncio.create_task(tick())
        opened = await asyncio.gather(*(consumer.aopen(each, destination=HERE) for each in envelopes))
        ticking.cancel()
        return [each.body for each in opened], ticks

    bodies, ticks = asyncio.run(main())
    assert bodies == [b"%d" % number for number in range(300)]
    assert service.throttled == 0
    assert ticks > 0  # how often is for the machine to say


def test_a_backlog_of_one_destination_does_not_hold_up_another():
    """Turns go round by verb, policy and destination."""
    limiter = Limiter(2, per=0.02, max_wait=FAR)
    order = []
    limiter.begin("held")
    limiter.begin("held")  # nobody gets in until these end

    def one(line):
        limiter.begin(line)
        order.append(line)
        limiter.end()

    threads = [threading.Thread(target=one, args=[line]) for line in ["backlog"] * 8 + ["live"] * 2]
    for count, thread in enumerate(threads, 1):
        thread.start()
        while limiter.waiting < count:
            time.sleep(0.001)
    limiter.end()
    limiter.end()
    for thread in threads:
        thread.join(FAR)
    assert order == ["backlog", "live", "backlog", "live"] + ["backlog"] * 6


def test_whoever_waits_too_long_is_told_to_come_back_and_takes_no_turn():
    world = Simulated(1, 10.0, max_wait=4)
    world.call(1.0)
    for _ in range(2):  # a place is free 11 s after the call began
        with pytest.raises(NotAsked, match="1 calls in 10 s are all that may be made, and it waited 4 s"):
            world.call(1.0)
    assert world.limiter.waiting == 0
    world.call(1.0)
    assert world.clock.now == 1011.0


def test_who_gave_up_is_counted():
    provider = Limited(WatchedKeys(), Limiter(1, per=FAR, max_wait=0.01), name="main")
    provider.generate(CONTEXT)
    with pytest.raises(NotAsked, match=r"^keys\.main generate"):
        provider.generate(CONTEXT)
    assert told(provider, "not_asked") == {"limit": 1}
    assert told(provider, "waiting") == {"": 0}


def test_two_keys_of_one_quota_share_it():
    service = Counting(50, 0.2)
    limiter = Limiter(50, per=0.2)
    made = service.inner.generate(CONTEXT)
    providers = [Limited(service, limiter), Limited(service, limiter)]
    in_threads(
        *[
            lambda at=at: [providers[at % 2].unwrap(made.recipients, CONTEXT) for _ in range(10)]
            for at in range(12)
        ]
    )
    assert len(service.times) == 120
    assert service.throttled == 0


# -- beside ------------------------------------------------------------------------------------------------------------


def pair(hedge):
    first, second = WatchedKeys(local_keys("first")), WatchedKeys(local_keys("second"))
    return first, second, CombinedKeys([first, second], hedge=hedge, name="both")


def test_with_one_of_two_that_never_answers_every_message_opens():
    """B12. The first is asked each time, and the second beside it after the hedge."""
    first, second, both = pair(hedge=0.001)
    made = both.generate(CONTEXT)
    first.gate.clear()
    try:
        for _ in range(100):
            assert both.unwrap(made.recipients, CONTEXT) == made.data_key
        assert len(second.unwraps) == 100
        assert told(both, "hedges") == {"": 100}
    finally:
        first.gate.set()


def test_the_second_is_left_alone_while_the_first_answers():
    first, second, both = pair(hedge=FAR)
    made = both.generate(CONTEXT)
    for _ in range(20):
        assert both.unwrap(made.recipients, CONTEXT) == made.data_key
    assert len(first.unwraps) == 20
    assert second.unwraps == []
    assert told(both, "hedges") == {"": 0}


@pytest.mark.parametrize(
    "error", [AWAY, KeyRefused("no"), KeyBroken("changed")], ids=lambda e: type(e).__name__
)
def test_the_second_is_asked_at_once_where_the_first_gives_up(error):
    """It does not wait for the hedge, which would take longer than the test may."""
    first, second, both = pair(hedge=86400)
    made = both.generate(CONTEXT)
    first.failing = error
    assert both.unwrap(made.recipients, CONTEXT) == made.data_key
    assert len(second.unwraps) == 1


def test_the_first_may_still_answer_when_the_second_gives_up():
    first, second, both = pair(hedge=0.001)
    made = both.generate(CONTEXT)
    first.gate.clear()
    second.failing = AWAY
    opened = []
    thread = threading.Thread(target=lambda: opened.append(both.unwrap(made.recipients, CONTEXT)))
    thread.start()
    assert second.called.wait(FAR)
    first.gate.set()
    thread.join(FAR)
    assert opened == [made.data_key]


@pytest.mark.parametrize(
    ("errors", "kind"),
    [
        ([AWAY, KeyRefused("no")], KeyUnavailable),
        ([KeyRefused("no"), KeyBroken("changed")], KeyRefused),
        ([KeyBroken("changed"), NotMine("whose?")], KeyBroken),
        ([NotMine("whose?"), NotMine("whose?")], NotMine),
    ],
)
def test_where_none_opens_what_may_pass_comes_first(errors, kind):
    """A message is not settled while somebody could still open it."""
    first, second, both = pair(hedge=FAR)
    first.failing, second.failing = errors
    with pytest.raises(kind):
        both.unwrap([], CONTEXT)


def test_one_with_too_many_calls_that_never_end_is_passed_over():
    first, _, both = pair(hedge=0.001)
    both._hedged._providers = [(provider, Threads(2)) for provider, _ in both._hedged._providers]
    made = both.generate(CONTEXT)
    first.gate.clear()
    try:
        for _ in range(10):
            assert both.unwrap(made.recipients, CONTEXT) == made.data_key
        assert len(first.unwraps) == 2
    finally:
        first.gate.set()


# -- together ----------------------------------------------------------------------------------------------------------


def test_an_open_breaker_is_unavailable_and_what_is_at_hand_serves_on():
    """B11: a stale data key serves within max_stale, at once; beyond, the message waits; when the service is back, it opens."""
    clock, service = Clock(), WatchedKeys()
    guarded = broken_off(service, clock)
    producer, consumer = sealers(
        [service.inner, guarded], limits=OpeningLimits(max_age=60, max_stale=600), monotonic=clock
    )
    known, new = (producer.seal(b"order", destination=HERE) for _ in range(2))
    consumer.open(known, destination=HERE)
    service.failing = AWAY
    clock.pass_(61)
    for _ in range(20):
        assert consumer.open(known, destination=HERE).body == b"order"
        with pytest.raises(KeyUnavailable):
            consumer.open(new, destination=HERE)
        clock.pass_(0.05)
    assert told(guarded, "breaker") == {"wrap": 0, "unwrap": 1}
    clock.pass_(700)
    with pytest.raises(KeyUnavailable):
        consumer.open(known, destination=HERE)
    service.failing = None
    clock.pass_(60)
    assert {consumer.open(each, destination=HERE).body for each in (known, new)} == {b"order"}


def test_a_refusal_ends_a_stale_key_whatever_is_around():
    clock, service = Clock(), WatchedKeys()
    provider = Retrying(Breaker(Deadline(service, FAR), clock=clock), sleep=lambda _: None)
    producer, consumer = sealers([service.inner, provider], limits=OpeningLimits(max_age=60), monotonic=clock)
    envelope = producer.seal(b"order", destination=HERE)
    consumer.open(envelope, destination=HERE)
    service.failing = KeyRefused("the right was withdrawn")
    clock.pass_(61)
    before = len(service.unwraps)
    with pytest.raises(Refused):
        consumer.open(envelope, destination=HERE)
    assert len(service.unwraps) == before + 1


def test_tasks_open_through_all_of_it_with_one_of_two_that_never_answers():
    """B12: the loop goes on meanwhile, and what hangs is cut off by its deadline and then not asked."""
    first, second = WatchedKeys(local_keys("first")), WatchedKeys(local_keys("second"))
    guarded = Breaker(Deadline(first, 0.05), failures=3, wait=1000, max_wait=1000)
    both = CombinedKeys([guarded, resilient(second, deadline=FAR)], hedge=0.005)
    producer, consumer = sealers([CombinedKeys([first, second]), both])
    envelopes = [producer.seal(b"%d" % number, destination=HERE) for number in range(200)]
    last = producer.seal(b"last", destination=HERE)
    first.gate.clear()

    async def main():
        turns = 0

        async def turn():
            nonlocal turns
            while True:
                await asyncio.sleep(0)
                turns += 1

        turning = asyncio.create_task(turn())
        opened = await asyncio.gather(*(consumer.aopen(each, destination=HERE) for each in envelopes))
        turning.cancel()
        return [each.body for each in opened], turns

    try:
        bodies, turns = asyncio.run(main())
        assert bodies == [b"%d" % number for number in range(200)]
        assert turns > 0
        while not told(guarded, "breaker")["unwrap"]:  # as soon as three were cut off
            time.sleep(0.001)
        asked = len(first.unwraps)
        assert consumer.open(last, destination=HERE).body == b"last"
        assert len(first.unwraps) == asked
    finally:
        first.gate.set()


def test_whatever_is_turned_away_opens_later_and_nothing_is_lost():
    """B14: a consumer that keeps what is unavailable loses nothing to limiter, breaker, deadline or budget."""

    class Bad(WatchedKeys):
        """Silent at times, throttled at times."""

        def unwrap(self, recipients, context):
            with self._lock:
                number = len(self.unwraps)
            if number % 3 == 0:
                with self._lock:
                    self.unwraps.append(recipients)
                raise AWAY
            return super().unwrap(recipients, context)

    service = Bad()
    provider = Retrying(
        Breaker(
            Limited(Deadline(service, FAR), Limiter(20, per=0.05, max_wait=0.001)),
            failures=2,
            wait=0.01,
            max_wait=0.01,
        ),
        first_wait=0.001,
    )
    producer, consumer = sealers([service.inner, provider])
    left = [producer.seal(b"%d" % number, destination=HERE) for number in range(200)]
    lock, handled, sent_back = threading.Lock(), [], Counter()

    def consume():
        while True:
            with lock:
                if not left:
                    return
                envelope = left.pop(0)
            try:
                body = consumer.open(envelope, destination=HERE).body
            except KeyUnavailable as error:
                with lock:
                    sent_back[type(error)] += 1
                    left.append(envelope)
            else:
                with lock:
                    handled.append(body)

    in_threads(*[consume] * 8)
    assert sorted(handled) == sorted(b"%d" % number for number in range(200))
    assert sent_back[NotAsked] > 0


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_begins_with_none_of_it():
    """Locks held, threads under way and a breaker that is open are the parent's."""
    inner = WatchedKeys()
    breaker = Breaker(inner, failures=1, wait=1000, max_wait=1000)
    limiter = Limiter(1, per=1000, max_wait=0.01)
    limited, deadline, retrying = Limited(inner, limiter), Deadline(inner, FAR), Retrying(inner, budget=0.1)
    inner.failing = AWAY
    with pytest.raises(KeyUnavailable):
        breaker.generate(CONTEXT)
    inner.failing = None
    limited.generate(CONTEXT)
    deadline._threads._now = 256
    retrying._budget._left = 0.0
    with limiter._lock, breaker._wrapping._lock, deadline._threads._lock, retrying._budget._lock:
        child = os.fork()
        if child == 0:
            code = 1
            try:
                for provider in (breaker, limited, deadline, retrying):
                    provider.generate(CONTEXT)
                code = 0 if retrying._budget._left == 10 else 2
            finally:
                os._exit(code)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    with pytest.raises(NotAsked):
        breaker.generate(CONTEXT)
