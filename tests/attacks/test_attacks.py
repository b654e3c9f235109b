"""A9: named attacks, each tried on the core alone and through each adapter. None succeeds: nothing is handed on, one event is made.

The attacker is the broker or its administrator, or another application of it: he holds genuine messages, may put anything anywhere, and
has keys of his own. Where he has more than that, the test says so.
"""

from __future__ import annotations

import logging
import tracemalloc
from dataclasses import replace

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import Ed25519Key, Es256Key, HmacKey, KeyRing, NewDataKey, Verdict
from postseal.core.context import byte_string
from postseal.core.crypto import sha256
from postseal.core.outgoing import UNBOUND
from postseal.core.replay import MemoryLedger
from postseal.core.wire import (
    Recipient,
    decode,
    encode_direct,
    encode_recipients,
    encrypted_with,
    signed_head,
)
from tests.attacks.conftest import SIGNED, Caught, Scene
from tests.contract import ORDER, Raw
from tests.fakes import FakeKeys

DIRECT = {"direct": True}
BOTH = pytest.mark.parametrize(
    "options",
    [{}, SIGNED, DIRECT, SIGNED | DIRECT],
    ids=["confidentiality", "privacy", "direct", "direct privacy"],
)
BARE = pytest.mark.parametrize("protection", ["confidentiality", "privacy"])


def flip(data: bytes, at: int) -> bytes:
    return data[:at] + bytes([data[at] ^ 1]) + data[at + 1 :]


def with_header(envelope: bytes, old: bytes, new: bytes) -> bytes:
    """Change a piece of the header for one of the same length."""
    assert envelope.count(old) == 1
    assert len(old) == len(new)
    return envelope.replace(old, new)


def with_protected(envelope: bytes, change) -> bytes:
    """Change the protected header of an encrypting envelope, its length put right."""
    protected = decode(envelope).protected
    return envelope.replace(byte_string(protected), byte_string(change(protected)))


def with_recipients(envelope: bytes, recipients) -> bytes:
    return envelope.replace(decode(envelope).recipients_bytes, encode_recipients(recipients))


# -- injected


def test_clear_text_is_injected(scene: Scene):
    assert scene.sent().put_raw(Raw(ORDER)) == Verdict.UNPROTECTED


def test_clear_text_is_injected_with_headers_that_claim_protection_or_switch_it_off(scene: Scene):
    claims = {
        "postseal": "off",
        "encrypted": "false",
        "postseal-verdict": "ok",
        "content-type": "application/cose",
    }
    assert scene.sent().put_raw(Raw(ORDER, claims)) == Verdict.UNPROTECTED


def test_clear_text_is_injected_as_a_dead_letter_with_forged_x_death(scene: Scene):
    history = {"x-death": "[{'reason': 'rejected'}]", "x-first-death-queue": "orders"}
    assert scene.sent().put_raw(Raw(ORDER, history)) == Verdict.UNPROTECTED


def test_clear_text_is_injected_with_forged_headers_of_the_quarantine(scene: Scene):
    quarantined = {"postseal-verdict": "key-unavailable", "postseal-topic": "orders", "postseal-exchange": ""}
    assert scene.sent().put_raw(Raw(ORDER, quarantined)) == Verdict.UNPROTECTED


def test_a_genuine_message_is_altered_and_given_forged_headers_of_the_quarantine(scene: Scene):
    caught = scene.sent()
    altered = flip(caught.envelope, caught.envelope.index(decode(caught.envelope).payload))
    assert caught.put(altered, {"postseal-verdict": "ok", "x-death": "1"}) == Verdict.FORGED


def test_clear_text_is_injected_where_integrity_is_demanded(scene: Scene):
    options = SIGNED | {"protection": "integrity", "keys": []}
    assert scene.sent(**options).put_raw(Raw(ORDER)) == Verdict.UNPROTECTED


# -- altered


@BOTH
def test_one_bit_of_the_ciphertext_is_flipped(scene: Scene, options):
    caught = scene.sent(**options)
    envelope = caught.envelope
    assert caught.put(flip(envelope, envelope.index(decode(envelope).payload))) == Verdict.FORGED


