"""The accelerator does what Python does: the same bytes, the same verdicts, for any input."""

from __future__ import annotations

import gc
import os
import random
import shutil
import subprocess
import sys
import weakref
from datetime import UTC, datetime
from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, HmacKey, KeyRing, NewDataKey, Recipient, Refused, Verdict
from postseal.core.accelerator import SWITCH, native
from postseal.core.context import byte_string
from postseal.core.outgoing import UNBOUND
from postseal.core.wire import Algorithm, Header, Protection, Skeleton, Template
from tests.core.kit import HERE, NOW, SECRET, Clock, Party, chosen, is_compiled, policy

needed = pytest.mark.skipif(not is_compiled(), reason="the accelerator was not built, or is not wanted")
ENCRYPTING = ("confidentiality", "privacy-hmac", "privacy-ed25519", "privacy-es256")
DATA_KEY = bytes(range(100, 132))
RECIPIENTS = (Recipient(-65537, b"8 bytes.", bytes(184)), Recipient(-5, b"main-2", bytes(40)))
bodies = st.one_of(st.binary(max_size=600), st.integers(0, 70_000).map(bytes)).filter(
    lambda body: body < b"\xd1"
)
instants = st.integers(2**16 * 1000, (2**32 - 1) * 1000 + 999)


class OneKey:
    """A key provider with one data key, that two sealers can share."""

    def generate(self, context):
        return NewDataKey(DATA_KEY, RECIPIENTS)

    def wrap(self, data_key, context):
        return RECIPIENTS

    def unwrap(self, recipients, context):
        return DATA_KEY


def noise(seed: int):
    """Make a source of bytes that are random to look at and the same each time."""
    source = random.Random(seed)
    return source.randbytes


class Pair:
    """A compiled sealer and one in Python, that are alike in all else."""

    def __init__(self, form: str, seed: int = 1, **options) -> None:
        self.parties = {}
        self.form = form
        for way in ("compiled", "python"):
            with chosen(way):
                one = Party(policy(form, **options), keys=OneKey(), random=noise(seed))
                self.parties[way] = one
                one.open(one.seal(b"learn", destination=HERE), destination=HERE)
                one.seal(b"a permit each", destination=HERE)

    def both(self, call):
        """Return what *call* makes of each party."""
        found = []
        for way, one in self.parties.items():
            with chosen(way):
                found.append(call(one))
        return found

    def at(self, ms: int) -> None:
        for one in self.parties.values():
            one.clock.ms = ms

    def short(self, envelope: bytes, beside=None):
        """Return what each short way makes of *envelope*: nothing, what was opened, or the refusal."""

        def open_(one):
            incoming = one.sealer._incoming[HERE]
            (way,) = set(incoming.learnt.values())
            try:
                opened = way(envelope, beside)
            except Refused as refused:
                return refused.verdict, refused.detail, refused.__cause__
            return opened and (opened.body, opened._varying, opened._facts)

        return self.both(open_)


# -- whether it is here ----------------------------------------------------------------------------------------------


@pytest.mark.skipif(os.environ.get(SWITCH) == "0", reason="it is not wanted")
@pytest.mark.skipif(not shutil.which("cargo"), reason="nothing to build it with")
def test_it_is_built_where_cargo_is():
    assert is_compiled()


def run(code: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=False,
        env=os.environ | environment,
    )


def test_zero_leaves_it_alone():
    code = "import sys; from postseal.core.accelerator import native; print(native(), 'postseal.core._native' in sys.modules)"
    assert run(code, **{SWITCH: "0"}).stdout.split() == ["None", "False"]


def test_without_it_one_is_an_error_and_nothing_else_is():
    code = (
        "import sys; sys.modules['postseal.core._native'] = None\n"
        "from postseal.core.accelerator import native; print(native())"
    )
    environment = {key: value for key, value in os.environ.items() if key != SWITCH}
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=False, env=environment
    )
    assert done.stdout.split() == ["None"]
    assert "ConfigError: POSTSEAL_NATIVE=1" in run(code, **{SWITCH: "1"}).stderr


