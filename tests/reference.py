"""A second opener, written from core/SPEC.md alone.

It shares nothing with `postseal`: bytes are read by cbor2 and judged by encoding them again, primitives come from cryptography. It is
slow and plain on purpose, so that it can be read beside SPEC.md; where the two openers differ, one of them or SPEC.md is wrong.

    opened = reference.open_envelope(envelope, reference.Opening(destination="sqs:orders", ...))

The section of SPEC.md stands above each part.
"""

from __future__ import annotations

import hashlib
import hmac
import unicodedata
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

import cbor2
from cryptography import x509
from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519, padding, rsa, x25519
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap

HMAC_256, EDDSA, ES256 = 5, -8, -7
TAG_OF = {HMAC_256: 17, EDDSA: 18, ES256: 18}
CONFIDENTIALITY, PRIVACY, INTEGRITY = 1, 2, 3
LOCAL = -65538
RSA_OAEP, ECDH_ES, X_WING = -41, -65540, -65541
BRANCH = -65542
POSTSEAL = -65537
KEY_SERVICE = -65543


class RefusedError(Exception):
    """The envelope is not opened: the verdict of section 10.4 and the step of section 8."""

    def __init__(self, verdict: str, step: int, why: str = "") -> None:
        super().__init__(f"step {step}: {verdict}: {why}")
        self.verdict = verdict
        self.step = step


@dataclass(frozen=True)
class VerifyingKey:
    """A key of the ring: for HMAC a secret, else a public key in DER."""

    key_id: str
    alg: int
    senders: tuple[str, ...] | None  # None for all senders of the policy
    secret: bytes = b""
    public: bytes = b""
    delegates: bool = False  # speaks for others (7.3), and signs no messages
    accept_for_s: int = 0


@dataclass(frozen=True)
class Authorities:
    """Section 7.2: certificates that are trusted, those that messages need not carry, and how each sender's must be named."""

    key_id: str
    roots: tuple[bytes, ...]
    names: Mapping[str, list[str]]
    known: tuple[bytes, ...] = ()


@dataclass(frozen=True)
class Credential:
    """What the unprotected header of section 7.1 holds."""

    value: bytes
    certificates: tuple[bytes, ...] = ()
    delegation: Delegation | None = None


@dataclass(frozen=True)
class Delegation:
    """Section 7.3."""

    form: int
    protected: bytes
    payload: bytes
    seal: bytes
    alg: int
    kid: bytes
    sender: str
    begins_s: int
    ends_s: int
    key: dict[int, Any]


@dataclass(frozen=True)
class Opening:
    """What a consumer knows without the envelope."""

    now_ms: int
    destination: str
    protection: int
    policy: str
    also_here: tuple[str, ...] = ()  # destinations whose messages may also lie here
    senders: tuple[str, ...] = ()
    bind_headers: tuple[str, ...] = ()
    encrypt_headers: tuple[str, ...] = ()
    in_reply_to: bytes | None = None  # the reference of the request that it must answer
    max_age_s: int | None = None
    skew_s: int = 300
    headers: dict[str, list[Any]] = field(default_factory=dict)
    content_encoding: str | None = None
    ordering_key: bytes | None = None
    ring: tuple[VerifyingKey, ...] = ()
    authorities: tuple[Authorities, ...] = ()
    wrapping_keys: dict[str, bytes] = field(default_factory=dict)
    opening_keys: tuple[bytes, ...] = ()  # PKCS #8, DER
    branch_keys: dict[tuple[str, int], bytes] = field(default_factory=dict)  # by name and version
    bind_replies: bool = False  # whether it must answer something
    direct: bool = False  # whether the key service encrypts bodies itself


@dataclass(frozen=True)
class Inner:
    """What the map of section 4 and its form hold."""

    form: int  # 96, 17 or 18
    protected: bytes
    payload: bytes  # ciphertext, or the clear body
    recipients: tuple[tuple[int, bytes, bytes], ...]
    seal: bytes  # MAC or signature of section 3.3, or b""
    alg: int
    kid: bytes
    content_type: str | None
    nonce: bytes
    sender: str
    destination: str
    expires_s: int | None
    sent_ms: int
    message_id: bytes
    protection: int
    policy: str
    policy_version: int
    bound_names: tuple[str, ...]
    commitment: bytes | None
    framed: bool
    in_reply_to: bytes | None
    credential: Credential | None = None


@dataclass(frozen=True)
class Outer:
    """The signature around a privacy envelope, section 3.2."""

    form: int
    protected: bytes
    payload: bytes
    alg: int
    kid: bytes
    seal: bytes
    credential: Credential | None = None


@dataclass(frozen=True)
class Result:
    """A body, and what was derived on the way to it."""

    body: bytes
    inner: Inner
    outer: Outer | None
    intermediate: dict[str, bytes]
    headers: tuple[tuple[str, Any], ...] = ()  # those that were encrypted