@BOTH
def test_ciphertexts_of_two_messages_are_swapped(scene: Scene, options):
    caught = scene.sent(b"order 1", b"order 2", **options)
    one, two = caught.envelopes
    assert caught.put(one.replace(decode(one).payload, decode(two).payload)) == Verdict.FORGED


@BOTH
def test_the_message_id_is_changed(scene: Scene, options):
    """So that an old message would count as a new one."""
    caught = scene.sent(**options)
    old = decode(caught.envelope).header.message_id
    assert caught.put(with_header(caught.envelope, old, bytes(16))) == Verdict.FORGED


@BOTH
def test_the_destination_in_the_header_is_changed(scene: Scene, options):
    """What was signed and sealed for one destination is used at another."""
    caught = scene.sent(**options)
    there = f"{scene.line.scheme}:{caught.place}"
    old, new = caught.destination.encode(), there.encode()
    assert len(old) == len(new)
    assert caught.put(with_header(caught.envelope, old, new)) == Verdict.FORGED


@BOTH
def test_the_sender_in_the_header_is_changed_to_another_that_is_allowed(scene: Scene, options):
    options = options and options | {"senders": ["shop", "bank"]}
    caught = scene.sent(**options)
    assert caught.put(with_header(caught.envelope, b"\x64shop", b"\x64bank")) == Verdict.FORGED


@BOTH
def test_the_time_is_changed_so_that_an_old_message_seems_fresh(scene: Scene, options):
    caught = scene.sent(**options)
    seconds = decode(caught.envelope).header.seconds
    fresh = with_header(
        caught.envelope,
        b"\x06\x1a" + seconds.to_bytes(4, "big"),
        b"\x06\x1a" + (seconds + 1).to_bytes(4, "big"),
    )
    assert caught.put(fresh) == Verdict.FORGED


def test_a_message_is_dated_into_the_future(scene: Scene):
    """Then it would stay fresh for longer; the attacker here has the keys, but not the clock."""
    caught = scene.sent(**SIGNED)
    ahead = caught.forged(clock=lambda: 4_000_000_000 * 1_000_000_000)
    assert caught.put(ahead) == Verdict.FUTURE
    assert scene.world.keys.calls["unwrap"] == 0


def test_an_expired_message_is_put_again(scene: Scene):
    """The attacker kept it back until its age was over."""
    caught = scene.sent(max_message_age=60, **SIGNED)
    old = caught.forged(clock=lambda: 1_700_000_000 * 1_000_000_000)
    assert caught.put(old) == Verdict.STALE


@BARE
def test_an_envelope_is_cut_short(scene: Scene, protection):
    caught = scene.sent(**(SIGNED if protection == "privacy" else {}))
    assert caught.put(caught.envelope[:-1]) == Verdict.MALFORMED


@BARE
def test_bytes_are_put_behind_the_end(scene: Scene, protection):
    caught = scene.sent(**(SIGNED if protection == "privacy" else {}))
    assert caught.put(caught.envelope + caught.envelope) == Verdict.MALFORMED


def test_the_header_says_a_newer_version(scene: Scene):
    caught = scene.sent()
    label = bytes.fromhex("3a0001000087")
    assert caught.put(with_header(caught.envelope, label + b"\x01", label + b"\x02")) == Verdict.MALFORMED


def test_the_header_says_another_content_type(scene: Scene):
    """So that the handler would decode the body as something else."""
    caught = scene.sent()
    typed = with_protected(caught.envelope, lambda p: b"\xa5" + p[1:3] + b"\x03\x68text/xml" + p[3:])
    assert decode(typed).header.content_type == "text/xml"
    assert caught.put(typed) == Verdict.FORGED


# -- encodings


def test_an_integer_is_not_in_its_shortest_form(scene: Scene):
    caught = scene.sent()
    longer = with_protected(caught.envelope, lambda p: p[:2] + b"\x18\x03" + p[3:])
    assert caught.put(longer) == Verdict.MALFORMED


def test_a_length_is_indefinite(scene: Scene):
    caught = scene.sent()
    start = caught.envelope.rindex(decode(caught.envelope).recipients_bytes)
    endless = caught.envelope[:start] + b"\x9f" + caught.envelope[start + 1 :] + b"\xff"
    assert caught.put(endless) == Verdict.MALFORMED


