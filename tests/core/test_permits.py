"""The quick path of sealing: permits keep the caps of a data key exact, and a time that is encoded once is never another message's."""

from __future__ import annotations

import asyncio
import os
from collections import Counter
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, DataKeyLimits, KeyUnavailable, Policy, Sealer
from postseal.core.datakeys import SealingKeys
from postseal.core.datakeys.leases import RETRY_AFTER
from postseal.core.datakeys.sealing import PERMITS
from postseal.core.outgoing import UNBOUND
from postseal.core.wire import decode
from tests.core.kit import HERE, CountedKeys, Party, policy
from tests.core.stand_ins import CONTEXT, WatchedKeys, flat, in_threads

pytestmark = pytest.mark.usefixtures("way")
BODY = b"4111 1111 1111 1111"
LATER = datetime(2030, 1, 1, tzinfo=UTC)


def key_of(envelope: bytes) -> bytes | None:
    """Tell data keys apart."""
    return decode(envelope).header.commitment


def limited(**limits) -> Party:
    return Party(policy(data_key=DataKeyLimits(**limits)))


# -- caps ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("most", [2, 100, PERMITS, PERMITS + 1, 2 * PERMITS + 2])
def test_a_data_key_seals_exactly_its_messages_whichever_way_they_take(most):
    """D4: quick, with an expiry, and in a task, from 8 threads at once."""
    one = limited(max_messages=most)

    def seal() -> list[bytes | None]:
        async def aseal() -> bytes:
            return await one.sealer.aseal(BODY, destination=HERE)

        found = []
        for _ in range(most):
            found.append(one.seal(BODY, destination=HERE))
            found.append(one.seal(BODY, destination=HERE, content_type="text/plain"))
            found.append(one.seal(BODY, destination=HERE, expires_at=LATER))
        return [key_of(envelope) for envelope in [*found, asyncio.run(aseal())]]

    used = Counter(flat(in_threads(*[seal] * 8)))
    whole, rest = divmod(8 * (3 * most + 1), most)
    assert Counter(used.values()) == Counter({most: whole}) + Counter({rest: 1 if rest else 0})
    assert one.keys.generated - len(used) in (0, 1)  # the next one may have been made ahead of time