# --- 3.4 Telling an envelope from something else


def looks_sealed(data: bytes) -> bool:
    """Tell whether *data* claims to be an envelope: by tag and array, the head of the header, and how its map begins."""
    if data[:7] in (b"\xdapsl1\x83\x50", b"\xdapsl1\x84\x50"):
        return True  # the short form
    if data[:3] == b"\xd8\x60\x84":
        rest, heads = data[3:], {0x58: 2, 0x59: 3}
    elif data[:2] in (b"\xd1\x84", b"\xd2\x84"):
        rest, heads = data[2:], {0x58: 2, 0x59: 3} | dict.fromkeys(range(0x43, 0x58), 1)
    else:
        return False
    header = rest[heads[rest[0]] :] if rest and rest[0] in heads else b""
    return header[:2] in (b"\xa3\x01", b"\xa4\x01", b"\xa5\x01")


# --- 2 Encoding


def _need(condition: object, why: str) -> None:
    if not condition:
        raise RefusedError("malformed", 2, why)


def _decode(data: bytes) -> Any:
    try:
        value = cbor2.loads(data, allow_indefinite=False, allow_duplicate_keys=False)
        again = cbor2.dumps(value, canonical=True)
    except Exception as exc:
        raise RefusedError("malformed", 2, "not CBOR") from exc
    # Shortest forms, order of keys, nothing after the end: a deterministic encoding is the only one its value has.
    _need(again == data, "not the deterministic encoding")
    return value


def _whole(value: Any, low: int, high: int) -> int:
    _need(type(value) is int and low <= value <= high, "integer")
    return int(value)


def _bytes(value: Any, low: int, high: int) -> bytes:
    _need(type(value) is bytes and low <= len(value) <= high, "byte string")
    return bytes(value)


def _text(value: Any, low: int, high: int, *, name: bool = False) -> str:
    _need(type(value) is str and low <= len(value.encode()) <= high, "text")
    if name:
        _need(unicodedata.is_normalized("NFC", value), "not NFC")
        _need(all(unicodedata.category(c) != "Cc" for c in value), "control character")
    return str(value)


def _list(value: Any, low: int, high: int) -> list[Any]:
    _need(
        isinstance(value, (list, tuple)) and low <= len(value) <= high, "array"
    )  # cbor2: tuples within tags
    return list(value)


def _map(value: Any, needed: set[int], allowed: set[int]) -> dict[int, Any]:
    _need(isinstance(value, Mapping) and all(type(key) is int for key in value), "map")
    _need(needed <= set(value) <= needed | allowed, "labels")
    return dict(value)


# --- 3 The three forms, 4 Header parameters, 9 Limits


def parse(data: bytes) -> tuple[Inner, Outer | None]:
    """Steps 1 and 2 of section 8."""
    if not looks_sealed(data):
        raise RefusedError("unprotected", 1)
    tag = _decode(data)
    _need(type(tag) is cbor2.CBORTag and tag.tag in (96, 17, 18), "tag")
    if tag.tag != 96:
        parts = _list(tag.value, 4, 4)
        protected = _bytes(parts[0], 0, 65_535)
        if protected[:1] == b"\xa3":
            outer = _outer(tag.tag, parts)
            inner_tag = _decode(outer.payload)
            _need(type(inner_tag) is cbor2.CBORTag and inner_tag.tag == 96, "privacy holds a COSE_Encrypt")
            return _inner(inner_tag, PRIVACY), outer
        return _inner(tag, INTEGRITY), None
    return _inner(tag, CONFIDENTIALITY), None


def _outer(form: int, parts: list[Any]) -> Outer:
    protected = _bytes(parts[0], 9, 73)
    header = _map(_decode(protected), {1, 3, 4}, set())
    alg = _whole(header[1], -(2**32), 2**32)
    _need(TAG_OF.get(alg) == form, "algorithm of the tag")
    _need(_whole(header[3], 96, 96), "content format")
    return Outer(
        form=form,
        protected=protected,
        payload=_bytes(parts[2], 0, 2**32 - 1),
        alg=alg,
        kid=_bytes(header[4], 1, 64),
        seal=_bytes(parts[3], *((32, 32) if form == 17 else (64, 64))),
        credential=_credential(parts[1], form),
    )


def _credential(value: Any, form: int) -> Credential | None:
    header = _map(value, set(), {33, 13} if form == 18 else set())
    _need(len(header) <= 1, "one credential")
    if 33 in header:
        chain = header[33]
        items = [chain] if type(chain) is bytes else _list(chain, 2, 5)
        return Credential(cbor2.dumps(chain, canonical=True), tuple(_bytes(item, 1, 8192) for item in items))
    if 13 in header:
        return Credential(cbor2.dumps(header[13], canonical=True), (), _delegation(header[13]))
    return None