def test_a_label_stands_twice(scene: Scene):
    caught = scene.sent()
    twice = with_protected(caught.envelope, lambda p: b"\xa5" + p[1:3] + p[1:3] + p[3:])
    assert caught.put(twice) == Verdict.MALFORMED


def test_a_recipient_stands_twice(scene: Scene):
    caught = scene.sent()
    old = decode(caught.envelope).recipients_bytes
    assert caught.put(caught.envelope.replace(old, b"\x82" + old[1:] * 2)) == Verdict.MALFORMED


def test_a_length_claims_gigabytes(scene: Scene):
    """A bomb of memory: nothing is taken for what is not there."""
    caught = scene.sent()
    old = decode(caught.envelope).recipients_bytes
    bomb = caught.envelope.replace(old, b"\x81\x83\x40\xa2\x01\x01\x04\x41k\x5b" + b"\x00\x00\x00\x7f" * 2)
    tracemalloc.start()
    try:
        assert caught.put(bomb) == Verdict.MALFORMED
        assert tracemalloc.get_traced_memory()[1] < 64 * 1024 * 1024
    finally:
        tracemalloc.stop()


def test_an_array_claims_four_thousand_million_recipients(scene: Scene):
    caught = scene.sent()
    old = decode(caught.envelope).recipients_bytes
    assert caught.put(caught.envelope.replace(old, b"\x9a\xff\xff\xff\xff" + old[1:])) == Verdict.MALFORMED


def test_a_name_is_written_in_letters_that_compose_to_the_same(scene: Scene):
    """Two encodings of one name would be two senders to the policy and one to a person."""
    caught = scene.sent(senders=["shop"])
    twin = with_protected(caught.envelope, lambda p: p.replace(b"\x64shop", b"\x66cafe\xcc\x81"))
    assert caught.put(twin) == Verdict.MALFORMED


def test_a_name_holds_a_line_break_for_the_log(scene: Scene, caplog: pytest.LogCaptureFixture):
    """E6: a forged line in the audit log."""
    caught = scene.sent()
    evil = with_protected(caught.envelope, lambda p: p.replace(b"\x64shop", b"\x64a\nok"))
    caplog.set_level(logging.DEBUG)
    assert caught.put(evil) == Verdict.MALFORMED
    assert not [r for r in caplog.records if r.name.startswith("postseal") and "a\nok" in r.getMessage()]
    assert "a\nok" not in str(scene.world.events[0].as_dict())


def test_a_key_id_holds_a_line_break_for_the_log(scene: Scene):
    caught = scene.sent(**SIGNED)
    evil = caught.forged(signers={"shop": KeyRing([HmacKey("a\u2028ok", bytes(32))])})
    assert caught.put(evil) == Verdict.UNKNOWN_KEY
    assert (scene.world.events[0].unverified_key_id or "").isprintable()


# -- another place, policy, sender


@BOTH
def test_a_message_of_another_destination_is_moved_here(scene: Scene, options):
    caught = scene.sent(**options)
    other = scene.line.place()
    policy = caught.policy.replace(
        accept_from=[], destinations=[caught.destination, f"{scene.line.scheme}:{other}"]
    )
    stray = scene.world.sealer(policy).seal(b"mine", destination=f"{scene.line.scheme}:{other}")
    assert caught.put(stray) == Verdict.WRONG_DESTINATION
    assert scene.world.keys.calls["unwrap"] == 0


@BOTH
def test_a_message_of_another_tenants_policy_under_the_same_keys_is_moved_here(scene: Scene, options):
    caught = scene.sent(**options)
    assert caught.put(caught.forged(policy={"name": "tenant-b"})) == Verdict.DOWNGRADE


@BOTH
def test_the_policy_in_the_header_is_renamed_to_the_one_in_force(scene: Scene, options):
    """The data key is wrapped for the other policy, and the header is authenticated."""
    caught = scene.sent(**options)
    other = caught.forged(policy={"name": "tenant"})
    renamed = with_header(other, b"\x66tenant", b"\x66orders")
    assert caught.put(renamed) == Verdict.FORGED


def test_privacy_is_answered_with_confidentiality(scene: Scene):
    """The attacker may make data keys, and sign nothing."""
    caught = scene.sent(**SIGNED)
    unsigned = caught.forged(policy={"protection": "confidentiality", "sign": None, "senders": []})
    assert caught.put(unsigned) == Verdict.DOWNGRADE
    assert scene.world.keys.calls["unwrap"] == 0


