"""Signatures and MACs, their keys, and the ring: SPEC.md 7."""

from __future__ import annotations

import hashlib
import hmac
import pickle
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, Ed25519Key, Es256Key, HmacKey, KeyRing, Origin, Refused, Verdict
from postseal.core.crypto import InvalidSignature
from postseal.core.signing import deduplication_key
from tests import reference
from tests.core.kit import ED25519, P256, SECRET

KEYS = [
    HmacKey("h", SECRET),
    Ed25519Key("e", private_key=ED25519, senders=["a"]),
    Es256Key("p", private_key=P256, senders=["a"]),
]
IDS = ["hmac", "ed25519", "es256"]


@pytest.mark.parametrize("key", KEYS, ids=IDS)
@given(prefix=st.binary(max_size=50), message=st.binary(max_size=50))
def test_what_was_signed_verifies_however_it_was_cut(key, prefix, message):
    signature = key.signer("a", "kafka:x", prefix)(message)
    assert len(signature) == key.algorithm.signature_size
    key.verifier("a", "kafka:x", prefix)(message, signature)
    key.verifier("a", "kafka:x")(prefix + message, signature)


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_any_flipped_bit_of_signature_or_message_is_refused(key):
    message, verify = b"a message", key.verifier("a", "kafka:x", b"prefix")
    signature = key.signer("a", "kafka:x", b"prefix")(message)
    for bit in range(len(signature) * 8):
        wrong = bytearray(signature)
        wrong[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            verify(message, bytes(wrong))
    for bit in range(len(message) * 8):
        changed = bytearray(message)
        changed[bit // 8] ^= 1 << bit % 8
        with pytest.raises(InvalidSignature):
            verify(bytes(changed), signature)
    with pytest.raises(InvalidSignature):
        key.verifier("a", "kafka:x", b"prefiX")(message, signature)


@pytest.mark.parametrize("key", KEYS[1:], ids=IDS[1:])
@pytest.mark.parametrize("signature", [bytes(64), b"\xff" * 64, bytes(63) + b"\x01"])
def test_signatures_of_odd_numbers_are_refused_and_nothing_else_is_raised(key, signature):
    with pytest.raises(InvalidSignature):
        key.verifier("a", "kafka:x")(b"m", signature)


def test_the_mac_key_is_derived_for_each_sender_and_destination():
    """E4: a key for each sender and destination, so that a MAC cannot be moved from one pair to another."""
    key = KEYS[0]
    pairs = [("a", "kafka:x"), ("b", "kafka:x"), ("a", "kafka:y"), ("ak", "afka:x"), ("", "akafka:x")]
    macs = {pair: key.signer(*pair)(b"m") for pair in pairs}
    assert len(set(macs.values())) == len(pairs)
    for pair, mac in macs.items():
        derived = reference.hmac_key(SECRET, *pair)
        assert mac == hmac.new(derived, b"m", hashlib.sha256).digest()
        for other in pairs:
            if other != pair:
                with pytest.raises(InvalidSignature):
                    key.verifier(*other)(b"m", mac)


def test_macs_are_compared_in_constant_time():
    """E4: by the library's own `verify`, and never by `==`; this pins where the comparison happens."""
    import inspect

    from postseal.core import signing

    source = inspect.getsource(signing.HmacKey.verifier)
    assert "context.verify(signature)" in source
    assert "==" not in source


def test_what_a_key_proves_is_told_apart():
    """D9: a MAC proves a group, a signature a sender."""
    assert [key.origin for key in KEYS] == [Origin.GROUP, Origin.SENDER, Origin.SENDER]


@pytest.mark.parametrize("key", KEYS, ids=IDS)
def test_keys_show_no_secret_and_do_not_travel(key):
    assert SECRET.hex() not in repr(key)
    assert repr(SECRET) not in repr(key)
    with pytest.raises(TypeError):
        pickle.dumps(key)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: HmacKey("", SECRET), "1 to 64"),
        (lambda: HmacKey("k" * 65, SECRET), "1 to 64"),
        (lambda: HmacKey("k", SECRET[:31]), "at least 32"),
        (lambda: HmacKey("k", "s" * 32), "must be bytes"),
        (lambda: HmacKey("k", SECRET, senders="billing-api"), "list of names"),
        (lambda: HmacKey("k", SECRET, senders=[]), "empty list of senders"),
        (lambda: HmacKey("k", SECRET, state="actve"), "did you mean 'active'"),
        (lambda: HmacKey("k", SECRET, retired_until=datetime(2027, 1, 1, tzinfo=UTC)), "state='retired'"),
        (lambda: HmacKey("k", SECRET, state="retired", retired_until=datetime(2027, 1, 1)), "time zone"),  # noqa: DTZ001 - the fault itself
        (lambda: Ed25519Key("k", private_key=ED25519, senders=None), "must name its senders"),
        (lambda: Ed25519Key("k", senders=["a"]), "either a private key or a public key"),
        (
            lambda: Ed25519Key("k", private_key=ED25519, public_key=ED25519.public_key(), senders=["a"]),
            "either",
        ),
        (lambda: Ed25519Key("k", public_key=P256.public_key(), senders=["a"]), "no Ed25519 key"),
        (lambda: Ed25519Key("k", private_key=P256, senders=["a"]), "no Ed25519 key"),
        (lambda: Es256Key("k", private_key=ED25519, senders=["a"]), "no P-256 key"),
        (
            lambda: Es256Key(
                "k", public_key=ec.generate_private_key(ec.SECP384R1()).public_key(), senders=["a"]
            ),
            "no P-256 key",
        ),
        (
            lambda: Es256Key("k", private_key=rsa.generate_private_key(65537, 2048), senders=["a"]),
            "no P-256 key",
        ),
        (lambda: KeyRing([]), "needs a key"),
        (lambda: KeyRing([HmacKey("k", SECRET), HmacKey("k", bytes(32))]), "two keys"),
    ],
)
def test_a_wrong_key_is_a_config_error(make, words):
    with pytest.raises(ConfigError, match=words) as error:
        make()
    assert SECRET.hex() not in str(error.value)