def _delegation(tag: Any) -> Delegation:
    _need(type(tag) is cbor2.CBORTag and tag.tag in (17, 18), "a delegation is tagged")
    parts = _list(tag.value, 4, 4)
    protected = _bytes(parts[0], 6, 70)
    header = _map(_decode(protected), {1, 4}, set())
    alg = _whole(header[1], -(2**32), 2**32)
    _need(TAG_OF.get(alg) == tag.tag, "algorithm of the tag")
    _map(parts[1], set(), set())
    payload = _bytes(parts[2], 0, 512)
    claims = _map(_decode(payload), {2, 4, 5, 8}, set())
    key = _map(_map(claims[8], {1}, set())[1], {1, -1, -2}, {-3})
    if key[1] == 1:
        _need(_whole(key[-1], 6, 6) and _bytes(key[-2], 32, 32) and len(key) == 3, "an Ed25519 key")
    else:
        _need(_whole(key[1], 2, 2) and _whole(key[-1], 1, 1) and len(key) == 4, "a key on P-256")
        _need(_bytes(key[-2], 32, 32) and _bytes(key[-3], 32, 32), "both coordinates")
    return Delegation(
        form=tag.tag,
        protected=protected,
        payload=payload,
        seal=_bytes(parts[3], *((32, 32) if tag.tag == 17 else (64, 64))),
        alg=alg,
        kid=_bytes(header[4], 1, 64),
        sender=_text(claims[2], 1, 255, name=True),
        begins_s=_whole(claims[5], 2**16, 2**32 - 1),
        ends_s=_whole(claims[4], 2**16, 2**32 - 1),
        key=key,
    )


def _inner(tag: Any, protection: int) -> Inner:
    form = tag.tag
    parts = _list(tag.value, 4, 4)
    protected = _bytes(parts[0], 24, 65_535)
    credential = _credential(parts[1], form)
    labels = _map(_decode(protected), {1}, {3, 4, 5, 15, POSTSEAL})
    alg = _whole(labels[1], -(2**32), 2**32)
    _need(alg in (3, KEY_SERVICE) if form == 96 else TAG_OF.get(alg) == form, "algorithm of the tag")
    direct = alg == KEY_SERVICE
    own = set() if direct else {5} if form == 96 else {4}
    header = _map(labels, {1, 15, POSTSEAL} | own, {3})
    claims = _map(header[15], {1, 3, 6, 7}, {4})
    fixed = _list(header[POSTSEAL], 7, 8)
    more = _map(fixed.pop(6), set(), {1, 2} if form == 96 else {2}) if len(fixed) == 8 else None
    _need(more is None or more, "an empty map of more")
    more = more or {}
    _need(_whole(fixed[0], 0, 2**64) == 1, "version")
    said = _whole(fixed[1], 1, 3)
    # Confidentiality and privacy share the form; privacy without its signature is for section 8 to refuse.
    _need(
        said == protection or (protection == CONFIDENTIALITY and said == PRIVACY),
        "protection of another form",
    )
    names = tuple(_text(name, 1, 255) for name in _list(fixed[5], 0, 64))
    ordered = sorted({name.encode() for name in names})
    _need([name.encode() for name in names] == ordered, "bound names in order, none twice")
    destination = _text(claims[3], 3, 512, name=True)
    if form == 96:
        payload = _bytes(parts[2], *((1, 6144) if direct else (16, 2**31 - 1)))
        recipients = tuple(
            _recipient(item, direct=direct) for item in _list(parts[3], 1, 1 if direct else 16)
        )
        _need(len({(a, k) for a, k, _ in recipients}) == len(recipients), "recipient twice")
        seal = b""
        _need(not direct or fixed[6] is None, "no data key has no commitment")
        commitment: bytes | None = None if direct else _bytes(fixed[6], 32, 32)
    else:
        payload = _bytes(parts[2], 0, 2**31 - 17)
        recipients = ()
        seal = _bytes(parts[3], *((32, 32) if form == 17 else (64, 64)))
        _need(fixed[6] is None, "integrity has no commitment")
        commitment = None
    millis = int.from_bytes(_bytes(fixed[2], 2, 2), "big")
    _need(millis <= 999, "milliseconds")
    return Inner(
        form=form,
        protected=protected,
        payload=payload,
        recipients=recipients,
        seal=seal,
        alg=alg,
        kid=b"" if form == 96 else _bytes(header[4], 1, 64),
        content_type=_text(header[3], 1, 255) if 3 in header else None,
        nonce=_bytes(header[5], 12, 12) if 5 in header else b"",
        sender=_text(claims[1], 1, 255, name=True),
        destination=destination,
        expires_s=_whole(claims[4], 2**16, 2**32 - 1) if 4 in claims else None,
        sent_ms=_whole(claims[6], 2**16, 2**32 - 1) * 1000 + millis,
        message_id=_bytes(claims[7], 16, 16),
        protection=said,
        policy=_text(fixed[3], 1, 64, name=True),
        policy_version=_whole(fixed[4], 0, 2**32 - 1),
        bound_names=names,
        commitment=commitment,
        framed=1 in more and _whole(more[1], 1, 1) == 1,
        in_reply_to=_bytes(more[2], 32, 32) if 2 in more else None,
        credential=credential,
    )


