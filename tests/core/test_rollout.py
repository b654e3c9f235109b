"""A11: off, observe, tolerate until a date, enforce, each side for itself; and the counters that say when it is safe to go on."""

from __future__ import annotations

import asyncio
from contextlib import suppress
from datetime import UTC, datetime, timedelta

import pytest

from postseal.core import ConfigError, MemoryLedger, Policy, Refused, Verdict
from postseal.core.audit import Counted
from postseal.core.wire import decode
from tests.core.kit import FORMS, HERE, NOW, Party, policy

BODY = b"order 4711"
UNTIL = datetime.fromtimestamp(NOW / 1000, UTC) + timedelta(days=1)


def verbs(one):
    """Return what opens at `HERE`: each verb of the sealer."""
    return {
        "open": lambda data: one.sealer.open(data, destination=HERE),
        "aopen": lambda data: asyncio.run(one.sealer.aopen(data, destination=HERE)),
        "open_cached": lambda data: one.sealer.open_cached(data, destination=HERE),
    }


# -- the sides ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "producing", "consuming"),
    [
        ({}, "enforce", "enforce"),
        ({"mode": "observe"}, "observe", "observe"),
        ({"mode": "observe", "produce_mode": "enforce"}, "enforce", "observe"),
        ({"produce_mode": "off"}, "off", "enforce"),
        ({"mode": "off", "consume_mode": "tolerate", "tolerate_until": UNTIL}, "off", "tolerate"),
        ({"mode": "tolerate", "tolerate_until": UNTIL}, "tolerate", "tolerate"),
        ({"mode": "tolerate", "consume_mode": "enforce"}, "tolerate", "enforce"),
    ],
)
def test_each_side_has_its_mode(options, producing, consuming):
    one = policy(**options)
    assert (one.producing, one.consuming) == (producing, consuming)
    assert one.seals == (producing in ("enforce", "tolerate"))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"produce_mode": "enforced"}, ["produce_mode", "'enforce'"]),
        ({"consume_mode": "observed"}, ["consume_mode", "'observe'"]),
        ({"produce_mode": "tolerate", "tolerate_until": UNTIL}, ["produce_mode", "'enforce'"]),
        ({"consume_mode": "tolerate"}, ["consume_mode", "tolerate_until"]),
        ({"mode": "tolerate", "consume_mode": "enforce", "tolerate_until": UNTIL}, ["tolerate_until"]),
        ({"consume_mode": "observe", "tolerate_until": UNTIL}, ["tolerate_until"]),
    ],
)
def test_a_mode_that_cannot_be_is_an_error(options, words):
    with pytest.raises(ConfigError) as error:
        policy(**options)
    assert all(word in str(error.value) for word in words)


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_a_side_that_seals_nothing_yet_lets_the_other_enforce(mode):
    sender = Party(policy(produce_mode=mode))
    assert sender.seal(BODY, destination=HERE) == BODY
    assert asyncio.run(sender.sealer.aseal(BODY, destination=HERE)) == BODY
    assert sender.keys.generated == 0
    assert sender.sealer.auditor.unsealed.by_mode == {(HERE, mode): 2}
    with pytest.raises(Refused) as refused:
        sender.open(BODY, destination=HERE)
    assert refused.value.verdict is Verdict.UNPROTECTED


@pytest.mark.parametrize("form", FORMS)
def test_a_side_that_observes_opens_what_the_other_seals(form):
    one = Party(policy(form, consume_mode="observe"))
    sealed = one.seal(BODY, destination=HERE)
    assert sealed != BODY
    for open_ in verbs(one).values():
        for _ in range(3):  # the short way, too
            assert open_(sealed).body == BODY
    assert one.events == []


@pytest.mark.parametrize("produce_mode", ["off", "observe", "enforce"])
@pytest.mark.parametrize("consume_mode", ["off", "observe", "tolerate", "enforce"])
def test_nothing_is_sealed_twice_in_any_mode(produce_mode, consume_mode):
    """A10."""
    until = UNTIL if consume_mode == "tolerate" else None
    bridge = Party(policy(produce_mode=produce_mode, consume_mode=consume_mode, tolerate_until=until))
    sealed = Party(policy(), keys=bridge.keys).seal(BODY, destination=HERE)
    assert bridge.seal(sealed, destination=HERE) == sealed
    assert asyncio.run(bridge.sealer.aseal(sealed, destination=HERE)) == sealed


