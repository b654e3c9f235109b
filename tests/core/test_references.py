"""Data keys by reference: 16 bytes in each message name what all of a data key have in common, which was published once."""

from __future__ import annotations

import asyncio
import os
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from postseal.core import (
    ConfigError,
    DataKeyLimits,
    Ed25519Key,
    KeyRefused,
    KeyUnavailable,
    MemoryReferences,
    Opened,
    Refused,
    Sealer,
    Verdict,
)
from postseal.core.references import MISSING_AGE, TRY_AGAIN
from postseal.core.shortening import Record, is_short, read_short
from postseal.core.signing import KeyRing
from postseal.core.wire import decode, looks_sealed
from tests.core.kit import ED25519, HERE, SENDER, CountedKeys, Party, policy
from tests.core.stand_ins import in_threads, join_threads
from tests.core.test_certified import World

FORMS = ("confidentiality", "privacy-hmac", "privacy-ed25519", "privacy-es256")
BODY = b"4111 1111 1111 1111"


class Store(MemoryReferences):
    """Counts, and fails when told to."""

    def __init__(self) -> None:
        super().__init__()
        self.looked_up = self.published = 0
        self.fail: Exception | None = None

    def get(self, reference: bytes, /) -> bytes | None:
        self.looked_up += 1
        if self.fail is not None:
            raise self.fail
        return super().get(reference)

    def put(self, reference: bytes, record: bytes, /) -> None:
        self.published += 1
        if self.fail is not None:
            raise self.fail
        super().put(reference, record)


def parties(form: str = "confidentiality", **options: Any) -> tuple[Party, Party, Store]:
    """Make who seals, who opens, and the store between them."""
    store, keys = Store(), CountedKeys()
    rules = policy(form, key_by_reference=True, **options)
    producer = Party(rules, keys=keys, references=store)
    return producer, Party(rules, keys=keys, references=store, clock=producer.clock), store


def wait_until_published() -> None:
    """Wait for who publishes."""
    join_threads("postseal-references")


def short_of(producer: Party, body: bytes = BODY, **options: Any) -> bytes:
    """Seal until the record is there."""
    producer.seal(body, destination=HERE, **options)
    wait_until_published()
    envelope = producer.seal(body, destination=HERE, **options)
    assert is_short(envelope)
    return envelope


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("body", [b"", BODY, os.urandom(100_000)], ids=["empty", "text", "large"])
def test_a_short_message_opens_as_the_whole_one_would(form, body):
    producer, consumer, _ = parties(form)
    envelope = short_of(producer, body, content_type="text/plain")
    for _ in range(2):  # the second as one that was learnt
        opened = consumer.open(envelope, destination=HERE)
        assert (opened.body, opened.sender, opened.content_type) == (body, SENDER, "text/plain")
        assert opened.sent_ms == producer.clock.ms
    assert consumer.keys.unwrapped == 1
    assert consumer.events == []


def test_a_message_by_reference_is_at_most_130_bytes_longer_than_its_body():
    producer, _, _ = parties()
    assert len(short_of(producer, bytes(1024), content_type="application/json")) - 1024 == 78
    signed, _, _ = parties("privacy-hmac")
    assert len(short_of(signed, bytes(1024))) - 1024 == 112


def test_the_certificates_of_a_signer_are_in_the_record_too():
    """A12."""
    world, store = World(), Store()
    rules = policy("privacy-hmac", key_by_reference=True)
    producer, consumer = (
        Party(rules, keys=world.keys, references=store, rings={"hmac": ring}, clock=world.clock)
        for ring in (KeyRing([key], clock=world.clock.seconds) for key in (world.key(), world.roots))
    )
    whole = producer.seal(bytes(1024), destination=HERE)
    assert len(whole) > 1024 + 500
    envelope = short_of(producer, bytes(1024))
    assert len(envelope) == 1024 + 144
    assert consumer.open(envelope, destination=HERE).body == bytes(1024)


def test_expiry_bound_and_encrypted_headers_are_as_before():
    producer, consumer, _ = parties(bind_headers=["tenant"], encrypt_headers=["card"])
    soon = datetime.fromtimestamp(producer.clock.ms / 1000, UTC) + timedelta(minutes=5)
    headers = {"tenant": "north", "card": "4111"}
    envelope = short_of(producer, headers=headers, expires_at=soon)
    opened = consumer.open(envelope, destination=HERE, headers={"tenant": "north"})
    assert (opened.body, dict(opened.headers)) == (BODY, {"card": "4111"})
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE, headers={"tenant": "south"})
    assert refused.value.verdict is Verdict.FORGED
    consumer.clock.ms += 301_000
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE, headers={"tenant": "north"})
    assert refused.value.verdict is Verdict.STALE


def test_a_reply_carries_its_keys_as_each_is_bound_to_another_request():
    producer, consumer, _ = parties()
    request = consumer.open(producer.seal(b"?", destination=HERE), destination=HERE)
    short_of(producer)
    reply = producer.seal(b"!", destination=HERE, in_reply_to=request)
    assert not is_short(reply)
    assert consumer.open(reply, destination=HERE, in_reply_to=request).body == b"!"