def _recipient(item: Any, *, direct: bool) -> tuple[int, bytes, bytes]:
    parts = _list(item, 3, 3)
    _bytes(parts[0], 0, 0)
    header = _map(parts[1], {1, 4}, set())
    wrapped = _bytes(parts[2], *((0, 0) if direct else (1, 6144)))
    return _whole(header[1], -(2**32), 2**32 - 1), _bytes(header[4], 1, 64), wrapped


# --- 5 Context, 6 Keys, 7 Signatures


# --- 3.6 the short form


def record_of(envelope: bytes) -> bytes:
    """Return the record of *envelope*."""
    tag = cbor2.loads(envelope)
    if tag.tag != 96:
        protected, unprotected, payload, seal = tag.value
        parts = [protected, unprotected, record_of(payload), bytes(len(seal))]
        return cbor2.dumps(cbor2.CBORTag(tag.tag, parts), canonical=True)
    protected, unprotected, _, recipients = tag.value
    header = cbor2.loads(protected)
    times = {label: 65536 for label in (4, 6) if label in header[15]}
    header = header | {5: bytes(12), 15: header[15] | times | {7: bytes(16)}}
    header[POSTSEAL] = [*header[POSTSEAL][:2], bytes(2), *header[POSTSEAL][3:]]
    parts = [cbor2.dumps(header, canonical=True), unprotected, bytes(16), recipients]
    return cbor2.dumps(cbor2.CBORTag(96, parts), canonical=True)


def shortened(envelope: bytes) -> bytes:
    """Return the short form of *envelope*."""
    tag = cbor2.loads(envelope)
    seal = []
    if tag.tag != 96:
        seal = [tag.value[3]]
        tag = cbor2.loads(tag.value[2])
    header = cbor2.loads(tag.value[0])
    times = [header[15][label].to_bytes(4, "big") for label in (4, 6) if label in header[15]]
    holes = b"".join([header[5], *times, header[15][7], header[POSTSEAL][2]])
    reference = hashlib.sha256(record_of(envelope)).digest()[:16]
    return cbor2.dumps(cbor2.CBORTag(0x70736C31, [reference, holes, tag.value[2], *seal]))


def made_whole(short: bytes, record: bytes) -> bytes:
    """Return the envelope of which *short* is the short form and *record* the record."""
    reference, holes, ciphertext, *seal = cbor2.loads(short).value
    assert hashlib.sha256(record).digest()[:16] == reference
    outer = cbor2.loads(record)
    inner = cbor2.loads(outer.value[2]) if outer.tag != 96 else outer
    protected, unprotected, _, recipients = inner.value
    header = cbor2.loads(protected)
    header[5], holes = holes[:12], holes[12:]
    for label in (4, 6):
        if label in header[15]:
            header[15][label], holes = int.from_bytes(holes[:4], "big"), holes[4:]
    header[15][7], header[POSTSEAL][2] = holes[:16], holes[16:]
    parts = [cbor2.dumps(header, canonical=True), unprotected, ciphertext, recipients]
    whole = cbor2.dumps(cbor2.CBORTag(96, parts), canonical=True)
    if outer.tag == 96:
        return whole
    return cbor2.dumps(cbor2.CBORTag(outer.tag, [*outer.value[:2], whole, *seal]), canonical=True)


def external_aad(
    content_encoding: str | None, ordering_key: bytes | None, bound: list[tuple[str, list[Any]]]
) -> bytes:
    """The canonical context of section 5.2."""
    return cbor2.dumps(
        ["postseal v1", content_encoding, ordering_key, [[name, values] for name, values in bound]]
    )


def frame(headers: list[tuple[str, list[Any]]], body: bytes) -> bytes:
    """The frame of section 3.5."""
    return cbor2.dumps([[[name, values] for name, values in headers], body])


def unframe(data: bytes) -> tuple[dict[str, list[Any]], bytes]:
    """Take a frame apart: the values of each encrypted header, and the body."""
    try:
        entries, body = _list(_decode(data), 2, 2)
        found: dict[str, list[Any]] = {}
        for entry in _list(entries, 1, 64):
            name, values = _list(entry, 2, 2)
            found[_text(name, 1, 255)] = [_value(value) for value in _list(values, 0, 1024)]
        _need([name.encode() for name in found] == sorted(name.encode() for name in found), "order of names")
        _need(len(found) == len(entries), "a name twice")
        return found, _bytes(body, 0, 2**31)
    except RefusedError as refused:
        raise RefusedError("malformed", 11, str(refused)) from refused


