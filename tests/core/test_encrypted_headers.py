"""Headers that are encrypted with the body (A9, policy part of issue 4), as a program without an adapter uses them."""

from __future__ import annotations

import asyncio

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, Refused, Verdict
from postseal.core.framing import frame, unframe
from postseal.core.wire import decode
from tests.core.kit import HERE, Party, party, policy

BODY = b"4111 1111 1111 1111"
HIDING = ("confidentiality", "privacy-hmac", "privacy-ed25519", "privacy-es256")
values = (
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.binary(max_size=40)
    | st.text(st.characters(exclude_categories=("Cs",)), max_size=40)
)
names = st.sets(
    st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9), min_size=1, max_size=6
)


def refusal(call):
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.verdict


@pytest.mark.parametrize("form", HIDING)
def test_encrypted_headers_come_back_as_they_were_and_nothing_of_them_shows(form):
    one = party(form, encrypt_headers=["tenant", "patient", "absent"])
    headers = {"patient": "Zoë Beispiel", "tenant": b"\x00north", "other": "x"}
    envelope = one.seal(BODY, destination=HERE, headers=headers)
    for secret in ("Zoë Beispiel".encode(), b"patient", b"tenant", b"absent", b"north", BODY):
        assert secret not in envelope
    for _ in range(3):
        opened = one.open(envelope, destination=HERE, headers={"other": "x"})
        assert opened.body == BODY
        assert opened.headers == (("patient", "Zoë Beispiel"), ("tenant", b"\x00north"))
    assert one.events == []


@given(chosen=names, body=st.binary(max_size=300), data=st.data())
def test_a_frame_gives_back_what_was_put_in(chosen, body, data):
    ordered = tuple(sorted(chosen, key=str.encode))
    headers = [(name, data.draw(values)) for name in ordered for _ in range(data.draw(st.integers(0, 3)))]
    found = unframe(frame(ordered, headers, body))
    assert found == (ordered, tuple(headers), body)
    assert [type(value) for _, value in found.headers] == [type(value) for _, value in headers]


@given(data=st.data())
def test_whatever_unframes_is_the_only_encoding_of_what_it_holds(data):
    good = frame(("a", "bb"), [("a", 1), ("a", "x"), ("bb", None)], b"body")
    at, cut, put = data.draw(st.tuples(st.integers(0, len(good)), st.integers(0, 4), st.binary(max_size=5)))
    changed = good[:at] + put + good[at + cut :]
    try:
        found = unframe(changed)
    except Refused:
        return
    assert frame(found.names, found.headers, found.body) == changed


def test_the_awaitable_twins_do_the_same():
    one = party(encrypt_headers=["tenant"])

    async def there_and_back():
        envelope = await one.sealer.aseal(BODY, destination=HERE, headers={"tenant": "north"})
        return await one.sealer.aopen(envelope, destination=HERE)

    opened = asyncio.run(there_and_back())
    assert (opened.body, opened.headers) == (BODY, (("tenant", "north"),))
    envelope = one.seal(BODY, destination=HERE, headers={"tenant": "north"})
    cached = one.sealer.open_cached(envelope, destination=HERE)
    assert cached is not None
    assert cached.headers == (("tenant", "north"),)


def test_headers_may_be_pairs_that_can_be_read_only_once():
    one = party(bind_headers=["b"], encrypt_headers=["a"])
    envelope = one.seal(BODY, destination=HERE, headers=iter([("a", 1), ("b", 2), ("a", 3)]))
    opened = one.open(envelope, destination=HERE, headers=iter([("b", 2)]))
    assert opened.headers == (("a", 1), ("a", 3))
    lax = Party(policy(bind_headers=["b"]), keys=one.keys)
    beside = iter([("b", 2), ("a", 4)])
    assert refusal(lambda: lax.open(envelope, destination=HERE, headers=beside)) is Verdict.FORGED


@pytest.mark.parametrize("form", HIDING)
def test_a_header_of_an_encrypted_name_beside_the_envelope_is_refused(form):
    """A9: never handed on as if it had been sealed; also where the message had none."""
    one = party(form, encrypt_headers=["tenant", "patient"])
    envelope = one.seal(BODY, destination=HERE, headers={"tenant": "north"})
    one.open(envelope, destination=HERE)
    for beside in (
        {"tenant": "north"},
        {"patient": "x"},
        {"Tenant": "south"},
        {"\uff34\uff25\uff2e\uff21\uff2e\uff34": "south"},
        [("x", 1), ("tenant", None)],
    ):
        assert refusal(lambda: one.open(envelope, destination=HERE, headers=beside)) is Verdict.FORGED  # noqa: B023 - at once
    assert one.keys.unwrapped == 1
    assert len(one.events) == 5