@given(
    sizes=st.lists(st.one_of(st.integers(0, 12), st.integers(0, 1000)), max_size=60),
    max_messages=st.integers(2, 40),
    max_bytes=st.integers(1000, 4000),
)
def test_bodies_of_any_sizes_end_a_data_key_where_their_count_does(sizes, max_messages, max_bytes):
    """What was counted ahead makes no difference: as if each body had been counted alone, when it was sealed."""
    one = limited(max_messages=max_messages, max_bytes=max_bytes)
    least = max(max_bytes // max_messages, 1)
    calls = messages = left = 0
    used = set()
    for size in sizes:
        counted = max(size, least)
        if messages == 0 or left < counted:
            calls, messages, left = calls + 1, max_messages, max_bytes
        messages, left = messages - 1, left - counted
        used.add(key_of(one.seal(bytes(size), destination=HERE)))
        assert len(used) == calls


def test_small_and_large_bodies_never_exceed_a_data_key_together():
    """A body of 500 bytes is counted by itself, one of 5 takes a permit that stands for 10."""
    keys = SealingKeys(WatchedKeys(), CONTEXT, DataKeyLimits(max_messages=400, max_bytes=4000))

    def seal(first: int) -> list[tuple[bytes, int]]:
        sizes = ([5] * 7 + [500]) * 40
        return [(keys.take(size).key.commitment, max(size, 10)) for size in sizes[first:]]

    messages: Counter[bytes] = Counter()
    octets: Counter[bytes] = Counter()
    for commitment, size in flat(in_threads(*(partial(seal, first) for first in range(16)))):
        messages[commitment] += 1
        octets[commitment] += size
    assert max(messages.values()) <= 400
    assert max(octets.values()) <= 4000


def test_a_large_body_gets_the_bytes_that_were_counted_ahead_for_small_ones():
    provider = WatchedKeys()
    keys = SealingKeys(provider, CONTEXT, DataKeyLimits(max_messages=10, max_bytes=1000))
    first = keys.take(1)
    keys.take(1)  # counts ahead
    assert keys.take(800) is first
    assert keys.take(1) is not first


@pytest.mark.parametrize("size", [0, 1, 65535, 65536, 65537, 200_000])
def test_bodies_on_both_sides_of_what_a_permit_is_enough_for_come_back(size):
    one = limited()
    body = os.urandom(size) if size < 2 else b"x" + os.urandom(size - 1)
    for _ in range(3):
        assert one.open(one.seal(body, destination=HERE), destination=HERE).body == body
    assert one.keys.generated == 1


# -- when a data key ends --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac"])
def test_a_data_key_with_permits_left_ends_at_exactly_its_age(form):
    one = Party(policy(form, data_key=DataKeyLimits(max_age=60, max_stale=0)))
    keys = [key_of(one.seal(BODY, destination=HERE)) for _ in range(3)]
    one.keys.fail = KeyUnavailable("away")  # else it would be changed a little before
    one.clock.ms += 59_999
    keys += [key_of(one.seal(BODY, destination=HERE)) for _ in range(3)]
    one.keys.fail = None
    one.clock.ms += 1
    new = [key_of(one.seal(BODY, destination=HERE)) for _ in range(3)]
    assert len(set(keys)) == len(set(new)) == 1
    assert set(new).isdisjoint(keys)


@pytest.mark.usefixtures("asks_at_once")
def test_a_data_key_that_goes_on_stale_seals_quickly_and_asks_now_and_then():
    one = limited(max_age=60, max_stale=3600)
    old = {key_of(one.seal(BODY, destination=HERE)) for _ in range(3)}
    one.keys.fail = KeyUnavailable("away")
    one.clock.ms += 60_000
    stale = {key_of(one.seal(BODY, destination=HERE)) for _ in range(50)}
    assert stale == old
    assert one.keys.generated == 2
    one.keys.fail = None
    assert key_of(one.seal(BODY, destination=HERE)) in old
    one.clock.ms += int(RETRY_AFTER * 1000)
    assert key_of(one.seal(BODY, destination=HERE)) in old  # and has the next one made
    assert key_of(one.seal(BODY, destination=HERE)) not in old


def test_a_data_key_that_goes_on_stale_still_seals_exactly_its_messages():
    one = limited(max_age=60, max_messages=5)
    old = [key_of(one.seal(BODY, destination=HERE)) for _ in range(2)]
    one.keys.fail = KeyUnavailable("away")
    one.clock.ms += 60_000
    old += [key_of(one.seal(BODY, destination=HERE)) for _ in range(3)]
    assert len(set(old)) == 1
    with pytest.raises(KeyUnavailable):
        one.seal(BODY, destination=HERE)


def test_a_dropped_data_key_seals_nothing_for_a_thread_that_still_holds_it():
    one = limited()
    one.seal(BODY, destination=HERE)
    one.seal(BODY, destination=HERE)
    keys = one.sealer._outgoing[HERE].keys
    write = keys.key.writers[None]
    assert write(BODY, UNBOUND, None, False)
    keys.drop()
    assert not write(BODY, UNBOUND, None, False)


def test_no_permit_outlives_close():
    one = limited()
    old = {key_of(one.seal(BODY, destination=HERE)) for _ in range(3)}
    one.sealer.close()
    assert key_of(one.seal(BODY, destination=HERE)) not in old


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_no_permit_is_used_in_a_forked_child():
    sealer = Sealer(
        sender="shop",
        policies=[Policy(name="orders", destinations=[HERE], keys=["main"])],
        keys={"main": CountedKeys()},
    )
    ours = [key_of(sealer.seal(BODY, destination=HERE)) for _ in range(3)]
    readable, writable = os.pipe()
    if (pid := os.fork()) == 0:
        try:
            os.write(writable, key_of(sealer.seal(BODY, destination=HERE)) or b"")
        finally:
            os._exit(0)
    os.close(writable)
    with os.fdopen(readable, "rb") as pipe:
        theirs = pipe.read()
    os.waitpid(pid, 0)
    assert len(theirs) == 32
    assert theirs not in ours
    assert key_of(sealer.seal(BODY, destination=HERE)) == ours[0]


# -- time ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac", "privacy-ed25519"])
def test_each_message_carries_its_own_time_however_the_clock_goes(form):
    one = Party(policy(form, max_clock_skew=10))
    for step in (0, 0, 1, 1, 998, -1, 0, -1500, 2000, 1000, 0):
        one.clock.ms += step
        opened = one.open(one.seal(BODY, destination=HERE), destination=HERE)
        assert opened.sent_at == datetime.fromtimestamp(one.clock.ms // 1000, UTC) + timedelta(
            milliseconds=one.clock.ms % 1000
        )


def test_messages_of_one_millisecond_carry_each_their_own_expiry():
    one = limited()
    for expires_at in (LATER, LATER, LATER + timedelta(seconds=1), None, LATER):
        opened = one.open(one.seal(BODY, destination=HERE, expires_at=expires_at), destination=HERE)
        assert opened.expires_at == expires_at


def test_messages_of_one_millisecond_have_different_ids_and_nonces():
    one = limited()
    envelopes = [one.seal(BODY, destination=HERE) for _ in range(1000)]
    headers = [decode(envelope).header for envelope in envelopes]
    assert len({header.nonce for header in headers}) == len({header.message_id for header in headers}) == 1000


def test_a_clock_that_goes_wrong_on_the_way_seals_nothing_that_nobody_could_open():
    for wrong in (0, 2**32 * 1000):
        one = limited()
        one.seal(BODY, destination=HERE)
        one.seal(BODY, destination=HERE)
        one.clock.ms = wrong
        with pytest.raises(ConfigError, match="clock"):
            one.seal(BODY, destination=HERE)


# -- sizes -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac"])
def test_more_sizes_than_are_remembered_come_back(form):
    one = Party(policy(form))
    for size in (*range(0, 8600, 2), *range(0, 600, 7)):
        assert len(one.open(one.seal(bytes(size), destination=HERE), destination=HERE).body) == size