def _value(value: Any) -> Any:
    if type(value) is int:
        return _whole(value, -(2**63), 2**64 - 1)
    _need(value is None or type(value) in (str, bytes, bool), "value of a header")
    return value


def reference_of(inner: Inner) -> bytes:
    """The reference by which a reply names its request, section 5.4."""
    seconds, millis = divmod(inner.sent_ms, 1000)
    named = [inner.sender, inner.destination, inner.message_id, seconds, millis, inner.commitment]
    return hashlib.sha256(cbor2.dumps(["postseal v1 request", *named])).digest()


def folded(name: str) -> str:
    """What all names have in common that may be taken for one another, section 5.2."""
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def hkdf(secret: bytes, info: bytes, length: int) -> bytes:
    """HKDF-SHA-256 with an empty salt."""
    return HKDF(hashes.SHA256(), length, salt=None, info=info).derive(secret)


def message_key_and_commitment(data_key: bytes) -> tuple[bytes, bytes]:
    """Section 6.1."""
    okm = hkdf(data_key, b"postseal v1 A256GCM", 64)
    return okm[:32], okm[32:]


def hmac_key(secret: bytes, sender: str, destination: str) -> bytes:
    """The key of a pair of sender and destination, section 7."""
    return hkdf(secret, b"postseal v1 HMAC" + cbor2.dumps([sender, destination]), 32)


def enc_structure(protected: bytes, aad: bytes) -> bytes:
    """The additional data of section 3.1."""
    return cbor2.dumps(["Encrypt", protected, aad])


def to_be_signed(form: int, protected: bytes, aad: bytes, payload: bytes) -> bytes:
    """MAC_structure or Sig_structure of section 7."""
    return cbor2.dumps(["MAC0" if form == 17 else "Signature1", protected, aad, payload])


def deduplication_id(secret: bytes, destination: str, body: bytes) -> str:
    """Section 12."""
    key = hkdf(secret, b"postseal v1 deduplication" + cbor2.dumps([destination]), 32)
    return hmac.new(key, body, hashlib.sha256).hexdigest()


def _verify(key: VerifyingKey, signed: bytes, seal: bytes, inner: Inner) -> None:
    try:
        if key.alg == HMAC_256:
            mac = HMAC(hmac_key(key.secret, inner.sender, inner.destination), hashes.SHA256())
            mac.update(signed)
            mac.verify(seal)
            return
        public = serialization.load_der_public_key(key.public)
        if key.alg == EDDSA:
            assert isinstance(public, ed25519.Ed25519PublicKey)
            public.verify(seal, signed)
        else:
            assert isinstance(public, ec.EllipticCurvePublicKey)
            assert isinstance(public.curve, ec.SECP256R1)
            r, s = int.from_bytes(seal[:32], "big"), int.from_bytes(seal[32:], "big")
            public.verify(encode_dss_signature(r, s), signed, ec.ECDSA(hashes.SHA256()))
    except InvalidSignature:
        raise RefusedError("forged", 6, "signature") from None


# --- 8 Opening, step by step


def open_envelope(data: bytes, opening: Opening) -> Result:
    """Open *data* or raise `RefusedError`.

    Source: SPEC.md 8.
    """
    inner, outer = parse(data)
    _policy(inner, opening)
    twins = [
        n
        for n in opening.headers
        if n not in inner.bound_names and folded(n) in map(folded, inner.bound_names)
    ]
    if twins:
        raise RefusedError("forged", 6, "a name that may be taken for a bound one")
    bound = [(name, opening.headers.get(name, [])) for name in inner.bound_names]
    aad = external_aad(opening.content_encoding, opening.ordering_key, bound)
    found = {"external_aad": aad}
    if inner.protection != CONFIDENTIALITY:
        _signature(inner, outer, opening, aad, found)
    _times(inner, opening)
    if inner.protection == INTEGRITY:
        return Result(inner.payload, inner, outer, found)
    if inner.alg == KEY_SERVICE:
        return _unframed(_direct(inner, opening, aad, found), inner, outer, opening, found)
    data_key = _unwrap(inner.recipients, inner, opening)
    if len(data_key) != 32:
        raise RefusedError("forged", 8, "no data key")
    message_key, commitment = message_key_and_commitment(data_key)
    assert inner.commitment is not None
    if not hmac.compare_digest(commitment, inner.commitment):
        raise RefusedError("forged", 9, "commitment")
    structure = enc_structure(inner.protected, aad)
    found |= {
        "data_key": data_key,
        "message_key": message_key,
        "commitment": commitment,
        "enc_structure": structure,
    }
    try:
        body = AESGCM(message_key).decrypt(inner.nonce, inner.payload, structure)
    except InvalidTag:
        raise RefusedError("forged", 10, "tag") from None
    return _unframed(body, inner, outer, opening, found)