def test_privacy_is_answered_with_integrity(scene: Scene):
    caught = scene.sent(**SIGNED)
    assert caught.put(caught.forged(policy={"protection": "integrity", "keys": []})) == Verdict.DOWNGRADE


def test_confidentiality_is_answered_with_integrity(scene: Scene):
    """A readable body where a hidden one is due, rightly signed by whoever."""
    caught = scene.sent()
    options = SIGNED | {"keys": []}
    signed = caught.forged(policy=options | {"protection": "integrity"})
    assert caught.put(signed) == Verdict.DOWNGRADE


def test_the_body_of_integrity_is_relabelled_as_a_ciphertext(scene: Scene):
    caught = scene.sent(**(SIGNED | {"protection": "integrity", "keys": []}))
    envelope = caught.envelope
    relabelled = b"\xd8\x60" + envelope[1:]
    assert caught.put(relabelled) == Verdict.MALFORMED


def test_the_signature_is_stripped(scene: Scene):
    caught = scene.sent(**SIGNED)
    assert caught.put(decode(caught.envelope).inner) == Verdict.DOWNGRADE
    assert scene.world.keys.calls["unwrap"] == 0


def test_the_signature_of_one_message_is_put_around_another(scene: Scene):
    caught = scene.sent(b"order 1", b"order 2", **SIGNED)
    one, two = map(decode, caught.envelopes)
    grafted = caught.envelope.replace(byte_string(one.inner), byte_string(two.inner))
    assert caught.put(grafted) == Verdict.FORGED
    assert scene.world.keys.calls["unwrap"] == 0


def test_a_message_is_signed_again_with_a_key_of_the_attackers_under_the_genuine_key_id(scene: Scene):
    caught = scene.sent(**SIGNED)
    stranger = KeyRing([HmacKey("2026-10", bytes(reversed(range(32))))])
    assert caught.put(caught.forged(signers={"shop": stranger})) == Verdict.FORGED
    assert scene.world.keys.calls["unwrap"] == 0


def test_a_message_is_signed_with_a_key_that_nobody_knows(scene: Scene):
    caught = scene.sent(**SIGNED)
    stranger = KeyRing([HmacKey("another", bytes(32))])
    assert caught.put(caught.forged(signers={"shop": stranger})) == Verdict.UNKNOWN_KEY


def test_a_sender_that_is_not_allowed_signs_with_the_groups_secret(scene: Scene):
    caught = scene.sent(**SIGNED)
    intruder = caught.forged(policy={"senders": ["mallory"]}, sender="mallory")
    assert caught.put(intruder) == Verdict.UNKNOWN_SENDER


def test_a_sender_takes_the_name_of_another_whose_key_he_has_not(scene: Scene):
    """Inside a group where each sender has a secret of its own: mallory's key signs in the name of shop."""
    ours = KeyRing(
        [
            HmacKey("m", bytes(32), senders=["mallory"], state="pending"),
            HmacKey("s", bytes(range(32)), senders=["shop"]),
        ]
    )
    scene.world.ring = ours
    caught = scene.sent(**(SIGNED | {"senders": ["shop", "mallory"]}))
    forger = KeyRing([HmacKey("m", bytes(32), senders=["shop"])])
    assert caught.put(caught.forged(signers={"shop": forger})) == Verdict.UNKNOWN_SENDER


def test_a_sender_has_a_name_that_looks_like_an_allowed_one(scene: Scene):
    """Unicode twins: a Cyrillic letter in the place of a Latin one is another name."""
    twin = "\u0455hop"
    caught = scene.sent(**SIGNED)
    assert caught.put(caught.forged(policy={"senders": [twin]}, sender=twin)) == Verdict.UNKNOWN_SENDER


# -- algorithms and keys


def test_an_hmac_is_made_with_the_public_key_of_a_signature(scene: Scene):
    """Algorithm confusion: everybody knows that key."""
    private = ed25519.Ed25519PrivateKey.generate()
    scene.world.ring = KeyRing([Ed25519Key("ed", private_key=private, senders=["shop"])])
    caught = scene.sent(**SIGNED)
    raw = private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw)
    confused = caught.forged(signers={"shop": KeyRing([HmacKey("ed", raw)])})
    assert caught.put(confused) == Verdict.FORGED


