"""Key rings in use: rotation, verifying alone, and the two key pairs of an identity."""

from __future__ import annotations

import asyncio
import threading
from datetime import UTC, datetime

import pytest
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import (
    CombinedKeys,
    ConfigError,
    Ed25519Key,
    Es256Key,
    HmacKey,
    KeyRing,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.crypto import fingerprint
from postseal.core.keys import KeyProvider, PublicKeys
from tests.core.kit import (
    ED25519,
    FORMS,
    HERE,
    P256,
    SECRET,
    SENDER,
    Clock,
    CountedKeys,
    Party,
    local_keys,
    policy,
    ring,
)

SIGNED = [form for form in FORMS if form != "confidentiality"]
KINDS = ["hmac", "ed25519", "es256"]
OTHER = {
    "hmac": bytes(range(1, 33)),
    "ed25519": ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(2, 34))),
    "es256": ec.derive_private_key(54321, ec.SECP256R1()),
}


def key(kind: str, name: str, state: str = "active", *, new: bool = False, public: bool = False):
    """Make a key of *kind*: the old or the new one, with its private part or without."""
    given = OTHER[kind] if new else {"hmac": SECRET, "ed25519": ED25519, "es256": P256}[kind]
    until = datetime(2030, 1, 1, tzinfo=UTC) if state == "retired" else None
    options = {"senders": [SENDER], "state": state, "retired_until": until}
    if kind == "hmac":
        return HmacKey(name, given, **options)
    part = {"public_key": given.public_key()} if public else {"private_key": given}
    return (Ed25519Key if kind == "ed25519" else Es256Key)(name, **part, **options)


def kind_of(form: str) -> str:
    return form.partition("-")[2]


def signed_with(envelope: bytes) -> str:
    from postseal.core.wire import decode

    parsed = decode(envelope)
    return (parsed.header.key_id if parsed.outer is None else parsed.outer.key_id).decode()