def _unframed(
    body: bytes, inner: Inner, outer: Outer | None, opening: Opening, found: dict[str, bytes]
) -> Result:
    if not inner.framed:
        return Result(body, inner, outer, found)
    found["frame"] = body
    headers, body = unframe(body)
    if not set(opening.encrypt_headers) <= set(headers):
        raise RefusedError("downgrade", 11, "encrypted headers")
    _beside(opening, list(headers), 11)
    pairs = tuple((name, value) for name, values in headers.items() for value in values)
    return Result(body, inner, outer, found, pairs)


def _direct(inner: Inner, opening: Opening, aad: bytes, found: dict[str, bytes]) -> bytes:
    """Section 3.7."""
    [(algorithm, kid, _)] = inner.recipients
    plaintext = _unwrap(((algorithm, kid, inner.payload),), inner, opening)
    found["enc_structure"] = enc_structure(inner.protected, aad)
    found["plaintext"] = plaintext
    expected = direct_plaintext(found["enc_structure"], b"")
    if not hmac.compare_digest(plaintext[:33], expected):
        raise RefusedError("forged", 9, "bound to another message")
    return plaintext[33:]


def direct_plaintext(structure: bytes, body: bytes) -> bytes:
    """What the key service encrypts, section 3.7."""
    return b"\x01" + hashlib.sha256(structure).digest() + body


def _beside(opening: Opening, names: list[str], step: int) -> None:
    if {folded(name) for name in names} & {folded(name) for name in opening.headers}:
        raise RefusedError("forged", step, "an encrypted header stands beside")


def _policy(inner: Inner, opening: Opening) -> None:  # noqa: C901 - one line for each thing demanded
    if inner.protection != opening.protection:
        raise RefusedError("downgrade", 3, "protection")
    if (inner.alg == KEY_SERVICE) != opening.direct:
        raise RefusedError("downgrade", 3, "a data key, or none")
    if inner.policy != opening.policy:
        raise RefusedError("downgrade", 3, "policy")
    if not set(opening.bind_headers) <= set(inner.bound_names):
        raise RefusedError("downgrade", 3, "bound headers")
    if opening.encrypt_headers and not inner.framed:
        raise RefusedError("downgrade", 3, "encrypted headers")
    if opening.bind_replies and inner.in_reply_to is None:
        raise RefusedError("downgrade", 3, "no reply")
    if inner.framed:
        _beside(opening, list(opening.encrypt_headers), 3)
    if inner.destination not in (opening.destination, *opening.also_here):
        raise RefusedError("wrong-destination", 4)
    if opening.in_reply_to is not None and inner.in_reply_to is None:
        raise RefusedError("downgrade", 4, "no reply")
    if opening.in_reply_to is not None and inner.in_reply_to != opening.in_reply_to:
        raise RefusedError("wrong-destination", 4, "the reply to another request")
    if opening.senders and inner.sender not in opening.senders:
        raise RefusedError("unknown-sender", 5)


def _signature(
    inner: Inner, outer: Outer | None, opening: Opening, aad: bytes, found: dict[str, bytes]
) -> None:
    if outer is None and inner.protection == PRIVACY:
        raise RefusedError("downgrade", 6, "no signature")
    signed = outer or inner
    key = next((key for key in opening.ring if key.key_id.encode() == signed.kid and not key.delegates), None)
    if key is None and (signed.credential is None or signed.credential.certificates):
        key = _certified(signed, inner, opening)
        found["public_key"] = b"" if key is None else key.public
    elif key is None:
        key = _vouched_for(signed, inner, opening)
        found["public_key"] = b"" if key is None else key.public
    if key is None:
        raise RefusedError("unknown-key", 6)
    if key.senders is not None and inner.sender not in key.senders:
        raise RefusedError("unknown-sender", 6)
    if signed.alg != key.alg:
        raise RefusedError("forged", 6, "algorithm")
    structure = to_be_signed(signed.form, signed.protected, aad, signed.payload)
    found["to_be_signed"] = structure
    if key.alg == HMAC_256:
        found["hmac_key"] = hmac_key(key.secret, inner.sender, inner.destination)
    _verify(key, structure, signed.seal, inner)
    statement = None if signed.credential is None else signed.credential.delegation
    if statement is not None and not statement.begins_s <= inner.sent_ms // 1000 <= statement.ends_s:
        raise RefusedError("unknown-key", 6, "outside of the delegation")