# -- what observe tells ------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("verb", ["open", "aopen", "open_cached"])
def test_clear_text_is_counted_as_enforce_would_have_it_and_handed_on(verb):
    one = Party(policy(mode="observe"))
    opened = verbs(one)[verb](BODY)
    assert (opened.body, opened.verdict, opened.sender) == (BODY, Verdict.CLEAR, None)
    [event] = one.events
    assert (event.verdict, event.handed_on, event.let_through, event.mode) == (
        Verdict.UNPROTECTED,
        True,
        True,
        "observe",
    )
    assert event.as_dict()["let_through"] is True
    assert one.sealer.auditor.counts == {Verdict.UNPROTECTED: 1}


@pytest.mark.parametrize("verb", ["open", "aopen", "open_cached"])
@pytest.mark.parametrize(
    ("options", "shift", "verdict"),
    [({"max_message_age": 60}, 61_000, Verdict.STALE), ({}, -301_000, Verdict.FUTURE)],
    ids=["stale", "future"],
)
@pytest.mark.parametrize("met", [False, True], ids=["first of its kind", "like one before"])
def test_what_only_its_time_speaks_against_is_handed_on_opened(verb, options, shift, verdict, met):
    """It is authentic, so there is something to hand on; on the short way as on the whole one."""
    one = Party(policy(mode="observe", produce_mode="enforce", **options))
    sealed = one.seal(BODY, destination=HERE)
    if met:
        one.open(one.seal(BODY, destination=HERE), destination=HERE)
    one.clock.ms += shift
    before = one.sealer.auditor.passed.total
    if verb == "open_cached" and not met:
        assert verbs(one)[verb](sealed) is None
        assert one.events == []
        one.open(sealed, destination=HERE)
    else:
        assert verbs(one)[verb](sealed).body == BODY
    assert [(event.verdict, event.outcome) for event in one.events] == [(verdict, "let-through")]
    assert one.sealer.auditor.passed.total == before + 1
    enforcing = Party(policy(**options), keys=one.keys, clock=one.clock)
    with pytest.raises(Refused) as refused:
        enforcing.open(sealed, destination=HERE)
    assert refused.value.verdict is verdict


@pytest.mark.parametrize("on_duplicate", ["settle", "refuse"])
def test_a_duplicate_is_handed_on_and_counted(on_duplicate):
    one = Party(
        policy(mode="observe", produce_mode="enforce", on_duplicate=on_duplicate), ledger=MemoryLedger()
    )
    sealed = one.seal(BODY, destination=HERE)
    one.sealer.settled(one.open(sealed, destination=HERE))
    again = one.open(sealed, destination=HERE)
    assert (again.body, again.verdict) == (BODY, Verdict.DUPLICATE)
    assert [(event.verdict, event.outcome) for event in one.events] == [(Verdict.DUPLICATE, "let-through")]


def test_a_late_duplicate_makes_one_event():
    one = Party(
        policy(mode="observe", produce_mode="enforce", max_message_age=60), ledger=MemoryLedger(max_age=600)
    )
    sealed = one.seal(BODY, destination=HERE)
    one.sealer.settled(one.open(sealed, destination=HERE))
    one.clock.ms += 61_000
    assert one.open(sealed, destination=HERE).body == BODY
    assert [(event.verdict, event.outcome) for event in one.events] == [(Verdict.STALE, "let-through")]


def test_what_would_be_handed_on_anyway_is_not_counted_against_going_on():
    one = Party(policy(mode="observe", produce_mode="enforce"), ledger=MemoryLedger())
    sealed = one.seal(BODY, destination=HERE)
    one.sealer.settled(one.open(sealed, destination=HERE))
    one.open(sealed, destination=HERE)
    assert one.sealer.auditor.counts_by_kind == {
        Counted(Verdict.DUPLICATE, HERE, "observe", "handed-on"): 1,
    }


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("verb", ["open", "aopen", "open_cached"])
def test_what_is_sealed_and_does_not_open_is_handed_on_by_nobody(form, verb):
    """A9: fail closed. Nobody could read it; and handed on as it came, it would pass for clear text."""
    one = Party(policy(form, mode="observe", produce_mode="enforce"))
    sealed = one.seal(BODY, destination=HERE)
    one.open(sealed, destination=HERE)
    at = sealed.index(decode(sealed).payload)
    forged = sealed[:at] + bytes([sealed[at] ^ 1]) + sealed[at + 1 :]
    with pytest.raises(Refused) as refused:
        verbs(one)[verb](forged)
    assert refused.value.verdict is Verdict.FORGED
    assert [(event.verdict, event.outcome) for event in one.events] == [(Verdict.FORGED, "refused")]


