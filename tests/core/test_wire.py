"""Bytes to envelopes and back: SPEC.md 2 to 4 and 9."""

from __future__ import annotations

import json
import struct
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core import ConfigError, Recipient, Refused, Verdict
from postseal.core.context import byte_head, byte_string, head, integer, text
from postseal.core.wire import (
    Algorithm,
    Credential,
    Header,
    Protection,
    Skeleton,
    byte_span,
    decode,
    encode_direct,
    encode_outer,
    encode_recipients,
    looks_sealed,
    signed_head,
)
from tests.vectors import load

VECTORS = {file.stem: json.loads(file.read_text("utf-8")) for file in load.FILES}
GOOD = [load.binary(vector, "envelope") for vector in VECTORS.values() if vector["expect"]["opens"]]
SHORT = [envelope for envelope in GOOD if len(envelope) < 1000]

plain_text = st.text(st.characters(min_codepoint=0x20, max_codepoint=0x7E), min_size=1, max_size=20)
headers = st.builds(
    Header,
    algorithm=st.just(Algorithm.A256GCM),
    sender=plain_text,
    destination=plain_text.map("kafka:".__add__),
    seconds=st.integers(2**16, 2**32 - 1),
    millis=st.integers(0, 999),
    message_id=st.binary(min_size=16, max_size=16),
    protection=st.sampled_from([Protection.CONFIDENTIALITY, Protection.PRIVACY]),
    policy=plain_text,
    policy_version=st.integers(0, 2**32 - 1),
    bound=st.sets(st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=9), max_size=6).map(
        lambda names: tuple(sorted(names, key=str.encode))
    ),
    content_type=st.none() | st.text(st.characters(exclude_categories=("Cs",)), min_size=1, max_size=63),
    expires=st.none() | st.integers(2**16, 2**32 - 1),
    nonce=st.binary(min_size=12, max_size=12),
    commitment=st.binary(min_size=32, max_size=32),
    key_id=st.none(),
    framed=st.booleans(),
    in_reply_to=st.none() | st.binary(min_size=32, max_size=32),
)
recipients = st.lists(
    st.builds(
        Recipient,
        algorithm=st.integers(-(2**32), 2**32 - 1),
        key_id=st.binary(min_size=1, max_size=64),
        wrapped_key=st.binary(min_size=1, max_size=300),
    ),
    min_size=1,
    max_size=4,
    unique_by=lambda recipient: recipient[:2],
)
outers = st.tuples(
    st.sampled_from([Algorithm.HMAC_256, Algorithm.EDDSA, Algorithm.ES256]),
    st.binary(min_size=1, max_size=64),
    st.binary(min_size=64, max_size=64),
)


def _credential(envelope):
    """Encode what a signed envelope carries of its key from what was read of it, and not from what stood there."""
    credential = envelope.credential
    if credential is None:
        return b"\xa0"
    if credential.delegation is not None:
        return Credential.of(credential.delegation).encode()
    return Credential.chain(credential.certificates).encode()


def _again(envelope):
    """Encode what was decoded, from its parsed parts alone."""
    if not envelope.recipients:
        protected = envelope.header.encode()
        return b"".join(
            (
                signed_head(envelope.header.algorithm, protected, _credential(envelope)),
                byte_string(envelope.payload),
                byte_string(envelope.signature),
            )
        )
    inner = b"".join(
        (
            b"\xd8\x60\x84",
            byte_string(envelope.header.encode()),
            b"\xa0",
            byte_string(envelope.payload),
            b"" if envelope.header.direct else encode_recipients(envelope.recipients),
        )
    )
    if envelope.header.direct:
        made = envelope.recipients[0]._replace(wrapped_key=envelope.payload)
        inner = encode_direct(envelope.header.encode(), made)
    if envelope.outer is None:
        return inner
    outer = envelope.outer
    assert outer.unprotected == _credential(envelope)
    start = signed_head(outer.algorithm, encode_outer(outer.algorithm, outer.key_id), _credential(envelope))
    return start + byte_string(inner) + byte_string(outer.signature)