def _certified(signed: Inner | Outer, inner: Inner, opening: Opening) -> VerifyingKey | None:
    """The key of the signer's certificate, section 7.2."""
    carried = () if signed.credential is None else signed.credential.certificates
    for trusted in opening.authorities:
        chain = carried or tuple(der for der in trusted.known if hashlib.sha256(der).digest() == signed.kid)
        if not chain or hashlib.sha256(chain[0]).digest() != signed.kid:
            continue
        try:
            leaf, *between = [x509.load_der_x509_certificate(der) for der in chain]
        except ValueError:
            continue
        roots = [x509.load_der_x509_certificate(der) for der in trusted.roots]
        at = datetime.fromtimestamp(opening.now_ms / 1000, UTC)
        if not _signs_messages(leaf) or not _leads_to(leaf, between, roots, at):
            continue
        named = [sender for sender, names in trusted.names.items() if all(_has(leaf, name) for name in names)]
        if inner.sender not in named:
            raise RefusedError("unknown-sender", 6, "the names of the certificate")
        public = leaf.public_key()
        alg = EDDSA if isinstance(public, ed25519.Ed25519PublicKey) else ES256
        der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
        return VerifyingKey(trusted.key_id, alg, tuple(named), public=der)
    return None


def _leads_to(
    one: x509.Certificate, between: list[x509.Certificate], roots: list[x509.Certificate], at: datetime
) -> bool:
    """Whether *one* is valid and was issued, through *between*, by one of *roots*. Source: RFC 5280 6."""
    if not one.not_valid_before_utc <= at <= one.not_valid_after_utc:
        return False
    for issuer in (*roots, *between):
        try:
            one.verify_directly_issued_by(issuer)
        except (ValueError, TypeError, InvalidSignature):
            continue
        is_authority = issuer.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        usage = issuer.extensions.get_extension_for_class(x509.KeyUsage).value
        left = [other for other in between if other is not issuer]
        if is_authority and usage.key_cert_sign and (issuer in roots or _leads_to(issuer, left, roots, at)):
            return True
    return False


def _signs_messages(leaf: x509.Certificate) -> bool:
    extensions = leaf.extensions
    uses = [e.value for e in extensions if isinstance(e.value, x509.ExtendedKeyUsage)]
    return (
        not extensions.get_extension_for_class(x509.BasicConstraints).value.ca
        and extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
        and all(x509.ExtendedKeyUsageOID.CLIENT_AUTH in use for use in uses)
    )


def _has(leaf: x509.Certificate, name: str) -> bool:
    word, _, value = name.partition("=")
    oid = {"CN": x509.NameOID.COMMON_NAME, "O": x509.NameOID.ORGANIZATION_NAME}[word]
    return any(attribute.value == value for attribute in leaf.subject.get_attributes_for_oid(oid))


def _vouched_for(signed: Inner | Outer, inner: Inner, opening: Opening) -> VerifyingKey | None:
    """The key that the credential speaks of, sections 7.1 to 7.3."""
    credential = signed.credential
    assert credential is not None
    statement = credential.delegation
    if statement is None or hashlib.sha256(credential.value).digest() != signed.kid:
        return None
    root = next((key for key in opening.ring if key.key_id.encode() == statement.kid and key.delegates), None)
    if root is None:
        return None
    if root.alg != statement.alg:
        raise RefusedError("forged", 6, "algorithm of the delegation")
    if root.senders is None or statement.sender not in root.senders:
        raise RefusedError("unknown-sender", 6, "the root may not speak for it")
    if not 0 <= statement.ends_s - statement.begins_s <= 86_400 + 300:
        raise RefusedError("unknown-key", 6, "too long")
    if opening.now_ms >= (statement.ends_s + root.accept_for_s) * 1000:
        raise RefusedError("unknown-key", 6, "too long ago")
    structure = to_be_signed(
        statement.form, statement.protected, b"postseal v1 delegation", statement.payload
    )
    as_sent = replace(inner, sender=statement.sender, destination="postseal v1 delegation")
    _verify(root, structure, statement.seal, as_sent)
    try:
        public: Any
        if statement.key[1] == 1:
            alg, public = EDDSA, ed25519.Ed25519PublicKey.from_public_bytes(statement.key[-2])
        else:
            x, y = (int.from_bytes(statement.key[label], "big") for label in (-2, -3))
            alg, public = ES256, ec.EllipticCurvePublicNumbers(x, y, ec.SECP256R1()).public_key()
    except ValueError:
        raise RefusedError("forged", 6, "no point of the curve") from None
    der = public.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return VerifyingKey(root.key_id, alg, (statement.sender,), public=der)


def _times(inner: Inner, opening: Opening) -> None:
    if opening.max_age_s is not None and opening.now_ms - inner.sent_ms > opening.max_age_s * 1000:
        raise RefusedError("stale", 7)
    if inner.expires_s is not None and opening.now_ms >= inner.expires_s * 1000:
        raise RefusedError("stale", 7, "expired")
    if inner.sent_ms - opening.now_ms > opening.skew_s * 1000:
        raise RefusedError("future", 7)