def test_a_request_by_reference_is_known_to_who_asked():
    """E11."""
    producer, consumer, _ = parties()
    request = short_of(producer)
    opened = consumer.open(request, destination=HERE)
    demand = producer.sealer.reference(request)
    assert demand == opened.reference
    reply = consumer.sealer.seal(b"!", destination=HERE, in_reply_to=opened)
    assert producer.open(reply, destination=HERE, in_reply_to=demand).body == b"!"


@pytest.mark.parametrize("form", FORMS)
def test_short_and_whole_are_one_message_to_the_byte(form):
    producer, _, store = parties(form)
    envelope = short_of(producer)
    short = read_short(envelope)
    record = Record.read(store.get(short.reference) or b"", short.reference)
    whole = record.whole(short)
    assert decode(whole).header.message_id in envelope
    assert record.shorten(whole) == envelope
    assert Record(decode(whole)).data == record.data
    assert Record(decode(record.data)).data == record.data, "a record is an envelope"


# -- publishing --------------------------------------------------------------------------------------------------------


def test_messages_carry_their_keys_until_the_record_is_published():
    """B10: no message names what is not there."""
    producer, consumer, store = parties()
    store.fail = KeyUnavailable("away")
    for _ in range(3):
        envelope = producer.seal(BODY, destination=HERE)
        wait_until_published()
        assert not is_short(envelope)
        assert consumer.open(envelope, destination=HERE).body == BODY
    assert store.published == 1, "not asked for each message"
    store.fail = None
    producer.clock.ms += int(TRY_AGAIN * 1000)
    assert is_short(short_of(producer))
    assert store.published == 2


def test_each_data_key_and_each_content_type_has_a_record_of_its_own():
    producer, consumer, store = parties(data_key=DataKeyLimits(max_messages=4))
    references = set()
    for _ in range(2):
        for content_type in (None, "text/plain"):
            envelope = short_of(producer, content_type=content_type)
            references.add(read_short(envelope).reference)
            assert consumer.open(envelope, destination=HERE).content_type == content_type
    assert len(references) == store.published == 4


def test_a_producer_that_is_asked_by_many_threads_publishes_once():
    producer, _, store = parties()
    in_threads(*[lambda: producer.seal(BODY, destination=HERE)] * 32)
    wait_until_published()
    assert store.published == 1


def test_aseal_shortens_too():
    producer, consumer, _ = parties()
    short_of(producer)
    envelope = asyncio.run(producer.sealer.aseal(BODY, destination=HERE))
    assert is_short(envelope)
    assert asyncio.run(consumer.sealer.aopen(envelope, destination=HERE)).body == BODY
    at_hand = producer.sealer.at_hand(HERE)(BODY)
    assert at_hand is not None
    assert is_short(at_hand)


def test_what_is_short_is_sealed_already_and_passes_as_it_is():
    """A10: never sealed twice."""
    producer, _, _ = parties()
    envelope = short_of(producer)
    assert looks_sealed(envelope)
    assert producer.seal(envelope, destination=HERE) == envelope
    assert asyncio.run(producer.sealer.aseal(envelope, destination=HERE)) == envelope
    with pytest.raises(Refused):
        producer.seal(envelope[:-1] + bytes([envelope[-1] ^ 1]), destination=HERE)


# -- looking up --------------------------------------------------------------------------------------------------------


def test_a_record_is_looked_up_once_however_many_ask():
    producer, consumer, store = parties()
    envelope = short_of(producer)
    opened = in_threads(*[lambda: consumer.open(envelope, destination=HERE).body] * 64)
    assert opened == [BODY] * 64
    assert store.looked_up == 1

    async def many() -> list[Opened]:
        _, another, _ = producer, Party(producer.policies, keys=producer.keys, references=store), store
        return await asyncio.gather(*(another.sealer.aopen(envelope, destination=HERE) for _ in range(1000)))

    assert {opened.body for opened in asyncio.run(many())} == {BODY}
    assert store.looked_up == 2


def test_an_event_loop_of_its_own_is_not_made_to_wait():
    producer, consumer, _ = parties()
    envelope = short_of(producer)
    assert consumer.sealer.open_cached(envelope, destination=HERE) is None
    consumer.open(envelope, destination=HERE)
    opened = consumer.sealer.open_cached(envelope, destination=HERE)
    assert opened is not None
    assert opened.body == BODY


def test_a_store_that_is_away_settles_nothing():
    producer, consumer, store = parties()
    envelope = short_of(producer)
    store.fail = KeyUnavailable("away")
    with pytest.raises(KeyUnavailable):
        consumer.open(envelope, destination=HERE)
    with pytest.raises(KeyUnavailable):
        asyncio.run(consumer.sealer.aopen(envelope, destination=HERE))
    assert consumer.events == []
    store.fail = None
    assert consumer.open(envelope, destination=HERE).body == BODY


