"""E11: a reply is bound to its request."""

from __future__ import annotations

import asyncio

import pytest

from postseal.core import ConfigError, HmacKey, KeyRing, Policy, Refused, Sealer, Verdict
from postseal.core.replies import Requests
from tests.core.kit import FORMS, HERE, Clock, CountedKeys, party

THERE = "kafka:answers"


def refusal(call):
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.verdict


@pytest.mark.parametrize("form", FORMS)
def test_a_reply_opens_as_the_reply_to_its_request_alone(form):
    one = party(form, destinations=[HERE, THERE])
    requests = [one.seal(b"question %d" % n, destination=HERE) for n in range(2)]
    replies = [
        one.seal(b"answer", destination=THERE, in_reply_to=one.open(request, destination=HERE))
        for request in requests
    ]
    mine, other = map(one.sealer.reference, requests)
    for _ in range(2):
        opened = one.open(replies[0], destination=THERE, in_reply_to=mine)
        assert (opened.body, opened.in_reply_to) == (b"answer", mine)
        assert (
            refusal(lambda: one.open(replies[1], destination=THERE, in_reply_to=mine))
            is Verdict.WRONG_DESTINATION
        )
        assert one.open(replies[1], destination=THERE, in_reply_to=other).body == b"answer"
    assert [event.verdict for event in one.events] == [Verdict.WRONG_DESTINATION] * 2


@pytest.mark.parametrize("form", FORMS)
def test_what_is_no_reply_is_none_to_a_request(form):
    """A9, E11: any genuine message of that destination, and an old one that the short way opens."""
    one = party(form, destinations=[HERE, THERE])
    request = one.seal(b"question", destination=HERE)
    stray = one.seal(b"news", destination=THERE)
    for _ in range(3):
        assert one.open(stray, destination=THERE).in_reply_to is None
    unwrapped = one.keys.unwrapped
    demand = one.sealer.reference(request)
    assert refusal(lambda: one.open(stray, destination=THERE, in_reply_to=demand)) is Verdict.DOWNGRADE
    assert one.keys.unwrapped == unwrapped


def test_the_reference_that_travels_is_authenticated():
    one = party(destinations=[HERE, THERE])
    asked = [one.seal(b"?", destination=HERE) for _ in range(2)]
    mine, other = map(one.sealer.reference, asked)
    reply = one.seal(b"!", destination=THERE, in_reply_to=other)
    moved = reply.replace(bytes.fromhex(other), bytes.fromhex(mine))
    assert moved != reply
    assert refusal(lambda: one.open(moved, destination=THERE, in_reply_to=mine)) is Verdict.FORGED


def test_another_senders_request_of_the_same_message_id_has_another_reference():
    """A9: who may send to the same destination copies the visible id of somebody's request; the reply to his own does not pass for the other's."""
    noise = bytes(28)
    ring = KeyRing([HmacKey("k", bytes(32))])
    rules = Policy(
        name="orders", destinations=[HERE], protection="privacy", keys=["main"], sign="r", senders=["a", "b"]
    )
    keys = CountedKeys()
    references = set()
    for sender in ("a", "b"):
        sealer = Sealer(
            sender=sender,
            policies=[rules],
            keys={"main": keys},
            signers={"r": ring},
            clock=Clock(),
            random=lambda size: noise[:size],
        )
        envelope = sealer.seal(b"?", destination=HERE)
        opened = sealer.open(envelope, destination=HERE)
        assert opened.message_id == noise[:16].hex()
        assert opened.reference == sealer.reference(envelope)
        references.add(opened.reference)
    assert len(references) == 2


def test_verify_alone_tells_what_is_answered_and_demands_it():
    one = party("privacy-ed25519", destinations=[HERE, THERE])
    request = one.seal(b"?", destination=HERE)
    reply = one.seal(b"!", destination=THERE, in_reply_to=one.sealer.verify(request, destination=HERE))
    mine = one.sealer.reference(request)
    assert one.sealer.verify(reply, destination=THERE, in_reply_to=mine).in_reply_to == mine
    assert (
        refusal(lambda: one.sealer.verify(reply, destination=THERE, in_reply_to="00" * 32))
        is Verdict.WRONG_DESTINATION
    )


