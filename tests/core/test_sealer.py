"""Sealing and opening: what comes back, what is refused, and that the short way takes nothing that the whole way refuses."""

from __future__ import annotations

import asyncio
import warnings
from collections import Counter
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import (
    ConfigError,
    HmacKey,
    KeyRefused,
    KeyRing,
    KeyUnavailable,
    Opened,
    Origin,
    Policy,
    Refused,
    Sealer,
    TooLarge,
    Verdict,
)
from postseal.core.datakeys import DataKeyLimits, OpeningLimits
from postseal.core.keys import KeyBroken, NotMine
from postseal.core.wire import decode
from tests.core.kit import (
    FORMS,
    HERE,
    NOW,
    SECRET,
    SENDER,
    Clock,
    CountedKeys,
    Party,
    local_keys,
    party,
    policy,
    ring,
)

BODY = b"4111 1111 1111 1111"
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
ENCRYPTING = [form for form in FORMS if not form.startswith("integrity")]
SIGNED = [form for form in FORMS if form != "confidentiality"]
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=8)
header_values = st.one_of(
    texts, st.binary(max_size=8), st.integers(-(2**63), 2**64 - 1), st.booleans(), st.none()
)


def refusal(call):
    """Return the verdict with which *call* is refused."""
    with pytest.raises(Refused) as refused:
        call()
    return refused.value.verdict


# --- what comes back


@pytest.fixture(scope="module", params=FORMS)
def both(request):
    """A sealer that binds two headers, for each form; made once, so that its short way is warm."""
    return party(request.param, bind_headers=["a", "b"], bind_ordering_key=True)