def test_without_a_frame_a_message_is_refused_before_the_key_service_is_asked():
    """A9: a downgrade."""
    plain = party()
    strict = Party(policy(encrypt_headers=["tenant"]), keys=plain.keys)
    envelope = plain.seal(BODY, destination=HERE)
    assert refusal(lambda: strict.open(envelope, destination=HERE)) is Verdict.DOWNGRADE
    assert plain.keys.unwrapped == 0


def test_the_producers_can_begin_before_the_consumers():
    """A consumer whose policy encrypts no headers yet hands on those that came encrypted."""
    strict = party(encrypt_headers=["tenant"])
    lax = Party(policy(), keys=strict.keys)
    envelope = strict.seal(BODY, destination=HERE, headers={"tenant": "north"})
    assert lax.open(envelope, destination=HERE, headers={"other": "x"}).headers == (("tenant", "north"),)
    assert (
        refusal(lambda: lax.open(envelope, destination=HERE, headers={"tenant": "south"})) is Verdict.FORGED
    )


def test_who_encrypts_fewer_headers_than_the_consumer_demands_is_refused():
    less = party(encrypt_headers=["a"])
    more = Party(policy(encrypt_headers=["a", "b"]), keys=less.keys)
    envelope = less.seal(BODY, destination=HERE, headers={"a": 1})
    assert refusal(lambda: more.open(envelope, destination=HERE)) is Verdict.DOWNGRADE


def test_what_is_sealed_already_passes_and_takes_no_headers_along():
    """A10: a dead letter that is sent again keeps what is inside; a header of such a name would go out in clear, so it does not."""
    one = party(encrypt_headers=["tenant"])
    envelope = one.seal(BODY, destination=HERE, headers={"tenant": "north"})
    assert one.seal(envelope, destination=HERE) == envelope
    assert one.seal(envelope, destination=HERE, headers={"other": "x"}) == envelope
    assert (
        refusal(lambda: one.seal(envelope, destination=HERE, headers={"tenant": "south"})) is Verdict.FORGED
    )


def test_what_has_no_form_is_refused_at_sealing():
    one = party(encrypt_headers=["tenant"])
    for headers in (
        {"tenant": 1.5},
        {"tenant": 2**64},
        {"tenant": "\ud800"},
        {"Tenant": "x"},
        [("tenant", 1)] * 1025,
    ):
        with pytest.raises(TypeError):
            one.seal(BODY, destination=HERE, headers=headers)


def test_what_encrypts_no_headers_is_sealed_as_ever():
    """Not one byte more: the array behind label -65537 still has 7 elements."""
    envelope = party().seal(BODY, destination=HERE, headers={"tenant": "north"})
    assert b"\x3a\x00\x01\x00\x00\x87\x01\x01" in envelope
    assert not decode(envelope).header.says_more


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"form": "integrity-hmac", "encrypt_headers": ["a"]}, "did you mean 'privacy'"),
        ({"encrypt_headers": ["a"], "bind_headers": ["a"]}, "both name"),
        ({"encrypt_headers": ["A"], "bind_headers": ["a"]}, "both name"),
        ({"encrypt_headers": "tenant"}, "list of names"),
        ({"encrypt_headers": ["a", "a"]}, "twice"),
        ({"encrypt_headers": ["traceparent"]}, "change on the way"),
        ({"encrypt_headers": [f"h{i}" for i in range(65)]}, "at most 64"),
        ({"encrypt_headers": ["a\n"]}, "control"),
    ],
)
def test_a_policy_that_makes_no_sense_says_so(options, told):
    with pytest.raises(ConfigError, match=told):
        policy(**options)


@pytest.mark.parametrize("form", HIDING)
def test_a_message_without_any_header_is_framed_too(form):
    """SPEC.md 3.5: in privacy it was not, and nobody could open it."""
    one = party(form, encrypt_headers=["tenant"])
    for _ in range(3):
        assert one.open(one.seal(BODY, destination=HERE), destination=HERE).body == BODY
        assert one.sealer.at_hand(HERE)(BODY) is None