def test_the_awaitable_twins_do_the_same():
    one = party(destinations=[HERE, THERE], encrypt_headers=["tenant"])

    async def there_and_back():
        request = await one.sealer.aseal(b"?", destination=HERE)
        reply = await one.sealer.aseal(b"!", destination=THERE, in_reply_to=one.sealer.reference(request))
        with pytest.raises(Refused):
            await one.sealer.aopen(reply, destination=THERE, in_reply_to="11" * 32)
        opened = await one.sealer.aopen(reply, destination=THERE, in_reply_to=one.sealer.reference(request))
        again = one.sealer.open_cached(reply, destination=THERE, in_reply_to=opened.in_reply_to)
        assert again is not None
        return again

    assert asyncio.run(there_and_back()).body == b"!"


@pytest.mark.parametrize("wrong", ["", "11" * 31, "not hex", "x" * 64])
def test_what_is_no_reference_is_an_error_of_the_caller(wrong):
    one = party()
    with pytest.raises(ConfigError):
        one.seal(b"!", destination=HERE, in_reply_to=wrong)
    with pytest.raises(ConfigError):
        one.open(one.seal(b"!", destination=HERE), destination=HERE, in_reply_to=wrong)


def test_a_request_in_clear_cannot_be_answered_bound():
    one = party(mode="observe")
    opened = one.open(b"clear", destination=HERE)
    assert (opened.reference, opened.in_reply_to, opened.headers) == (None, None, ())
    with pytest.raises(ConfigError, match="in clear"):
        party().seal(b"!", destination=HERE, in_reply_to=opened)


def test_a_reply_that_was_sealed_by_hand_passes_a_protected_client_as_it_is():
    """A10: nothing is sealed twice, also where the producer may not unwrap."""
    one = party(destinations=[HERE, THERE])
    request = one.seal(b"?", destination=HERE)
    reply = one.seal(b"!", destination=THERE, in_reply_to=one.sealer.reference(request))
    assert one.seal(reply, destination=THERE) == reply
    assert one.keys.unwrapped == 0


# -- bind_replies ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_where_a_policy_wants_replies_alone_nothing_else_is_sealed_or_opened(form):
    one = party(form, destinations=[HERE, THERE])
    strict = party(form, destinations=[HERE, THERE], bind_replies=True)
    news = one.seal(b"news", destination=THERE)
    for body in (b"news", b"other news"):
        with pytest.raises(ConfigError, match="names no request"):
            strict.seal(body, destination=THERE)
        with pytest.raises(ConfigError, match="names no request"):
            asyncio.run(strict.sealer.aseal(body, destination=THERE))
        assert strict.sealer.at_hand(THERE)(body) is None
    assert refusal(lambda: strict.open(news, destination=THERE)) is Verdict.DOWNGRADE
    reply = strict.seal(b"answer", destination=THERE, in_reply_to="ab" * 32)
    for _ in range(2):
        assert strict.open(reply, destination=THERE).body == b"answer"
        assert strict.sealer.open_at_hand(THERE)(reply) is None


def test_what_was_asked_and_heard_is_bounded():
    requests = Requests()
    for number in range(70_000):
        requests.asked("answers", (f"c-{number}",), "aa")
        requests.heard("kafka:answers", (number, None), "bb")
    assert len(requests._asked) == len(requests._heard) == 65_536
    assert requests.demanded("answers", "c-69999") == "aa"
    assert requests.demanded("answers", "c-1") == "00" * 32  # forgotten: what nothing fulfils
    assert requests.demanded("other", "c-69999") == "00" * 32
    assert requests.demanded("answers", None) == "00" * 32
    assert requests.answered("kafka:answers", 69_999) == "bb"
    assert requests.answered("kafka:answers", 1) is None
    assert requests.answered("kafka:answers", None) is None
    requests.heard("kafka:answers", ("clear",), None)
    assert requests.answered("kafka:answers", "clear") is None