@pytest.mark.parametrize("kind", [Ed25519Key, Es256Key])
def test_a_public_key_verifies_and_cannot_sign(kind):
    """A6: the consumer cannot make what it verifies."""
    pair = KEYS[1] if kind is Ed25519Key else KEYS[2]
    private = ED25519 if kind is Ed25519Key else P256
    public = kind("k", public_key=private.public_key(), senders=["a"])
    public.verifier("a", "kafka:x")(b"m", pair.signer("a", "kafka:x")(b"m"))
    assert not public.can_sign
    with pytest.raises(ConfigError, match="cannot sign"):
        public.signer("a", "kafka:x")
    with pytest.raises(ConfigError, match="only verifies"):
        KeyRing([public]).signing_key("a")


def test_the_first_active_key_signs():
    states = [("p", "pending"), ("r", "retired"), ("x", "revoked"), ("a", "active"), ("b", "active")]
    ring = KeyRing([HmacKey(name, SECRET, state=state) for name, state in states])
    assert ring.signing_key("anybody").id == "a"


def test_a_key_signs_for_its_senders_only():
    ring = KeyRing([HmacKey("k", SECRET, senders=["billing-api"])])
    with pytest.raises(ConfigError, match="did you mean 'billing-api'"):
        ring.signing_key("biling-api")


@pytest.mark.parametrize(
    ("state", "until", "now", "verifies"),
    [
        ("pending", None, 0, True),
        ("active", None, 0, True),
        ("retired", None, 0, True),
        ("retired", 100, 99.9, True),
        ("retired", 100, 100, False),
        ("revoked", None, 0, False),
    ],
)
def test_what_verifies_by_state_and_date(state, until, now, verifies):
    retired_until = None if until is None else datetime.fromtimestamp(until, UTC)
    ring = KeyRing([HmacKey("k", SECRET, state=state, retired_until=retired_until)], clock=lambda: now)
    if verifies:
        assert ring.find(b"k", "a").id == "k"
    else:
        with pytest.raises(Refused) as refused:
            ring.find(b"k", "a")
        assert refused.value.verdict is Verdict.UNKNOWN_KEY


def test_an_unknown_key_and_a_known_key_of_another_sender_are_told_apart():
    """E3: unknown key; right key and wrong sender."""
    ring = KeyRing([HmacKey("k", SECRET, senders=["a"])])
    for key_id, sender, verdict in (
        (b"K", "a", Verdict.UNKNOWN_KEY),
        (b"", "a", Verdict.UNKNOWN_KEY),
        (b"k", "b", Verdict.UNKNOWN_SENDER),
    ):
        with pytest.raises(Refused) as refused:
            ring.find(key_id, sender)
        assert refused.value.verdict is verdict


@given(st.binary(max_size=100), st.binary(max_size=100))
def test_deduplication_ids_are_equal_for_equal_bodies_and_no_others(one, other):
    def of(body, destination="sqs:a.fifo"):
        context = deduplication_key(SECRET, destination).copy()
        context.update(body)
        return context.finalize().hex()

    assert of(one) == reference.deduplication_id(SECRET, "sqs:a.fifo", one)
    assert (of(one) == of(other)) == (one == other)
    assert of(one) != of(one, "sqs:b.fifo")