def test_an_envelope_that_came_too_late_is_not_sent_on_by_who_observes():
    """What is sent has to open where the producers' mode enforces."""
    one = Party(policy(produce_mode="enforce", consume_mode="observe", max_message_age=60))
    sealed = one.seal(BODY, destination=HERE)
    one.clock.ms += 61_000
    for seal in (one.seal, lambda body, **options: asyncio.run(one.sealer.aseal(body, **options))):
        with pytest.raises(Refused) as refused:
            seal(sealed, destination=HERE)
        assert refused.value.verdict is Verdict.STALE


def test_a_gateway_that_observes_verifies_what_is_late_and_tells():
    one = Party(policy("privacy-hmac", mode="observe", produce_mode="enforce", max_message_age=60))
    sealed = one.seal(BODY, destination=HERE)
    one.clock.ms += 61_000
    assert one.sealer.verify(sealed, destination=HERE).sender == "billing-api"
    assert [event.outcome for event in one.events] == ["let-through"]


def test_a_sender_whom_enforce_would_not_let_send_is_told_while_it_observes():
    rule = policy("privacy-hmac", senders=["shop-web"], mode="observe")
    one = Party(rule)
    assert one.seal(BODY, destination=HERE) == BODY
    [event] = one.events
    assert (event.verdict, event.outcome, event.mode) == (Verdict.UNKNOWN_SENDER, "let-through", "observe")
    assert Party(rule.replace(mode="off")).seal(BODY, destination=HERE) == BODY
    with pytest.raises(ConfigError, match="not among the senders"):
        Party(rule.replace(mode="enforce")).seal(BODY, destination=HERE)


@pytest.mark.parametrize("on_refused", ["raise", "dead-letter", "quarantine", "discard"])
def test_who_observes_settles_nothing(on_refused):
    rule = policy(mode="observe", on_refused=on_refused, quarantine="kafka:refused", on_duplicate="settle")
    for verdict in (Verdict.FORGED, Verdict.DUPLICATE):
        assert rule.outcome(verdict) == ("raise" if on_refused == "raise" else "leave")
    assert rule.replace(consume_mode="enforce").outcome(Verdict.FORGED) == on_refused


# -- when it is safe to go on ------------------------------------------------------------------------------------------


def test_the_counters_of_a_rollout():
    """Observe, then tolerate, then enforce: what each lets through is counted apart, for one sealer that is told by its file."""
    keys = Party(policy()).keys
    sealed = Party(policy(), keys=keys).seal(BODY, destination=HERE)
    found = {}
    for mode in ("observe", "tolerate", "enforce"):
        one = Party(policy(mode=mode, tolerate_until=UNTIL if mode == "tolerate" else None), keys=keys)
        one.open(sealed, destination=HERE)
        with suppress(Refused):
            one.open(BODY, destination=HERE)
        found |= one.sealer.auditor.counts_by_kind
        assert one.sealer.auditor.passed.by_mode == {(HERE, mode): 1}
    assert found == {
        Counted(Verdict.UNPROTECTED, HERE, "observe", "let-through"): 1,
        Counted(Verdict.CLEAR, HERE, "tolerate", "let-through"): 1,
        Counted(Verdict.UNPROTECTED, HERE, "enforce", "refused"): 1,
    }


def test_toleration_ends_on_its_date():
    one = Party(policy(mode="tolerate", tolerate_until=UNTIL))
    assert one.open(BODY, destination=HERE).verdict is Verdict.CLEAR
    one.clock.ms += 86_400_000
    with pytest.raises(Refused) as refused:
        one.open(BODY, destination=HERE)
    assert refused.value.verdict is Verdict.UNPROTECTED


def test_a_policy_without_sides_is_as_it_was():
    assert Policy(name="a", destinations=[HERE], keys=["k"]).produce_mode is None