def test_a_signature_of_another_algorithm_comes_under_the_key_id(scene: Scene):
    scene.world.ring = KeyRing(
        [Ed25519Key("ed", private_key=ed25519.Ed25519PrivateKey.generate(), senders=["shop"])]
    )
    caught = scene.sent(**SIGNED)
    other = KeyRing([Es256Key("ed", private_key=ec.generate_private_key(ec.SECP256R1()), senders=["shop"])])
    assert caught.put(caught.forged(signers={"shop": other})) == Verdict.FORGED


def test_a_signature_is_all_zeros(scene: Scene):
    scene.world.ring = KeyRing(
        [Es256Key("es", private_key=ec.generate_private_key(ec.SECP256R1()), senders=["shop"])]
    )
    caught = scene.sent(**SIGNED)
    assert caught.put(caught.envelope[:-64] + bytes(64)) == Verdict.FORGED


def test_the_wrapped_key_of_another_message_is_put_in(scene: Scene):
    caught = scene.sent()
    other = decode(caught.forged()).recipients
    assert caught.put(with_recipients(caught.envelope, other)) == Verdict.FORGED


def test_our_key_id_stands_over_a_key_that_the_attacker_wrapped(scene: Scene):
    """Key id confusion."""
    caught = scene.sent()
    [mine] = decode(caught.forged(keys={"main": FakeKeys()})).recipients
    [genuine] = decode(caught.envelope).recipients
    named = Recipient(genuine.algorithm, genuine.key_id, mine.wrapped_key)
    assert caught.put(with_recipients(caught.envelope, [named])) == Verdict.FORGED


def test_a_whole_message_is_sealed_under_a_key_of_the_attackers(scene: Scene):
    caught = scene.sent()
    assert caught.put(caught.forged(keys={"main": FakeKeys()})) in (Verdict.UNKNOWN_KEY, Verdict.FORGED)


def test_a_recipient_is_removed(scene: Scene):
    """So that the archive could not open it any more; in privacy that is noticed."""
    caught = scene.sent(**SIGNED)
    inner = decode(caught.envelope).inner
    [only] = decode(caught.envelope).recipients
    other = Recipient(-65537, b"somebody", b"?")
    assert (
        caught.put(caught.envelope.replace(byte_string(inner), byte_string(with_recipients(inner, [other]))))
        == Verdict.FORGED
    )
    assert only.key_id not in with_recipients(inner, [other])


def test_a_recipient_is_added(scene: Scene):
    caught = scene.sent(**SIGNED)
    inner = decode(caught.envelope).inner
    more = [*decode(caught.envelope).recipients, Recipient(-65537, b"somebody", b"?")]
    grown = byte_string(with_recipients(inner, more))
    assert caught.put(caught.envelope.replace(byte_string(inner), grown)) == Verdict.FORGED


def test_one_message_is_made_to_open_under_two_data_keys(scene: Scene):
    """An invisible salamander: AES-GCM alone can be made to open one ciphertext as two bodies. The header is committed to one key, so a recipient
    whose wrapped key is another refuses, whoever encrypted."""
    caught = scene.sent()
    genuine, other = decode(caught.envelope), decode(caught.forged())
    crossed = other.protected[:-32] + (genuine.header.commitment or b"")
    mixed = caught.envelope.replace(byte_string(genuine.protected), byte_string(crossed))
    assert caught.put(with_recipients(mixed, other.recipients)) == Verdict.FORGED


def test_the_commitment_is_that_of_another_key(scene: Scene):
    caught = scene.sent()
    other = decode(caught.forged()).header.commitment or b""
    assert (
        caught.put(with_header(caught.envelope, decode(caught.envelope).header.commitment or b"", other))
        == Verdict.FORGED
    )


def test_a_nonce_comes_twice(scene: Scene):
    """Two messages of one data key under one nonce would give the attacker their XOR: of what the broker sees none is alike."""
    caught = scene.sent(*(b"order %d" % number for number in range(10)))
    headers = [decode(envelope).header for envelope in caught.envelopes]
    assert len({header.nonce for header in headers}) == len({header.message_id for header in headers}) == 10


