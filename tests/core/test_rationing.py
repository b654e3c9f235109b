"""Storms of wrapped keys that do not unwrap: calls are rationed, memory is bounded, and honest keys come through."""

from __future__ import annotations

import os
import threading
from collections import Counter

import pytest

from postseal.core import HmacKey, KeyRing, KeyUnavailable, OpeningLimits, Refused
from postseal.core.datakeys import OpeningKeys
from postseal.core.datakeys.rationing import BURST, CALM, TURN
from postseal.core.errors import KeyBroken, KeyRefused, NotMine
from postseal.core.keys import Recipient
from tests.core.kit import HERE, CountedKeys, Party, policy
from tests.core.stand_ins import CONTEXT, Clock, Message, WatchedKeys, in_threads, local_keys


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def provider() -> WatchedKeys:
    return WatchedKeys()


@pytest.fixture
def keys(provider, clock) -> OpeningKeys:
    return OpeningKeys(provider, CONTEXT.policy, OpeningLimits(max_age=86400), clock=clock)


class Storm:
    """Messages with forged wrapped keys, each another."""

    def __init__(self, provider, keys, origin=None) -> None:
        self._message = Message(provider.inner)
        self._algorithm, self._key_id = self._message.recipients[0][:2]
        self._keys, self._origin, self._count = keys, origin, 0
        self.outcomes: Counter[str] = Counter()

    def blow(self, number: int | None = None) -> None:
        """Have one come; the one of that *number* again."""
        if number is None:
            number = self._count = self._count + 1
        wrapped = number.to_bytes(60, "big")
        forged = self._message.forged(Recipient(self._algorithm, self._key_id, wrapped))
        try:
            self._keys.fetch(*forged._asked(), origin=self._origin)
        except (KeyBroken, KeyUnavailable) as error:
            self.outcomes[type(error).__name__] += 1


def test_a_storm_of_forged_wrapped_keys_makes_a_call_a_second_and_memory_is_flat(provider, keys, clock):
    """20,000 different ones in 200 seconds. What is beyond the ration is kept, and not refused."""
    storm = Storm(provider, keys)
    for _ in range(20_000):
        storm.blow()
        clock.pass_(0.01)
    assert provider.calls <= 200
    assert storm.outcomes == {"KeyBroken": provider.calls, "KeyUnavailable": 20_000 - provider.calls}
    assert provider.calls > 150
    (ration,) = keys._rations._rations.values()
    assert len(ration._asked) <= 1024
    assert len(keys._failures) <= keys._limits.max_keys
    assert keys._tallies.counts(0, []).rationed == 20_000 - provider.calls


def test_a_storm_that_no_clock_sees_fails_ten_times(provider, keys):
    """Ten forgeries are refused at once, so that a few are not kept for long."""
    storm = Storm(provider, keys)
    for _ in range(1000):
        storm.blow()
    assert provider.calls == BURST == 10


def test_a_storm_from_many_threads_fails_no_more_than_those_that_were_under_way(provider, keys):
    storms = [Storm(provider, keys) for _ in range(64)]
    together = threading.Barrier(64)

    def blow(storm):
        together.wait()
        for _ in range(50):
            storm.blow()

    in_threads(*(lambda storm=storm: blow(storm) for storm in storms))
    assert provider.calls <= 32 + 64 + BURST


def test_a_failed_key_is_remembered_whatever_is_rationed(provider, keys):
    storm = Storm(provider, keys)
    for _ in range(100):
        storm.blow()
    before = storm.outcomes["KeyBroken"]
    storm.blow(number=1)
    assert storm.outcomes["KeyBroken"] == before + 1
    assert provider.calls == BURST


def test_an_honest_key_that_many_messages_need_comes_through_within_seconds(provider, keys, clock):
    """In a storm of 100 a second, each of them new, with 5 honest messages a second under one new data key."""
    storm, honest = Storm(provider, keys), Message(provider.inner)
    for _ in range(2000):
        storm.blow()
        clock.pass_(0.01)
    began, opened = clock.now, None
    while opened is None and clock.now < began + 100:
        for number in range(100):
            storm.blow()
            clock.pass_(0.01)
            if number % 20 == 0:
                try:
                    opened = honest.fetch(keys)
                    break
                except KeyUnavailable:
                    pass
    assert opened is not None
    assert clock.now - began <= 3


def test_whoever_repeats_his_forgeries_holds_up_an_honest_key_no_longer_than_is_said(provider, keys, clock):
    """f = 100 forgeries a second, spent as well as can be: on one key after the other, until each was asked for most. g = 5. 2 f / g = 40 s."""
    storm, honest = Storm(provider, keys), Message(provider.inner)
    for _ in range(BURST):
        storm.blow()
    clock.pass_(BURST)
    began, asked, opened, spent, number = clock.now, 0, None, 0, 10_000
    while opened is None and clock.now < began + 200:
        for beat in range(100):
            clock.pass_(0.01)
            storm.blow(number)
            spent += 1
            if spent > asked + 1:
                number, spent = number + 1, 0
            if beat % 20 == 0:
                asked += 1
                try:
                    opened = honest.fetch(keys)
                    break
                except KeyUnavailable:
                    pass
    assert opened is not None
    assert clock.now - began <= 2 * 100 / 5


def test_keys_that_nobody_asks_for_again_hold_up_nobody(provider, keys, clock):
    storm, honest = Storm(provider, keys), Message(provider.inner)
    for _ in range(BURST):
        storm.blow()
    for number in range(5000, 5100):
        for _ in range(50):
            storm.blow(number)
    clock.pass_(BURST + TURN)
    assert honest.fetch(keys).key.commitment == honest.commitment