@given(header=headers, payload=st.binary(min_size=16, max_size=600), to=recipients, outer=outers)
def test_what_is_encoded_decodes_to_the_same(header, payload, to, outer):
    inner = (
        b"\xd8\x60\x84"
        + byte_string(header.encode())
        + b"\xa0"
        + byte_string(payload)
        + encode_recipients(to)
    )
    envelope = decode(inner)
    assert (envelope.header, envelope.payload, list(envelope.recipients)) == (header, payload, to)
    assert _again(envelope) == inner
    algorithm, key_id, signature = outer
    signature = signature[: algorithm.signature_size]
    whole = (
        signed_head(algorithm, encode_outer(algorithm, key_id)) + byte_string(inner) + byte_string(signature)
    )
    if header.protection is Protection.PRIVACY:
        envelope = decode(whole)
        assert (envelope.header, envelope.outer.key_id, envelope.outer.signature) == (
            header,
            key_id,
            signature,
        )
        assert (envelope.inner, _again(envelope)) == (inner, whole)
    else:
        with pytest.raises(Refused) as refused:
            decode(whole)
        assert refused.value.verdict is Verdict.MALFORMED


@pytest.mark.parametrize("envelope", GOOD, ids=lambda envelope: f"{len(envelope)}")
def test_whatever_decodes_encodes_to_the_same_bytes(envelope):
    assert _again(decode(envelope)) == envelope


@given(st.data())
def test_whatever_decodes_after_a_mutation_encodes_to_the_same_bytes(data):
    """Strictness in one sentence: no two encodings of one value."""
    envelope = _mutated(data, data.draw(st.sampled_from(SHORT)))
    try:
        parsed = decode(envelope)
    except Refused:
        return  # as most are; that nothing else is raised is the other half of what this shows
    assert _again(parsed) == envelope


def _mutated(data, envelope):
    """Change a byte, take some away, put some in, repeat some."""
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.integers(0, max(len(envelope) - 1, 0)))
        size = data.draw(st.integers(0, 4))
        put = data.draw(st.binary(max_size=4) | st.just(envelope[at : at + size]))
        envelope = envelope[:at] + put + envelope[at + size :]
    return envelope


@given(
    st.binary(max_size=200)
    | st.binary(max_size=200).map(b"\xd8\x60\x84\x58".__add__)
    | st.binary(max_size=99).map(b"\xd1\x84\x58".__add__)
)
def test_any_bytes_are_refused_and_nothing_else_is_raised(data):
    with pytest.raises(Refused):
        decode(data)


@pytest.mark.parametrize("envelope", SHORT[:3] + SHORT[-6:], ids=lambda envelope: f"{len(envelope)}")
def test_every_cut_is_refused(envelope):
    for size in range(len(envelope)):
        with pytest.raises(Refused):
            decode(envelope[:size])


@pytest.mark.parametrize("name", [name for name in VECTORS if name.startswith("malformed-claims-")])
def test_a_length_that_claims_gigabytes_takes_no_memory(name):
    data = load.binary(VECTORS[name], "envelope")
    with pytest.raises(Refused):
        decode(data)
    tracemalloc.start()
    try:
        with pytest.raises(Refused):
            decode(data)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert peak < 50_000


def test_decoding_takes_a_few_times_the_size_of_the_message():
    body = bytes(1 << 20)
    vector = load.read("privacy-hmac")
    envelope = load.seal(vector["sealing"], body)
    tracemalloc.start()
    try:
        parsed = decode(envelope)
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert len(parsed.payload) == len(body) + 16
    assert peak < 4 * len(envelope)


@pytest.mark.parametrize("size", [0, 23, 24, 255, 256, 65_535, 65_536, 2**32 - 1])
def test_heads_of_byte_strings_are_the_shortest(size):
    assert byte_head(size) == head(2, size)
    if size <= 65_536:
        assert byte_span(byte_head(size) + bytes(size), 0) == (
            len(byte_head(size)),
            len(byte_head(size)) + size,
        )