def test_another_value_of_the_switch_is_an_error(monkeypatch):
    monkeypatch.setenv(SWITCH, "yes")
    native.cache_clear()
    with pytest.raises(ConfigError, match="POSTSEAL_NATIVE is 0, 1 or unset: 'yes'"):
        native()
    monkeypatch.undo()
    native.cache_clear()


def test_it_is_loaded_by_the_first_message_and_not_before():
    code = "import sys, postseal.core; print('postseal.core._native' in sys.modules)"
    assert run(code).stdout.split() == ["False"]


# -- sealing ---------------------------------------------------------------------------------------------------------


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
@given(
    body=bodies,
    content_type=st.none() | st.sampled_from(["text/plain", "application/json", "x" * 255]),
    expires_in=st.none() | st.integers(1, 10**8),
    headers=st.none()
    | st.lists(st.tuples(st.sampled_from(["a", "b"]), st.text("ab", max_size=300)), max_size=3),
    now=instants,
    seed=st.integers(0, 2**32),
)
def test_both_seal_to_the_same_bytes(form, body, content_type, expires_in, headers, now, seed):  # noqa: PLR0917
    expires = (
        None if expires_in is None else datetime.fromtimestamp(min(now // 1000 + expires_in, 2**32 - 1), UTC)
    )
    pair = Pair(form, seed, bind_headers=["a"] if headers else [])
    pair.at(now)

    def seal(one):
        sealed = one.seal(
            body,
            destination=HERE,
            content_type=content_type,
            expires_at=expires,
            headers=headers,
            content_encoding=None,
        )
        return sealed[:-64] if form.endswith("es256") else sealed  # whose signatures are random

    for _ in range(2):  # the writer is made, then used
        compiled, python = pair.both(seal)
        assert compiled == python


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
@pytest.mark.parametrize("size", [0, 7, 8, 239, 240, 4079, 4080, 8175, 8176, 65_519, 65_520, 65_536, 300_000])
def test_both_seal_to_the_same_bytes_at_every_size_of_a_head(form, size):
    compiled, python = Pair(form).both(lambda one: one.seal(bytes(size), destination=HERE)[:-64])
    assert compiled == python


@given(
    sender=st.text("abc", min_size=1, max_size=200),
    expires=st.none() | st.integers(2**16, 2**32 - 1),
    content_type=st.none() | st.text("abc", min_size=1, max_size=255),
    nonce=st.binary(min_size=12, max_size=12),
    message_id=st.binary(min_size=16, max_size=16),
    seconds=st.integers(2**16, 2**32 - 1),
    millis=st.integers(0, 999),
)
def test_the_holes_are_where_they_are_said_to_be(  # noqa: PLR0917
    sender, expires, content_type, nonce, message_id, seconds, millis
):
    header = Header(
        algorithm=Algorithm.A256GCM,
        sender=sender,
        destination=HERE,
        seconds=seconds,
        millis=millis,
        message_id=message_id,
        protection=Protection.CONFIDENTIALITY,
        policy="orders",
        content_type=content_type,
        expires=expires,
        nonce=nonce,
        commitment=bytes(32),
    )
    times = [number.to_bytes(4) for number in (expires, seconds) if number is not None]
    holes = [nonce, *times, message_id, millis.to_bytes(2)]
    template, skeleton = Template(header, UNBOUND), Skeleton(header)
    for places, blank in ((template.places, template.blank()), (skeleton.places, skeleton.blank)):
        filled = bytearray(blank)
        for place, value in zip(places, holes, strict=True):
            assert not any(filled[place : place + len(value)])
            filled[place : place + len(value)] = value
        assert byte_string(header.encode()) in filled


@needed
@pytest.mark.parametrize(
    "arguments",
    [
        (),
        (b"x",),
        ("x", b"", None, True),
        (b"x", "", None, True),
        (b"x", b"", -1, True),
        (b"x", b"", 2**32, True),
        (b"x", UNBOUND, 2**20, True),
        (None, None, None, None),
        (b"x", b"", "1", True),
    ],
)
def test_a_writer_raises_an_ordinary_error_for_what_is_no_argument(arguments):
    pair = Pair("confidentiality")
    write = pair.parties["compiled"].sealer._outgoing[HERE].keys.key.writers[None]
    with pytest.raises((TypeError, ValueError, OverflowError)):
        write(*arguments)
    assert write(b"x", UNBOUND, None, True)


@needed
@pytest.mark.parametrize("wrong", [b"", bytes(27), bytes(29), "x" * 28, None])
def test_random_bytes_that_are_not_as_many_as_were_asked_for_seal_nothing(wrong):
    with chosen("compiled"):
        one = Party(policy(), random=lambda _: wrong)
        with pytest.raises((TypeError, ValueError)):
            one.seal(b"x", destination=HERE)


# -- opening ---------------------------------------------------------------------------------------------------------


def mutations(source: random.Random, envelope: bytes, other: bytes) -> bytes:
    """Cut, grow, flip or mix."""
    data = bytearray(envelope)
    for _ in range(source.choice((0, 1, 1, 1, 2, 3))):
        at = source.randrange(len(data) + 1)
        match source.randrange(7):
            case 0:
                del data[at:]
            case 1:
                del data[:at]
            case 2:
                data[at:at] = source.randbytes(source.randrange(1, 40))
            case 3:
                data += source.randbytes(source.randrange(1, 300))
            case 4 if at < len(data):
                data[at] ^= 1 << source.randrange(8)
            case 5 if at < len(data):
                data[at] = source.choice((0, 0x17, 0x18, 0x40, 0x58, 0x59, 0x5A, 0x5B, 0xFF))
            case _:
                data[at:] = other[at:]
    return bytes(data)


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
@pytest.mark.parametrize("expiring", [False, True])
def test_both_short_ways_say_the_same_of_any_bytes(form, expiring):
    """And what a short way opens, the whole way opens to the same; cut, grown, flipped and mixed, from a fixed seed."""
    source = random.Random(f"{form} {expiring}")
    expires = datetime(2030, 1, 1, tzinfo=UTC) if expiring else None
    pair = Pair(form)
    envelopes = [
        pair.parties["python"].seal(source.randbytes(size), destination=HERE, expires_at=expires)
        for size in (0, 1, 7, 8, 23, 200, 239, 240, 600, 8200)
    ]
    for one in pair.parties.values():
        one.sealer._incoming.clear()
    pair.both(lambda one: one.open(envelopes[0], destination=HERE))
    opened = refused = 0
    whole = Party(policy(form), keys=OneKey())
    for _ in range(2000):
        envelope = mutations(source, source.choice(envelopes), source.choice(envelopes))
        compiled, python = pair.short(envelope)
        assert compiled == python
        if python is None:
            continue
        refused += isinstance(python[0], Verdict)
        if isinstance(python[0], bytes):
            opened += 1
            whole.sealer._incoming.clear()
            assert whole.open(envelope, destination=HERE).body == python[0]
    assert opened > 100
    assert refused > 100


@needed
@given(st.binary(max_size=700), st.sampled_from(ENCRYPTING))
def test_no_bytes_are_too_strange_for_a_short_way(data, form):
    compiled, python = pair_for(form).short(data)
    assert compiled == python


@cache
def pair_for(form: str) -> Pair:
    return Pair(form)


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
def test_every_cut_and_a_flipped_bit_in_every_byte_is_seen_by_both(form):
    pair = pair_for(form)
    envelope = pair.parties["python"].seal(b"4111 1111 1111 1111", destination=HERE)
    for size in range(len(envelope)):
        assert pair.short(envelope[:size]) == [None, None]
        assert pair.short(envelope[size:] if size else b"") == [None, None]
    for at in range(len(envelope)):
        flipped = bytearray(envelope)
        flipped[at] ^= 1 << at % 8
        compiled, python = pair.short(bytes(flipped))
        assert compiled == python
        assert python is None or isinstance(python[0], Verdict)


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
@given(
    age=st.none() | st.integers(1, 100),
    times=st.lists(st.tuples(st.integers(-200_000, 200_000), st.none() | st.integers(1, 100)), max_size=6),
)
def test_both_refuse_at_the_same_moments(form, age, times):
    """Stale, expired, from the future: whatever the clocks of sender and consumer say."""
    pair = Pair(form, max_message_age=age, max_clock_skew=5)
    sender = Party(policy(form), keys=OneKey())
    for step, expires_in in times:
        sender.clock.ms = NOW
        expires = None if expires_in is None else datetime.fromtimestamp(NOW // 1000 + expires_in, UTC)
        envelope = sender.seal(b"x", destination=HERE, expires_at=expires)
        pair.at(NOW + step)
        compiled, python = pair.both(lambda one: verdict(one, envelope))  # noqa: B023 - called at once
        assert compiled == python


def verdict(one: Party, envelope: bytes, **beside):
    """Return what is opened, or why nothing is."""
    try:
        opened = one.open(envelope, destination=HERE, **beside)
    except Refused as refused:
        return refused.verdict, refused.detail, len(one.events)
    return opened.body, opened._varying, opened.verdict, opened.origin


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
@given(
    sealed=st.lists(st.tuples(st.sampled_from("abc"), st.text("xy", max_size=4)), max_size=3),
    received=st.lists(st.tuples(st.sampled_from("abc"), st.text("xy", max_size=4) | st.floats()), max_size=3),
)
def test_both_bind_the_same_headers(form, sealed, received):
    pair = Pair(form, bind_headers=["a", "b"])
    for headers in (sealed, received):
        envelope = pair.parties["python"].seal(b"x", destination=HERE, headers=sealed)
        compiled, python = pair.both(lambda one: verdict(one, envelope, headers=headers))  # noqa: B023
        assert compiled == python


@needed
def test_kinds_of_messages_are_tried_in_turn_and_few():
    """Content types, with an expiry and without; a short way that is too many begins the chain anew."""
    pair = Pair("confidentiality")
    expires = datetime(2030, 1, 1, tzinfo=UTC)

    def work(one):
        found = []
        for _ in range(3):
            for kind in (None, "a", "b", "application/json", "text/plain", "c"):
                for when in (None, expires):
                    opened = one.open(
                        one.seal(b"x", destination=HERE, content_type=kind, expires_at=when), destination=HERE
                    )
                    found.append((opened.content_type, opened.expires_at))
        (way,) = one.sealer._incoming[HERE].learnt.values()
        return found, 1 <= getattr(way, "__self__", way).kinds <= 4

    compiled, python = pair.both(work)
    assert compiled == python
    assert python[1]


@needed
def test_a_retired_key_ends_to_verify_on_the_short_way_too():
    for way in ("compiled", "python"):
        with chosen(way):
            clock = Clock()
            until = datetime.fromtimestamp(NOW / 1000 + 60, UTC)
            ring = KeyRing(
                [HmacKey("hmac-1", SECRET, state="retired", retired_until=until)], clock=clock.seconds
            )
            one = Party(policy("privacy-hmac"), keys=OneKey(), clock=clock, rings={"hmac": ring})
            envelope = Party(policy("privacy-hmac"), keys=OneKey()).seal(b"x", destination=HERE)
            assert [one.open(envelope, destination=HERE).body for _ in range(2)] == [b"x"] * 2
            clock.ms += 59_999
            assert one.open(envelope, destination=HERE).body == b"x"
            clock.ms += 1
            with pytest.raises(Refused) as refused:
                one.open(envelope, destination=HERE)
            assert refused.value.verdict is Verdict.UNKNOWN_KEY


@needed
@pytest.mark.parametrize(
    "arguments", [(), (b"x",), ("x", None), (None, None), (bytearray(9), None), (b"", None, 1)]
)
def test_an_opener_raises_an_ordinary_error_for_what_is_no_argument(arguments):
    pair = Pair("confidentiality")
    (way,) = pair.parties["compiled"].sealer._incoming[HERE].learnt.values()
    with pytest.raises(TypeError):
        way(*arguments)
    assert way(b"", None) is None


# -- memory ----------------------------------------------------------------------------------------------------------


@needed
def test_a_data_key_that_is_dropped_is_collected():
    """What seals with a key is kept with the key: a circle, which the collector must see through."""

    class Watched(Clock):
        pass

    with chosen("compiled"):
        clock = Watched()
        one = Party(policy("privacy-hmac"), keys=OneKey(), clock=clock)
        one.open(one.seal(b"x", destination=HERE), destination=HERE)
        one.seal(b"x", destination=HERE)
        watched = weakref.ref(clock)
        del one, clock
        gc.collect()
        assert watched() is None


@needed
def test_refusing_leaks_nothing():
    one = pair_for("privacy-hmac").parties["compiled"]
    with chosen("compiled"):
        envelope = bytearray(one.seal(bytes(1000), destination=HERE))
        envelope[-1] ^= 1
        data = bytes(envelope)
        (way,) = set(one.sealer._incoming[HERE].learnt.values())
    before = sys.getrefcount(data)
    for _ in range(100):
        with pytest.raises(Refused):
            way(data, None)
    gc.collect()
    assert sys.getrefcount(data) == before


# -- at hand ---------------------------------------------------------------------------------------------------------


@needed
@pytest.mark.parametrize("form", ENCRYPTING)
def test_both_have_the_same_at_hand(form):
    """What is no common case gives None: no key, no bytes, what looks sealed, another destination, what is refused."""

    def work(one):
        seal, open_ = one.sealer.at_hand(HERE), one.sealer.open_at_hand(HERE)
        other = one.sealer.at_hand("kafka:other"), one.sealer.open_at_hand("kafka:other")
        sealed = one.seal(b"x", destination=HERE)
        at_hand = [seal(b"x"), seal(b""), seal(b"x", "text/plain"), seal(b"x", "text/plain")]
        assert all(at_hand)
        found = [open_(each) and open_(each).body for each in at_hand[:2]]
        found += [seal(bytearray(b"x")), seal("x"), seal(None), seal(sealed), seal(b"\xd1"), other[0](b"x")]
        body, parts = one.sealer.body_at_hand(HERE), one.sealer.parts_at_hand(HERE)
        found[1:1] = [body(each) for each in at_hand]
        for opening in (open_, body, parts):
            found += [opening(bytearray(sealed)), opening("x"), opening(b""), opening(sealed[:-1])]
            found += [opening(sealed[:20] + bytes([sealed[20] ^ 1]) + sealed[21:])]
        found += [other[1](sealed)]
        if form == "confidentiality":
            nonce = len(b"\xd8\x60\x84\x58\x00\xa4\x01\x03\x05\x4c")
            changed = sealed[:nonce] + bytes([sealed[nonce] ^ 1]) + sealed[nonce + 1 :]
            found += [open_(changed), body(changed), parts(changed)]
        assert parts(at_hand[2]) is None
        one.open(at_hand[2], destination=HERE)
        assert [parts(each) for each in at_hand[1:3]] == [(b"", None, None), (b"x", "text/plain", None)]
        found[6:6] = [
            body(at_hand[2]),
            body(at_hand[0]),
        ]  # another kind of message, and one of the kind before
        one.sealer.close()
        return [*found, seal(b"x"), open_(sealed), body(sealed), parts(sealed)], len(one.events)

    compiled, python = Pair(form).both(work)
    assert compiled == python == (python[0], 0)
    assert compiled[0][:6] == [b"x", b"x", b"", None, None, b""]  # of a content type, none was opened yet
    assert compiled[0][6:8] == [b"x", b"x"]
    assert not any(compiled[0][8:])


@needed
@pytest.mark.parametrize("arguments", [(), (b"x", None, None)])
def test_a_hand_raises_an_ordinary_error_for_what_is_no_argument(arguments):
    sealer = pair_for("confidentiality").parties["compiled"].sealer
    with chosen("compiled"):
        openers = sealer.open_at_hand(HERE), sealer.body_at_hand(HERE), sealer.parts_at_hand(HERE)
        hands = sealer.at_hand(HERE), *openers
    for hand in hands:
        with pytest.raises(TypeError):
            hand(*arguments)