def test_honest_keys_are_soon_at_full_speed_beside_a_storm(provider, keys, clock):
    """Each that opens earns two more calls: a restart with a backlog of 500 old data keys, and a forgery for each."""
    storm = Storm(provider, keys)
    storm.blow()
    backlog = [Message(provider.inner) for _ in range(500)]
    began = clock.now
    while backlog and clock.now < began + 1000:
        for message in list(backlog):
            storm.blow()
            clock.pass_(0.01)
            try:
                message.fetch(keys)
                backlog.remove(message)
            except KeyUnavailable:
                pass
    assert not backlog
    assert clock.now - began < 60


def test_when_none_has_failed_for_a_while_nothing_is_rationed(provider, keys, clock):
    storm = Storm(provider, keys)
    for _ in range(100):
        storm.blow()
    clock.pass_(CALM)
    for _ in range(100):
        Message(provider.inner).fetch(keys)
    assert provider.calls == BURST + 100


def test_who_signs_is_on_his_own_account(provider, keys):
    """A storm of one sender, or of nobody, holds up no other."""
    for origin in (None, ("mallory", b"key")):
        storm = Storm(provider, keys, origin)
        for _ in range(100):
            storm.blow()
    honest = Message(provider.inner)
    assert keys.fetch(*honest._asked(), origin=("alice", b"key")).key.commitment == honest.commitment


def test_a_key_that_was_opened_here_is_asked_for_again_whatever_is_rationed(provider, clock):
    keys = OpeningKeys(
        provider, CONTEXT.policy, OpeningLimits(max_age=100, max_stale=0), clock=clock, draw=lambda: 0
    )
    honest, storm = Message(provider.inner), Storm(provider, keys)
    honest.fetch(keys)
    clock.pass_(100)
    for _ in range(100):
        storm.blow()
    assert honest.fetch(keys).key.commitment == honest.commitment


def test_what_is_not_ours_costs_no_ration_where_nobody_was_asked(provider, keys):
    message = Message(provider.inner)
    for number in range(100):
        with pytest.raises(NotMine):
            message.forged(Recipient(-65538, b"%d" % number, b"garbage")).fetch(keys)
    provider.failing = NotMine("asked")
    provider.failing.__cause__ = NotMine("the answer of the service")
    for _ in range(BURST):
        with pytest.raises(NotMine):
            Message(provider.inner).fetch(keys)
    with pytest.raises(KeyUnavailable):
        Message(provider.inner).fetch(keys)


def test_refusals_are_rationed_too(provider, keys):
    """Whoever forges may name a version of the wrapping key that there is not."""
    provider.failing = KeyRefused("there is no such version")
    outcomes = Counter()
    for _ in range(100):
        try:
            Message(provider.inner).fetch(keys)
        except (KeyRefused, KeyUnavailable) as error:
            outcomes[type(error)] += 1
    assert outcomes == {KeyRefused: BURST, KeyUnavailable: 100 - BURST}


def test_a_service_that_is_away_costs_no_ration(provider, keys):
    provider.failing = KeyUnavailable("away")
    for _ in range(100):
        with pytest.raises(KeyUnavailable, match="away"):
            Message(provider.inner).fetch(keys)
    assert provider.calls == 100


def test_what_was_dropped_is_rationed_no_more(provider, keys):
    storm = Storm(provider, keys)
    for _ in range(100):
        storm.blow()
    keys.drop()
    assert Message(provider.inner).fetch(keys)


@pytest.mark.parametrize("failures", [1, 20])
def test_the_policy_says_how_many_may_fail(provider, clock, failures):
    keys = OpeningKeys(provider, CONTEXT.policy, OpeningLimits(max_failures=failures), clock=clock)
    storm = Storm(provider, keys)
    for _ in range(3000):
        storm.blow()
        clock.pass_(0.01)
    assert provider.calls == pytest.approx(30 * failures, abs=3)


# -- of whole messages ---------------------------------------------------------------------------------------------------


def test_forged_messages_beyond_the_ration_are_kept_and_not_refused():
    """A passing state of ours never settles a message: `KeyUnavailable`, which adapters keep."""
    one = Party(policy())
    envelope = one.seal(b"body", destination=HERE)
    outcomes = Counter()
    for _ in range(100):
        try:
            one.open(envelope[:-8] + os.urandom(8), destination=HERE)
        except (Refused, KeyUnavailable) as error:
            outcomes[type(error)] += 1
    assert outcomes == {Refused: BURST, KeyUnavailable: 100 - BURST}
    assert one.keys.unwrapped == BURST
    assert len(one.events) == BURST
    counts = one.sealer.caches["opening"]
    assert (counts.rationed, counts.failed, counts.misses) == (100 - BURST, BURST, BURST)


def test_a_sender_whose_wrapped_keys_fail_does_not_hold_up_another():
    """Both sign; the one wraps with another key of the same name."""
    rings = {"hmac": KeyRing([HmacKey("2026-10", bytes(32))])}
    both, real = policy("privacy-hmac", senders=("alice", "mallory")), local_keys("main")
    reader = Party(both, sender="alice", rings=rings, keys=CountedKeys(real))
    alice = Party(both, sender="alice", rings=rings, keys=CountedKeys(real), clock=reader.clock)
    mallory = Party(
        both, sender="mallory", rings=rings, keys=CountedKeys(local_keys("main")), clock=reader.clock
    )
    for _ in range(100):
        mallory.sealer.close()  # so that each has another data key
        with pytest.raises((Refused, KeyUnavailable)):
            reader.open(mallory.seal(b"body", destination=HERE), destination=HERE)
    assert reader.keys.unwrapped == BURST
    for _ in range(20):
        alice.sealer.close()
        envelope = alice.seal(b"body", destination=HERE)
        assert reader.open(envelope, destination=HERE).body == b"body"
    assert reader.keys.unwrapped == BURST + 20