@given(
    body=st.binary(max_size=600),
    headers=st.lists(st.tuples(st.sampled_from(["a", "b", "c"]), header_values), max_size=4),
    content_type=st.none() | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=20),
    content_encoding=st.none() | texts,
    ordering_key=st.none() | st.binary(max_size=8),
    expires_in=st.none() | st.integers(1, 10**8),
)
def test_open_inverts_seal(  # noqa: PLR0917 - whatever can vary
    both, body, headers, content_type, content_encoding, ordering_key, expires_in
):
    """A1: for any body, headers, content type and encoding, ordering key and expiry, in every form, cold and warm."""
    if body[:1] in (b"\xd8", b"\xd1", b"\xd2"):
        body = b"x" + body
    expires = None if expires_in is None else datetime.fromtimestamp(NOW // 1000 + expires_in, UTC)
    beside = {"headers": headers, "content_encoding": content_encoding, "ordering_key": ordering_key}
    envelope = both.seal(body, destination=HERE, content_type=content_type, expires_at=expires, **beside)
    for opened in (
        both.open(envelope, destination=HERE, **beside),
        both.open(envelope, destination=HERE, **beside),
    ):
        assert opened.body == body
        assert (opened.sender, opened.destination, opened.policy) == (SENDER, HERE, "orders")
        assert (opened.content_type, opened.expires_at) == (content_type, expires)
        assert opened.sent_at == EPOCH + timedelta(milliseconds=NOW)
        assert opened.verdict is Verdict.OK
    if both.policies[0].protection != "integrity" and len(body) > 7:
        assert body not in envelope


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("size", [0, 7, 8, 239, 240, 4079, 4080, 65_519, 65_520, 65_536, 300_000])
def test_bodies_of_every_size_of_head_come_back(form, size):
    one = party(form)
    body = bytes(range(256)) * (size // 256 + 1)
    envelopes = [one.seal(body[:size], destination=HERE) for _ in range(3)]
    assert len(set(envelopes)) == 3
    for envelope in envelopes:
        assert one.open(envelope, destination=HERE).body == body[:size]


@pytest.mark.parametrize(
    ("form", "origin"),
    [
        ("confidentiality", Origin.NONE),
        ("privacy-hmac", Origin.GROUP),
        ("integrity-hmac", Origin.GROUP),
        ("privacy-ed25519", Origin.SENDER),
        ("privacy-es256", Origin.SENDER),
        ("integrity-es256", Origin.SENDER),
    ],
)
def test_an_opened_message_says_what_it_proves_of_its_sender(form, origin):
    """D9: group origin and sender origin are never confused, and encryption alone proves neither."""
    one = party(form)
    for _ in range(2):
        assert one.open(one.seal(BODY, destination=HERE), destination=HERE).origin is origin


@pytest.mark.parametrize("form", FORMS)
def test_every_message_has_its_own_id_and_nonce(form):
    one = party(form)
    opened = [one.open(one.seal(BODY, destination=HERE), destination=HERE) for _ in range(50)]
    assert len({message.message_id for message in opened}) == 50


@pytest.mark.parametrize("form", FORMS)
def test_neither_an_opened_message_nor_a_sealer_shows_a_body_or_a_key(form):
    one = party(form)
    opened = one.open(one.seal(BODY, destination=HERE), destination=HERE)
    assert BODY.decode() not in repr(opened)
    for thing in (one.sealer, one.policies[0], one.keys.inner):
        assert SECRET.hex() not in repr(thing)


@pytest.mark.parametrize("kind", [bytes, bytearray, memoryview])
@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac", "integrity-hmac"])
def test_buffers_are_sealed_and_opened_like_bytes(form, kind):
    one = party(form)
    for _ in range(2):
        opened = one.open(kind(one.seal(kind(BODY), destination=HERE)), destination=HERE)
        assert opened.body == BODY
        assert type(opened.body) is bytes


@pytest.mark.parametrize("body", ["text", None, 7, ["a"], object()])
def test_a_body_that_is_no_bytes_is_a_type_error_in_all_four_verbs(body):
    one = party()
    for call in (
        lambda: one.seal(body, destination=HERE),
        lambda: one.open(body, destination=HERE),
        lambda: asyncio.run(one.sealer.aseal(body, destination=HERE)),
        lambda: asyncio.run(one.sealer.aopen(body, destination=HERE)),
    ):
        with pytest.raises(TypeError, match="a body is bytes"):
            call()
    assert one.events == []


# --- async


@pytest.mark.parametrize("form", FORMS)
def test_the_awaitable_twins_do_the_same(form):
    """Sync and async share everything but the wait."""
    noise = bytes(range(28))
    one = party(form, bind_headers=["a"])
    keys = one.keys.inner
    beside = {"headers": {"a": "1"}, "content_encoding": "gzip"}

    async def run():
        for _ in range(2):
            sealed = await one.sealer.aseal(BODY, destination=HERE, content_type="x", **beside)
            opened = await one.sealer.aopen(sealed, destination=HERE, **beside)
            assert (opened.body, opened.content_type) == (BODY, "x")
            assert one.open(sealed, destination=HERE, **beside).body == BODY
            assert (
                await one.sealer.aopen(one.seal(BODY, destination=HERE, **beside), destination=HERE, **beside)
            ).body == BODY
            with pytest.raises(Refused):
                await one.sealer.aopen(sealed, destination=HERE)
        assert await one.sealer.aseal(sealed, destination=HERE, **beside) == sealed

    asyncio.run(run())
    assert [event.verdict for event in one.events] == [Verdict.FORGED] * 2
    if not form.endswith("es256"):  # random signatures
        data_keys = CountedKeys(keys)
        made = data_keys.generate
        from postseal.core import KeyContext

        fixed = made(KeyContext("orders", HERE))
        data_keys.generate = lambda context: fixed
        pair = [Party(one.policies, keys=data_keys, random=lambda size: noise[:size]) for _ in range(2)]
        sealed = pair[0].seal(BODY, destination=HERE, **beside)
        assert asyncio.run(pair[1].sealer.aseal(BODY, destination=HERE, **beside)) == sealed


# --- at once


@pytest.mark.parametrize("form", FORMS)
def test_what_is_sealed_at_hand_opens_and_is_only_the_common_case(form):
    """An adapter calls it for every message, and `seal` or `aseal` where it gives nothing."""
    one = party(form)
    at_once = one.sealer.at_hand(HERE)
    assert at_once(BODY) is None  # no data key yet
    sealed = one.seal(BODY, destination=HERE)
    for body in (BODY, b"", b"\x00" * 70_000):
        if form.startswith("integrity"):
            assert at_once(body) is None
            continue
        envelope = at_once(body)
        assert one.open(envelope, destination=HERE).body == body
        assert asyncio.run(one.sealer.aopen(envelope, destination=HERE)).body == body
    for odd in (sealed, b"\xd8\x60", "text", bytearray(BODY), None, 5):
        assert at_once(odd) is None
    one.sealer.close()
    assert at_once(BODY) is None


@pytest.mark.parametrize("form", FORMS)
def test_what_is_opened_at_hand_is_what_open_gives_and_only_the_common_case(form):
    """An adapter calls it for every message, and `open` or `aopen`, which say why, where it gives nothing."""
    one = party(form)
    at_once, body_at_once = one.sealer.open_at_hand(HERE), one.sealer.body_at_hand(HERE)
    envelope, another = (one.seal(BODY, destination=HERE) for _ in range(2))
    empty = one.seal(b"", destination=HERE)
    assert at_once(envelope) is body_at_once(envelope) is None  # nothing like it was opened yet
    one.open(envelope, destination=HERE)
    if form.startswith("integrity"):
        assert at_once(another) is body_at_once(another) is None
        return
    assert (body_at_once(another), body_at_once(empty)) == (BODY, b"")
    assert one.sealer.parts_at_hand(HERE)(another) == (BODY, None, None)
    ours, theirs = at_once(another), one.open(another, destination=HERE)
    assert (ours.body, ours.message_id, ours.sent_at) == (BODY, theirs.message_id, theirs.sent_at)
    assert (ours.sender, ours.origin, ours.verdict) == (theirs.sender, theirs.origin, theirs.verdict)
    for at in range(len(another)):
        changed = bytearray(another)
        changed[at] ^= 1
        assert at_once(bytes(changed)) is body_at_once(bytes(changed)) is None
    for odd in (another[:-1], another + b"\0", b"", BODY, bytearray(another), "text", None, 5):
        assert at_once(odd) is body_at_once(odd) is None
    assert one.events == []  # the whole way tells
    one.sealer.close()
    assert at_once(another) is body_at_once(another) is None


def test_what_binds_a_header_is_not_opened_at_hand_without_it():
    """A9: what travels beside a message is authenticated with it, whichever verb opens."""
    one = party(bind_headers=["a"])
    envelope = one.seal(BODY, destination=HERE, headers={"a": "1"})
    one.open(envelope, destination=HERE, headers={"a": "1"})
    assert one.sealer.open_at_hand(HERE)(envelope) is one.sealer.body_at_hand(HERE)(envelope) is None


def test_what_expired_is_not_opened_at_hand():
    one = party()
    expires_at = datetime.fromtimestamp(NOW // 1000 + 60, UTC)
    envelope = one.seal(BODY, destination=HERE, expires_at=expires_at)
    one.open(envelope, destination=HERE)
    at_once, body_at_once = one.sealer.open_at_hand(HERE), one.sealer.body_at_hand(HERE)
    assert at_once(envelope).body == body_at_once(envelope) == BODY
    one.clock.ms += 61_000
    assert at_once(envelope) is body_at_once(envelope) is None


def test_what_is_sealed_at_hand_has_its_content_type():
    one = party()
    one.seal(BODY, destination=HERE)
    for content_type in ("a/b", "c/d", None, "a/b"):
        envelope = one.sealer.at_hand(HERE)(BODY, content_type)
        assert one.open(envelope, destination=HERE).content_type == content_type


@pytest.mark.parametrize("form", FORMS)
def test_what_is_opened_at_hand_is_only_the_common_case(form):
    """A9: what it gives nothing for goes to `open`, which refuses it and makes the one event."""
    one = party(form)
    at_once = one.sealer.open_at_hand(HERE)
    sealed = one.seal(BODY, destination=HERE, content_type="a/b")
    assert at_once(sealed) is None  # nothing like it was opened yet
    one.open(sealed, destination=HERE)
    if form.startswith("integrity"):
        assert at_once(sealed) is None
        return
    other = one.seal(b"other", destination=HERE, content_type="a/b")
    opened = at_once(other)
    assert (opened.body, opened.content_type, opened.verdict) == (b"other", "a/b", Verdict.OK)
    for odd in (
        other[:-40] + bytes([other[-40] ^ 1]) + other[-39:],
        other[:-1],
        b"",
        BODY,
        bytearray(other),
        "text",
        None,
    ):
        assert at_once(odd) is None
    assert at_once(one.seal(BODY, destination=HERE, content_encoding="gzip")) is None
    assert one.events == []
    one.sealer.close()
    assert at_once(other) is None


def test_what_is_stale_is_not_opened_at_hand():
    one = party(max_message_age=60)
    sealed = one.seal(BODY, destination=HERE)
    one.open(sealed, destination=HERE)
    at_once = one.sealer.open_at_hand(HERE)
    assert at_once(sealed).body == BODY
    one.clock.ms += 120_000
    assert at_once(sealed) is None
    with pytest.raises(Refused):
        one.open(sealed, destination=HERE)
    assert [event.verdict for event in one.events] == [Verdict.STALE]


def test_what_binds_headers_is_not_opened_at_hand_even_where_the_policy_demands_none():
    """A9: it would be opened as if it had none."""
    keys = CountedKeys()
    sender = Party([policy(bind_headers=["a"])], keys=keys)
    one = Party([policy()], keys=keys)
    bound = sender.seal(BODY, destination=HERE)  # "a" is bound as absent
    plain = one.seal(BODY, destination=HERE)
    for sealed in (plain, bound, plain):
        assert one.open(sealed, destination=HERE).body == BODY
        assert one.sealer.open_at_hand(HERE)(bound) is one.sealer.body_at_hand(HERE)(bound) is None
    with pytest.raises(Refused):
        one.open(bound, destination=HERE, headers={"a": "added"})


@pytest.mark.parametrize("options", [{"bind_headers": ["a"]}, {"mode": "off"}, {"mode": "observe"}])
def test_where_the_policy_looks_at_more_nothing_is_at_hand(options):
    one = party(**options)
    one.seal(BODY, destination=HERE, headers={"a": "1"})
    assert one.sealer.at_hand(HERE)(BODY) is None


@pytest.mark.usefixtures("asks_at_once")
def test_what_is_at_hand_counts_against_the_data_key():
    """B4: the caps are exact, whichever verb seals."""
    one = party(data_key=DataKeyLimits(max_messages=3))
    at_once = one.sealer.at_hand(HERE)
    envelopes = [one.seal(BODY, destination=HERE), *(at_once(BODY) for _ in range(5))]
    used = Counter(decode(envelope).header.commitment for envelope in envelopes)
    assert list(used.values()) == [3, 3]
    assert one.keys.generated == 3  # one of them made ahead of time


# --- any change is refused


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_any_flipped_bit_is_refused(form, warm):
    """A9: every bit of an envelope, one at a time. Only the recipients of confidentiality are authenticated by nothing but what they unwrap to:
    a consumer that has the data key already does not look at them, and gets the same body."""
    one = party(form, opening=OpeningLimits(max_age=86400))
    envelope = one.seal(BODY, destination=HERE)
    parsed = decode(envelope)
    loose = len(envelope) - len(parsed.recipients_bytes) if form == "confidentiality" else len(envelope)
    if warm:
        one.open(envelope, destination=HERE)
    opened_loosely = 0
    for bit in range(len(envelope) * 8):
        one.clock.ms += 1000  # else wrapped keys that do not unwrap would be rationed
        changed = bytearray(envelope)
        changed[bit // 8] ^= 1 << bit % 8
        if not warm:
            one.sealer.close()
        try:
            opened = one.open(bytes(changed), destination=HERE)
        except Refused:
            continue
        assert warm, f"bit {bit} opened"
        assert bit // 8 >= loose, f"bit {bit} opened"
        assert opened.body == BODY
        opened_loosely += 1
    assert len(one.events) == len(envelope) * 8 - opened_loosely
    assert one.open(envelope, destination=HERE).body == BODY


@pytest.mark.parametrize("form", SIGNED)
def test_a_forgery_asks_nothing_of_the_key_service(form):
    """B6: signature first, key service after: whoever floods a destination with forgeries drives no calls."""
    one = party(form)
    envelope = one.seal(BODY, destination=HERE)
    generated = one.keys.generated
    for bit in range(0, len(envelope) * 8, 7):
        one.clock.ms += 1000  # else wrapped keys that do not unwrap would be rationed
        changed = bytearray(envelope)
        changed[bit // 8] ^= 1 << bit % 8
        refusal(lambda: one.open(bytes(changed), destination=HERE))  # noqa: B023 - called at once
    assert (one.keys.unwrapped, one.keys.generated) == (0, generated)


def mutations(data, envelope, other):
    """Change an envelope as an attacker would who knows the format and holds another envelope."""
    for _ in range(data.draw(st.integers(1, 2))):
        at = data.draw(st.integers(0, len(envelope) - 1))
        size = data.draw(st.integers(0, 40))
        put = data.draw(
            st.binary(max_size=5) | st.just(other[at : at + size]) | st.just(envelope[at : at + size] * 2)
        )
        envelope = envelope[:at] + put + envelope[at + size :]
    return envelope


@pytest.fixture(scope="module", params=["confidentiality", "privacy-hmac", "privacy-ed25519"])
def differential(request):
    """One that learns, one that has data keys and learns nothing, and envelopes of several kinds of one data key."""
    made = policy(request.param, bind_headers=["a"], max_message_age=60)
    keys = CountedKeys()
    learns, plods, cold = (Party(made, keys=keys) for _ in range(3))
    options = [
        {},
        {"content_type": "text/plain"},
        {"expires_at": datetime.fromtimestamp(NOW // 1000 + 30, UTC)},
    ]
    envelopes = [
        learns.seal(BODY + bytes([i]), destination=HERE, headers={"a": "1"}, **more)
        for i, more in enumerate(options * 2)
    ]
    return learns, plods, cold, envelopes


def outcome(one, envelope, headers):
    """Return the body, or the verdict."""
    try:
        opened = one.open(envelope, destination=HERE, headers=headers)
    except Refused as refused:
        return refused.verdict
    return (
        opened.body,
        opened.message_id,
        opened.sent_at,
        opened.expires_at,
        opened.content_type,
        opened.sender,
        opened.origin,
    )


@given(st.data())
def test_the_short_way_does_what_the_whole_way_does(differential, data):
    """Warm and cold sealers give the same verdict or the same message, for any mutation of any envelope."""
    learns, plods, cold, envelopes = differential
    for envelope in envelopes:
        learns.open(envelope, destination=HERE, headers={"a": "1"})
    plods.open(envelopes[0], destination=HERE, headers={"a": "1"})
    envelope = data.draw(st.sampled_from(envelopes))
    changed = (
        mutations(data, envelope, data.draw(st.sampled_from(envelopes)))
        if data.draw(st.booleans())
        else envelope
    )
    headers = data.draw(st.sampled_from([{"a": "1"}, {"a": "2"}, None]))
    shift = data.draw(st.sampled_from([0, 0, 29_999, 31_000, 61_000, -299_000]))
    for one in (learns, plods, cold):
        one.clock.ms = NOW + shift
    plods.sealer._incoming[HERE].forget()
    cold.sealer.close()
    short, whole, first = (outcome(one, changed, headers) for one in (learns, plods, cold))
    for one in (learns, plods, cold):
        one.clock.ms = NOW
    assert short == whole
    if first != whole:
        # Only where recipients that nothing authenticates were changed, which whoever has the data key does not look at.
        assert learns.policies[0].protection == "confidentiality"
        kept = len(envelope) - len(decode(envelope).recipients_bytes)
        assert changed[:kept] == envelope[:kept]
        assert isinstance(first, Verdict)
        assert isinstance(whole, Verdict) or whole[0] in {BODY + bytes([i]) for i in range(6)}


@pytest.mark.parametrize("form", ["privacy-hmac", "privacy-ed25519"])
def test_a_forged_hole_out_of_range_has_one_verdict_whichever_way(form):
    """1,000 milliseconds are malformed, whether or not the signature is wrong too."""
    one = party(form)
    envelope = one.seal(BODY, destination=HERE)
    changed = envelope.replace(b"\x42\x00\x7b\x66orders", b"\x42\x03\xe8\x66orders")
    assert changed != envelope
    cold = refusal(lambda: party(form).open(changed, destination=HERE))
    one.open(envelope, destination=HERE)
    assert refusal(lambda: one.open(changed, destination=HERE)) is cold is Verdict.MALFORMED


@given(
    st.binary(max_size=300)
    | st.binary(max_size=300).map(b"\xd8\x60\x84\x58".__add__)
    | st.binary(max_size=300).map(b"\xd1\x84\x49\xa3\x01\x05".__add__)
)
def test_any_bytes_are_refused_and_nothing_else_is_raised(data):
    """E5: `open` gives a message or a refusal, whatever it is given."""
    for one in _ANYTHING:
        assert refusal(lambda: one.open(data, destination=HERE)) in {Verdict.UNPROTECTED, Verdict.MALFORMED}  # noqa: B023 - called at once


_ANYTHING = [party(form) for form in ("confidentiality", "privacy-hmac", "integrity-hmac")]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("wrong", [1.5, 2**64, "\ud800", ["a"], {}])
def test_a_received_header_without_a_canonical_form_is_a_refusal_and_no_other_exception(form, wrong):
    """Headers are the attacker's, too."""
    one = party(form, bind_headers=["a"])
    envelope = one.seal(BODY, destination=HERE, headers={"a": "1"})
    for _ in range(2):
        assert refusal(lambda: one.open(envelope, destination=HERE, headers={"a": wrong})) is Verdict.FORGED
        one.open(envelope, destination=HERE, headers={"a": "1"})
    assert (
        refusal(lambda: one.open(envelope, destination=HERE, headers={"a": "1"}, content_encoding="\ud800"))
        is Verdict.FORGED
    )
    with pytest.raises(TypeError):
        one.seal(BODY, destination=HERE, headers={"a": wrong})


# --- senders, destinations, times


@pytest.mark.parametrize("form", SIGNED)
def test_unknown_key_wrong_sender_and_wrong_destination_are_told_apart(form):
    """E3: each with its own verdict, and never a body."""
    consumer = Party(policy(form, destinations=[HERE, "kafka:refunds"]))
    kind = form.partition("-")[2]
    stranger = KeyRing([HmacKey("hmac-9", SECRET)])
    unknown = Party(policy(form.replace(kind, "hmac")), rings={"hmac": stranger})
    assert (
        refusal(lambda: consumer.open(unknown.seal(BODY, destination=HERE), destination=HERE))
        is Verdict.UNKNOWN_KEY
    )
    wrong = Party(policy(form), sender="shop-web", rings={kind: ring(kind, senders=["shop-web"])})
    assert (
        refusal(lambda: consumer.open(wrong.seal(BODY, destination=HERE), destination=HERE))
        is Verdict.UNKNOWN_SENDER
    )
    outsider = Party(
        policy(form, senders=["mallory"]), sender="mallory", rings={kind: ring(kind, senders=["mallory"])}
    )
    assert (
        refusal(lambda: consumer.open(outsider.seal(BODY, destination=HERE), destination=HERE))
        is Verdict.UNKNOWN_SENDER
    )
    elsewhere = consumer.seal(BODY, destination="kafka:refunds")
    assert refusal(lambda: consumer.open(elsewhere, destination=HERE)) is Verdict.WRONG_DESTINATION
    assert consumer.open(elsewhere, destination="kafka:refunds").body == BODY
    assert len(consumer.events) == 4


def test_a_sender_that_the_policy_does_not_name_cannot_seal():
    with pytest.raises(
        ConfigError, match="'biling-api' is not among the senders; did you mean 'billing-api'"
    ):
        Party(policy("privacy-hmac"), sender="biling-api").seal(BODY, destination=HERE)


@pytest.mark.parametrize("form", FORMS)
def test_messages_open_where_their_policy_says_they_may_lie(form):
    """A10, E2: dead-lettered and bridged, sealed as they were; from nowhere else."""
    home, dead = policy(form, accept_from=["sqs:orders-dlq"]), "sqs:orders-dlq"
    one = Party([home, policy(form, name="other", destinations=["kafka:other"])])
    envelope = one.seal(BODY, destination=HERE)
    for _ in range(2):
        opened = one.open(envelope, destination=dead)
        assert (opened.body, opened.destination) == (BODY, HERE)
    assert refusal(lambda: one.open(envelope, destination="kafka:other")) is Verdict.DOWNGRADE


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("warm", [False, True], ids=["cold", "warm"])
def test_old_expired_and_future_messages_are_refused(form, warm):
    """A9: an old copy is refused once it is older than the policy allows; to the millisecond."""
    one = party(form, max_message_age=60, max_clock_skew=5)
    aged = one.seal(BODY, destination=HERE)
    expiring = one.seal(BODY, destination=HERE, expires_at=datetime.fromtimestamp(NOW // 1000 + 10, UTC))
    if warm:
        one.open(aged, destination=HERE)
        one.open(expiring, destination=HERE)
    expired_at = (NOW // 1000 + 10) * 1000
    for ms, envelope, verdict in (
        (NOW + 60_000, aged, None),
        (NOW + 60_001, aged, Verdict.STALE),
        (expired_at - 1, expiring, None),
        (expired_at, expiring, Verdict.STALE),
    ):
        one.clock.ms = ms
        if verdict is None:
            assert one.open(envelope, destination=HERE).body == BODY
        else:
            assert refusal(lambda: one.open(envelope, destination=HERE)) is verdict  # noqa: B023 - called at once
    early = Party(one.policies, clock=Clock(NOW), keys=one.keys)
    ahead = Party(one.policies, clock=Clock(NOW + 5001), keys=one.keys)
    if warm:
        early.open(early.seal(BODY, destination=HERE), destination=HERE)
        early.open(
            Party(one.policies, clock=Clock(NOW + 5000), keys=one.keys).seal(BODY, destination=HERE),
            destination=HERE,
        )
    assert refusal(lambda: early.open(ahead.seal(BODY, destination=HERE), destination=HERE)) is Verdict.FUTURE


@pytest.mark.parametrize(
    ("when", "words"),
    [
        (datetime(2027, 1, 1), "time zone"),  # noqa: DTZ001 - the fault itself
        (datetime(1970, 1, 1, 1, tzinfo=UTC), "1970-01-02"),
        (datetime(2200, 1, 1, tzinfo=UTC), "2106-02-07"),
    ],
)
def test_an_expiry_that_no_header_can_carry_is_a_config_error(when, words):
    with pytest.raises(ConfigError, match=words):
        party().seal(BODY, destination=HERE, expires_at=when)


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("ms", [0, 65_535_999, 2**32 * 1000])
def test_a_machine_without_the_time_seals_nothing_that_nobody_could_open(form, ms):
    with pytest.raises(ConfigError, match="clock"):
        Party(policy(form), clock=Clock(ms)).seal(BODY, destination=HERE)


def test_an_expiry_of_another_time_zone_is_the_same_moment():
    one = party()
    zoned = datetime(2027, 1, 1, 1, 0, tzinfo=timezone(timedelta(hours=1)))
    assert one.open(one.seal(BODY, destination=HERE, expires_at=zoned), destination=HERE).expires_at == zoned


def test_a_retired_key_stops_to_verify_on_its_date_on_the_short_way_too():
    clock = Clock()
    until = datetime.fromtimestamp(NOW / 1000 + 60, UTC)
    old = HmacKey("old", SECRET, state="retired", retired_until=until)
    producer = Party(policy("privacy-hmac"), rings={"hmac": KeyRing([HmacKey("old", SECRET)])}, clock=clock)
    consumer = Party(
        policy("privacy-hmac"),
        rings={"hmac": KeyRing([old], clock=clock.seconds)},
        clock=clock,
        keys=producer.keys,
    )
    for _ in range(3):
        consumer.open(producer.seal(BODY, destination=HERE), destination=HERE)
    clock.ms = NOW + 60_000
    assert (
        refusal(lambda: consumer.open(producer.seal(BODY, destination=HERE), destination=HERE))
        is Verdict.UNKNOWN_KEY
    )


# --- verify


@pytest.mark.parametrize("form", SIGNED)
def test_anyone_may_verify_without_being_able_to_open(form):
    """B6: with no right to any data key, forgeries are refused, and what verifies says who sent what where."""

    class NoRight:
        def _no(self, *_):
            raise AssertionError("the key service was asked")

        generate = wrap = unwrap = _no

    producer, watcher = party(form), Party(policy(form), keys=NoRight())
    envelope = producer.seal(BODY, destination=HERE, content_type="text/plain")
    verified = watcher.sealer.verify(envelope, destination=HERE)
    assert (verified.sender, verified.destination, verified.content_type) == (SENDER, HERE, "text/plain")
    assert not isinstance(verified, Opened)
    assert not hasattr(verified, "body")
    for at in (len(envelope) - 1, 120, 40):
        changed = bytearray(envelope)
        changed[at] ^= 1
        refusal(lambda: watcher.sealer.verify(bytes(changed), destination=HERE))  # noqa: B023 - called at once
    assert refusal(lambda: watcher.sealer.verify(BODY, destination=HERE)) is Verdict.UNPROTECTED
    assert len(watcher.events) == 4


def test_confidentiality_cannot_be_verified_without_opening():
    one = party()
    with pytest.raises(ConfigError, match="signs nothing"):
        one.sealer.verify(one.seal(BODY, destination=HERE), destination=HERE)


# --- modes


@pytest.mark.parametrize("mode", ["off", "observe"])
def test_off_and_observe_seal_nothing_and_hand_on_clear_text(mode):
    one = party(mode=mode)
    assert one.seal(BODY, destination=HERE) == BODY
    assert asyncio.run(one.sealer.aseal(BODY, destination=HERE)) == BODY
    opened = one.open(BODY, destination=HERE)
    assert (opened.body, opened.verdict, opened.origin, opened.sender, opened.sent_at, opened.message_id) == (
        BODY,
        Verdict.CLEAR,
        Origin.NONE,
        None,
        None,
        None,
    )
    assert [event.verdict for event in one.events] == ([] if mode == "off" else [Verdict.UNPROTECTED])
    assert one.keys.generated == 0


def test_off_touches_nothing_not_even_what_is_sealed():
    envelope = party().seal(BODY, destination=HERE)
    assert party(mode="off").open(envelope, destination=HERE).body == envelope


@pytest.mark.parametrize("mode", ["observe", "tolerate"])
def test_what_is_sealed_is_opened_or_refused_in_every_mode_but_off(mode):
    """Nothing in a message turns protection off: a damaged envelope is not handed on as if it were clear text."""
    options = {"tolerate_until": datetime(2030, 1, 1, tzinfo=UTC)} if mode == "tolerate" else {}
    sealing = party()
    one = Party(policy(mode=mode, **options), keys=sealing.keys)
    envelope = sealing.seal(BODY, destination=HERE)
    assert one.open(envelope, destination=HERE).body == BODY
    assert refusal(lambda: one.open(envelope[:-1], destination=HERE)) is Verdict.MALFORMED
    assert refusal(lambda: one.open(envelope[:40] + b"\x00" + envelope[41:], destination=HERE)) in {
        Verdict.FORGED,
        Verdict.MALFORMED,
        Verdict.DOWNGRADE,
    }


@pytest.mark.parametrize("form", FORMS)
def test_toleration_seals_and_accepts_clear_text_with_an_event_each_until_it_ends(form):
    end = datetime.fromtimestamp(NOW / 1000 + 60, UTC)
    one = party(form, mode="tolerate", tolerate_until=end)
    assert one.seal(BODY, destination=HERE) != BODY
    for _ in range(3):
        assert one.open(BODY, destination=HERE).verdict is Verdict.CLEAR
    one.clock.ms = NOW + 60_000
    assert refusal(lambda: one.open(BODY, destination=HERE)) is Verdict.UNPROTECTED
    assert [event.verdict for event in one.events] == [Verdict.CLEAR] * 3 + [Verdict.UNPROTECTED]


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("given_form", ["clear", *FORMS])
def test_enforce_hands_on_nothing_that_is_protected_otherwise(form, given_form):
    """A9: whatever protects less, or otherwise, than the policy demands is refused, and so is clear text."""
    one = party(form)
    if given_form == form:
        return
    envelope = BODY if given_form == "clear" else party(given_form).seal(BODY, destination=HERE)
    verdict = refusal(lambda: one.open(envelope, destination=HERE))
    if given_form == "clear":
        assert verdict is Verdict.UNPROTECTED
    elif given_form.split("-")[0] == form.split("-")[0]:
        assert verdict is Verdict.UNKNOWN_KEY
    else:
        assert verdict is Verdict.DOWNGRADE


def test_no_header_of_a_message_turns_protection_off():
    """A9: in the peers, a header switches rules off. Here no header is even looked at but those that are bound."""
    one = party()
    for name in ("__rule.name", "postseal-mode", "encrypted", "content-encoding"):
        assert refusal(lambda: one.open(BODY, destination=HERE, headers={name: "off"})) is Verdict.UNPROTECTED  # noqa: B023 - called at once
        assert one.seal(BODY, destination=HERE, headers={name: "off"}) != BODY


# --- never twice


@pytest.mark.parametrize("form", FORMS)
def test_what_is_sealed_for_this_destination_is_not_sealed_again(form):
    """A10: a redriven or forwarded message goes on as it is; the producer needs no right to unwrap its own data key."""
    one = party(form, accept_from=["kafka:dlq"])
    envelope = one.seal(BODY, destination=HERE)
    assert one.seal(envelope, destination=HERE) == envelope
    assert one.seal(envelope, destination="kafka:dlq") == envelope
    assert one.keys.unwrapped <= 1  # for the dead letters, where this process does not seal
    stranger = Party(one.policies, keys=one.keys)
    assert stranger.seal(envelope, destination=HERE) == envelope


@pytest.mark.parametrize("form", FORMS)
def test_a_forged_look_alike_is_refused_and_never_passed_on_in_clear(form):
    """A9, A10: only what authenticates goes out as it is."""
    one = party(form)
    envelope = one.seal(BODY, destination=HERE)
    changed = envelope[:-1] + bytes([envelope[-1] ^ 1])
    fresh = Party(one.policies, keys=one.keys)  # which has not the data key
    for call in (
        lambda: fresh.seal(changed, destination=HERE),
        lambda: asyncio.run(fresh.sealer.aseal(changed, destination=HERE)),
        lambda: one.seal(envelope[:8] + BODY, destination=HERE),
        lambda: one.seal(envelope[:-1], destination=HERE),
    ):
        assert refusal(call) in {Verdict.FORGED, Verdict.MALFORMED}


def test_an_envelope_for_another_destination_is_refused_at_sealing():
    one = Party(policy(destinations=[HERE, "kafka:refunds"]))
    envelope = one.seal(BODY, destination="kafka:refunds")
    assert refusal(lambda: one.seal(envelope, destination=HERE)) is Verdict.WRONG_DESTINATION


# --- key services


@pytest.mark.parametrize("form", ENCRYPTING)
@pytest.mark.parametrize(
    ("fault", "verdict"),
    [
        (KeyRefused("disabled"), Verdict.UNKNOWN_KEY),
        (NotMine("not mine"), Verdict.UNKNOWN_KEY),
        (KeyBroken("changed"), Verdict.FORGED),
    ],
    ids=["refused", "not-mine", "broken"],
)
def test_what_a_key_service_says_becomes_a_verdict_and_one_event(form, fault, verdict):
    producer, consumer = party(form), party(form)
    envelope = producer.seal(BODY, destination=HERE)
    consumer.keys.fail = fault
    for call in (
        lambda: consumer.open(envelope, destination=HERE),
        lambda: asyncio.run(consumer.sealer.aopen(envelope, destination=HERE)),
    ):
        with pytest.raises(Refused) as refused:
            call()
        assert refused.value.verdict is verdict
        assert refused.value.destination == HERE
    assert [event.verdict for event in consumer.events] == [verdict] * 2
    assert consumer.keys.unwrapped == 1  # the second time it is remembered


@pytest.mark.parametrize("form", ENCRYPTING)
def test_a_key_service_that_does_not_answer_settles_nothing(form):
    """A passing fault is no refusal and makes no audit event; once the service answers, the message opens."""
    producer, consumer = party(form), party(form)
    envelope = producer.seal(BODY, destination=HERE)
    consumer.keys.fail = KeyUnavailable("timeout")
    with pytest.raises(KeyUnavailable):
        consumer.open(envelope, destination=HERE)
    with pytest.raises(KeyUnavailable):
        asyncio.run(consumer.sealer.aopen(envelope, destination=HERE))
    consumer.keys.fail = None
    assert consumer.open(envelope, destination=HERE).body == BODY
    assert consumer.events == []


def test_sealing_without_a_data_key_raises_and_sends_nothing():
    one = party()
    for fault in (KeyUnavailable("timeout"), KeyRefused("denied")):
        one.keys.fail = fault
        with pytest.raises(type(fault)):
            one.seal(BODY, destination=HERE)


@pytest.mark.parametrize("form", ENCRYPTING)
def test_a_right_withdrawn_is_refused_within_the_printed_window(form):
    """A13: opening.max_age is the revocation window, also on the short way."""
    one = party(form)
    envelope = one.seal(BODY, destination=HERE)
    one.open(envelope, destination=HERE)
    one.keys.fail = KeyRefused("access denied")
    one.clock.ms += 299_999
    assert one.open(envelope, destination=HERE).body == BODY
    one.clock.ms += 1
    assert refusal(lambda: one.open(envelope, destination=HERE)) is Verdict.UNKNOWN_KEY


def test_a_key_for_each_message_where_wanted():
    """A7: max_messages = 1 makes N messages with N data keys."""
    one = Party(policy(data_key=DataKeyLimits(max_messages=1)))
    envelopes = [one.seal(BODY, destination=HERE) for _ in range(5)]
    assert one.keys.generated == 5
    assert len({decode(envelope).header.commitment for envelope in envelopes}) == 5


def test_close_forgets_all_data_keys():
    one = party()
    with one.sealer:
        envelope = one.seal(BODY, destination=HERE)
        one.open(envelope, destination=HERE)
    one.open(envelope, destination=HERE)
    one.seal(BODY, destination=HERE)
    assert (one.keys.unwrapped, one.keys.generated) == (2, 2)


# --- configuration


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"sender": ""}, "sender"),
        ({"sender": "a\nb"}, "sender"),
        ({"keys": {"mian": None}}, "did you mean 'mian'"),
        ({"keys": None}, "'main', which the sealer was not given"),
        ({"deduplication_secret": b"short"}, "deduplication secret"),
        ({"keys": {"main": "a key"}}, "keys.*'main'.*KeyProvider"),
    ],
)
def test_a_sealer_that_cannot_work_is_not_made(options, words):
    with pytest.raises(ConfigError, match=words):
        Sealer(**{"sender": SENDER, "policies": [policy()], "keys": {"main": local_keys()}} | options)


def test_a_signer_that_is_no_ring_is_named():
    with pytest.raises(ConfigError, match=r"'hmac'.*KeyRing"):
        Sealer(
            sender=SENDER,
            policies=[policy("privacy-hmac")],
            keys={"main": local_keys()},
            signers={"hmac": HmacKey("k", SECRET)},
        )


@pytest.mark.parametrize("destination", ["kafka:unknown", "orders", "", "KAFKA:orders"])
def test_a_destination_without_a_policy_is_refused_in_both_directions(destination):
    one = party()
    for call in (
        lambda: one.seal(BODY, destination=destination),
        lambda: one.open(BODY, destination=destination),
        lambda: one.sealer.policy_for(destination),
    ):
        with pytest.raises(ConfigError):
            call()


def test_a_content_type_that_no_header_can_carry_is_a_config_error():
    for form in ("confidentiality", "integrity-hmac"):
        for content_type in ("", "x" * 256, "\ud800"):
            with pytest.raises(ConfigError, match="content type"):
                party(form).seal(BODY, destination=HERE, content_type=content_type)


@pytest.mark.parametrize("form", ["confidentiality", "privacy-hmac", "integrity-hmac"])
def test_a_body_over_the_limit_is_refused_before_anything_is_made_of_it(form, monkeypatch):
    from postseal.core import sealer as room

    monkeypatch.setattr(room, "MAX_BODY", 100)
    one = party(form)
    one.seal(bytes(100), destination=HERE)
    with pytest.raises(TooLarge, match="101 bytes"):
        Party(one.policies, keys=one.keys).seal(bytes(101), destination=HERE)


def test_policies_are_found_by_destination():
    one = Party([policy(), policy("privacy-hmac", name="pay", destinations=["kafka:pay*"])])
    assert one.sealer.policy_for("kafka:pay-eu").name == "pay"
    assert [found.name for found in one.sealer.policies] == ["orders", "pay"]
    assert isinstance(one.sealer.policies[0], Policy)


def test_deduplication_ids_need_their_secret_and_do_not_change():
    """A FIFO queue goes on to deduplicate by content: the same body, the same id, whatever the data key."""
    with pytest.raises(ConfigError, match="deduplication_secret"):
        party().sealer.deduplication_id(BODY, destination=HERE)
    one, other = (Party(policy(), deduplication_secret=SECRET).sealer for _ in range(2))
    assert one.deduplication_id(BODY, destination=HERE) == other.deduplication_id(BODY, destination=HERE)
    assert one.deduplication_id(b"", destination=HERE) != one.deduplication_id(BODY, destination=HERE)


def test_unsafe_local_keys_warn():
    from postseal.core import UnsafeLocalKeys, UnsafeLocalKeysWarning

    with warnings.catch_warnings(), pytest.raises(UnsafeLocalKeysWarning):
        UnsafeLocalKeys.ephemeral()


# -- opening what needs no key service -----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", FORMS)
def test_open_cached_asks_no_key_service(form):
    sender, receiver = party(form), party(form)
    receiver.keys.inner = sender.keys.inner
    envelope = sender.seal(BODY, destination=HERE)
    if form in ENCRYPTING:
        assert receiver.sealer.open_cached(envelope, destination=HERE) is None
        assert receiver.keys.unwrapped == 0
        assert receiver.events == []
        receiver.open(envelope, destination=HERE)
    for _ in range(2):  # the short way, too
        opened = receiver.sealer.open_cached(envelope, destination=HERE)
        assert opened is not None
        assert opened.body == BODY
    assert receiver.keys.unwrapped == (form in ENCRYPTING)
    assert receiver.events == []


@pytest.mark.parametrize("form", FORMS)
def test_open_cached_refuses_as_open_does(form):
    sender, receiver = party(form), party(form)
    receiver.keys.inner = sender.keys.inner
    envelope = sender.seal(BODY, destination=HERE)
    receiver.open(envelope, destination=HERE)
    at = envelope.index(decode(envelope).payload)
    altered = envelope[:at] + bytes([envelope[at] ^ 1]) + envelope[at + 1 :]
    assert (
        refusal(lambda: receiver.sealer.open_cached(altered, destination=HERE, coordinates={"tag": 7}))
        == Verdict.FORGED
    )
    assert refusal(lambda: receiver.sealer.open_cached(BODY, destination=HERE)) == Verdict.UNPROTECTED
    assert [event.verdict for event in receiver.events] == [Verdict.FORGED, Verdict.UNPROTECTED]
    assert receiver.events[0].coordinates == {"tag": 7}


def test_open_cached_knows_what_the_key_service_just_refused():
    sender, receiver = party(), party()
    envelope = sender.seal(BODY, destination=HERE)
    receiver.keys.fail = KeyRefused("no")
    assert refusal(lambda: receiver.open(envelope, destination=HERE)) == Verdict.UNKNOWN_KEY
    assert refusal(lambda: receiver.sealer.open_cached(envelope, destination=HERE)) == Verdict.UNKNOWN_KEY
    assert receiver.keys.unwrapped == 1


def test_open_cached_hands_on_clear_text_where_the_mode_does():
    receiver = party(mode="observe")
    opened = receiver.sealer.open_cached(BODY, destination=HERE)
    assert opened is not None
    assert (opened.body, opened.verdict) == (BODY, Verdict.CLEAR)
