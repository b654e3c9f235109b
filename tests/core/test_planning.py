"""D7: what `postseal plan` says is what real sealers do: their calls are counted, on clocks that are turned by hand."""

from __future__ import annotations

import pytest

from postseal.core import BranchKeys, ConfigError, DataKeyLimits, OpeningLimits, Sealer
from postseal.core.planning import MODES, MONTH, SERVICES, Load, advice, messages_of_a_key, plan, service_of
from postseal.core.providers.branch_stores import MemoryBranches
from tests.core.kit import Clock, CountedKeys, policy

pytestmark = pytest.mark.usefixtures("asks_at_once")
KMS, VAULT = SERVICES["aws-kms"], SERVICES["azure-key-vault"]


def named(load, service=KMS):
    return {mode.name: mode for mode in plan(load, service)}


class World:
    """Producers and consumers as *load* has them, which share one key service."""

    def __init__(self, load, *, branch=False):
        self.load = load
        self.clock = Clock()
        self.service = CountedKeys()
        self.places = [f"kafka:topic-{number}" for number in range(load.destinations)]
        self._store = MemoryBranches() if branch else None
        self.producers = [self._party() for _ in range(load.producers)]
        self.consumers = [self._party() for _ in range(load.consumers)]
        self.envelopes = []

    def _party(self):
        keys = self.service
        if self._store is not None:
            keys = BranchKeys(
                keys, self._store, "orders", max_age=self.load.branch_age, monotonic=self.clock.seconds
            )
        one = policy(destinations=self.places, data_key=self.load.data_key, opening=self.load.opening)
        return Sealer(
            sender="billing-api",
            policies=[one],
            keys={"main": keys},
            clock=self.clock,
            monotonic=self.clock.seconds,
        )

    def run(self, seconds, *, opens=True):
        """Send messages evenly, and have the consumers read them in turn."""
        load, start = self.load, self.clock.ms
        streams = load.producers * load.destinations
        for number in range(round(seconds * load.rate)):
            self.clock.ms = start + round(number * 1000 / load.rate)
            place = self.places[number // load.producers % load.destinations]
            envelope = self.producers[number % load.producers].seal(bytes(load.size), destination=place)
            self.envelopes.append((place, envelope))
            if opens:
                self.consumers[number // streams % load.consumers].open(envelope, destination=place)
        self.clock.ms = start + round(seconds * 1000)

    @property
    def calls(self):
        return self.service.generated, self.service.unwrapped


def limits(**options):
    return {
        "data_key": DataKeyLimits(
            **{name[4:]: value for name, value in options.items() if name[:4] == "key_"}
        ),
        "opening": OpeningLimits(
            **{name[5:]: value for name, value in options.items() if name[:5] == "open_"}
        ),
    }


CACHED = {
    "ends by age": Load(rate=4, producers=2, consumers=2, **limits(key_max_age=60, open_max_age=30)),
    "opens for longer than it seals": Load(
        rate=4, producers=2, consumers=3, **limits(key_max_age=60, open_max_age=300)
    ),
    "ends by messages": Load(
        rate=40, producers=2, consumers=2, **limits(key_max_age=600, key_max_messages=100)
    ),
    "ends by bytes": Load(
        rate=20,
        size=500,
        producers=1,
        consumers=2,
        **limits(key_max_age=600, key_max_messages=10_000, key_max_bytes=50_000),
    ),
    "several destinations": Load(
        rate=24, producers=2, consumers=2, destinations=3, **limits(key_max_age=30, open_max_age=10)
    ),
    "more consumers than messages of a key": Load(rate=2, producers=2, consumers=8, **limits(key_max_age=5)),
    "less than a message in its age": Load(rate=0.5, producers=2, consumers=1, **limits(key_max_age=1)),
}


@pytest.mark.parametrize("load", CACHED.values(), ids=CACHED)
def test_cached_calls_are_those_of_real_sealers(load):
    """Over ten whole lives of data keys, to the tenth: each producer makes one key more, ahead of time."""
    world = World(load)
    life = messages_of_a_key(load) * load.producers * load.destinations / load.rate
    world.run(10 * life)
    mode = named(load)["cached"]
    generated, unwrapped = world.calls
    assert generated == pytest.approx(mode.sealing * 10 * life, rel=0.101)
    assert unwrapped == pytest.approx(mode.opening * 10 * life, rel=0.101)
    assert 2 * len(world.envelopes) / (generated + unwrapped) == pytest.approx(
        mode.messages_per_call, rel=0.101
    )


def test_a_key_for_each_message_calls_for_each_message():
    load = Load(rate=10, producers=2, consumers=2, **limits(key_max_messages=1))
    world = World(load)
    world.run(20)
    mode = named(load)["per-message"]
    assert world.calls == (200, 200) == (mode.sealing * 20, mode.opening * 20)
    assert named(load)["cached"].calls == mode.calls


def test_branch_keys_are_asked_for_by_processes_and_not_by_messages():
    load = Load(rate=5, producers=2, consumers=3, branch_age=60, **limits(key_max_age=10, open_max_age=10))
    world = World(load, branch=True)
    world.run(600)
    mode = named(load)["branch"]
    assert sum(world.calls) == pytest.approx(mode.calls * 600, rel=0.2)
    assert sum(world.calls) <= mode.calls * 600 + load.producers + load.consumers


@pytest.mark.parametrize("load", [CACHED["ends by age"], CACHED["several destinations"]])
def test_a_restart_asks_once_for_each_data_key_and_consumer(load):
    load = load.replace(backlog=600)
    world = World(load)
    world.run(600, opens=False)
    streams = load.producers * load.destinations
    for number, (place, envelope) in enumerate(world.envelopes):
        world.consumers[number // streams % load.consumers].open(envelope, destination=place)
    assert world.service.unwrapped == pytest.approx(named(load)["cached"].restart, rel=0.101)


def test_more_data_keys_than_a_consumer_keeps_cost_a_call_each():
    load = Load(rate=20, producers=4, consumers=1, destinations=5, **limits(key_max_age=60, open_max_keys=10))
    world = World(load)
    world.run(120)
    mode = named(load)["cached"]
    assert world.service.unwrapped == pytest.approx(mode.opening * 120, rel=0.05)
    assert "raise opening.max_keys" in mode.remarks[0]


@pytest.mark.parametrize(("service", "calls"), [(KMS, 2), (VAULT, 1)])
def test_who_wraps_with_a_public_key_calls_nobody_to_seal(service, calls):
    load = Load()
    assert named(load, service)["per-message"].calls == calls * load.rate
    assert (named(load, service)["cached"].sealing > 0) is (calls == 2)


def test_the_bytes_are_those_of_an_envelope():
    load = Load(**limits(key_max_age=600))
    for mode in ("per-message", "cached"):
        found = named(load)[mode]
        assert 200 < found.added - 0 < 400
        assert found.added_month == found.added * load.rate * MONTH
        assert found.added_kept == found.added * load.rate * load.retention
    assert named(load)["branch"].added < named(load)["cached"].added < named(load, VAULT)["cached"].added


def test_the_figures_that_were_known_before():
    """Source: field notes: one generate and one decrypt a message, a thousand and a hundred thousand a second; cached; reuse of 32."""
    key = DataKeyLimits(max_age=300, max_messages=10**6)
    slow, fast = named(Load(rate=1000, data_key=key)), named(Load(rate=100_000, data_key=key))
    assert slow["per-message"].cost == pytest.approx(15_552)
    assert fast["per-message"].cost == pytest.approx(1_555_200)
    assert fast["per-message"].share == pytest.approx(20)
    assert round(slow["cached"].cost, 2) == 2.85
    assert round(fast["cached"].cost, 2) == 8.55
    few = Load(rate=100_000, data_key=DataKeyLimits(max_age=300, max_messages=32))
    assert named(few)["cached"].cost == pytest.approx(267_300)


def test_the_advice_follows_the_numbers():
    assert "take cached" in advice(Load(), KMS)
    assert "per-message is affordable" in advice(Load(rate=0.1), KMS)
    many = Load(rate=50_000, producers=200, consumers=200, destinations=200, **limits(key_max_age=60))
    assert "take branch keys" in advice(many, KMS)
    assert "cannot be" in named(Load(size=5000))["direct"].remarks[0]


def test_prices_and_quotas_have_a_source_and_a_date_and_may_be_given():
    for service in SERVICES.values():
        assert service.source
        assert service.seen
    own = service_of("aws-kms", price=0.5, quota=20_000)
    assert (own.price, own.quota, own.source) == (0.5, 20_000, "given by you")
    assert named(Load(), own)["per-message"].share == 0.1


@pytest.mark.parametrize(
    ("make", "word"),
    [
        (lambda: Load(rate=0), "rate"),
        (lambda: Load(producers=-1), "producers"),
        (lambda: Load(size=-1), "size"),
        (lambda: service_of("aws-kmz"), "did you mean 'aws-kms'"),
        (lambda: service_of("aws-kms", quota=0), "answers nobody"),
        (lambda: service_of("aws-kms", price=-1), "price"),
    ],
)
def test_what_cannot_be_meant_is_said(make, word):
    with pytest.raises(ConfigError, match=word):
        make()


def test_every_mode_is_there_in_order():
    assert tuple(mode.name for mode in plan(Load(), KMS)) == MODES