@pytest.mark.parametrize(
    "data", ["5817" + "00" * 23, "5900ff", "5a0000ffff", "60", "a0", "5b0000000100000000", "5f", "41"]
)
def test_spans_of_byte_strings_are_strict(data):
    raw = bytes.fromhex(data) + bytes(8)
    if data == "41":  # the one that is a byte string
        assert byte_span(raw, 0) == (1, 2)
    else:
        assert byte_span(raw, 0) == (-1, -1)


@given(st.integers(-(2**64), 2**64 - 1))
def test_integers_are_encoded_as_a_cbor_library_does(value):
    import cbor2

    assert integer(value) == cbor2.dumps(value, canonical=True)


@given(st.text(st.characters(exclude_categories=("Cs",)), max_size=300))
def test_texts_are_encoded_as_a_cbor_library_does(value):
    import cbor2

    assert text(value) == cbor2.dumps(value, canonical=True)


def test_only_envelopes_look_sealed():
    for start in (
        "d860845880a401",
        "d86084590100a501",
        "d18443a301",
        "d28457a301",
        "d1845820a301",
        "d284590100a501",
    ):
        assert looks_sealed(bytes.fromhex(start)), start
        for size in range(len(start) // 2):
            assert not looks_sealed(bytes.fromhex(start)[:size]), (start, size)
    for start in (
        "d8608457a401",
        "d860845a00010000a401",
        "d18442a301",
        "d28458a301",
        "d1845a00000001a301",
        "d18443a201",
        "d18443a601",
        "d18443a302",
        "d08443a301",
        "d18343a301",
        "7b7d",
    ):
        assert not looks_sealed(bytes.fromhex(start)), start


def test_text_that_begins_with_a_cyrillic_letter_does_not_look_sealed():
    for following in map(chr, range(0x20, 0x500)):
        assert not looks_sealed(("ф" + following * 8).encode())


@given(header=headers, other=headers)
def test_a_skeleton_matches_what_differs_in_its_holes_only(header, other):
    twin = header._replace(
        nonce=other.nonce,
        seconds=other.seconds,
        millis=other.millis,
        message_id=other.message_id,
        expires=None if header.expires is None else other.seconds,
    )
    skeleton = Skeleton(header)
    data = b"\xd8\x60\x84" + byte_string(twin.encode()) + b"\xa0"
    assert len(data) == skeleton.size
    parts = struct.unpack(">" + skeleton.whole, data)
    assert parts[::2] == skeleton.fixed
    assert struct.unpack(">" + skeleton.holes, data) == parts[1::2]
    assert data[3 : skeleton.size - 1] == byte_string(twin.encode())
    assert (parts[1], parts[-6], parts[-4], parts[-2]) == (
        twin.nonce,
        twin.seconds,
        twin.message_id,
        twin.millis,
    )


@pytest.mark.parametrize(
    "wrong",
    [Recipient(1, b"", b"?"), Recipient(1, b"k" * 65, b"?"), Recipient(1, b"k", b""), Recipient(1, b"k", bytes(6145))],
    ids=["no-kid", "long-kid", "no-ciphertext", "long-ciphertext"],
)  # fmt: skip
def test_a_body_that_a_key_service_encrypted_and_no_decoder_would_take_is_never_sealed(wrong):
    """D2: likewise."""
    with pytest.raises(ConfigError):
        encode_direct(b"", wrong)


@pytest.mark.parametrize(
    "wrong",
    [
        [],
        [Recipient(1, bytes([i]), b"?") for i in range(17)],
        [Recipient(1, b"k", b"?")] * 2,
        [Recipient(1, b"", b"?")],
        [Recipient(1, b"k" * 65, b"?")],
        [Recipient(1, b"k", b"")],
        [Recipient(1, b"k", bytes(6145))],
        [Recipient(2**32, b"k", b"?")],
    ],
    ids=["none", "17", "twice", "no-kid", "long-kid", "no-wrapped-key", "long-wrapped-key", "64-bits"],
)
def test_recipients_that_no_decoder_would_take_are_never_sealed(wrong):
    """Else a key provider with such a key would make messages that nobody can ever open."""
    with pytest.raises(ConfigError):
        encode_recipients(wrong)