def test_a_store_that_says_no_is_a_refusal_told_once():
    producer, consumer, store = parties()
    envelope = short_of(producer)
    store.fail = KeyRefused("not yours")
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE)
    assert refused.value.verdict is Verdict.UNKNOWN_KEY
    assert len(consumer.events) == 1


def test_a_forged_reference_never_reaches_the_key_service():
    """B6: nor does it ask the store for each of its copies."""
    producer, consumer, store = parties()
    envelope = short_of(producer)
    forged = envelope.replace(read_short(envelope).reference, bytes(16))
    for _ in range(3):
        with pytest.raises(Refused) as refused:
            consumer.open(forged, destination=HERE)
        assert refused.value.verdict is Verdict.UNKNOWN_KEY
    assert consumer.keys.unwrapped == 0
    assert store.looked_up == 1
    assert [event.verdict for event in consumer.events] == [Verdict.UNKNOWN_KEY] * 3
    consumer.clock.ms += int(MISSING_AGE * 1000)
    with pytest.raises(Refused):
        consumer.open(forged, destination=HERE)
    assert store.looked_up == 2


def test_a_store_cannot_exchange_a_record():
    """A9: a reference is the hash of its record."""
    producer, consumer, store = parties()
    envelope, other = short_of(producer), short_of(producer, content_type="text/plain")
    store._records[read_short(envelope).reference] = store._records[read_short(other).reference]
    with pytest.raises(Refused) as refused:
        consumer.open(envelope, destination=HERE)
    assert "another record" in refused.value.detail


def test_without_references_a_short_message_is_refused_and_the_text_says_why():
    producer, _, _ = parties()
    consumer = Party(policy(), keys=producer.keys)
    with pytest.raises(Refused) as refused:
        consumer.open(short_of(producer), destination=HERE)
    assert "by reference, and there are no references here" in refused.value.detail


def test_a_policy_that_carries_its_keys_opens_short_messages_all_the_same():
    producer, _, store = parties()
    consumer = Party(policy(), keys=producer.keys, references=store)
    assert consumer.open(short_of(producer), destination=HERE).body == BODY


@pytest.mark.parametrize("form", FORMS)
def test_no_byte_of_a_short_message_can_be_changed_cut_or_added(form):
    """A9."""
    producer, consumer, _ = parties(form)
    envelope = short_of(producer)
    assert consumer.open(envelope, destination=HERE).body == BODY
    bad = [envelope[:at] + bytes([byte ^ 1]) + envelope[at + 1 :] for at, byte in enumerate(envelope)]
    bad += [envelope[:size] for size in range(len(envelope))]
    bad += [
        envelope + b"\x00",
        envelope[:5] + b"\x85" + envelope[6:],
        envelope[:23] + b"\x59\x00" + envelope[24:],
    ]
    for data in bad:
        with pytest.raises(Refused):
            consumer.open(data, destination=HERE)
    assert len(consumer.events) == len(bad), "E6"
    assert consumer.keys.unwrapped == 1


def test_who_only_verifies_looks_records_up_too():
    producer, _, store = parties("privacy-ed25519")
    envelope = short_of(producer)
    gateway = Sealer(
        sender="gateway",
        policies=producer.policies,
        signers={"ed25519": KeyRing([Ed25519Key("ed-1", public_key=ED25519.public_key(), senders=[SENDER])])},
        references=store,
        verify_only=True,
        clock=producer.clock,
    )
    assert gateway.verify(envelope, destination=HERE).sender == SENDER


def test_an_audit_event_says_what_a_known_short_message_claims():
    producer, consumer, _ = parties()
    envelope = short_of(producer)
    consumer.open(envelope, destination=HERE)
    with pytest.raises(Refused):
        consumer.open(envelope[:-1] + bytes([envelope[-1] ^ 1]), destination=HERE)
    assert consumer.events[-1].unverified_sender == SENDER


@pytest.mark.skipif(not hasattr(os, "fork"), reason="Windows does not fork")
def test_a_forked_child_publishes_by_a_thread_of_its_own():
    producer, _, store = parties()
    short_of(producer)
    child = os.fork()
    if child == 0:
        producer.seal(BODY, destination=HERE)  # by a new data key
        wait_until_published()
        os._exit(store.published)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 2


# -- configuration -----------------------------------------------------------------------------------------------------


def test_a_policy_by_reference_needs_references():
    with pytest.raises(ConfigError, match="key_by_reference needs references"):
        Party(policy(key_by_reference=True))
    with pytest.raises(ConfigError, match="references must be a store"):
        Party(policy(), references=object())


@pytest.mark.parametrize(
    ("form", "options"),
    [("integrity-hmac", {}), ("confidentiality", {"data_key": DataKeyLimits(max_messages=1)})],
)
def test_a_policy_by_reference_wants_data_keys_that_are_used_again(form, options):
    with pytest.raises(ConfigError, match="key_by_reference saves nothing"):
        policy(form, key_by_reference=True, **options)