def _unwrap(recipients: tuple[tuple[int, bytes, bytes], ...], inner: Inner, opening: Opening) -> bytes:
    context = cbor2.dumps(["postseal v1 local", inner.policy, inner.destination])
    ours = {key_id.encode(): key for key_id, key in opening.wrapping_keys.items()}
    private = {(key.algorithm, key.kid): key for key in map(PrivateKey, opening.opening_keys)}
    branch = {branch_kid(*each): key for each, key in opening.branch_keys.items()}
    for algorithm, kid, wrapped in recipients:
        try:
            if algorithm == BRANCH and kid in branch:
                return on_branch(branch[kid], wrapped, inner.policy, inner.destination)
            if algorithm == LOCAL and kid in ours:
                return AESGCM(ours[kid]).decrypt(wrapped[:12], wrapped[12:], context)
            if (algorithm, kid) in private:
                return private[algorithm, kid].unwrap(wrapped, inner.policy, inner.destination)
        except (InvalidTag, InvalidUnwrap, ValueError):
            raise RefusedError("forged", 8, "wrapped key") from None
    raise RefusedError("unknown-key", 8)


# --- 6.3 Wrapping algorithms: branch keys


def branch_kid(name: str, version: int) -> bytes:
    """Return the kid of a branch key."""
    return hashlib.sha256(cbor2.dumps(["postseal v1 branch", name])).digest()[:8] + version.to_bytes(4, "big")


def on_branch(key: bytes, wrapped: bytes, policy: str, destination: str) -> bytes:
    """Return the data key; InvalidTag or ValueError where there is none."""
    if len(wrapped) != 60:
        raise ValueError("length")
    context = cbor2.dumps(["postseal v1 context", policy, destination])
    wrapping = HKDFExpand(hashes.SHA256(), 32, b"postseal v1 branch" + context).derive(key)
    return AESGCM(wrapping).decrypt(wrapped[:12], wrapped[12:], context)


# --- 6.3 Wrapping algorithms: public keys


class PrivateKey:
    """A private key, in DER of PKCS #8."""

    def __init__(self, der: bytes) -> None:
        form = serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo
        if der[5:20] == X_WING_OID:
            self.algorithm, self.key = X_WING, XWing(der[22:])
            spki = bytes.fromhex("308204d4") + X_WING_OID + bytes.fromhex("038204c100") + self.key.public
        else:
            self.key = serialization.load_der_private_key(der, None)
            self.algorithm = RSA_OAEP if isinstance(self.key, rsa.RSAPrivateKey) else ECDH_ES
            spki = self.key.public_key().public_bytes(*form)
        self.kid = hashlib.sha256(spki).digest()[:8]

    def unwrap(self, wrapped: bytes, policy: str, destination: str) -> bytes:
        """Return the data key; ValueError or InvalidUnwrap where there is none."""
        context = cbor2.dumps(["postseal v1 context", policy, destination])
        if isinstance(self.key, rsa.RSAPrivateKey):
            if len(wrapped) != self.key.key_size // 8 + 16:
                raise ValueError("length")
            oaep = padding.OAEP(padding.MGF1(hashes.SHA256()), hashes.SHA256(), None)
            data_key = self.key.decrypt(wrapped[:-16], oaep)
            if len(data_key) != 32 or not hmac.compare_digest(hkdf(data_key, context, 16), wrapped[-16:]):
                raise ValueError("tag")
            return data_key
        sent, inner = wrapped[:-40], wrapped[-40:]
        secret, public = self._agree(sent)
        parties = [None, None, sent], [None, None, public]
        info = cbor2.dumps([-5, *parties, [256, b"", context]])
        return aes_key_unwrap(hkdf(secret, info, 32), inner)

    def _agree(self, sent: bytes) -> tuple[bytes, bytes]:
        if isinstance(self.key, XWing):
            return self.key.decapsulate(sent), self.key.public
        if isinstance(self.key, x25519.X25519PrivateKey):
            public = self.key.public_key().public_bytes_raw()
            return self.key.exchange(x25519.X25519PublicKey.from_public_bytes(sent)), public
        form = serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint
        if len(sent) != 33:
            raise ValueError("length")
        point = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), sent)
        return self.key.exchange(ec.ECDH(), point), self.key.public_key().public_bytes(*form)


X_WING_OID = bytes.fromhex("300d060b2b0601040183e62d81c87a")


class XWing:
    """draft-connolly-cfrg-xwing-kem-10, 5."""

    def __init__(self, seed: bytes) -> None:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

        expanded = hashlib.shake_256(seed).digest(96)
        self.first = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self.second = x25519.X25519PrivateKey.from_private_bytes(expanded[64:])
        self.public = self.first.public_key().public_bytes_raw() + self.second.public_key().public_bytes_raw()

    def decapsulate(self, sent: bytes) -> bytes:
        """Return the shared secret."""
        if len(sent) != 1120:
            raise ValueError("length")
        ss_m = self.first.decapsulate(sent[:1088])
        ss_x = self.second.exchange(x25519.X25519PublicKey.from_public_bytes(sent[1088:]))
        label = bytes.fromhex("5c2e2f2f5e5c")
        return hashlib.sha3_256(ss_m + ss_x + sent[1088:] + self.public[1184:] + label).digest()