def test_a_genuine_message_is_signed_around_by_the_attacker(scene: Scene):
    """Confidentiality where it is due, in a signature that nobody asked for."""
    caught = scene.sent()
    key = HmacKey("k", bytes(32))
    outer = b"\xa3\x01\x05\x03\x18\x60\x04\x41k"
    wrapped = signed_head(key.algorithm, outer) + byte_string(caught.envelope) + byte_string(bytes(32))
    assert caught.put(wrapped) == Verdict.MALFORMED


# -- headers

HEADERS = {"tenant": "north", "other": "x"}


@pytest.mark.parametrize(
    "tampered",
    [
        {"tenant": "south"},
        {},
        {"Tenant": "north"},
        {"tenant": "north", "TENANT": "south"},
        {"tenant": "north "},
    ],
    ids=["changed", "removed", "renamed", "twin added", "lengthened"],
)
@BOTH
def test_a_bound_header_is_tampered_with(scene: Scene, options, tampered):
    caught = scene.sent(headers=dict(HEADERS), bind_headers=["tenant"], **options)
    assert caught.put_raw(replace(caught.raw, headers=tampered)) == Verdict.FORGED


@BOTH
def test_a_bound_header_is_added_where_none_was(scene: Scene, options):
    caught = scene.sent(bind_headers=["tenant"], **options)
    assert caught.put_raw(replace(caught.raw, headers={"tenant": "south"})) == Verdict.FORGED


def test_a_bound_header_is_added_in_letters_that_fold_to_the_same(scene: Scene):
    caught = scene.sent(headers={"tenant": "north"}, bind_headers=["tenant"])
    # SQS takes only ASCII names, where letters fold by their case alone.
    other = "Tenant" if scene.line.scheme == "sqs" else "\uff54enant"
    wide = {"tenant": "north", other: "south"}
    assert caught.put_raw(replace(caught.raw, headers=wide)) == Verdict.FORGED


def test_headers_of_two_messages_are_swapped(scene: Scene):
    caught = scene.sent(headers={"tenant": "north"}, bind_headers=["tenant"])
    scene.world.events.clear()
    assert caught.put_raw(replace(caught.raw, headers={"tenant": "west"})) == Verdict.FORGED


def test_a_message_that_binds_nothing_is_put_where_a_header_must_be_bound(scene: Scene):
    caught = scene.sent(headers={"tenant": "north"}, bind_headers=["tenant"], **SIGNED)
    loose = caught.forged(policy={"bind_headers": []})
    assert caught.put(loose) == Verdict.DOWNGRADE


def test_a_header_that_was_encrypted_is_put_beside(scene: Scene):
    caught = scene.sent(headers={"tenant": "north"}, encrypt_headers=["tenant"])
    assert caught.put_raw(replace(caught.raw, headers={"tenant": "south"})) == Verdict.FORGED


def test_a_message_without_encrypted_headers_is_put_where_they_are_demanded(scene: Scene):
    """The frame is stripped: a downgrade."""
    caught = scene.sent(headers={"tenant": "north"}, encrypt_headers=["tenant"])
    bare = caught.forged(policy={"encrypt_headers": []})
    assert caught.put(bare, {"tenant": "south"}) == Verdict.DOWNGRADE


def test_the_header_no_longer_says_that_there_is_a_frame(scene: Scene):
    """What is inside would be taken for the body."""
    caught = scene.sent(headers={"tenant": "north"}, encrypt_headers=["tenant"])
    label = bytes.fromhex("3a00010000")
    stripped = with_protected(
        caught.envelope, lambda p: p.replace(label + b"\x88", label + b"\x87").replace(b"\xa1\x01\x01", b"")
    )
    assert not decode(stripped).header.framed
    assert caught.put(stripped) == Verdict.DOWNGRADE


# -- again


def receive_once(scene: Scene, caught: Caught) -> None:
    """Receive and settle the genuine message, by a consumer that keeps a ledger and refuses duplicates."""
    caught.sealer = scene.world.sealer(caught.policy.replace(on_duplicate="refuse"), ledger=MemoryLedger())
    scene.line.put(caught.place, caught.raw)
    with scene.line.receiving(caught.sealer, caught.place) as receiving:
        receiving.take(1)