# -- rotation ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["privacy-hmac", "privacy-ed25519", "privacy-es256", "integrity-hmac"])
def test_a_rotation_under_load_refuses_nothing(form):
    """E4: pending, active, retired, taken away, while four threads seal and open without a pause."""
    kind = kind_of(form)
    old, new = "old", "new"
    sealing, opening = KeyRing([key(kind, old)]), KeyRing([key(kind, old, public=True)])
    keys = CountedKeys(local_keys())
    producer = Party(policy(form), keys=keys, rings={kind: sealing})
    consumer = Party(policy(form), keys=keys, rings={kind: opening})
    counts: dict[str, int] = {old: 0, new: 0}
    failures: list[BaseException] = []
    stop = threading.Event()
    at_it = threading.Semaphore(0)
    lock = threading.Lock()

    def work(number: int) -> None:
        try:
            while not stop.is_set():
                for index in range(20):
                    body = f"{number}-{index}".encode()
                    envelope = producer.seal(body, destination=HERE, content_type=f"text/{index % 3}")
                    assert consumer.open(envelope, destination=HERE).body == body
                    with lock:
                        counts[signed_with(envelope)] += 1
                at_it.release()
        except BaseException as error:  # noqa: BLE001 - told by the thread that waits
            failures.append(error)
            at_it.release()

    def some_more() -> None:
        for _ in range(8):
            assert at_it.acquire(timeout=60)
        assert not failures

    threads = [threading.Thread(target=work, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    try:
        some_more()
        opening.replace([key(kind, old, public=True), key(kind, new, "pending", new=True, public=True)])
        some_more()
        sealing.replace([key(kind, old, "retired"), key(kind, new, new=True)])
        opening.replace(
            [key(kind, old, "retired", public=True), key(kind, new, "active", new=True, public=True)]
        )
        some_more()
    finally:
        stop.set()
        for thread in threads:
            thread.join()
    assert failures == []
    assert consumer.events == []
    assert counts[old] > 0
    assert counts[new] > 0
    opening.replace([key(kind, old, "revoked", public=True), key(kind, new, new=True, public=True)])
    assert consumer.open(producer.seal(b"x", destination=HERE), destination=HERE).body == b"x"
    assert keys.generated == (0 if form.startswith("integrity") else 1), (
        "a rotation of signing keys makes no data key"
    )


@pytest.mark.parametrize("form", SIGNED)
def test_what_signs_next_is_what_the_ring_has_now(form):
    kind = kind_of(form)
    changing = KeyRing([key(kind, "old")])
    party = Party(policy(form), rings={kind: changing})
    for content_type in (None, "a/b", None):
        assert signed_with(party.seal(b"x", destination=HERE, content_type=content_type)) == "old"
    changing.replace([key(kind, "new", new=True), key(kind, "old", "retired")])
    quick = party.sealer.at_hand(HERE)
    for content_type in (None, "a/b"):
        assert signed_with(party.seal(b"x", destination=HERE, content_type=content_type)) == "new"
        assert signed_with(quick(b"x", content_type) or party.seal(b"x", destination=HERE)) == "new"
    assert signed_with(asyncio.run(party.sealer.aseal(b"x", destination=HERE))) == "new"


@pytest.mark.parametrize("form", SIGNED)
@pytest.mark.parametrize("state", ["revoked", "gone"])
def test_a_key_that_is_revoked_verifies_no_more_from_the_next_message_on(form, state):
    """On the short way too, that had learnt it."""
    kind = kind_of(form)
    changing = KeyRing([key(kind, "old")])
    party = Party(policy(form), rings={kind: changing})
    envelopes = [party.seal(b"x", destination=HERE) for _ in range(4)]
    at_hand = party.sealer.open_at_hand(HERE)
    for envelope in envelopes:
        assert party.open(envelope, destination=HERE).body == b"x"
    later = [key(kind, "new", new=True)]
    changing.replace([*later, key(kind, "old", "revoked")] if state == "revoked" else later)
    assert at_hand(envelopes[0]) is None
    for verb in (party.open, party.sealer.verify):
        with pytest.raises(Refused) as refused:
            verb(envelopes[0], destination=HERE)
        assert refused.value.verdict is Verdict.UNKNOWN_KEY


def test_what_was_learnt_while_the_ring_changed_does_not_stay(monkeypatch):
    """The ring changes between verifying and learning."""
    form, kind = "privacy-ed25519", "ed25519"
    changing = KeyRing([key(kind, "old")])
    party = Party(policy(form), rings={kind: changing})
    envelopes = [party.seal(b"x", destination=HERE) for _ in range(2)]
    way = party.sealer._make_incoming(HERE)
    decrypt = way.decrypt

    def and_then(examined, message_key):
        changing.replace([key(kind, "new", new=True)])
        return decrypt(examined, message_key)

    monkeypatch.setattr(way, "decrypt", and_then)
    assert party.open(envelopes[0], destination=HERE).body == b"x"
    with pytest.raises(Refused):
        party.open(envelopes[1], destination=HERE)


def test_what_was_made_to_seal_while_the_ring_changed_does_not_stay():
    form, kind = "privacy-ed25519", "ed25519"
    changing = KeyRing([key(kind, "old")])
    party = Party(policy(form), rings={kind: changing})
    party.seal(b"x", destination=HERE)
    way = party.sealer._outgoing[HERE]
    inner, seen = way._header, []

    def header(*args, **options):
        if not seen:
            seen.append(1)
            changing.replace([key(kind, "new", new=True), key(kind, "old", "retired")])
        return inner(*args, **options)

    way._header = header
    party.seal(b"x", destination=HERE, content_type="a/b")
    assert signed_with(party.seal(b"x", destination=HERE, content_type="a/b")) == "new"


@pytest.mark.parametrize("form", SIGNED)
def test_a_ring_that_no_longer_signs_sends_nothing_and_says_so(form):
    kind = kind_of(form)
    changing = KeyRing([key(kind, "old")])
    party = Party(policy(form), rings={kind: changing})
    envelope = party.seal(b"x", destination=HERE)
    changing.replace([key(kind, "old", "retired")])
    for seal in (
        party.seal,
        lambda body, destination: asyncio.run(party.sealer.aseal(body, destination=destination)),
    ):
        with pytest.raises(ConfigError, match="no active key"):
            seal(b"x", destination=HERE)
    assert party.open(envelope, destination=HERE).body == b"x"
    changing.replace([key(kind, "old")])
    assert signed_with(party.seal(b"x", destination=HERE)) == "old"


def test_a_wrong_change_changes_nothing():
    changing = KeyRing([key("hmac", "old")])
    for wrong in ([], [key("hmac", "a"), key("hmac", "a")]):
        with pytest.raises(ConfigError):
            changing.replace(wrong)
    assert [k.id for k in changing] == ["old"]
    assert changing.signing_key(SENDER).id == "old"


def test_a_ring_keeps_no_sealer_alive():
    import gc

    shared = ring("hmac")
    party = Party(policy("privacy-hmac"), rings={"hmac": shared})
    party.open(party.seal(b"x", destination=HERE), destination=HERE)
    assert len(shared._watchers) == 2
    del party
    gc.collect()
    assert len(shared._watchers) == 0


# -- an identity is two key pairs --------------------------------------------------------------------------------------


class Opener:
    """A provider that says which public keys it wraps for."""

    def __init__(self, *keys) -> None:
        inner = local_keys()
        self.generate, self.wrap, self.unwrap = inner.generate, inner.wrap, inner.unwrap
        self.public_key_fingerprints = frozenset(map(fingerprint, keys))


@pytest.mark.parametrize("form", ["privacy-ed25519", "privacy-es256"])
@pytest.mark.parametrize("public", [True, False], ids=["public", "private"])
@pytest.mark.parametrize("combined", [True, False], ids=["combined", "alone"])
def test_one_key_for_both_is_refused(form, public, combined):
    """B1: an identity is two key pairs, one to open, one to sign; refused if they are the same key."""
    kind = kind_of(form)
    private = {"ed25519": ED25519, "es256": P256}[kind]
    opener = Opener(private.public_key())
    assert isinstance(opener, PublicKeys)
    assert isinstance(opener, KeyProvider)
    keys = {"main": CombinedKeys([local_keys({"other": bytes(32)}), opener]) if combined else opener}
    with pytest.raises(ConfigError, match="also a key to open with"):
        Sealer(
            sender=SENDER,
            policies=[policy(form)],
            keys=keys,
            signers={kind: KeyRing([key(kind, "k", public=public)])},
        )


@pytest.mark.parametrize("kind", ["ed25519", "es256"])
def test_two_key_pairs_are_an_identity_and_a_later_key_is_looked_at_too(kind):
    """B1."""
    changing = KeyRing([key(kind, "k")])
    opener = Opener(OTHER[kind].public_key())
    party = Party(policy(f"privacy-{kind}"), keys=opener, rings={kind: changing})
    assert party.open(party.seal(b"x", destination=HERE), destination=HERE).body == b"x"
    with pytest.raises(ConfigError, match="also a key to open with"):
        changing.replace([key(kind, "k"), key(kind, "new", "pending", new=True, public=True)])
    assert [k.id for k in changing] == ["k"]


def test_providers_without_public_keys_have_no_fingerprints():
    assert not isinstance(local_keys(), PublicKeys)
    assert CombinedKeys([local_keys()]).public_key_fingerprints == frozenset()
    assert key("hmac", "k").public_key_fingerprints == frozenset()


# -- verifying alone ---------------------------------------------------------------------------------------------------


def gateway(form: str, **options) -> Sealer:
    """Make a sealer that holds public keys alone; for HMAC, its secret."""
    kind = kind_of(form)
    clock = Clock()
    return Sealer(
        sender="gateway",
        policies=[policy(form)],
        signers={
            kind: KeyRing(
                [key(kind, {"hmac": "hmac-1", "ed25519": "ed-1", "es256": "es-1"}[kind], public=True)]
            )
        },
        verify_only=True,
        clock=clock,
        **options,
    )


@pytest.mark.parametrize("form", SIGNED)
def test_a_gateway_verifies_with_no_key_provider_at_all(form):
    """B6: a process with no right to open refuses forgeries, without a secret where the key is asymmetric."""
    party = Party(policy(form))
    events = []
    verifier = gateway(form, on_audit=events.append)
    envelope = party.seal(b"4111", destination=HERE)
    verified = verifier.verify(envelope, destination=HERE)
    assert verified.sender == SENDER
    assert not hasattr(verified, "body")
    for changed in (
        envelope[:-1] + bytes([envelope[-1] ^ 1]),
        b"clear",
        envelope[:40] + bytes([envelope[40] ^ 1]) + envelope[41:],
    ):
        with pytest.raises(Refused):
            verifier.verify(changed, destination=HERE)
    with pytest.raises(Refused) as refused:
        verifier.verify(envelope, destination="kafka:orders", headers={"x": "y"}, content_encoding="gzip")
    assert refused.value.verdict is Verdict.FORGED
    assert len(events) == 4


@pytest.mark.parametrize("form", SIGNED)
def test_a_gateway_seals_nothing_and_hands_out_no_ciphertext(form):
    party, verifier = Party(policy(form)), gateway(form)
    envelope = party.seal(b"4111", destination=HERE)

    async def aseal() -> None:
        await verifier.aseal(b"x", destination=HERE)

    async def aopen():
        return await verifier.aopen(envelope, destination=HERE)

    with pytest.raises(ConfigError, match="verify_only"):
        verifier.seal(b"x", destination=HERE)
    with pytest.raises(ConfigError, match="verify_only"):
        asyncio.run(aseal())
    assert verifier.at_hand(HERE)(b"x") is None
    ways = [
        lambda: verifier.open(envelope, destination=HERE),
        lambda: asyncio.run(aopen()),
        lambda: verifier.open_cached(envelope, destination=HERE),
    ]
    for way in ways:
        if form.startswith("integrity"):
            assert way().body == b"4111"  # it was never hidden
        else:
            with pytest.raises(ConfigError, match="only verifies"):
                way()
    assert verifier.open_at_hand(HERE)(envelope) is None


@pytest.mark.parametrize("kind", ["ed25519", "es256"])
def test_a_gateway_takes_no_private_key_and_no_key_provider(kind):
    """B6, A6."""
    with pytest.raises(ConfigError, match="public key alone"):
        Sealer(
            sender="gateway",
            policies=[policy(f"privacy-{kind}")],
            signers={kind: ring(kind)},
            verify_only=True,
        )
    with pytest.raises(ConfigError, match="takes no keys"):
        Sealer(
            sender="gateway",
            policies=[policy(f"privacy-{kind}")],
            keys={"main": local_keys()},
            signers={kind: KeyRing([key(kind, "k", public=True)])},
            verify_only=True,
        )


def test_a_gateway_that_lacks_a_ring_is_not_made():
    with pytest.raises(ConfigError, match="sign names 'hmac'"):
        Sealer(sender="gateway", policies=[policy("privacy-hmac")], verify_only=True)


def test_a_gateway_may_know_policies_that_it_cannot_verify():
    verifier = Sealer(sender="gateway", policies=[policy("confidentiality")], verify_only=True)
    with pytest.raises(ConfigError, match="signs nothing"):
        verifier.verify(b"x", destination=HERE)
