"""What a sealer asks of its key service, counted there: calls against messages, and nothing for a forgery.

D5: one suite over all providers, so that each has the same caching.
"""

from __future__ import annotations

import os
from collections import Counter
from functools import partial

import pytest
from moto import mock_aws

from postseal.core import (
    DataKeyLimits,
    HmacKey,
    KeyContext,
    KeyRing,
    KeyUnavailable,
    OpeningLimits,
    Policy,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.datakeys import leases
from tests.core.key_services import Aws, Azure, Kms, ManagedHsm, Transit
from tests.core.key_vault import KeyVaultDouble
from tests.core.stand_ins import Clock, in_tasks, in_threads, local_keys
from tests.core.transit import TransitDouble

ORDERS = "kafka:orders"
PAYMENTS = "sqs:payments"


@pytest.fixture(scope="module")
def key_vault():
    with KeyVaultDouble() as double, double.client() as client:
        yield double, client


@pytest.fixture(scope="module")
def transit():
    with TransitDouble() as double:
        client = double.client()
        yield double, client
        client.adapter.close()


@pytest.fixture(params=["aws", "azure", "managed-hsm", "vault"])
def kms(request, clock):
    if request.param == "aws":
        with mock_aws():
            yield Aws()
    elif request.param == "vault":
        yield Transit(*request.getfixturevalue("transit"))
    else:
        kind = {"azure": Azure, "managed-hsm": ManagedHsm}[request.param]
        yield kind(*request.getfixturevalue("key_vault"), clock)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def sealer(kms, clock):
    """Confidentiality on kafka:orders, privacy on sqs:payments."""
    policies = [
        Policy(name="orders", destinations=[ORDERS], keys=["main"]),
        Policy(
            name="payments",
            destinations=[PAYMENTS],
            protection="privacy",
            keys=["main"],
            sign="payments",
            senders=["shop"],
        ),
    ]
    ring = KeyRing([HmacKey("2026-10", os.urandom(32))])
    return Sealer(
        sender="shop",
        policies=policies,
        keys={"main": kms.provider},
        signers={"payments": ring},
        monotonic=clock,
    )


@pytest.mark.parametrize("destination", [ORDERS, PAYMENTS])
def test_ten_thousand_messages_cost_one_call_to_seal_and_one_to_open(sealer, kms, destination):
    """D4."""
    envelopes = [sealer.seal(b"%d" % number, destination=destination) for number in range(10_000)]
    assert kms.asked == kms.costs(1)
    bodies = [sealer.open(envelope, destination=destination).body for envelope in envelopes]
    assert bodies == [b"%d" % number for number in range(10_000)]
    assert kms.asked == kms.costs(1, 1)


@pytest.mark.usefixtures("asks_at_once")
def test_calls_grow_with_time_and_not_with_messages(sealer, kms, clock, monkeypatch):
    """D4: in an hour of steady traffic, one key each 10 minutes, or a little less; a consumer asks for each once, and 5 minutes later."""
    # In the middle of what may be drawn: where both draws are extreme, a key is asked for once more as it goes out of use.
    monkeypatch.setattr(leases, "random_bytes", lambda size: b"\x80" + bytes(size - 1))
    for _ in range(360):
        clock.pass_(10)
        for _ in range(5):
            sealer.open(sealer.seal(b"body", destination=ORDERS), destination=ORDERS)
    assert kms.asked == kms.costs(7, 13, fetched=7)  # the last of the seven is not yet 5 minutes old


def test_each_destination_has_a_data_key_of_its_own(kms):
    """A8: so that the key policy can keep them apart."""
    policy = Policy(name="orders", destinations=["kafka:*"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": kms.provider})
    for _ in range(3):
        for destination in ("kafka:a", "kafka:b", "kafka:c"):
            sealer.open(sealer.seal(b"body", destination=destination), destination=destination)
    assert kms.asked == kms.costs(3, 3)


def test_a_data_key_for_each_message_costs_a_call_for_each(kms):
    """A7: max_messages = 1: N messages, N data keys."""
    policy = Policy(
        name="orders", destinations=[ORDERS], keys=["main"], data_key=DataKeyLimits(max_messages=1)
    )
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": kms.provider})
    envelopes = [sealer.seal(b"body", destination=ORDERS) for _ in range(20)]
    assert kms.asked == kms.costs(20)
    assert {sealer.open(envelope, destination=ORDERS).body for envelope in envelopes} == {b"body"}
    assert kms.asked == kms.costs(20, 20)


def test_64_threads_and_1000_tasks_cost_one_call_each_way(sealer, kms):
    """D4: cold, all at once."""
    envelopes = in_threads(*[lambda: sealer.seal(b"body", destination=ORDERS)] * 64)
    envelopes += in_tasks(*[partial(sealer.aseal, b"body", destination=ORDERS)] * 1000)
    assert kms.asked == kms.costs(1)
    opened = in_threads(*(partial(sealer.open, envelope, destination=ORDERS) for envelope in envelopes[:64]))
    sealer.close()
    opened += in_tasks(*(partial(sealer.aopen, envelope, destination=ORDERS) for envelope in envelopes))
    assert {message.body for message in opened} == {b"body"}
    assert kms.asked == kms.costs(1, 2)


def refused(sealer: Sealer, envelope: bytes, destination: str) -> Verdict:
    with pytest.raises(Refused) as caught:
        sealer.open(envelope, destination=destination)
    return caught.value.verdict


def test_a_thousand_forged_signatures_cost_no_call(sealer, kms):
    """The signature is verified before anything is asked: forgeries cannot spend our quota or our money."""
    envelope = sealer.seal(b"pay 10", destination=PAYMENTS)
    sealer.close()
    kms.asked.clear()
    verdicts = Counter()
    for number in range(1000):
        at = len(envelope) - 1 - number % 32  # the MAC
        forged = envelope[:at] + bytes([envelope[at] ^ (1 + number // 32)]) + envelope[at + 1 :]
        verdicts[refused(sealer, forged, PAYMENTS)] += 1
    assert verdicts == {Verdict.FORGED: 1000}
    assert not kms.asked


def test_a_changed_wrapped_key_in_a_signed_message_costs_no_call(sealer, kms):
    envelope = sealer.seal(b"pay 10", destination=PAYMENTS)
    sealer.close()
    kms.asked.clear()
    at = len(envelope) - 2 - 32 - 1  # the last byte before the MAC and its head: of the wrapped key
    forged = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
    assert refused(sealer, forged, PAYMENTS) is Verdict.FORGED
    assert not kms.asked


def test_forgeries_under_an_unknown_wrapping_key_cost_no_call(sealer, kms):
    """Confidentiality alone: whoever has no right to our key can name none that we would ask for."""
    policy = Policy(
        name="orders", destinations=[ORDERS], keys=["main"], data_key=DataKeyLimits(max_messages=1)
    )
    stranger = Sealer(sender="shop", policies=[policy], keys={"main": local_keys("stranger")})
    for _ in range(1000):
        assert refused(sealer, stranger.seal(b"body", destination=ORDERS), ORDERS) is Verdict.UNKNOWN_KEY
    assert not kms.asked


def test_one_forged_wrapped_key_sent_a_thousand_times_costs_one_call(sealer, kms):
    """The bounded memory of failures. A forger without the key cannot make more than a call for each new forgery."""
    envelope = sealer.seal(b"body", destination=ORDERS)
    forged = envelope[:-1] + bytes([envelope[-1] ^ 1])
    sealer.close()
    kms.asked.clear()
    assert {refused(sealer, forged, ORDERS) for _ in range(1000)} == {Verdict.FORGED}
    assert kms.asked == kms.costs(opened=1)
    assert sealer.open(envelope, destination=ORDERS).body == b"body"


def test_a_message_for_another_destination_costs_no_call(sealer, kms):
    envelope = sealer.seal(b"body", destination=ORDERS)
    kms.asked.clear()
    assert refused(sealer, envelope, PAYMENTS) is Verdict.DOWNGRADE
    assert not kms.asked


def test_a_wrapped_key_of_another_destination_does_not_open(kms):
    """A8: KMS itself refuses, by the encryption context, what was made for another destination."""
    made = kms.provider.generate(KeyContext("orders", "kafka:a"))
    policy = Policy(
        name="orders", destinations=["kafka:*"], keys=["main"], opening=OpeningLimits(max_age=1, max_stale=0)
    )
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": kms.provider})
    envelope = sealer.seal(b"body", destination="kafka:b")
    recipient = kms.provider.wrap(made.data_key, KeyContext("orders", "kafka:a"))[0]
    own = envelope[-len(recipient.wrapped_key) :]
    swapped = envelope.replace(own, made.recipients[0].wrapped_key)
    assert len(own) == len(made.recipients[0].wrapped_key)
    assert refused(sealer, swapped, "kafka:b") is Verdict.FORGED
    assert sealer.open(envelope, destination="kafka:b").body == b"body"


# -- withdrawn, and away -----------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("asks_at_once")
def test_a_right_withdrawn_takes_effect_within_the_window(sealer, kms, clock):
    """A13: five minutes by default; then refused, once and for all messages of that data key."""
    envelope = sealer.seal(b"body", destination=ORDERS)
    assert sealer.open(envelope, destination=ORDERS).body == b"body"
    kms.withdrawn = True
    kms.asked.clear()
    clock.pass_(299.9)
    assert sealer.open(envelope, destination=ORDERS).body == b"body"  # has the service asked again
    assert {refused(sealer, envelope, ORDERS) for _ in range(3)} == {Verdict.UNKNOWN_KEY}
    assert kms.asked[kms.opens] == 1
    kms.withdrawn = False
    clock.pass_(30)
    assert sealer.open(envelope, destination=ORDERS).body == b"body"


def test_messages_flow_through_an_outage_for_the_stated_time(sealer, kms, clock):
    """B14: an hour by default past the age of what is cached; then kept, not refused; and again as soon as it is back."""
    envelope = sealer.seal(b"body", destination=ORDERS)
    sealer.open(envelope, destination=ORDERS)
    kms.away = True
    for _ in range(12):
        clock.pass_(300)
        assert sealer.open(sealer.seal(b"more", destination=ORDERS), destination=ORDERS).body == b"more"
    clock.pass_(600 + 3600 + 1)
    with pytest.raises(KeyUnavailable):
        sealer.open(envelope, destination=ORDERS)
    kms.away = False
    assert sealer.open(envelope, destination=ORDERS).body == b"body"
    assert sealer.open(sealer.seal(b"after", destination=ORDERS), destination=ORDERS).body == b"after"


def test_a_cold_start_in_an_outage_keeps_messages(sealer, kms):
    envelope = sealer.seal(b"body", destination=ORDERS)
    sealer.close()
    kms.away = True
    for _ in range(3):
        with pytest.raises(KeyUnavailable):
            sealer.open(envelope, destination=ORDERS)
    kms.away = False
    assert sealer.open(envelope, destination=ORDERS).body == b"body"


@pytest.fixture
def two_clouds(kms, key_vault, clock) -> tuple[Kms, Kms]:
    """One of the key services, and a vault of another cloud; of Azure, a second one of its own."""
    with KeyVaultDouble() as double, double.client() as client:
        yield kms, Azure(double, client, clock)


@pytest.mark.parametrize("killed", [0, 1])
@pytest.mark.parametrize("how", ["away", "withdrawn"])
def test_with_one_of_two_key_services_killed_every_message_opens_through_the_other(
    two_clouds, clock, killed, how
):
    """B12: every message carries both wraps. Each data key costs the dead one a call at most, the living one exactly one."""
    keys = dict(zip(("here", "there"), (service.provider for service in two_clouds), strict=True))
    policy = Policy(
        name="orders", destinations=[ORDERS], keys=list(keys), data_key=DataKeyLimits(max_messages=1)
    )
    sealer = Sealer(sender="shop", policies=[policy], keys=keys, monotonic=clock)
    envelopes = [sealer.seal(b"%d" % number, destination=ORDERS) for number in range(50)]
    sealer.close()
    for service in two_clouds:
        service.asked.clear()
    setattr(two_clouds[killed], how, True)
    opened = [sealer.open(envelope, destination=ORDERS).body for envelope in envelopes]
    assert opened == [b"%d" % number for number in range(50)]
    dead, living = two_clouds[killed], two_clouds[1 - killed]
    assert dead.asked[dead.opens] == (50 if killed == 0 else 0)
    assert living.asked == living.costs(opened=50)


def test_sealing_stops_where_one_of_two_key_services_cannot_wrap(two_clouds, clock):
    """B10: a message carries every wrap that its policy names, or is not sent."""
    keys = dict(zip(("here", "there"), (service.provider for service in two_clouds), strict=True))
    policy = Policy(name="orders", destinations=[ORDERS], keys=list(keys))
    sealer = Sealer(sender="shop", policies=[policy], keys=keys, monotonic=clock)
    two_clouds[1].away = True
    with pytest.raises(KeyUnavailable):
        sealer.seal(b"body", destination=ORDERS)
    two_clouds[1].away = False
    assert sealer.open(sealer.seal(b"body", destination=ORDERS), destination=ORDERS).body == b"body"