def test_a_message_is_put_again_after_it_was_settled(scene: Scene):
    """Replay, with a ledger and a policy that refuses duplicates."""
    caught = scene.sent()
    receive_once(scene, caught)
    assert caught.put_raw(caught.raw) == Verdict.DUPLICATE


def test_the_twin_of_a_signature_makes_no_new_message(scene: Scene):
    """ECDSA verifies n - s for s: other bytes, the same message id, a duplicate."""
    order = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
    scene.world.ring = KeyRing(
        [Es256Key("es", private_key=ec.generate_private_key(ec.SECP256R1()), senders=["shop"])]
    )
    caught = scene.sent(**SIGNED)
    receive_once(scene, caught)
    s = int.from_bytes(caught.envelope[-32:], "big")
    assert caught.put(caught.envelope[:-32] + (order - s).to_bytes(32, "big")) == Verdict.DUPLICATE


def test_a_sealed_message_is_sealed_again(scene: Scene):
    """A10: a tool that sends what it read; the broker gets the same envelope, and a handler never an envelope."""
    caught = scene.sent()
    home = caught.destination.partition(":")[2]
    sender = scene.world.sealer(caught.policy)
    scene.line.send(sender, home, caught.raw.body)
    assert {raw.body for raw in scene.line.held(home, 2)} == {caught.raw.body}


# -- what attacks leave behind


def test_nothing_that_attackers_send_or_that_was_sealed_shows_in_logs_and_events(
    scene: Scene, caplog: pytest.LogCaptureFixture
):
    """E6: neither bodies, nor what was injected, nor header values."""
    caplog.set_level(logging.DEBUG, logger="postseal")
    caught = scene.sent(headers={"tenant": "hush-hush"}, bind_headers=["tenant"])
    caught.put_raw(Raw(b"4111 1111 1111 1111", {"tenant": "hush-hush"}))
    told = caplog.text + str([event.as_dict() for event in scene.world.events])
    assert "4111" not in told
    assert "hush-hush" not in told


# -- without a data key (D2)


@pytest.mark.parametrize("direct", [True, False], ids=["direct is demanded", "a data key is demanded"])
@pytest.mark.parametrize("options", [{}, SIGNED], ids=["confidentiality", "privacy"])
def test_a_message_with_a_data_key_and_one_without_are_taken_for_one_another(scene: Scene, direct, options):
    """Rightly encrypted and signed, by somebody who may: it is another protection all the same, and costs no call."""
    caught = scene.sent(direct=direct, **options)
    assert caught.put(caught.forged(policy={"direct": not direct})) == Verdict.DOWNGRADE
    assert scene.world.keys.opened == 0


def test_a_wrapped_data_key_is_passed_off_as_a_body(scene: Scene):
    """The consumer would hand a data key to its handler."""
    caught = scene.sent(**DIRECT)
    wrapped = decode(caught.forged(policy={"direct": False})).recipients[0]
    assert caught.put(encode_direct(decode(caught.envelope).protected, wrapped)) == Verdict.FORGED


def test_a_body_that_everybody_knows_is_passed_off_as_a_data_key(scene: Scene):
    """All that was encrypted of an empty body can be worked out from its message: so it must never be a data key."""
    caught = scene.sent()
    stolen = decode(caught.forged(b"", policy=DIRECT))

    class Known(FakeKeys):
        def generate(self, context):
            known = sha256(encrypted_with(stolen.protected, UNBOUND))
            return NewDataKey(known, (stolen.recipients[0]._replace(wrapped_key=stolen.payload),))

    assert caught.put(caught.forged(keys={"main": Known()})) == Verdict.FORGED


def test_the_ciphertext_of_another_sender_is_signed_as_ones_own(scene: Scene):
    """By a sender who may sign here, and may not read: the consumer would take another's words for his."""
    senders = {"senders": ["shop", "mallory"]}
    caught = scene.sent(**SIGNED | DIRECT | senders)
    stolen = decode(caught.envelope)

    class Passing(FakeKeys):
        def encrypt(self, plaintext, context):
            return stolen.recipients[0]._replace(wrapped_key=stolen.payload)

    assert caught.put(caught.forged(sender="mallory", keys={"main": Passing()})) == Verdict.FORGED
