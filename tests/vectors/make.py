"""Make the test vectors: JSON files beside this script, and the worked examples of core/SPEC.md section 13.

    python tests/vectors/make.py            write both
    python tests/vectors/make.py DIRECTORY  write the JSON files elsewhere

Nothing of `postseal` is used: envelopes are put together piece by piece from SPEC.md, so that one piece at a time can be made wrong while
everything else, the cryptography included, stays right. All inputs are fixed: two runs give the same bytes.
"""

from __future__ import annotations

import base64
import datetime as dt
import hashlib
import hmac
import json
import sys
import textwrap
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import cbor2
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

HERE = Path(__file__).resolve().parent
ROOT = HERE.parent.parent
sys.path.insert(0, str(ROOT))

from tests import reference as ref  # noqa: E402 - the root must be on the path first
from tests.vectors import recipients as for_public_keys  # noqa: E402
from tests.vectors.recipients import Wrap, filled  # noqa: E402

# --- fixed inputs

NOW = 1_790_847_015_123  # 2026-10-01T09:30:15.123Z
DATA_KEY = filled("data key", 32)
OTHER_DATA_KEY = filled("another data key", 32)
WRAPPING_KEY = filled("wrapping key", 32)
MAC_SECRET = filled("MAC secret", 32)
OTHER_MAC_SECRET = filled("another MAC secret", 32)
ED25519_KEY = ed25519.Ed25519PrivateKey.from_private_bytes(filled("Ed25519", 32))
P256_KEY = ec.derive_private_key(int.from_bytes(filled("P-256", 31), "big"), ec.SECP256R1())
P256_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
AWS_KMS = -65537
BODY = b"4111 1111 1111 1111"


@dataclass(frozen=True)
class Key:
    """A signing key with its private part, and what a consumer's ring says of it."""

    key_id: str
    alg: int
    senders: tuple[str, ...] | None
    secret: bytes = b""
    private: Any = None
    kid: bytes = b""  # where it is not the id
    credential: bytes = b"\xa0"  # the unprotected header

    @property
    def public(self) -> bytes:
        """DER SubjectPublicKeyInfo."""
        form = serialization.PublicFormat.SubjectPublicKeyInfo
        return self.private.public_key().public_bytes(serialization.Encoding.DER, form)


HMAC = Key("hmac-1", ref.HMAC_256, None, secret=MAC_SECRET)
EDDSA = Key("ed-1", ref.EDDSA, ("billing-api",), private=ED25519_KEY)
ES256 = Key("es-1", ref.ES256, ("billing-api",), private=P256_KEY)
RING = (HMAC, EDDSA, ES256)
ALGORITHMS = {ref.HMAC_256: "HMAC-SHA-256", ref.EDDSA: "Ed25519", ref.ES256: "ES256"}
CODES = {"confidentiality": 1, "privacy": 2, "integrity": 3}


@dataclass(frozen=True)
class Message:
    """One message to be sealed, and how."""

    protection: str = "confidentiality"
    body: bytes = BODY
    sender: str = "billing-api"
    destination: str = "kafka:orders"
    policy: str = "orders"
    policy_version: int = 0
    clock_ms: int = NOW
    data_key: bytes = DATA_KEY
    nonce: bytes = filled("nonce", 12)
    message_id: bytes = filled("message id", 16)
    content_type: str | None = None
    content_encoding: str | None = None
    ordering_key: bytes | None = None
    expires_s: int | None = None
    bound: tuple[str, ...] = ()
    headers: tuple[tuple[str, Any], ...] = ()
    recipients: tuple[tuple[int, bytes, bytes], ...] | None = None
    key: Key | None = None
    encrypted: tuple[str, ...] = ()
    inside: tuple[tuple[str, Any], ...] = ()
    in_reply_to: bytes | None = None
    direct: bool = False

    @property
    def hides(self) -> bool:
        """Whether its body is encrypted."""
        return self.protection != "integrity"

    def all_recipients(self) -> tuple[tuple[int, bytes, bytes], ...]:
        """Return those given, or one of the local key."""
        return (local(self),) if self.recipients is None else self.recipients


def local(
    message: Message, key_id: str = "main-1", key: bytes = WRAPPING_KEY, data_key: bytes | None = None
) -> tuple[int, bytes, bytes]:
    """Wrap the data key of *message* under a local key. Source: SPEC.md 6.3."""
    aad = cbor2.dumps(["postseal v1 local", message.policy, message.destination])
    nonce = filled(f"wrapping nonce {key_id}", 12)
    return ref.LOCAL, key_id.encode(), nonce + AESGCM(key).encrypt(nonce, data_key or message.data_key, aad)


PLAIN = Message()
PRIVATE = Message(protection="privacy", key=HMAC)
SIGNED = Message(protection="integrity", key=HMAC)
FULL = replace(
    PLAIN,
    content_type="application/json",
    expires_s=NOW // 1000 + 3600,
    content_encoding="gzip",
    bound=("content-type", "correlation-id"),
    headers=(("content-type", b"application/json"), ("correlation-id", b"c-17")),
)

# --- an envelope, piece by piece


def head(major: int, value: int, width: int | None = None) -> bytes:
    """Encode a CBOR head; *width* bytes of argument where not the shortest."""
    if width is None:
        return (
            cbor2.dumps(value)
            if major == 0
            else bytes([cbor2.dumps(value)[0] | major << 5]) + cbor2.dumps(value)[1:]
        )
    return bytes([major << 5 | {1: 24, 2: 25, 4: 26, 8: 27}[width]]) + value.to_bytes(width, "big")


def text(value: str) -> bytes:
    """Encode a text string."""
    return cbor2.dumps(value)


def bstr(value: bytes) -> bytes:
    """Encode a byte string."""
    return cbor2.dumps(value)


Edits = Mapping[str, bytes]


def header_pieces(m: Message, commitment: bytes | None) -> dict[str, bytes]:
    """Return the pieces of the map of SPEC.md 4, in their order."""
    millis = bstr((m.clock_ms % 1000).to_bytes(2, "big"))
    pieces = {
        "map": head(5, 4 - m.direct + (m.content_type is not None)),
        "alg": b"\x01"
        + cbor2.dumps(ref.KEY_SERVICE if m.direct else 3 if m.hides else m.key.alg if m.key else 0),
        "content type": b"" if m.content_type is None else b"\x03" + text(m.content_type),
        "IV": b"\x05" + bstr(m.nonce) if m.hides and not m.direct else b"",
        "kid": b"" if m.hides or m.key is None else b"\x04" + bstr(m.key.kid or m.key.key_id.encode()),
        "claims": b"\x0f" + head(5, 4 + (m.expires_s is not None)),
        "iss": b"\x01" + text(m.sender),
        "aud": b"\x03" + text(m.destination),
        "exp": b"" if m.expires_s is None else b"\x04" + cbor2.dumps(m.expires_s),
        "iat": b"\x06" + cbor2.dumps(m.clock_ms // 1000),
        "cti": b"\x07" + bstr(m.message_id),
        "postseal": cbor2.dumps(ref.POSTSEAL) + head(4, 8 if m.encrypted or m.in_reply_to else 7),
        "version": cbor2.dumps(1),
        "protection": cbor2.dumps(CODES[m.protection]),
        "milliseconds": millis,
        "policy": text(m.policy),
        "policy version": cbor2.dumps(m.policy_version),
        "bound": head(4, len(m.bound)) + b"".join(map(text, m.bound)),
        "more": more_piece(m),
        "commitment": b"\xf6" if commitment is None else bstr(commitment),
        "end": b"",
    }
    return {name: piece for name, piece in pieces.items() if piece or name == "end"}


def more_piece(m: Message) -> bytes:
    """Encode the map of SPEC.md 4.1."""
    more: dict[int, Any] = {1: 1} if m.encrypted else {}
    if m.in_reply_to is not None:
        more[2] = m.in_reply_to
    return cbor2.dumps(more) if more else b""


def recipient_piece(algorithm: int, kid: bytes, wrapped: bytes) -> bytes:
    """Encode a COSE_recipient."""
    return cbor2.dumps([b"", {1: algorithm, 4: kid}, wrapped])


def merged(pieces: dict[str, bytes], edits: Edits) -> bytes:
    """Join *pieces* with those of *edits* in their places."""
    unknown = set(edits) - set(pieces)
    if unknown:
        raise KeyError(unknown)
    return b"".join((pieces | dict(edits)).values())


@dataclass(frozen=True)
class Made:
    """An envelope and all that was computed on the way."""

    envelope: bytes
    steps: dict[str, bytes]
    pieces: dict[str, bytes]
    form: dict[str, bytes] = field(default_factory=dict)


def make(
    m: Message,
    *,
    header: Edits = {},  # noqa: B006 - never changed
    encrypt: Edits = {},  # noqa: B006
    outer: Edits = {},  # noqa: B006
    signed: Edits = {},  # noqa: B006
    sign_as: int | None = None,
    plaintext: bytes | None = None,
) -> Made:
    """Seal *m*, with pieces replaced: of the *header*, of COSE_Encrypt, of the *outer* header, of COSE_Mac0 or COSE_Sign1.

    What is encrypted and signed is what then stands in the envelope, so a wrong piece is the only thing wrong.
    """
    aad = ref.external_aad(
        m.content_encoding,
        m.ordering_key,
        [(name, [v for n, v in m.headers if n == name]) for name in m.bound],
    )
    steps: dict[str, bytes] = {"external_aad": aad}
    if not m.hides:
        pieces = header_pieces(m, None)
        return sign(m, merged(pieces, header), m.body, steps, pieces, signed, sign_as)
    message_key, commitment = ref.message_key_and_commitment(m.data_key)
    pieces = header_pieces(m, None if m.direct else commitment)
    protected = merged(pieces, header)
    structure = ref.enc_structure(protected, aad)
    if plaintext is None:
        inside = [(name, [v for n, v in m.inside if n == name]) for name in m.encrypted]
        plaintext = ref.frame(inside, m.body) if m.encrypted else m.body
    if m.direct:
        steps["plaintext"] = ref.direct_plaintext(structure, plaintext)
        ciphertext = local(m, data_key=steps["plaintext"])[2]
        recipients: tuple[tuple[int, bytes, bytes], ...] = ((ref.LOCAL, b"main-1", b""),)
    else:
        steps |= {"message_key": message_key, "commitment": commitment}
        ciphertext = AESGCM(message_key).encrypt(m.nonce, plaintext, structure)
        recipients = m.all_recipients()
    steps |= {
        "protected": protected,
        "enc_structure": structure,
        "ciphertext": ciphertext,
    }
    if m.encrypted:
        steps["frame"] = plaintext
    form = {
        "tag": b"\xd8\x60",
        "array": b"\x84",
        "protected": bstr(protected),
        "unprotected": b"\xa0",
        "ciphertext": bstr(ciphertext),
        "recipients": head(4, len(recipients)),
        **{f"recipient {i}": recipient_piece(*r) for i, r in enumerate(recipients)},
        "end": b"",
    }
    envelope = merged(form, encrypt)
    steps["recipients"] = b"".join(piece for name, piece in form.items() if name.startswith("recipient"))
    if m.protection == "confidentiality":
        return Made(envelope, steps, pieces, form)
    assert m.key is not None
    outer_pieces = {
        "map": b"\xa3",
        "alg": b"\x01" + cbor2.dumps(m.key.alg),
        "content format": b"\x03\x18\x60",
        "kid": b"\x04" + bstr(m.key.kid or m.key.key_id.encode()),
        "end": b"",
    }
    steps["inner"] = envelope
    steps["outer_protected"] = merged(outer_pieces, outer)
    return sign(m, steps["outer_protected"], envelope, steps, pieces, signed, sign_as)


def sign(  # noqa: PLR0917 - in the order in which they are used
    m: Message,
    protected: bytes,
    payload: bytes,
    steps: dict[str, bytes],
    pieces: dict[str, bytes],
    edits: Edits,
    sign_as: int | None,
) -> Made:
    """Sign *payload*. Source: SPEC.md 7."""
    key = m.key
    assert key is not None
    tag = ref.TAG_OF[key.alg] if sign_as is None else sign_as
    structure = ref.to_be_signed(tag, protected, steps["external_aad"], payload)
    if key.alg == ref.HMAC_256:
        steps["hmac_key"] = ref.hmac_key(key.secret, m.sender, m.destination)
    seal = signature(m, key, structure)
    steps |= {"to_be_signed": structure, "signature": seal}
    if not m.hides:
        steps["protected"] = protected
    form = {
        "tag": head(6, tag),
        "array": b"\x84",
        "protected": bstr(protected),
        "unprotected": key.credential,
        "payload": bstr(payload),
        "signature": bstr(seal),
        "end": b"",
    }
    return Made(merged(form, edits), steps, pieces, form)


def signature(m: Message, key: Key, structure: bytes) -> bytes:
    """Sign *structure* with *key*; ES256 by RFC 6979, so that it is always the same."""
    if key.alg == ref.HMAC_256:
        return hmac.new(ref.hmac_key(key.secret, m.sender, m.destination), structure, hashlib.sha256).digest()
    if key.alg == ref.EDDSA:
        return bytes(key.private.sign(structure))
    r, s = decode_dss_signature(
        key.private.sign(structure, ec.ECDSA(hashes.SHA256(), deterministic_signing=True))
    )
    return r.to_bytes(32, "big") + s.to_bytes(32, "big")


# --- as JSON


def value_json(name: str, value: Any) -> dict[str, Any]:
    """Return a header as JSON tells it: its name and one of text, bytes (hex), integer (decimal text), boolean or null."""
    if value is None:
        return {"name": name, "null": True}
    if isinstance(value, bool):
        return {"name": name, "boolean": value}
    if isinstance(value, int):
        return {"name": name, "integer": str(value)}
    return {"name": name, "bytes": value.hex()} if isinstance(value, bytes) else {"name": name, "text": value}


def beside_json(m: Message) -> dict[str, Any]:
    """Return what travels beside the body."""
    return {
        "headers": [value_json(*pair) for pair in m.headers],
        "content_encoding": m.content_encoding,
        "ordering_key": None if m.ordering_key is None else m.ordering_key.hex(),
    }


def key_json(key: Key, *, private: bool) -> dict[str, Any]:
    """Return a signing key, with its private part or without."""
    out: dict[str, Any] = {
        "id": key.key_id,
        "algorithm": ALGORITHMS[key.alg],
        "senders": None if key.senders is None else list(key.senders),
    }
    if key.alg == ref.HMAC_256:
        return out | {"secret": key.secret.hex()}
    if not private:
        return out | {"public_key": key.public.hex()}
    encoding, form, none = (
        serialization.Encoding.DER,
        serialization.PrivateFormat.PKCS8,
        serialization.NoEncryption(),
    )
    return out | {"private_key": key.private.private_bytes(encoding, form, none).hex()}


def policy_json(m: Message, **changes: Any) -> dict[str, Any]:
    """Return the policy under which *m* was sealed."""
    policy = {
        "name": m.policy,
        "version": m.policy_version,
        "protection": m.protection,
        "destinations": [m.destination],
        "accept_from": [],
        "senders": []
        if m.key is None
        else ["billing-api", "shop-web", m.sender]
        if m.sender not in ("billing-api", "shop-web")
        else ["billing-api", "shop-web"],
        "bind_headers": list(m.bound),
        "bind_ordering_key": m.ordering_key is not None,
        "max_message_age_s": None,
        "max_clock_skew_s": 300,
    }
    if m.encrypted:
        policy["encrypt_headers"] = list(m.encrypted)
    if m.direct:
        policy["direct"] = True
    if set(changes) - set(policy) - {"encrypt_headers", "direct", "bind_replies"}:
        raise KeyError(changes)
    return policy | changes


def opening_json(
    m: Message, *, ring: Sequence[Key] = RING, policy: dict[str, Any] | None = None, **changes: Any
) -> dict[str, Any]:
    """Return what a consumer knows that opens *m*."""
    opening = {
        "clock_ms": m.clock_ms,
        "destination": m.destination,
        "policy": policy or policy_json(m),
        **beside_json(m),
        "wrapping_keys": {"main-1": WRAPPING_KEY.hex()} if m.hides else {},
        "verifying_keys": [] if m.key is None else [key_json(key, private=False) for key in ring],
    }
    if set(changes) - set(opening) - {"opening_keys", "branch_keys", "in_reply_to"}:
        raise KeyError(changes)
    return opening | changes


def sealing_json(m: Message) -> dict[str, Any]:
    """Return what a producer is given that seals *m*."""
    more: dict[str, Any] = {} if m.in_reply_to is None else {"in_reply_to": m.in_reply_to.hex()}
    keyed = m.hides and not m.direct
    recipients = m.all_recipients() if keyed else ((ref.LOCAL, b"main-1", b""),) if m.direct else ()
    if m.direct:
        steps = make(m).steps
        more |= {"plaintext": steps["plaintext"].hex(), "ciphertext": steps["ciphertext"].hex()}
    return more | {
        "clock_ms": m.clock_ms,
        "sender": m.sender,
        "destination": m.destination,
        "policy": policy_json(m),
        **beside_json(replace(m, headers=m.headers + m.inside)),
        "content_type": m.content_type,
        "expires_s": m.expires_s,
        "message_id": m.message_id.hex(),
        "nonce": m.nonce.hex() if keyed else None,
        "data_key": m.data_key.hex() if keyed else None,
        "recipients": [{"algorithm": a, "key_id": k.hex(), "wrapped_key": w.hex()} for a, k, w in recipients],
        "signing_key": None if m.key is None else key_json(m.key, private=True),
        "signature_is_deterministic": m.key is None or m.key.alg != ref.ES256,
    }


def opens(
    name: str,
    comment: str,
    spec: str,
    m: Message,
    made: Made | None = None,
    *,
    seals: bool = True,
    **opening: Any,
) -> tuple[str, dict[str, Any]]:
    """Return the vector of an envelope that opens, and, if *seals*, of sealing it."""
    made = made or make(m)
    big = len(made.envelope) > 10_000
    origin = "none" if m.key is None else "group" if m.key.alg == ref.HMAC_256 else "sender"
    return name, {
        "comment": comment,
        "spec": spec,
        "expect": {
            "opens": True,
            "sender": m.sender,
            "destination": m.destination,
            "policy": m.policy,
            "message_id": m.message_id.hex(),
            "sent_ms": m.clock_ms,
            "expires_s": m.expires_s,
            "content_type": m.content_type,
            "origin": origin,
            **({"headers": [value_json(*pair) for pair in m.inside]} if m.encrypted else {}),
            **({} if m.in_reply_to is None else {"in_reply_to": m.in_reply_to.hex()}),
            **binary("body", m.body),
        },
        "opening": opening_json(m, **opening),
        "sealing": sealing_json(m) if seals else None,
        "intermediate": {} if big else {step: value.hex() for step, value in made.steps.items()},
        **binary("envelope", made.envelope),
    }


def binary(what: str, value: bytes) -> dict[str, str]:
    """Return bytes as hex, or where they are many as base64."""
    if len(value) > 10_000:
        return {f"{what}_base64": base64.b64encode(value).decode()}
    return {what: value.hex()}


def refused(  # noqa: PLR0917 - the columns of a table
    name: str,
    comment: str,
    spec: str,
    verdict: str,
    step: int,
    envelope: bytes,
    m: Message,
    *,
    warm_up: Message | None = None,
    warm_at: int | None = None,
    **opening: Any,
) -> tuple[str, dict[str, Any]]:
    """Return the vector of an envelope that is refused, beside a good one of the same data key that the same consumer opens."""
    good = warm_up or m
    good = replace(good, message_id=filled("warm-up id", 16), nonce=filled("warm-up nonce", 12))
    return name, {
        "comment": comment,
        "spec": spec,
        "expect": {"opens": False, "verdict": verdict, "step": step},
        "opening": opening_json(m, **opening),
        "warm_up": {
            "envelope": make(good).envelope.hex(),
            "body": good.body.hex(),
            "clock_ms": good.clock_ms if warm_at is None else warm_at,
            **beside_json(good),
        },
        "envelope": envelope.hex(),
    }


Vector = tuple[str, dict[str, Any]]


def all_vectors() -> Iterator[Vector]:
    """Make all vectors, by name."""
    yield from confidentiality_opens()
    yield from public_key_opens()
    yield from signed_opens()
    yield from direct_opens()
    yield from direct_refused()
    yield from more_opens()
    yield from more_refused()
    yield from not_an_envelope()
    yield from bad_encoding()
    yield from bad_header()
    yield from bad_form()
    yield from bad_signed_form()
    yield from certificates()
    yield from delegated()
    yield from against_policy()
    yield from forged()
    yield from forged_for_public_keys()
    yield from branches()
    yield from out_of_time()


# --- what opens; one line a vector, because it reads as the table that it is
# fmt: off


def confidentiality_opens() -> Iterator[Vector]:
    yield opens("confidentiality-minimal", "The least there can be: no content type, nothing bound, one recipient.", "3.1", PLAIN)
    yield opens("confidentiality-full", "Content type, expiry, content encoding and two bound headers at once.", "4, 5.2", FULL)
    for size, what in (
        (0, "An empty body is a message, and no tombstone."),
        (7, "A ciphertext of 23 bytes, the longest whose length stands in the first byte."),
        (8, "A ciphertext of 24 bytes, the shortest with a one-byte length."),
        (239, "A ciphertext of 255 bytes, the longest with a one-byte length."),
        (240, "A ciphertext of 256 bytes, the shortest with a two-byte length."),
        (65_520, "A ciphertext of 65,536 bytes, the shortest with a four-byte length."),
    ):
        yield opens(f"confidentiality-body-{size}", what, "3.1", replace(PLAIN, body=(filled("body", 64) * 1024)[:size]))
    yield opens("confidentiality-content-type", "A content type travels in the header.", "4", replace(PLAIN, content_type="text/plain; charset=utf-8"))
    yield opens("confidentiality-expiry", "Opened a second before it expires.", "4, 8 step 7", replace(PLAIN, expires_s=NOW // 1000 + 1))
    yield opens("confidentiality-milliseconds-0", "No milliseconds are two zero bytes.", "4", replace(PLAIN, clock_ms=NOW - 123))
    yield opens("confidentiality-milliseconds-999", "The most milliseconds.", "4", replace(PLAIN, clock_ms=NOW - 123 + 999))
    yield opens("confidentiality-earliest", "The earliest time whose shortest form has four bytes.", "4", replace(PLAIN, clock_ms=65_536_000))
    yield opens("confidentiality-latest", "The latest time.", "4", replace(PLAIN, clock_ms=(2**32 - 1) * 1000 + 999))
    yield opens("confidentiality-policy-version", "The greatest policy version.", "4", replace(PLAIN, policy_version=2**32 - 1))
    names = replace(PLAIN, sender="café-7", destination="kafka:größe", policy="données")
    yield opens("confidentiality-unicode-names", "Names in normalisation form C need not be ASCII.", "2 rule 5", names)
    longest = replace(
        PLAIN,
        sender="s" * 255,
        destination="servicebus:" + "d" * 501,
        policy="p" * 64,
        content_type="c" * 255,
        bound=tuple(f"{i:02}" + "h" * 253 for i in range(64)),
    )
    yield opens("confidentiality-longest-names", "Every name as long, and as many headers, as may be.", "9", longest)
    aws = (AWS_KMS, hashlib.sha256(b"arn:aws:kms:eu-west-1:111122223333:key/1").digest()[:8], filled("CiphertextBlob", 184))
    yield opens("confidentiality-two-recipients", "Two wraps of one data key, AWS KMS and local; the second opens.", "3.1, 6.3", replace(PLAIN, recipients=(aws, local(PLAIN))))
    reserved = ((-41, b"rsa", filled("rsa", 256)), (-5, b"kw", filled("kw", 40)), (7777, b"\xff\x00", b"?"), local(PLAIN))
    yield opens("confidentiality-unknown-recipients", "Recipients of algorithms that the consumer does not know are passed over.", "10.3", replace(PLAIN, recipients=reserved))
    services = (
        (AWS_KMS, filled("ARN", 8), filled("CiphertextBlob", 184)),
        (-41, filled("RSA key", 8) + filled("its version", 16), filled("RSA-OAEP-256", 256) + filled("its tag", 16)),
        (-5, filled("HSM key", 8) + filled("its version", 16), filled("A256KW", 40) + filled("its tag", 16)),
        (-65539, filled("transit key", 8), b"\x00\x00\x00\x01" + filled("vault:v1", 60)),
        local(PLAIN),
    )
    yield opens("confidentiality-every-key-service", "A wrap by each key service there is, all but the last opaque here.", "6.3, 10.3", replace(PLAIN, recipients=services))
    many = (*((AWS_KMS, bytes([i]), filled(f"blob {i}", 6144 if i == 0 else 1)) for i in range(15)), local(PLAIN))
    yield opens("confidentiality-sixteen-recipients", "As many recipients as may be, the first as long as may be.", "9", replace(PLAIN, recipients=many))
    same = ((AWS_KMS, b"main-1", filled("blob", 184)), local(PLAIN), local(PLAIN, "main-2", filled("second", 32)))
    yield opens("confidentiality-same-kid-other-algorithm", "One kid under two algorithms is two recipients.", "3.1", replace(PLAIN, recipients=same))
    typed = replace(
        PLAIN,
        bound=("b", "i", "j", "k", "n", "t", "ä"),
        headers=(("t", "text ✓"), ("b", b"\x00\xff"), ("i", 0), ("i", -(2**63)), ("i", 2**64 - 1), ("k", True), ("k", False), ("n", None), ("ä", ""), ("unbound", "x")),
    )
    yield opens("confidentiality-bound-values", "Header values of every type; j is bound as absent; i and k come more than once; one is not bound.", "5.2", typed)
    yield opens("confidentiality-bound-absent", "A header that the policy binds and the message has not.", "5.2", replace(PLAIN, bound=("x",)))
    yield opens("confidentiality-content-encoding", "The content encoding is bound.", "5.2", replace(PLAIN, content_encoding="gzip"))
    yield opens("confidentiality-ordering-key", "The ordering key is bound.", "5.2", replace(PLAIN, ordering_key=b"customer-17"))
    yield opens("confidentiality-ordering-key-empty", "An empty ordering key is not the same as none.", "5.2", replace(PLAIN, ordering_key=b""))
    more = make(replace(PLAIN, bound=("a", "b"), headers=(("a", "1"), ("b", "2"))))
    m = replace(PLAIN, bound=("a", "b"), headers=(("a", "1"), ("b", "2")))
    yield opens("confidentiality-binds-more", "More headers are bound than the consumer's policy demands.", "8 step 3", m, more, seals=False, policy=policy_json(m, bind_headers=["b"]))
    redriven = policy_json(PLAIN, accept_from=["kafka:orders-dlq"])
    yield opens("confidentiality-dead-lettered", "A10: read from where the policy says that it may also lie.", "8 step 4", PLAIN, seals=False, destination="kafka:orders-dlq", policy=redriven)
    aged = policy_json(PLAIN, max_message_age_s=60)
    yield opens("confidentiality-oldest", "Exactly as old as the policy allows.", "8 step 7", PLAIN, seals=False, clock_ms=NOW + 60_000, policy=aged)
    yield opens("confidentiality-skewed", "From exactly as far in the future as the policy allows.", "8 step 7", PLAIN, seals=False, clock_ms=NOW - 300_000)
    yield opens("confidentiality-named-senders", "The policy names senders, though it cannot prove them.", "8 step 5", PLAIN, seals=False, policy=policy_json(PLAIN, senders=["billing-api"]))


def wraps(m: Message = PLAIN) -> dict[str, Wrap]:
    """Return the data key of *m*, wrapped for each kind of public key."""
    context = for_public_keys.context_bytes(m.policy, m.destination)
    kinds = {"rsa": for_public_keys.rsa_2048, "p-256": for_public_keys.p256, "x25519": for_public_keys.x25519, "x-wing": for_public_keys.x_wing}
    return {kind: wrap(m.data_key, context) for kind, wrap in kinds.items()}


def on_branch(m: Message, version: int, key: bytes, destination: str = "") -> tuple[int, bytes, bytes]:
    """Return the data key of *m*, wrapped under a branch key."""
    context = for_public_keys.context_bytes(m.policy, destination or m.destination)
    return for_public_keys.branch(m.data_key, context, "orders", version, key, filled("branch nonce", 12))


BRANCH_KEYS = {1: filled("branch key 1", 32), 2: filled("branch key 2", 32)}


def branches_json() -> list[dict[str, Any]]:
    return [{"name": "orders", "version": version, "key": key.hex()} for version, key in BRANCH_KEYS.items()]


def branches() -> Iterator[Vector]:
    keys = branches_json()
    for version, key in BRANCH_KEYS.items():
        m = replace(PLAIN, recipients=(on_branch(PLAIN, version, key),))
        yield opens(f"confidentiality-on-branch-{version}", f"B13: wrapped under version {version} of a branch key.", "6.3", m, wrapping_keys={}, branch_keys=keys)
    other = replace(PLAIN, data_key=OTHER_DATA_KEY)
    right = on_branch(other, 2, BRANCH_KEYS[2])
    wrong = {
        "other-version": ("Under version 1, and says 2.", (right[0], right[1], on_branch(other, 1, BRANCH_KEYS[1])[2])),
        "other-destination": ("A8: wrapped for another destination.", on_branch(other, 2, BRANCH_KEYS[2], "kafka:refunds")),
        "changed": ("A bit was changed.", (*right[:2], flip(right[2], 20, 0))),
        "shortened": ("A byte was taken away.", (*right[:2], right[2][:-1])),
    }
    for name, (what, recipient) in wrong.items():
        envelope = make(replace(other, recipients=(recipient,))).envelope
        yield refused(f"forged-on-branch-{name}", what, "6.3, 8 step 8", "forged", 8, envelope, PLAIN, branch_keys=keys)
    unknown = (right[0], right[1][:8] + (3).to_bytes(4, "big"), right[2])
    envelope = make(replace(other, recipients=(unknown,))).envelope
    yield refused("unknown-key-branch-version", "A version that there is not.", "6.3, 8 step 8", "unknown-key", 8, envelope, PLAIN, branch_keys=keys)


def opening_keys(*made: Wrap) -> list[str]:
    return [wrap.private.hex() for wrap in made]


def public_key_opens() -> Iterator[Vector]:
    made = wraps()
    for kind, what in (("rsa", "RSAES-OAEP, and the context tag"), ("p-256", "ECDH-ES + A256KW with P-256"), ("x25519", "ECDH-ES + A256KW with X25519"), ("x-wing", "X-Wing + A256KW")):
        m = replace(PLAIN, recipients=(made[kind].recipient,))
        yield opens(f"confidentiality-for-{kind}", f"A2, A12: wrapped for a public key: {what}.", "6.3", m, wrapping_keys={}, opening_keys=opening_keys(made[kind]))
    m = replace(PLAIN, recipients=tuple(wrap.recipient for wrap in made.values()))
    yield opens("confidentiality-for-four-public-keys", "A5: one ciphertext, four wraps; the third opens alone.", "3.1, 6.3", m, wrapping_keys={}, opening_keys=opening_keys(made["x25519"]))
    m = replace(PRIVATE, recipients=(local(PRIVATE), made["x25519"].recipient))
    yield opens("privacy-for-archive", "B11: beside a key service's wrap, one for an archive, which opens without that service.", "3.2, 6.3", m, wrapping_keys={}, opening_keys=opening_keys(made["x25519"]))


def signed_opens() -> Iterator[Vector]:
    for m, protection in ((PRIVATE, "privacy"), (SIGNED, "integrity")):
        section = "3.2, 7" if protection == "privacy" else "3.3, 7"
        for key in RING:
            word = ALGORITHMS[key.alg].lower().replace("-sha-256", "")
            yield opens(f"{protection}-{word}", f"{protection.capitalize()} with {ALGORITHMS[key.alg]}, nothing bound.", section, replace(m, key=key))
        full = replace(FULL, protection=protection, key=HMAC, ordering_key=b"customer-17")
        yield opens(f"{protection}-hmac-full", "Content type, expiry, content encoding, ordering key and two bound headers at once.", section, full)
        for key in (EDDSA, ES256):
            yield opens(f"{protection}-{ALGORITHMS[key.alg].lower()}-bound", "The signature covers the bound headers.", section, replace(full, key=key))
        yield opens(f"{protection}-empty-body", "An empty body, authenticated.", section, replace(m, body=b""))
        longest = replace(HMAC, key_id="k" * 64)
        yield opens(f"{protection}-longest-kid", "A signing key's id of 64 bytes.", "9", replace(m, key=longest), ring=(longest,))
        shortest = replace(EDDSA, key_id="k")
        yield opens(f"{protection}-shortest-kid", "A signing key's id of one byte.", "9", replace(m, key=shortest), ring=(shortest,))
    made = make(replace(SIGNED, key=ES256))
    r, s = made.steps["signature"][:32], int.from_bytes(made.steps["signature"][32:], "big")
    twin = make(replace(SIGNED, key=ES256), signed={"signature": bstr(r + (P256_ORDER - s).to_bytes(32, "big"))})
    yield opens("integrity-es256-twin", "ECDSA accepts n - s for s: the bytes of a signature identify nothing.", "7", replace(SIGNED, key=ES256), twin, seals=False)
    retired = opening_json(PRIVATE)["verifying_keys"]
    retired[0] |= {"state": "retired", "retired_until_ms": NOW + 1}
    yield opens("privacy-retired-key", "A retired key verifies until its date.", "8 step 6", PRIVATE, seals=False, verifying_keys=retired)
    pending = opening_json(PRIVATE)["verifying_keys"]
    pending[0] |= {"state": "pending"}
    yield opens("privacy-pending-key", "A pending key verifies already.", "8 step 6", PRIVATE, seals=False, verifying_keys=pending)


# --- encrypted headers, replies


DIRECT = replace(PLAIN, direct=True)
DIRECT_PRIVATE = replace(PRIVATE, direct=True)


def direct_opens() -> Iterator[Vector]:
    yield opens("confidentiality-direct", "D2: the key service encrypted the body itself.", "3.7", DIRECT)
    yield opens("confidentiality-direct-full", "The same with all that there can be beside it.", "3.7", replace(FULL, direct=True))
    yield opens("confidentiality-direct-empty-body", "An empty body: 33 bytes are encrypted.", "3.7", replace(DIRECT, body=b""))
    yield opens("confidentiality-direct-longest", "As long a body as AWS KMS takes: 4,096 bytes are encrypted.", "3.7", replace(DIRECT, body=(filled("body", 64) * 64)[:4063]))
    yield opens("confidentiality-direct-encrypted-headers", "A frame, encrypted by the key service.", "3.5, 3.7", replace(INSIDE, direct=True))
    yield opens("confidentiality-direct-reply", "A reply; nothing but the reference is more in it.", "3.7, 4.1", replace(ANSWER, direct=True), in_reply_to=ANSWER.in_reply_to.hex())
    yield opens("privacy-direct", "A MAC around it.", "3.2, 3.7", DIRECT_PRIVATE)
    yield opens("privacy-direct-ed25519", "A signature around it.", "3.2, 3.7", replace(DIRECT_PRIVATE, key=EDDSA))


def direct_refused() -> Iterator[Vector]:
    yield refused("downgrade-answers-nothing", "E11: the policy wants replies alone, and it names no request.", "8 step 3", "downgrade", 3, make(PLAIN).envelope, ANSWER, policy=policy_json(ANSWER, bind_replies=True))
    section, context = "3.7", cbor2.dumps(["postseal v1 local", "orders", "kafka:orders"])
    good = make(DIRECT)
    recipient = (ref.LOCAL, b"main-1")
    bad: dict[str, tuple[str, dict[str, Any]]] = {
        "iv": ("A nonce, where the key service has its own.", {"header": {"map": b"\xa4", "alg": good.pieces["alg"] + b"\x05" + bstr(PLAIN.nonce)}}),
        "commitment": ("A key commitment, and no data key.", {"header": {"commitment": bstr(filled("commitment", 32))}}),
        "wrapped-key": ("A wrapped key beside the body that the key service encrypted.", {"encrypt": {"recipient 0": recipient_piece(*recipient, b"x")}}),
        "two-recipients": ("Two recipients of one ciphertext.", {"encrypt": {"recipients": b"\x82", "recipient 0": recipient_piece(*recipient, b"") + recipient_piece(ref.LOCAL, b"main-2", b"")}}),
        "no-recipient": ("No recipient.", {"encrypt": {"recipients": b"\x80", "recipient 0": b""}}),
        "empty": ("No ciphertext.", {"encrypt": {"ciphertext": b"\x40"}}),
        "6145": ("A ciphertext longer than a wrapped key may be.", {"encrypt": {"ciphertext": bstr(bytes(6145))}}),
        "other-number": ("The next number, which means nothing yet.", {"header": {"alg": b"\x01" + cbor2.dumps(ref.KEY_SERVICE - 1)}}),
        "integrity": ("Integrity does not stand in COSE_Encrypt.", {"header": {"protection": b"\x03"}}),
    }
    for name, (comment, edits) in bad.items():
        yield malformed(f"direct-{name}", comment, section, make(DIRECT, **edits), DIRECT)
    yield refused("downgrade-direct", "A9: the policy demands a data key.", "8 step 3", "downgrade", 3, good.envelope, PLAIN)
    yield refused("downgrade-data-key", "A9: the policy demands that the key service itself encrypts.", "8 step 3", "downgrade", 3, make(PLAIN).envelope, DIRECT)
    yield refused("downgrade-privacy-direct", "The same in privacy.", "8 step 3", "downgrade", 3, make(DIRECT_PRIVATE).envelope, PRIVATE)
    stripped = make(DIRECT_PRIVATE).steps["inner"]
    yield refused("downgrade-direct-stripped", "A9: privacy, its MAC taken away.", "8 step 6", "downgrade", 6, stripped, DIRECT_PRIVATE)
    yield refused("unknown-key-direct", "Another key encrypted it.", "8 step 8", "unknown-key", 8, make(DIRECT, encrypt={"recipient 0": recipient_piece(ref.LOCAL, b"main-2", b"")}).envelope, DIRECT)

    def forged_direct(name: str, comment: str, step: int, made: Made | bytes, m: Message = DIRECT, **opening: Any) -> Vector:
        data = made if isinstance(made, bytes) else made.envelope
        return refused(f"forged-direct-{name}", comment, f"3.7, 8 step {step}", "forged", step, data, m, **opening)

    def around(ciphertext: bytes, m: Message = DIRECT) -> Made:
        return make(m, encrypt={"ciphertext": bstr(ciphertext)})

    ciphertext = good.steps["ciphertext"]
    yield forged_direct("ciphertext-changed", "A9: one bit of what the key service encrypted.", 8, around(flip(ciphertext, 20)))
    yield forged_direct("ciphertext-cut", "Cut to less than any key service makes.", 8, around(ciphertext[:5]))
    for name, what in (("message-id", PLAIN.message_id), ("sender", b"billing-api"), ("time", (NOW // 1000).to_bytes(4, "big")), ("milliseconds", b"\x42\x00\x7b")):
        yield forged_direct(f"header-{name}", f"One bit of the {name.replace('-', ' ')} in the header.", 9, flip(good.envelope, good.envelope.index(what) + len(what) - 1))
    bound = replace(DIRECT, bound=("a",), headers=(("a", b"1"),))
    yield forged_direct("bound-value", "The value of a bound header was changed.", 9, make(bound), bound, headers=[value_json("a", b"2")])
    yield forged_direct("bound-removed", "A bound header was taken away.", 9, make(bound), bound, headers=[])
    other = make(replace(DIRECT, message_id=filled("another id", 16), body=b"another"))
    yield forged_direct("swapped", "The ciphertext of another message of the same policy and destination.", 9, around(other.steps["ciphertext"]))
    yield forged_direct("data-key", "A wrapped data key passed off as a body.", 9, around(local(PLAIN)[2]))
    elsewhere = AESGCM(WRAPPING_KEY)
    nonce = filled("wrapping nonce main-1", 12)
    unmarked = good.steps["plaintext"][1:]
    yield forged_direct("unmarked", "Rightly bound, but without the byte before.", 9, around(nonce + elsewhere.encrypt(nonce, unmarked, context)))
    destination = cbor2.dumps(["postseal v1 local", "orders", "kafka:other"])
    yield forged_direct("context", "Encrypted for another destination.", 8, around(nonce + elsewhere.encrypt(nonce, good.steps["plaintext"], destination)))
    empty = make(replace(DIRECT, body=b""))
    known = hashlib.sha256(empty.steps["enc_structure"]).digest()
    yield refused(
        "forged-wrapped-key-of-direct",
        "An empty body that the key service encrypted, passed off as a wrapped data key: all but its first byte is known to everybody.",
        "3.7, 8 step 8", "forged", 8,
        make(replace(PLAIN, data_key=known), encrypt={"recipient 0": recipient_piece(*recipient, empty.steps["ciphertext"])}).envelope, PLAIN,
    )
    theirs = make(replace(DIRECT_PRIVATE, sender="shop-web"))
    resigned = make(DIRECT_PRIVATE, encrypt={"ciphertext": bstr(theirs.steps["ciphertext"])})
    yield forged_direct("resigned", "The ciphertext of another sender, rightly signed as one's own.", 9, resigned, DIRECT_PRIVATE)


INSIDE = replace(PLAIN, encrypted=("patient", "tenant"), inside=(("patient", b"4711"), ("tenant", b"north")))
ANSWER = replace(PLAIN, in_reply_to=filled("a request", 32))


def more_opens() -> Iterator[Vector]:
    yield opens("confidentiality-encrypted-headers", "Two headers travel inside, encrypted with the body.", "3.5, 4.1", INSIDE)
    yield opens("confidentiality-encrypted-absent", "The policy encrypts headers that the message has not; it is framed all the same.", "3.5", replace(INSIDE, inside=()))
    typed = replace(
        PLAIN,
        body=b"",
        encrypted=("b", "i", "k", "n", "t", "ä"),
        inside=(("b", b"\x00\xff"), ("b", b""), ("i", 0), ("i", -(2**63)), ("i", 2**64 - 1), ("k", True), ("k", False), ("n", None), ("t", "text ✓"), ("ä", "")),
    )
    yield opens("confidentiality-encrypted-values", "Encrypted values of every type, some names more than once, around an empty body.", "3.5, 5.2", typed)
    both = replace(INSIDE, content_type="application/json", expires_s=NOW // 1000 + 10, bound=("correlation-id",), headers=(("correlation-id", b"c-17"),))
    yield opens("confidentiality-encrypted-and-bound", "Some headers are bound, some are encrypted.", "3.5, 5.2", both)
    lists = replace(PLAIN, encrypted=tuple(f"{i:02}" + "h" * 253 for i in range(64)), inside=tuple((f"00{'h' * 253}", i) for i in range(1024)))
    yield opens("confidentiality-encrypted-most", "As many names, and values of one name, as may be.", "9", lists)
    private = replace(INSIDE, protection="privacy", key=EDDSA)
    yield opens("privacy-encrypted-headers", "Encrypted headers, signed by Ed25519.", "3.2, 3.5", private)
    yield opens("confidentiality-encrypts-more", "More headers are encrypted than the consumer's policy demands: handed on all the same.", "8 step 11", INSIDE, seals=False, policy=policy_json(PLAIN))
    yield opens("confidentiality-reply", "The reply to a request, which the consumer names.", "5.4, 8 step 4", ANSWER, in_reply_to=filled("a request", 32).hex())
    yield opens("confidentiality-reply-to-nobody", "A reply opens for who does not say which request it has to answer.", "8 step 4", ANSWER, seals=False)
    every = replace(private, in_reply_to=filled("a request", 32))
    yield opens("privacy-reply-with-encrypted-headers", "A reply with encrypted headers.", "4.1", every, in_reply_to=filled("a request", 32).hex())
    signed = replace(SIGNED, in_reply_to=filled("a request", 32))
    yield opens("integrity-reply", "A reply that is only signed.", "4.1", signed, in_reply_to=filled("a request", 32).hex())


def more_refused() -> Iterator[Vector]:
    def vector(name: str, what: str, spec: str, verdict: str, step: int, envelope: Made, m: Message = INSIDE, **opening: Any) -> Vector:  # noqa: PLR0917 - as in `refused`
        return refused(name, what, spec, verdict, step, envelope.envelope, m, **opening)

    encrypting = policy_json(INSIDE)
    yield vector("downgrade-no-frame", "A consumer whose policy encrypts headers gets a message that has no frame.", "8 step 3", "downgrade", 3, make(PLAIN), warm_up=INSIDE, policy=encrypting)
    less = replace(INSIDE, encrypted=("patient",), inside=INSIDE.inside[:1])
    yield vector("downgrade-frame-lacks-a-name", "One header that the policy encrypts is not among those that were.", "8 step 11", "downgrade", 11, make(less), policy=encrypting)
    beside = [value_json("tenant", b"south")]
    yield vector("forged-encrypted-header-beside", "A9: beside the envelope somebody put a header of a name that the policy encrypts.", "8 step 3", "forged", 3, make(INSIDE), headers=beside)
    twin = [value_json("Tenant", b"south")]
    yield vector("forged-encrypted-header-twin", "The same in another case.", "8 step 3", "forged", 3, make(INSIDE), headers=twin)
    yield vector("forged-encrypted-header-beside-lax", "The same where the consumer's own policy encrypts none.", "8 step 11", "forged", 11, make(INSIDE), policy=policy_json(PLAIN), headers=beside)
    absent = replace(INSIDE, inside=INSIDE.inside[:1])
    yield vector("forged-encrypted-header-added", "A header that was encrypted as absent was added beside.", "8 step 11", "forged", 11, make(absent), absent, policy=policy_json(PLAIN), headers=beside)
    stripped = make(INSIDE, header={"postseal": cbor2.dumps(ref.POSTSEAL) + head(4, 7), "more": b""}).envelope
    told = make(INSIDE)
    unframed = told.envelope.replace(bstr(told.steps["protected"]), stripped[3 : stripped.index(b"\xa0", 3 + len(told.steps["protected"]) - 10)])
    yield refused("forged-frame-stripped", "The header says no more that there is a frame.", "8 step 10", "forged", 10, unframed, INSIDE, policy=policy_json(PLAIN))
    frames = {
        "empty": (b"", "Nothing where a frame is due."),
        "no-frame": (BODY, "The bare body where a frame is due."),
        "no-names": (b"\x82\x80\x40", "A frame of no headers."),
        "after-the-end": (told.steps["frame"] + b"\x00", "A byte after the frame's end."),
        "cut": (told.steps["frame"][:-1], "A frame cut short."),
        "order": (ref.frame([("b", []), ("a", [])], BODY), "Its names out of order."),
        "twice": (ref.frame([("a", []), ("a", [])], BODY), "One name twice."),
        "long-name": (ref.frame([("a" * 256, [])], BODY), "A name of 256 bytes."),
        "no-name": (ref.frame([("", [])], BODY), "A name of no bytes."),
        "many-names": (ref.frame([(f"{i:02}", []) for i in range(65)], BODY), "65 names."),
        "many-values": (ref.frame([("a", [0] * 1025)], BODY), "1,025 values of one name."),
        "array-value": (ref.frame([("a", [[]])], BODY), "A value that is an array."),
        "big-integer": (b"\x82\x81\x82\x61a\x81\x3b" + b"\xff" * 8 + b"\x40", "An integer below -2^63."),
        "float-value": (b"\x82\x81\x82\x61a\x81\xf9\x00\x00\x40", "A value that is a floating point number."),
        "indefinite": (b"\x9f\x81\x82\x61a\x80\x40\xff", "A frame of indefinite length."),
        "long-head": (b"\x82\x81\x82\x61a\x81\x18\x00\x40", "A value not in its shortest form."),
        "text-body": (b"\x82\x81\x82\x61a\x80\x61x", "A body that is text."),
        "lying-length": (b"\x82\x81\x82\x61a\x9b" + b"\x00\x00\x00\x01" * 2 + b"\x40", "An array of 2^32 values that are not there."),
    }
    for name, (plaintext, what) in frames.items():
        yield vector(f"malformed-frame-{name}", what, "3.5, 8 step 11", "malformed", 11, make(INSIDE, plaintext=plaintext))
    pieces = {
        "empty": (b"\xa0", "An empty map of more."),
        "framing-2": (b"\xa1\x01\x02", "A framing that is yet to come."),
        "framing-0": (b"\xa1\x01\x00", "A framing of no number."),
        "unknown": (b"\xa2\x01\x01\x03\x01", "A label that is not of this profile."),
        "order": (b"\xa2\x02" + bstr(bytes(32)) + b"\x01\x01", "Labels out of order."),
        "twice": (b"\xa2\x01\x01\x01\x01", "One label twice."),
        "short-reference": (b"\xa2\x01\x01\x02" + bstr(bytes(31)), "A reference of 31 bytes."),
        "no-map": (b"\xf6", "Null where the map of more is due."),
        "nothing": (b"", "An array of 8 with 7 elements."),
    }
    for name, (piece, what) in pieces.items():
        yield vector(f"malformed-more-{name}", what, "4.1", "malformed", 2, make(INSIDE, header={"more": piece}))
    framed = {"postseal": cbor2.dumps(ref.POSTSEAL) + head(4, 8), "bound": b"\x80\xa1\x01\x01"}
    yield vector("malformed-integrity-framed", "Integrity encrypts no headers.", "4.1", "malformed", 2, make(SIGNED, header=framed), SIGNED)
    for m in (ANSWER, replace(PRIVATE, in_reply_to=ANSWER.in_reply_to), replace(SIGNED, in_reply_to=ANSWER.in_reply_to)):
        kind = m.protection
        swapped = {"warm_up": replace(m, in_reply_to=filled("another request", 32)), "in_reply_to": filled("another request", 32).hex()}
        yield vector(f"wrong-destination-{kind}-reply", "E11: the reply to another request.", "8 step 4", "wrong-destination", 4, make(m), m, **swapped)
        bare = replace(m, in_reply_to=None)
        demanded = {"warm_up": m, "in_reply_to": ANSWER.in_reply_to.hex() if ANSWER.in_reply_to else ""}
        yield vector(f"downgrade-{kind}-no-reply", "E11: a message that answers nothing, where the reply to a request is due.", "8 step 4", "downgrade", 4, make(bare), bare, **demanded)
    other = {"more": b"\xa1\x02" + bstr(filled("another request", 32))}
    moved = make(ANSWER).envelope.replace(filled("a request", 32), filled("another request", 32))
    assert make(ANSWER, header=other).envelope != moved
    yield refused("forged-reply-moved", "E11: the reference was changed to that of another request.", "8 step 10", "forged", 10, moved, ANSWER, warm_up=replace(ANSWER, in_reply_to=filled("another request", 32)), in_reply_to=filled("another request", 32).hex())
    named = replace(PLAIN, bound=("tenant",), headers=(("tenant", b"north"),))
    twins = [value_json("tenant", b"north"), value_json("Tenant", b"south")]
    yield vector("forged-bound-header-twin", "A header was added whose name differs from that of a bound one only in case.", "5.2", "forged", 6, make(named), named, headers=twins)
    wide = [value_json("tenant", b"north"), value_json("\uff54\uff45\uff4e\uff41\uff4e\uff54", b"south")]
    yield vector("forged-bound-header-wide-twin", "The same in letters that only look alike.", "5.2", "forged", 6, make(named), named, headers=wide)


# --- step 1


def not_an_envelope() -> Iterator[Vector]:
    for name, what, data in (
        ("empty", "Nothing at all.", b""),
        ("text", "A9: clear text, injected.", b'{"pan": "4111111111111111"}'),
        ("three-bytes", "Three bytes are too few to tell.", bytes.fromhex("d28458")),
        ("other-tag", "A COSE_Encrypt0 (tag 16) is not of this profile.", bytes.fromhex("d08443a1010340")),
        ("untagged", "An envelope without its tag.", make(PLAIN).envelope[2:]),
        ("cyrillic", "d1 84 is also a letter.", "фон".encode()),
        ("short-protected", "A protected header in the first byte does not look like COSE_Encrypt of ours.", bytes.fromhex("d8608443a10103a040")),
        ("long-tag", "A tag not in its shortest form does not look sealed.", b"\xd9\x00\x60" + make(PLAIN).envelope[2:]),
    ):
        yield refused(f"unprotected-{name}", what, "3.4, 8 step 1", "unprotected", 1, data, PLAIN)


# --- step 2


def malformed(name: str, comment: str, spec: str, made: Made | bytes, m: Message = PLAIN) -> Vector:
    envelope = made if isinstance(made, bytes) else made.envelope
    return refused(f"malformed-{name}", comment, spec, "malformed", 2, envelope, m)


def unlike(name: str, comment: str, made: Made) -> Vector:
    """What is malformed so early that it does not even look sealed."""
    return refused(f"unprotected-{name}", comment, "3.4, 8 step 1", "unprotected", 1, made.envelope, PLAIN)


def bad_encoding() -> Iterator[Vector]:  # noqa: PLR0915 - a table
    good = make(PLAIN)
    ciphertext, protected = good.steps["ciphertext"], good.steps["protected"]
    wide = "2 rule 1"
    yield malformed("long-length", "The ciphertext's length is not in its shortest form.", wide, make(PLAIN, encrypt={"ciphertext": head(2, len(ciphertext), 2) + ciphertext}))
    yield malformed("long-length-4", "Nor here, with four bytes.", wide, make(PLAIN, encrypt={"ciphertext": head(2, len(ciphertext), 4) + ciphertext}))
    yield malformed("long-length-8", "Nor here, with eight bytes.", wide, make(PLAIN, encrypt={"ciphertext": head(2, len(ciphertext), 8) + ciphertext}))
    yield malformed("long-protected-length", "The protected header's length is not in its shortest form.", wide, make(PLAIN, encrypt={"protected": head(2, len(protected), 2) + protected}))
    yield malformed("long-array-length", "The recipients' count is not in its shortest form.", wide, make(PLAIN, encrypt={"recipients": head(4, 1, 1)}))
    yield malformed("long-integer", "alg is not in its shortest form.", wide, make(PLAIN, header={"alg": b"\x01\x18\x03"}))
    yield unlike("long-label", "A label is not in its shortest form.", make(PLAIN, header={"alg": b"\x18\x01\x03"}))
    yield malformed("long-time", "iat with eight bytes where four do.", wide, make(PLAIN, header={"iat": b"\x06" + head(0, NOW // 1000, 8)}))
    yield malformed("long-time-early", "iat with four bytes where two do: a time that is too early for its place.", wide, make(PLAIN, header={"iat": b"\x06\x1a\x00\x00\xff\xff"}))
    for m in (replace(PLAIN, expires_s=NOW // 1000 + 60), replace(PRIVATE, expires_s=NOW // 1000 + 60)):
        yield malformed(f"long-expiry-early-{m.protection}", "exp with four bytes where two do.", wide, make(m, header={"exp": b"\x04\x1a\x00\x00\xff\xff"}), m)
    yield malformed("long-time-early-privacy", "iat with four bytes where two do, rightly signed.", wide, make(PRIVATE, header={"iat": b"\x06\x1a\x00\x00\xff\xff"}), PRIVATE)
    yield malformed("milliseconds-1000-privacy", "1,000 milliseconds, rightly signed.", "4", make(PRIVATE, header={"milliseconds": b"\x42\x03\xe8"}), PRIVATE)
    yield malformed("long-negative", "The postseal label with eight bytes where four do.", wide, make(PLAIN, header={"postseal": head(1, 65_536, 8) + b"\x87"}))
    yield malformed("long-text-length", "The sender's length is not in its shortest form.", wide, make(PLAIN, header={"iss": b"\x01" + head(3, 11, 1) + b"billing-api"}))
    yield unlike("long-map-length", "The header's size is not in its shortest form.", make(PLAIN, header={"map": head(5, 4, 1)}))
    endless = "2 rule 2"
    yield malformed("indefinite-ciphertext", "A ciphertext in pieces.", endless, make(PLAIN, encrypt={"ciphertext": b"\x5f" + bstr(ciphertext) + b"\xff"}))
    yield malformed("indefinite-recipients", "Recipients without a count.", endless, make(PLAIN, encrypt={"recipients": b"\x9f", "end": b"\xff"}))
    yield unlike("indefinite-map", "A header without a count.", make(PLAIN, header={"map": b"\xbf", "end": b"\xff"}))
    yield malformed("indefinite-unprotected", "An empty map without a count.", endless, make(PLAIN, encrypt={"unprotected": b"\xbf\xff"}))
    yield malformed("indefinite-text", "A sender in pieces.", endless, make(PLAIN, header={"iss": b"\x01\x7f" + text("billing-api") + b"\xff"}))
    order = "2 rule 3"
    pieces = good.pieces
    yield unlike("labels-out-of-order", "IV before alg.", make(PLAIN, header={"alg": pieces["IV"], "IV": pieces["alg"]}))
    yield malformed("labels-out-of-order", "IV behind the claims.", order, make(PLAIN, header={"IV": b"", "postseal": pieces["IV"] + pieces["postseal"]}))
    yield malformed("claims-out-of-order", "aud before iss.", order, make(PLAIN, header={"iss": pieces["aud"], "aud": pieces["iss"]}))
    yield malformed("label-twice", "alg twice.", order, make(PLAIN, header={"map": b"\xa5", "alg": pieces["alg"] * 2}))
    yield malformed("claim-twice", "iss twice.", order, make(PLAIN, header={"claims": b"\x0f\xa5", "iss": pieces["iss"] * 2}))
    yield malformed("recipient-labels-out-of-order", "kid before alg.", order, make(PLAIN, encrypt={"recipient 0": b"\x83\x40\xa2\x04" + bstr(b"main-1") + b"\x01" + cbor2.dumps(ref.LOCAL) + bstr(local(PLAIN)[2])}))
    end = "2 rule 4"
    yield malformed("trailing-byte", "A byte after the envelope.", end, good.envelope + b"\x00")
    yield malformed("trailing-envelope", "A second envelope after the first.", end, good.envelope * 2)
    yield malformed("trailing-in-header", "A byte after the header's map.", end, make(PLAIN, header={"end": b"\x00"}))
    yield malformed("ends-early", "The last byte is missing.", end, good.envelope[:-1])
    yield malformed("ends-in-ciphertext", "It ends within the ciphertext.", end, good.envelope[: len(good.envelope) - 100])
    yield malformed("ends-in-head", "It ends within a length.", end, good.envelope[: 3 + 2 + len(protected) + 1 + 1])
    yield malformed("header-ends-early", "The header ends before its commitment.", end, make(PLAIN, header={"commitment": b""}))
    words = "2 rule 5"
    yield malformed("not-utf-8", "A sender that is not UTF-8.", words, make(PLAIN, header={"iss": b"\x01\x64\xff\xfe\xfd\xfc"}))
    yield malformed("surrogate", "A sender with a surrogate, which UTF-8 has not.", words, make(PLAIN, header={"iss": b"\x01\x63\xed\xa0\x80"}))
    yield malformed("overlong-utf-8", "A sender in overlong UTF-8.", words, make(PLAIN, header={"iss": b"\x01\x62\xc1\xa1"}))
    yield malformed("not-nfc", "A sender with a combining accent where one character would do.", words, make(PLAIN, header={"iss": b"\x01" + text("cafe\u0301")}))
    yield malformed("destination-not-nfc", "The same in a destination.", words, make(PLAIN, header={"aud": b"\x03" + text("kafka:cafe\u0301")}))
    yield malformed("control-character", "A sender with a line break.", words, make(PLAIN, header={"iss": b"\x01" + text("billing\napi")}))
    yield malformed("c1-control-character", "A policy with a control character beyond ASCII.", words, make(PLAIN, header={"policy": text("orders\u0085")}))
    yield malformed("content-type-not-utf-8", "A content type that is not UTF-8.", words, make(replace(PLAIN, content_type="x"), header={"content type": b"\x03\x61\xff"}))
    yield malformed("bound-name-not-utf-8", "A bound name that is not UTF-8.", words, make(PLAIN, header={"bound": b"\x81\x61\xff"}))
    huge = "2 rule 7"
    yield malformed("claims-gigabytes-of-ciphertext", "A length of 2 GiB, and a few bytes behind it.", huge, make(PLAIN, encrypt={"ciphertext": b"\x5a\x7f\xff\xff\xff" + ciphertext}))
    yield malformed("claims-exabytes-of-ciphertext", "A length of 2**64 - 1.", huge, make(PLAIN, encrypt={"ciphertext": b"\x5b" + b"\xff" * 8 + ciphertext}))
    yield malformed("claims-gigabytes-of-text", "A sender of 4 GiB.", huge, make(PLAIN, header={"iss": b"\x01\x7a\xff\xff\xff\xff"}))
    yield malformed("claims-billions-of-recipients", "2**32 - 1 recipients.", huge, make(PLAIN, encrypt={"recipients": b"\x9a\xff\xff\xff\xff"}))
    yield malformed("claims-billions-of-names", "2**64 - 1 bound names.", huge, make(PLAIN, header={"bound": b"\x9b" + b"\xff" * 8}))
    yield unlike("claims-billions-of-labels", "2**32 - 1 header parameters.", make(PLAIN, header={"map": b"\xba\xff\xff\xff\xff"}))
    yield malformed("claims-gigabytes-of-wrapped-key", "A wrapped key of 4 GiB.", huge, make(PLAIN, encrypt={"recipient 0": b"\x83\x40\xa2\x01" + cbor2.dumps(ref.LOCAL) + b"\x04" + bstr(b"main-1") + b"\x5a\xff\xff\xff\xff"}))
    yield malformed("nested", "Arrays within arrays within arrays.", "2 rule 6", make(PLAIN, header={"end": b"\x81" * 5000}))


def bad_header() -> Iterator[Vector]:  # noqa: PLR0915 - a table
    six, limits, section = "2 rule 6", "9", "4"

    def header(name: str, comment: str, spec: str, m: Message = PLAIN, **edits: bytes) -> Vector:
        return malformed(name, comment, spec, make(m, header={key.replace("_", " "): edit for key, edit in edits.items()}), m)

    yield header("version-0", "Version 0 never was.", "11", version=b"\x00")
    yield header("version-2", "A version that is not known yet.", "11", version=b"\x02")
    yield header("version-text", "A version that is a text.", six, version=b"\x611")
    yield header("version-float", "A version that is a floating point number.", "2", version=b"\xf9\x3c\x00")
    yield header("version-bignum", "A version that is a tagged bignum.", "2", version=b"\xc2\x41\x01")
    yield header("protection-0", "No such protection.", section, protection=b"\x00")
    yield header("protection-3-encrypted", "Integrity does not stand in COSE_Encrypt.", section, protection=b"\x03")
    yield header("milliseconds-1000", "1,000 milliseconds.", section, milliseconds=b"\x42\x03\xe8")
    yield header("milliseconds-65535", "65,535 milliseconds.", section, milliseconds=b"\x42\xff\xff")
    yield header("milliseconds-one-byte", "Milliseconds in one byte.", section, milliseconds=b"\x41\x7b")
    yield header("milliseconds-integer", "Milliseconds as an integer.", six, milliseconds=b"\x18\x7b")
    yield header("alg-1", "AES-128-GCM.", section, alg=b"\x01\x01")
    yield header("alg-text", "alg as a text.", six, alg=b"\x01" + text("A256GCM"))
    yield header("alg-null", "alg as null.", six, alg=b"\x01\xf6")
    yield header("iv-11", "A nonce of 11 bytes.", section, replace(PLAIN, nonce=filled("nonce", 11)))
    yield header("iv-13", "A nonce of 13 bytes.", section, replace(PLAIN, nonce=filled("nonce", 13)))
    yield header("iv-missing", "No nonce.", section, map=b"\xa3", IV=b"")
    yield header("content-type-empty", "An empty content type.", limits, replace(PLAIN, content_type="x"), content_type=b"\x03\x60")
    yield header("content-type-256", "A content type of 256 bytes.", limits, replace(PLAIN, content_type="x"), content_type=b"\x03" + text("x" * 256))
    yield header("content-type-integer", "A content type by its CoAP number.", six, replace(PLAIN, content_type="x"), content_type=b"\x03\x18\x32")
    yield header("crit", "Label 2, crit, does not stand here.", six, map=b"\xa5", alg=b"\x01\x03\x02\x81\x01")
    yield header("unknown-label", "A label that this document does not name.", six, map=b"\xa5", IV=b"\x05" + bstr(PLAIN.nonce) + b"\x0e\x00")
    yield header("unknown-label-at-the-end", "The same after all others.", six, map=b"\xa5", end=cbor2.dumps(-65_538) + b"\x00")
    yield header("text-label", "A label that is a text.", six, map=b"\xa5", end=b"\x61a\x00")
    yield header("kid-in-encrypt", "A kid in the header of COSE_Encrypt.", section, map=b"\xa5", alg=b"\x01\x03\x04\x41k")
    yield header("claims-missing", "No claims.", section, map=b"\xa3", claims=b"", iss=b"", aud=b"", iat=b"", cti=b"")
    yield header("claims-array", "Claims as an array.", six, claims=b"\x0f\x84")
    yield header("postseal-missing", "No postseal array.", section, map=b"\xa3", postseal=b"", version=b"", protection=b"", milliseconds=b"", policy=b"", policy_version=b"", bound=b"", commitment=b"")
    yield header("postseal-six", "Six elements in the postseal array.", section, postseal=cbor2.dumps(ref.POSTSEAL) + b"\x86", commitment=b"")
    yield header("postseal-eight", "Eight elements in the postseal array.", section, postseal=cbor2.dumps(ref.POSTSEAL) + b"\x88", end=b"\x00")
    yield header("iss-empty", "An empty sender.", limits, iss=b"\x01\x60")
    yield header("iss-256", "A sender of 256 bytes.", limits, iss=b"\x01" + text("s" * 256))
    yield header("iss-bytes", "A sender as a byte string.", six, iss=b"\x01" + bstr(b"billing-api"))
    yield header("iss-null", "A sender that is null.", six, iss=b"\x01\xf6")
    yield header("iss-missing", "No sender.", section, claims=b"\x0f\xa3", iss=b"")
    yield header("aud-2", "A destination of two bytes.", limits, aud=b"\x03\x62k:")
    yield header("aud-513", "A destination of 513 bytes.", limits, aud=b"\x03" + text("kafka:" + "o" * 507))
    yield header("aud-array", "Two destinations.", six, aud=b"\x03" + cbor2.dumps(["kafka:orders", "kafka:other"]))
    yield header("exp-float", "An expiry that is a floating point number.", "2", replace(PLAIN, expires_s=NOW // 1000 + 60), exp=b"\x04" + cbor2.dumps(1790847075.5))
    yield header("exp-small", "An expiry before 1970-01-02.", section, replace(PLAIN, expires_s=NOW // 1000 + 60), exp=b"\x04\x19\xff\xff")
    yield header("exp-large", "An expiry after 2106-02-07.", section, replace(PLAIN, expires_s=NOW // 1000 + 60), exp=b"\x04" + cbor2.dumps(2**32))
    yield header("iat-small", "A time before 1970-01-02.", section, iat=b"\x06\x19\xff\xff")
    yield header("iat-large", "A time after 2106-02-07.", section, iat=b"\x06" + cbor2.dumps(2**32))
    yield header("iat-negative", "A time before 1970.", section, iat=b"\x06" + cbor2.dumps(-70_000))
    yield header("iat-float", "A time with a fraction.", "2", iat=b"\x06" + cbor2.dumps(1790847015.123))
    yield header("iat-tagged", "A time with tag 1.", "2", iat=b"\x06\xc1" + cbor2.dumps(NOW // 1000))
    yield header("iat-missing", "No time.", section, claims=b"\x0f\xa3", iat=b"")
    yield header("cti-15", "A message id of 15 bytes.", section, cti=b"\x07" + bstr(bytes(15)))
    yield header("cti-17", "A message id of 17 bytes.", section, cti=b"\x07" + bstr(bytes(17)))
    yield header("nbf", "Claim 5, nbf, does not stand here.", six, claims=b"\x0f\xa5", aud=b"\x03" + text("kafka:orders") + b"\x05\x1a\x6a\x00\x00\x00")
    yield header("unknown-claim", "A claim that this document does not name.", six, claims=b"\x0f\xa5", cti=b"\x07" + bstr(PLAIN.message_id) + b"\x08\xa0")
    yield header("policy-empty", "An empty policy name.", limits, policy=b"\x60")
    yield header("policy-65", "A policy name of 65 bytes.", limits, policy=text("p" * 65))
    yield header("policy-version-large", "A policy version of 2**32.", section, policy_version=cbor2.dumps(2**32))
    yield header("policy-version-negative", "A negative policy version.", six, policy_version=b"\x20")
    yield header("bound-unsorted", "Bound names out of order.", section, bound=cbor2.dumps(["b", "a"]))
    yield header("bound-sorted-by-length", "Bound names in order of their encodings, and not of their bytes.", section, bound=cbor2.dumps(["b", "aa"]))
    yield header("bound-twice", "A bound name twice.", section, bound=cbor2.dumps(["a", "a"]))
    yield header("bound-empty-name", "An empty bound name.", limits, bound=cbor2.dumps([""]))
    yield header("bound-256", "A bound name of 256 bytes.", limits, bound=cbor2.dumps(["h" * 256]))
    yield header("bound-65-names", "65 bound names.", limits, bound=cbor2.dumps([f"{i:02}" for i in range(65)]))
    yield header("bound-bytes", "A bound name as a byte string.", six, bound=cbor2.dumps([b"a"]))
    yield header("bound-null", "null where the bound names are due.", six, bound=b"\xf6")
    yield header("commitment-null", "No commitment where the body is encrypted.", section, commitment=b"\xf6")
    yield header("commitment-31", "A commitment of 31 bytes.", section, commitment=bstr(bytes(31)))
    yield header("commitment-33", "A commitment of 33 bytes.", section, commitment=bstr(bytes(33)))
    yield header("integrity-with-commitment", "A commitment where nothing is encrypted.", section, SIGNED, commitment=bstr(filled("commitment", 32)))
    yield header("integrity-undefined", "undefined where null is due.", six, SIGNED, commitment=b"\xf7")
    yield header("integrity-false", "false where null is due.", six, SIGNED, commitment=b"\xf4")
    yield header("integrity-protection-1", "Confidentiality does not stand in COSE_Mac0.", section, SIGNED, protection=b"\x01")
    yield header("integrity-protection-2", "Privacy does not stand there without COSE_Encrypt.", section, SIGNED, protection=b"\x02")
    yield header("integrity-kid-empty", "An empty kid.", limits, SIGNED, kid=b"\x04\x40")
    yield header("integrity-kid-65", "A kid of 65 bytes.", limits, SIGNED, kid=b"\x04" + bstr(b"k" * 65))
    yield header("integrity-kid-text", "A kid as a text.", six, SIGNED, kid=b"\x04" + text("hmac-1"))
    yield header("integrity-iv", "A nonce where nothing is encrypted.", section, SIGNED, map=b"\xa5", kid=b"\x04" + bstr(b"hmac-1") + b"\x05" + bstr(PLAIN.nonce))
    yield header("integrity-alg-4", "HMAC 256/64, cut short.", "10.1", SIGNED, alg=b"\x01\x04")
    yield header("integrity-alg-a256gcm", "A256GCM is no signature.", "10.1", SIGNED, alg=b"\x01\x03")


def bad_form() -> Iterator[Vector]:
    six = "2 rule 6"

    def form(name: str, comment: str, spec: str, **edits: bytes) -> Vector:
        return malformed(name, comment, spec, make(PLAIN, encrypt={key.replace("_", " "): edit for key, edit in edits.items()}))

    def recipient(algorithm: bytes, kid: bytes, wrapped: bytes = bstr(b"?"), *, protected: bytes = b"\x40", inner: bytes = b"\xa2") -> bytes:
        return b"\x83" + protected + inner + b"\x01" + algorithm + b"\x04" + kid + wrapped

    good = recipient_piece(*local(PLAIN))
    yield form("unprotected-not-empty", "An unprotected header with a nonce.", "3.1", unprotected=b"\xa1\x05" + bstr(PLAIN.nonce))
    yield form("unprotected-null", "null where the empty map is due.", six, unprotected=b"\xf6")
    yield form("fifth-element", "A fifth element behind the array.", "3.1", end=b"\x40")
    yield form("ciphertext-15", "A ciphertext shorter than its tag.", "9", ciphertext=bstr(bytes(15)))
    yield form("ciphertext-null", "A detached ciphertext.", six, ciphertext=b"\xf6")
    yield form("ciphertext-text", "A ciphertext as a text.", six, ciphertext=text("x" * 35))
    yield form("recipients-none", "No recipients.", "9", recipients=b"\x80", recipient_0=b"")
    yield form("recipients-17", "17 recipients.", "9", recipients=b"\x91", recipient_0=good + b"".join(recipient_piece(AWS_KMS, bytes([i]), b"?") for i in range(16)))
    yield form("recipients-map", "A map where the recipients are due.", six, recipients=b"\xa0", recipient_0=b"")
    yield form("recipient-twice", "One algorithm and kid twice.", "3.1", recipients=b"\x82", recipient_0=good * 2)
    yield form("recipient-four-elements", "A recipient with recipients of its own.", "3.1", recipient_0=b"\x84" + good[1:] + b"\x80")
    yield form("recipient-protected", "A recipient with a protected header.", "3.1", recipient_0=recipient(cbor2.dumps(ref.LOCAL), bstr(b"main-1"), bstr(local(PLAIN)[2]), protected=bstr(b"\xa0")))
    yield form("recipient-third-label", "A third label in a recipient.", six, recipient_0=recipient(cbor2.dumps(ref.LOCAL), bstr(b"main-1") + b"\x05\x40", bstr(local(PLAIN)[2]), inner=b"\xa3"))
    yield form("recipient-no-kid", "A recipient without kid.", "3.1", recipient_0=b"\x83\x40\xa1\x01" + cbor2.dumps(ref.LOCAL) + bstr(local(PLAIN)[2]))
    yield form("recipient-kid-empty", "A recipient with an empty kid.", "9", recipients=b"\x82", recipient_0=good + recipient(b"\x24", b"\x40"))
    yield form("recipient-kid-65", "A recipient's kid of 65 bytes.", "9", recipients=b"\x82", recipient_0=good + recipient(b"\x24", bstr(b"k" * 65)))
    yield form("recipient-wrapped-empty", "An empty wrapped key.", "9", recipients=b"\x82", recipient_0=good + recipient(b"\x24", b"\x41k", b"\x40"))
    yield form("recipient-wrapped-6145", "A wrapped key of 6,145 bytes.", "9", recipients=b"\x82", recipient_0=good + recipient(b"\x24", b"\x41k", bstr(bytes(6145))))
    yield form("recipient-wrapped-null", "A wrapped key that is null.", six, recipients=b"\x82", recipient_0=good + recipient(b"\x24", b"\x41k", b"\xf6"))
    yield form("recipient-algorithm-text", "A wrapping algorithm by its name.", six, recipients=b"\x82", recipient_0=good + recipient(text("A256KW"), b"\x41k"))
    yield form("recipient-algorithm-64-bits", "A wrapping algorithm beyond 32 bits.", "10.3", recipients=b"\x82", recipient_0=good + recipient(cbor2.dumps(2**32), b"\x41k"))
    yield form("protected-23", "A protected header of 23 bytes.", "3.4, 9", protected=b"\x58\x17\xa4\x01" + bytes(21))
    yield unlike("protected-not-a-map", "A protected header that is an array.", make(PLAIN, encrypt={"protected": bstr(cbor2.dumps([1, 2, 3, "x" * 30]))}))


def bad_signed_form() -> Iterator[Vector]:
    def signed(name: str, comment: str, spec: str, m: Message = PRIVATE, **edits: bytes) -> Vector:
        return malformed(name, comment, spec, make(m, signed=edits), m)

    def outer(name: str, comment: str, spec: str, **edits: bytes) -> Vector:
        return malformed(name, comment, spec, make(PRIVATE, outer={key.replace("_", " "): edit for key, edit in edits.items()}), PRIVATE)

    good = make(PRIVATE)
    yield signed("signed-trailing-byte", "A byte after the MAC.", "2 rule 4", end=b"\x00")
    yield signed("signed-unprotected", "An unprotected header around privacy.", "3.2", unprotected=b"\xa1\x04\x41k")
    yield signed("signed-payload-null", "A detached payload.", "2 rule 6", payload=b"\xf6")
    yield signed("mac-31", "A MAC of 31 bytes.", "3.2", signature=bstr(good.steps["signature"][:31]))
    yield signed("mac-64", "A MAC of 64 bytes.", "3.2", signature=bstr(good.steps["signature"] * 2))
    ed = replace(PRIVATE, key=EDDSA)
    yield signed("signature-63", "A signature of 63 bytes.", "3.2", ed, signature=bstr(make(ed).steps["signature"][:63]))
    yield signed("signature-32", "A signature of 32 bytes.", "3.2", ed, signature=bstr(make(ed).steps["signature"][:32]))
    yield malformed("hmac-in-sign1", "HMAC under the tag of COSE_Sign1.", "10.1", make(PRIVATE, sign_as=18), PRIVATE)
    yield malformed("eddsa-in-mac0", "EdDSA under the tag of COSE_Mac0.", "10.1", make(ed, sign_as=17), ed)
    yield outer("outer-content-format", "Another content format.", "3.2", content_format=b"\x03\x18\x62")
    yield outer("outer-content-type", "The content format as a text.", "3.2", content_format=b"\x03" + text("application/cose"))
    yield unlike("outer-label-missing", "No content format.", make(PRIVATE, outer={"map": b"\xa2", "content format": b""}))
    yield outer("outer-fourth-label", "A fourth label in the outer header.", "3.2", map=b"\xa4", end=b"\x05\x40")
    yield outer("outer-out-of-order", "kid before the content format.", "2 rule 3", content_format=b"\x04\x46hmac-1", kid=b"\x03\x18\x60")
    yield outer("outer-kid-empty", "An empty kid.", "9", kid=b"\x04\x40")
    yield outer("outer-kid-65", "A kid of 65 bytes.", "9", kid=b"\x04" + bstr(b"k" * 65))
    yield outer("outer-alg-unknown", "ES384 is not of this profile.", "10.1", alg=b"\x01\x38\x22")
    yield outer("outer-trailing", "A byte after the outer map.", "2 rule 4", end=b"\x00")
    inner = good.steps["inner"]

    def around(payload: bytes) -> Made:
        steps = {"external_aad": good.steps["external_aad"]}
        return sign(PRIVATE, good.steps["outer_protected"], payload, steps, {}, {}, None)

    yield malformed("inner-confidentiality", "Signed, but the inner envelope says confidentiality.", "3.2", around(make(PLAIN).envelope), PRIVATE)
    yield malformed("inner-trailing-byte", "A byte after the inner envelope.", "2 rule 4", around(inner + b"\x00"), PRIVATE)
    yield malformed("inner-clear-text", "A signed clear body that says it is encrypted.", "3.2", around(BODY), PRIVATE)
    yield malformed("inner-signed", "A signed envelope within a signed envelope.", "3.2", around(good.envelope), PRIVATE)
    yield malformed("inner-untagged", "The inner envelope without its tag.", "3.2", around(inner[2:]), PRIVATE)
    yield malformed("inner-ends-early", "The inner envelope ends early.", "2 rule 4", around(inner[:-1]), PRIVATE)
    yield malformed("inner-empty", "Nothing inside.", "3.2", around(b""), PRIVATE)


# --- 7.3 delegated keys

DELEGATE_ED = ed25519.Ed25519PrivateKey.from_private_bytes(filled("delegate Ed25519", 32))
DELEGATE_P256 = ec.derive_private_key(int.from_bytes(filled("delegate P-256", 31), "big"), ec.SECP256R1())
SPEAKER = Key("root-1", ref.ES256, ("billing-api",), private=P256_KEY)
SPEAKERS = (SPEAKER, replace(EDDSA, key_id="root-2"), replace(HMAC, key_id="root-3", senders=("billing-api",)))
SECONDS = NOW // 1000


def cose_key(private: Any) -> bytes:
    """The key of the cnf claim."""
    if isinstance(private, ed25519.Ed25519PrivateKey):
        return cbor2.dumps({1: 1, -1: 6, -2: private.public_key().public_bytes_raw()}, canonical=True)
    numbers = private.public_key().public_numbers()
    x, y = numbers.x.to_bytes(32, "big"), numbers.y.to_bytes(32, "big")
    return cbor2.dumps({1: 2, -1: 1, -2: x, -3: y}, canonical=True)


def delegate(
    root: Key = SPEAKER,
    private: Any = DELEGATE_ED,
    *,
    claims: Edits = {},  # noqa: B006 - never changed
    header: Edits = {},  # noqa: B006
    form: Edits = {},  # noqa: B006
    by: Key | None = None,
    aad: bytes = b"postseal v1 delegation",
    label: bytes = b"\xa1\x0d",
    kid: bytes = b"",
) -> Key:
    """Return a short-lived key for which *root* speaks, with pieces of the delegation replaced. Source: SPEC.md 7.3."""
    claim_pieces = {
        "map": b"\xa4",
        "sub": b"\x02" + text("billing-api"),
        "exp": b"\x04" + head(0, SECONDS + 600),
        "nbf": b"\x05" + head(0, SECONDS - 300),
        "cnf": b"\x08\xa1\x01" + cose_key(private),
        "end": b"",
    }
    header_pieces = {"map": b"\xa2", "alg": b"\x01" + cbor2.dumps(root.alg), "kid": b"\x04" + bstr(root.key_id.encode()), "end": b""}
    payload, protected = merged(claim_pieces, claims), merged(header_pieces, header)
    tag = ref.TAG_OF[root.alg]
    as_message = Message(destination="postseal v1 delegation")
    seal = signature(as_message, by or root, ref.to_be_signed(tag, protected, aad, payload))
    pieces = {
        "tag": head(6, tag),
        "array": b"\x84",
        "protected": bstr(protected),
        "unprotected": b"\xa0",
        "payload": bstr(payload),
        "signature": bstr(seal),
    }
    value = merged(pieces, form)
    alg = ref.EDDSA if isinstance(private, ed25519.Ed25519PrivateKey) else ref.ES256
    return Key(root.key_id, alg, root.senders, private=private, kid=kid or hashlib.sha256(value).digest(), credential=label + value)


def roots_json(*roots: Key, **changes: Any) -> list[dict[str, Any]]:
    return [key_json(root, private=False) | {"senders": list(root.senders or ()), "delegates": True, "accept_for_s": 86_400} | changes for root in roots or SPEAKERS]


# --- 7.2 certificates

ROOT_CA, OTHER_CA, BETWEEN_CA = (
    ec.derive_private_key(int.from_bytes(filled(f"authority {name}", 31), "big"), ec.SECP256R1()) for name in ("root", "other", "between")
)
CERTIFIED_P256 = ec.derive_private_key(int.from_bytes(filled("certified P-256", 31), "big"), ec.SECP256R1())
CERTIFIED_ED = ed25519.Ed25519PrivateKey.from_private_bytes(filled("certified Ed25519", 32))
NOT_BEFORE, NOT_AFTER = (dt.datetime.fromtimestamp(SECONDS + days * 86_400, dt.UTC) for days in (-30, 30))


def x509_name(text: str) -> x509.Name:
    words = {"CN": x509.NameOID.COMMON_NAME, "O": x509.NameOID.ORGANIZATION_NAME}
    return x509.Name([x509.NameAttribute(words[part[0]], part[1]) for part in (piece.split("=") for piece in text.split(","))])


def certificate(
    subject: str,
    private: Any,
    by: tuple[str, Any] = ("CN=root,O=Shop", ROOT_CA),
    *,
    authority: bool = False,
    usage: str = "digital_signature",
    extended: x509.ObjectIdentifier | None = x509.ExtendedKeyUsageOID.CLIENT_AUTH,
    window: tuple[dt.datetime, dt.datetime] = (NOT_BEFORE, NOT_AFTER),
) -> bytes:
    """Return a certificate in DER, the same each time: serial number and ECDSA signature are fixed."""
    usages = ("digital_signature", "content_commitment", "key_encipherment", "data_encipherment", "key_agreement", "key_cert_sign", "crl_sign", "encipher_only", "decipher_only")
    builder = (
        x509.CertificateBuilder()
        .subject_name(x509_name(subject))
        .issuer_name(x509_name(by[0]))
        .public_key(private.public_key())
        .serial_number(int.from_bytes(filled(f"serial {subject}", 16), "big") >> 1)
        .not_valid_before(window[0])
        .not_valid_after(window[1])
        .add_extension(x509.BasicConstraints(authority, None), critical=True)
        .add_extension(x509.KeyUsage(**{name: name == usage for name in usages}), critical=True)
    )
    if extended is not None and not authority:
        builder = builder.add_extension(x509.ExtendedKeyUsage([extended]), critical=False)
    return builder.sign(by[1], hashes.SHA256(), ecdsa_deterministic=True).public_bytes(serialization.Encoding.DER)


def certified(private: Any, *chain: bytes, kid: bytes = b"", carry: bool = True) -> Key:
    """Return the key of the first certificate of *chain*, which travels with it."""
    label = b"\xa1\x18\x21" + (bstr(chain[0]) if len(chain) == 1 else head(4, len(chain)) + b"".join(map(bstr, chain)))
    alg = ref.EDDSA if isinstance(private, ed25519.Ed25519PrivateKey) else ref.ES256
    credential = label if carry else b"\xa0"
    return Key("shop-ca", alg, ("billing-api",), private=private, kid=kid or hashlib.sha256(chain[0]).digest(), credential=credential)


def certificates() -> Iterator[Vector]:
    root = certificate("CN=root,O=Shop", ROOT_CA, authority=True, usage="key_cert_sign")
    between = certificate("CN=between,O=Shop", BETWEEN_CA, authority=True, usage="key_cert_sign")
    billing = "CN=billing-api,O=Shop"
    own, own_ed = certificate(billing, CERTIFIED_P256), certificate(billing, CERTIFIED_ED)
    names = {"billing-api": ["CN=billing-api", "O=Shop"], "shop-web": ["CN=shop-web", "O=Shop"]}
    trusted = {"id": "shop-ca", "algorithm": "X.509", "roots": [root.hex()], "names": names}
    known: dict[str, Any] = {"verifying_keys": [trusted]}
    for m, protection in ((PRIVATE, "privacy"), (SIGNED, "integrity")):
        for private, chain, word in ((CERTIFIED_P256, own, "es256"), (CERTIFIED_ED, own_ed, "ed25519")):
            comment = f"{protection.capitalize()}, signed by the {word} key of a certificate."
            yield opens(f"{protection}-x509-{word}", comment, "7.1, 7.2", replace(m, key=certified(private, chain)), seals=False, **known)
    below = certificate(billing, CERTIFIED_P256, ("CN=between,O=Shop", BETWEEN_CA))
    two = replace(PRIVATE, key=certified(CERTIFIED_P256, below, between))
    yield opens("privacy-x509-between", "An authority between the signer's certificate and the root.", "7.1, 7.2", two, seals=False, **known)
    held = {"verifying_keys": [trusted | {"known": [own.hex()]}]}
    bare = replace(PRIVATE, key=certified(CERTIFIED_P256, own, carry=False))
    yield opens("privacy-x509-known", "The message carries no certificate; the consumer has it.", "7.1, 7.2", bare, seals=False, **held)

    good = replace(PRIVATE, key=certified(CERTIFIED_P256, own))

    def bad(name: str, comment: str, key: Key, verdict: str = "unknown-key", m: Message = PRIVATE, **opening: Any) -> Vector:
        return refused(f"{verdict}-certificate-{name}", comment, "7.1, 7.2, 8 step 6", verdict, 6, make(replace(m, key=key)).envelope, good, **(known | opening))

    def key(subject: str = billing, by: tuple[str, Any] = ("CN=root,O=Shop", ROOT_CA), **options: Any) -> Key:
        return certified(CERTIFIED_P256, certificate(subject, CERTIFIED_P256, by, **options))

    month = dt.timedelta(days=30)
    yield bad("of-other-authority", "An authority of the same name with another key.", key(by=("CN=root,O=Shop", OTHER_CA)))
    yield bad("expired", "It has expired.", key(window=(NOT_BEFORE - month, NOT_BEFORE)))
    yield bad("not-yet", "It is not valid yet.", key(window=(NOT_AFTER, NOT_AFTER + month)))
    yield bad("of-authority", "An authority's own: it signs no messages.", key(authority=True))
    yield bad("usage", "Its key usage is keyAgreement alone.", key(usage="key_agreement"))
    yield bad("server", "Its extended key usage is serverAuth alone.", key(extended=x509.ExtendedKeyUsageOID.SERVER_AUTH))
    yield bad("other-kid", "kid is not the hash of the certificate.", certified(CERTIFIED_P256, own, kid=filled("kid", 32)))
    yield bad("no-der", "What is carried is no certificate.", certified(CERTIFIED_P256, b"certificate"))
    yield bad("gap", "The authority between it and the root is missing.", certified(CERTIFIED_P256, below))
    leaf = certificate("CN=leaf,O=Shop", BETWEEN_CA)
    under = certificate(billing, CERTIFIED_P256, ("CN=leaf,O=Shop", BETWEEN_CA))
    yield bad("by-leaf", "Issued by who is no authority.", certified(CERTIFIED_P256, under, leaf))
    yield bad("not-carried", "The message carries no certificate, and the consumer has none.", certified(CERTIFIED_P256, own_ed, carry=False))
    yield bad("names", "It has the names of no sender.", key("CN=billing-api,O=Other"), "unknown-sender")
    yield bad("of-other-sender", "A genuine certificate of another sender.", key("CN=shop-web,O=Shop"), "unknown-sender")
    yield bad("signature", "A genuine certificate, and a signature by another key.", replace(certified(CERTIFIED_P256, own), private=P256_KEY), "forged")


def delegated() -> Iterator[Vector]:  # noqa: PLR0915 - a table
    known = {"verifying_keys": roots_json()}
    for m, protection in ((PRIVATE, "privacy"), (SIGNED, "integrity")):
        for root in SPEAKERS:
            for private, word in ((DELEGATE_ED, "ed25519"), (DELEGATE_P256, "es256")):
                name = f"{protection}-delegated-{word}-by-{ALGORITHMS[root.alg].lower().replace('-sha-256', '')}"
                made = make(replace(m, key=delegate(root, private)))
                comment = f"{protection.capitalize()} with a delegated {word} key; an {ALGORITHMS[root.alg]} key speaks for it."
                group = {"origin": "group"} if root.alg == ref.HMAC_256 else {}
                opened, vector = opens(name, comment, "7.1, 7.3", replace(m, key=delegate(root, private)), made, seals=False, **known)
                yield opened, vector | {"expect": vector["expect"] | group}
    last = replace(PRIVATE, key=delegate(), clock_ms=(SECONDS + 600) * 1000 + 999)
    yield opens("privacy-delegated-last-second", "Sealed in the last second of its delegation, opened long after.", "7.3", last, seals=False, **known, clock_ms=(SECONDS + 86_000) * 1000)
    first = replace(PRIVATE, key=delegate(), clock_ms=(SECONDS - 300) * 1000)
    yield opens("privacy-delegated-first-second", "Sealed in the first second of its delegation.", "7.3", first, seals=False, **known)
    longest = delegate(claims={"nbf": b"\x05" + head(0, SECONDS - 300), "exp": b"\x04" + head(0, SECONDS + 86_400)})
    yield opens("privacy-delegated-longest", "A delegation of a day and the five minutes before it.", "7.3", replace(PRIVATE, key=longest), seals=False, **known)

    def step_six(name: str, comment: str, verdict: str, key: Key, m: Message = PRIVATE, **opening: Any) -> Vector:
        good, bad = replace(m, key=delegate()), make(replace(m, key=key))
        return refused(name, comment, "7.1, 7.3, 8 step 6", verdict, 6, bad.envelope, good, **(known | opening))

    for m in (PRIVATE, SIGNED):
        end = f"-{m.protection}"
        yield step_six("unknown-key-delegation-by-nobody" + end, "A delegation by a key that is not known.", "unknown-key", delegate(replace(SPEAKER, key_id="root-9")), m)
        yield step_six("unknown-key-delegation-of-other-kid" + end, "kid is not the hash of the delegation.", "unknown-key", delegate(kid=filled("kid", 32)), m)
        yield step_six("unknown-sender-delegation" + end, "The root may not speak for that sender.", "unknown-sender", delegate(claims={"sub": b"\x02" + text("shop-web")}), m)
        yield step_six("forged-delegation-by-other-key" + end, "Signed by another key under the name of the root.", "forged", delegate(by=replace(SPEAKER, private=DELEGATE_P256)), m)
        yield step_six("forged-delegation-as-message" + end, "Signed as if it were a message: without the external_aad of delegations.", "forged", delegate(aad=ref.external_aad(None, None, [])), m)
        yield step_six("forged-delegation-algorithm" + end, "An Ed25519 key under the name of an ES256 key.", "forged", delegate(replace(EDDSA, key_id="root-1")), m)
        too_long = {"exp": b"\x04" + head(0, SECONDS + 86_401)}
        yield step_six("unknown-key-delegation-too-long" + end, "A delegation for longer than any may be.", "unknown-key", delegate(claims=too_long), m)
        backwards = {"nbf": b"\x05" + head(0, SECONDS + 601)}
        yield step_six("unknown-key-delegation-backwards" + end, "A delegation that ends before it begins.", "unknown-key", delegate(claims=backwards), m)
        early = {"nbf": b"\x05" + head(0, SECONDS + 1)}
        yield step_six("unknown-key-delegation-sealed-before" + end, "Sealed before its delegation began.", "unknown-key", delegate(claims=early), m)
        over = {"exp": b"\x04" + head(0, SECONDS - 1)}
        yield step_six("unknown-key-delegation-sealed-after" + end, "Sealed after its delegation had ended.", "unknown-key", delegate(claims=over), m)
        signature_of_other = make(replace(m, key=replace(delegate(), private=ED25519_KEY))).envelope
        yield refused("forged-delegated-signature" + end, "A genuine delegation, and a signature by another key.", "7.3, 8 step 6", "forged", 6, signature_of_other, replace(m, key=delegate()), **known)
        other = make(replace(m, key=delegate(), sender="shop-web")).envelope
        yield refused("unknown-sender-delegated" + end, "Another sender than the delegation names.", "7.3, 8 step 6", "unknown-sender", 6, other, replace(m, key=delegate()), **known)
        direct = make(replace(m, key=SPEAKER)).envelope
        yield refused("unknown-key-root-signs" + end, "A key that delegates signs no messages.", "7.3, 8 step 6", "unknown-key", 6, direct, replace(m, key=delegate()), **known)
    late = make(replace(PRIVATE, key=delegate())).envelope
    yield refused("unknown-key-delegation-long-ago", "The delegation ended longer ago than this consumer accepts.", "7.3, 8 step 6", "unknown-key", 6, late, replace(PRIVATE, key=delegate()), warm_at=NOW, **known, clock_ms=(SECONDS + 600 + 86_400) * 1000)

    def bad(name: str, comment: str, key: Key, **signed: bytes) -> Vector:
        envelope = make(replace(PRIVATE, key=key), signed=signed).envelope
        return refused(f"malformed-credential-{name}", comment, "7.1, 7.3, 8 step 2", "malformed", 2, envelope, replace(PRIVATE, key=delegate()), **known)

    whole = delegate().credential
    yield bad("two", "Two credentials.", delegate(), unprotected=b"\xa2" + whole[1:] + b"\x18\x21" + bstr(b"certificate"))
    yield bad("label", "An x5t.", delegate(), unprotected=b"\xa1\x18\x22\x82\x2f" + bstr(bytes(32)))
    yield bad("empty-map-long", "An empty map that is not in its shortest form.", delegate(), unprotected=b"\xb8\x00")
    yield refused("malformed-credential-of-mac", "A MAC carries no credential.", "7.1, 8 step 2", "malformed", 2, make(replace(PRIVATE, key=replace(HMAC, credential=whole))).envelope, PRIVATE)
    yield bad("chain-empty", "A chain of no certificates.", delegate(), unprotected=b"\xa1\x18\x21\x80")
    yield bad("chain-of-one", "One certificate as an array.", delegate(), unprotected=b"\xa1\x18\x21\x81" + bstr(b"certificate"))
    yield bad("chain-of-six", "Six certificates.", delegate(), unprotected=b"\xa1\x18\x21\x86" + bstr(b"certificate") * 6)
    yield bad("certificate-empty", "An empty certificate.", delegate(), unprotected=b"\xa1\x18\x21\x40")
    yield bad("certificate-8193", "A certificate of 8,193 bytes.", delegate(), unprotected=b"\xa1\x18\x21" + bstr(bytes(8193)))
    yield bad("certificate-text", "A certificate in PEM.", delegate(), unprotected=b"\xa1\x18\x21" + text("-----BEGIN"))
    yield bad("untagged", "A delegation without its tag.", delegate(form={"tag": b""}))
    yield bad("other-tag", "A delegation under the tag of COSE_Sign.", delegate(form={"tag": head(6, 98)}))
    yield bad("mac-tag", "A signed delegation under the tag of COSE_Mac0.", delegate(form={"tag": head(6, 17)}))
    yield bad("unprotected", "A delegation with an unprotected header.", delegate(form={"unprotected": b"\xa1\x04\x41k"}))
    yield bad("in-bytes", "A delegation as a byte string.", delegate(), unprotected=b"\xa1\x0d" + bstr(whole[2:]))
    yield bad("signature-63", "A signature of 63 bytes.", delegate(form={"signature": bstr(bytes(63))}))
    yield bad("alg", "ES384.", delegate(header={"alg": b"\x01\x38\x22"}))
    yield bad("kid-empty", "A delegation by a key without a name.", delegate(header={"kid": b"\x04\x40"}))
    yield bad("kid-65", "A delegation by a key with a name of 65 bytes.", delegate(header={"kid": b"\x04" + bstr(b"k" * 65)}))
    yield bad("header-label", "A content type in the delegation's header.", delegate(header={"map": b"\xa3", "alg": b"\x01\x26\x03\x18\x3d"}))
    yield bad("header-end", "A byte after the delegation's header.", delegate(header={"end": b"\x00"}))
    yield bad("sub-missing", "A delegation for nobody.", delegate(claims={"map": b"\xa3", "sub": b""}))
    yield bad("sub-empty", "A delegation for a sender without a name.", delegate(claims={"sub": b"\x02\x60"}))
    yield bad("sub-not-nfc", "A sender that is not in normalisation form C.", delegate(claims={"sub": b"\x02" + text("u\u0308ber")}))
    yield bad("exp-missing", "A delegation without an end.", delegate(claims={"map": b"\xa3", "exp": b""}))
    yield bad("nbf-missing", "A delegation without a beginning.", delegate(claims={"map": b"\xa3", "nbf": b""}))
    yield bad("exp-float", "An end with a fraction.", delegate(claims={"exp": b"\x04" + cbor2.dumps(SECONDS + 600.5)}))
    yield bad("claim", "A claim too many.", delegate(claims={"map": b"\xa5", "end": b"\x09\x00"}))
    yield bad("order", "nbf before exp.", delegate(claims={"exp": b"\x05" + head(0, SECONDS), "nbf": b"\x04" + head(0, SECONDS + 600)}))
    yield bad("claims-end", "A byte after the claims.", delegate(claims={"end": b"\x00"}))
    yield bad("key-kid", "A key named by its id alone.", delegate(claims={"cnf": b"\x08\xa1\x03" + bstr(b"k")}))
    yield bad("key-x25519", "A key of X25519.", delegate(claims={"cnf": b"\x08\xa1\x01\xa3\x01\x01\x20\x04\x21" + bstr(bytes(32))}))
    yield bad("key-p384", "A key on P-384.", delegate(claims={"cnf": b"\x08\xa1\x01\xa4\x01\x02\x20\x02\x21" + bstr(bytes(32)) + b"\x22" + bstr(bytes(32))}))
    yield bad("key-compressed", "A compressed point.", delegate(claims={"cnf": b"\x08\xa1\x01\xa4\x01\x02\x20\x01\x21" + bstr(bytes(32)) + b"\x22\xf5"}))
    yield bad("key-private", "A private key.", delegate(claims={"cnf": b"\x08\xa1\x01" + cbor2.dumps({1: 1, -1: 6, -2: bytes(32), -4: bytes(32)}, canonical=True)}))
    yield bad("key-31", "A key of 31 bytes.", delegate(claims={"cnf": b"\x08\xa1\x01\xa3\x01\x01\x20\x06\x21" + bstr(bytes(31))}))
    no_point = delegate(claims={"cnf": b"\x08\xa1\x01\xa4\x01\x02\x20\x01\x21" + bstr(bytes(32)) + b"\x22" + bstr(bytes(31) + b"\x01")})
    yield step_six("forged-delegation-no-point", "Coordinates of no point of the curve, rightly delegated.", "forged", replace(no_point, alg=ref.ES256, private=DELEGATE_P256))


# --- steps 3 to 6


def against_policy() -> Iterator[Vector]:
    def vector(name: str, comment: str, step: int, made: Made, m: Message, **opening: Any) -> Vector:
        verdict = "unknown-sender" if name.startswith("unknown-sender") else "wrong-destination" if step == 4 else "unknown-key" if name.startswith("unknown-key") else "downgrade"
        return refused(name, comment, f"8 step {step}", verdict, step, made.envelope, m, **opening)

    for demanded in (PLAIN, PRIVATE, SIGNED):
        for given in (PLAIN, PRIVATE, SIGNED):
            if given is not demanded:
                yield vector(f"downgrade-{given.protection}-for-{demanded.protection}", f"A9: {given.protection} where the policy demands {demanded.protection}.", 3, make(given), demanded)
    inner = make(PRIVATE).steps["inner"]
    yield vector("downgrade-stripped", "A9: privacy, its MAC taken away.", 3, Made(inner, {}, {}), PLAIN)
    yield refused("downgrade-stripped-privacy", "A9: the same where the policy demands privacy: it is no COSE_Mac0 or COSE_Sign1 any more.", "8 step 6", "downgrade", 6, inner, PRIVATE)
    yield vector("downgrade-policy", "Sealed under another policy.", 3, make(replace(PLAIN, policy="lax")), PLAIN)
    bound = replace(PLAIN, bound=("content-type", "x"), headers=(("content-type", "a"), ("x", "b")))
    less = replace(bound, bound=("x",))
    yield vector("downgrade-header-not-bound", "A header that the policy binds is not bound.", 3, make(less), bound)
    yield vector("downgrade-nothing-bound", "None of them is.", 3, make(replace(bound, bound=())), bound)
    for m in (PLAIN, PRIVATE, SIGNED):
        other = replace(m, destination="kafka:refunds")
        yield vector(f"wrong-destination-{m.protection}", "A9, E3: replayed to another topic.", 4, make(other), m, policy=policy_json(m, destinations=["kafka:orders", "kafka:refunds"]))
    lying = policy_json(PLAIN, destinations=["kafka:orders", "kafka:refunds"], accept_from=["kafka:dlq"])
    yield vector("wrong-destination-not-accepted", "What lies in the dead letters was sent to a destination of another policy.", 4, make(replace(PLAIN, destination="kafka:other")), PLAIN, destination="kafka:dlq", policy=lying)
    yield vector("wrong-destination-home-is-no-dead-letter", "One destination of a policy is not where messages of another of its destinations may lie.", 4, make(replace(PLAIN, destination="kafka:refunds")), PLAIN, policy=lying)
    yield vector("wrong-destination-no-scheme", "A destination without a scheme is nobody's.", 4, make(replace(PLAIN, destination="orders")), PLAIN)
    mallory = replace(PLAIN, sender="mallory")
    yield vector("unknown-sender-confidentiality", "E3: the policy names its senders.", 5, make(mallory), PLAIN, policy=policy_json(PLAIN, senders=["billing-api"]))
    for m in (PRIVATE, SIGNED):
        yield vector(f"unknown-sender-{m.protection}", "E3: right key, wrong sender.", 5, make(replace(m, sender="mallory")), m)
        yield vector(f"unknown-sender-{m.protection}-key", "E3: a sender of the policy, but the key is another's.", 6, make(replace(m, sender="shop-web", key=EDDSA)), replace(m, key=EDDSA))
        stranger = replace(m, key=replace(HMAC, key_id="hmac-9"))
        yield vector(f"unknown-key-{m.protection}", "E3: a kid that is not in the ring.", 6, make(stranger), m)
        upper = replace(m, key=replace(HMAC, key_id="HMAC-1"))
        yield vector(f"unknown-key-{m.protection}-case", "A kid is compared byte by byte.", 6, make(upper), m)
    retired = opening_json(PRIVATE)["verifying_keys"]
    retired[0] |= {"state": "retired", "retired_until_ms": NOW}
    ed = replace(PRIVATE, key=EDDSA)
    yield vector("unknown-key-retired", "A retired key, on its date.", 6, make(PRIVATE), PRIVATE, verifying_keys=retired, warm_up=ed)
    revoked = opening_json(PRIVATE)["verifying_keys"]
    revoked[0] |= {"state": "revoked"}
    yield vector("unknown-key-revoked", "A revoked key.", 6, make(PRIVATE), PRIVATE, verifying_keys=revoked, warm_up=ed)
    other_wrap = replace(PLAIN, recipients=(local(PLAIN, "main-9", filled("main-9", 32)),), data_key=OTHER_DATA_KEY)
    yield vector("unknown-key-recipients", "None of the recipients is ours.", 8, make(other_wrap), PLAIN)
    other_algorithm = replace(PLAIN, recipients=((AWS_KMS, b"main-1", local(PLAIN)[2]),), data_key=OTHER_DATA_KEY)
    yield vector("unknown-key-recipient-algorithm", "Our kid, but under another algorithm.", 8, make(other_algorithm), PLAIN)


def flip(data: bytes, at: int, bit: int = 0) -> bytes:
    """Return *data* with one bit changed."""
    return data[:at] + bytes([data[at] ^ 1 << bit]) + data[at + 1 :]


def forged() -> Iterator[Vector]:  # noqa: PLR0915 - a table
    def vector(name: str, comment: str, step: int, envelope: bytes | Made, m: Message = PLAIN, **opening: Any) -> Vector:
        data = envelope if isinstance(envelope, bytes) else envelope.envelope
        return refused(f"forged-{name}", comment, f"8 step {step}", "forged", step, data, m, **opening)

    plain = make(PLAIN)
    at = plain.envelope.index(plain.steps["ciphertext"])
    size = len(plain.steps["ciphertext"])
    yield vector("ciphertext-first-bit", "A9: one bit of the ciphertext.", 10, flip(plain.envelope, at))
    yield vector("ciphertext-last-bit", "One bit of the ciphertext, just before the tag.", 10, flip(plain.envelope, at + size - 17, 7))
    yield vector("tag-first-bit", "The first bit of the tag.", 10, flip(plain.envelope, at + size - 16, 7))
    yield vector("tag-last-bit", "The last bit of the tag.", 10, flip(plain.envelope, at + size - 1))
    empty = make(replace(PLAIN, body=b""))
    yield vector("tag-of-empty-body", "One bit of the tag of an empty body.", 10, flip(empty.envelope, empty.envelope.index(empty.steps["ciphertext"])))
    shorter = make(PLAIN, encrypt={"ciphertext": bstr(plain.steps["ciphertext"][:-17] + plain.steps["ciphertext"][-16:])})
    yield vector("ciphertext-shortened", "A byte of the ciphertext taken away, all lengths right.", 10, shorter)
    for name, what in (("nonce", PLAIN.nonce), ("message-id", PLAIN.message_id), ("sender", b"billing-api"), ("time", (NOW // 1000).to_bytes(4, "big")), ("milliseconds", b"\x42\x00\x7b")):
        yield vector(f"header-{name}", f"One bit of the {name.replace('-', ' ')} in the header.", 10, flip(plain.envelope, plain.envelope.index(what) + len(what) - 1))
    typed = replace(PLAIN, content_type="text/plain")
    yield vector("header-content-type", "The content type decides how a body is decoded: text/plain became text/plaio.", 10, make(typed).envelope.replace(b"text/plain", b"text/plaio"), typed)
    aged = replace(PLAIN, expires_s=NOW // 1000 + 256)
    expires = (NOW // 1000 + 256).to_bytes(4, "big")
    later = (NOW // 1000 + 512).to_bytes(4, "big")
    yield vector("header-expiry", "The expiry was put off.", 10, make(aged).envelope.replace(expires, later), aged)
    version = make(replace(PLAIN, policy_version=7))
    yield vector("header-policy-version", "The policy version was changed.", 10, version.envelope.replace(b"orders\x07", b"orders\x08"), replace(PLAIN, policy_version=7))
    bound = replace(PLAIN, bound=("a", "b"), headers=(("a", b"1"), ("b", "x")))
    sealed = make(bound)

    def beside(name: str, comment: str, **opening: Any) -> Vector:
        return vector(name, comment, 10, sealed, bound, **opening)

    def headers(*pairs: tuple[str, Any]) -> list[dict[str, Any]]:
        return [value_json(*pair) for pair in pairs]

    yield beside("bound-value", "The value of a bound header was changed.", headers=headers(("a", b"2"), ("b", "x")))
    yield beside("bound-type", "Bytes became text: another value.", headers=headers(("a", "1"), ("b", "x")))
    yield beside("bound-removed", "A bound header was taken away.", headers=headers(("b", "x")))
    yield beside("bound-removed-all", "All headers were taken away.", headers=[])
    yield beside("bound-repeated", "A bound header was repeated.", headers=headers(("a", b"1"), ("a", b"1"), ("b", "x")))
    yield beside("bound-swapped", "Two bound headers changed places.", headers=headers(("a", "x"), ("b", b"1")))
    yield beside("content-encoding-added", "A content encoding was added.", content_encoding="gzip")
    twice = replace(PLAIN, bound=("a",), headers=(("a", "1"), ("a", "2")))
    yield vector("bound-order-of-values", "Two values of one bound header changed places.", 10, make(twice), twice, headers=headers(("a", "2"), ("a", "1")))
    absent = replace(PLAIN, bound=("x",))
    yield vector("bound-added", "A header bound as absent was added.", 10, make(absent), absent, headers=headers(("x", "1")))
    yield vector("bound-added-null", "The same, without a value: null is not absence.", 10, make(absent), absent, headers=headers(("x", None)))
    encoded = replace(PLAIN, content_encoding="gzip")
    yield vector("content-encoding-changed", "The content encoding was changed.", 10, make(encoded), encoded, content_encoding="deflate")
    yield vector("content-encoding-removed", "The content encoding was taken away.", 10, make(encoded), encoded, content_encoding=None)
    ordered = replace(PLAIN, ordering_key=b"customer-17")
    yield vector("ordering-key-changed", "The ordering key was changed.", 10, make(ordered), ordered, ordering_key=b"customer-18".hex())
    yield vector("ordering-key-removed", "The ordering key was taken away.", 10, make(ordered), ordered, ordering_key=None)
    hollow = replace(PLAIN, ordering_key=b"")
    yield vector("ordering-key-empty-is-not-none", "An empty ordering key was taken away.", 10, make(hollow), hollow, ordering_key=None)
    other = replace(PLAIN, data_key=OTHER_DATA_KEY)
    swapped = replace(PLAIN, recipients=(local(PLAIN, data_key=OTHER_DATA_KEY),))
    yield vector("wrapped-key-swapped", "The wrapped key of another message.", 9, make(replace(swapped, data_key=filled("third", 32))), PLAIN)
    commitment = ref.message_key_and_commitment(OTHER_DATA_KEY)[1]
    yield vector("commitment-other", "The data key of the recipients encrypted it, but the header is committed to another.", 9, make(PLAIN, header={"commitment": bstr(commitment)}))
    wrong = make(other, header={"commitment": bstr(make(PLAIN).steps["commitment"])}, encrypt={"recipient 0": recipient_piece(*local(PLAIN))})
    yield vector("data-key-other", "Header and recipients of one data key, a ciphertext of another.", 10, wrong)
    for name, what, recipient in (
        ("changed", "A wrapped key with one bit changed.", (ref.LOCAL, b"main-1", flip(local(other)[2], 20))),
        ("cut", "A wrapped key cut short.", (ref.LOCAL, b"main-1", local(other)[2][:59])),
        ("one-byte", "A wrapped key of one byte.", (ref.LOCAL, b"main-1", b"?")),
        ("other-destination", "A wrapped key of another destination.", local(replace(other, destination="kafka:refunds"))),
        ("other-policy", "A wrapped key of another policy.", local(replace(other, policy="lax"))),
        ("other-wrapping-key", "Wrapped under another key that has our kid.", local(other, key=filled("stranger", 32))),
    ):
        yield vector(f"wrapped-key-{name}", what, 8, make(replace(other, recipients=(recipient,))))
    yield from forged_signatures(vector)


def forged_for_public_keys() -> Iterator[Vector]:
    other = replace(PLAIN, data_key=OTHER_DATA_KEY)
    made, elsewhere, lax = wraps(other), wraps(replace(other, destination="kafka:refunds")), wraps(replace(other, policy="lax"))
    keys = opening_keys(*made.values())
    context = for_public_keys.context_bytes(other.policy, other.destination)

    def vector(name: str, comment: str, wrap: Wrap, wrapped_key: bytes) -> Vector:
        m = replace(other, recipients=((wrap.algorithm, wrap.kid, wrapped_key),))
        return refused(f"forged-for-{name}", comment, "6.3, 8 step 8", "forged", 8, make(m).envelope, PLAIN, opening_keys=keys)

    for kind, wrap in made.items():
        yield vector(f"{kind}-changed", "A bit near the beginning was changed.", wrap, flip(wrap.wrapped, 1, 0))
        yield vector(f"{kind}-last-bit", "The last bit was changed.", wrap, flip(wrap.wrapped, len(wrap.wrapped) - 1))
        yield vector(f"{kind}-shortened", "A byte was taken away.", wrap, wrap.wrapped[:-1])
        yield vector(f"{kind}-other-destination", "A8: wrapped for another destination.", wrap, elsewhere[kind].wrapped)
        yield vector(f"{kind}-other-policy", "A8: wrapped under another policy.", wrap, lax[kind].wrapped)
    off = b"\x02" + b"\xff" * 32 + made["p-256"].wrapped[33:]
    yield vector("p-256-no-point", "No point of the curve is sent.", made["p-256"], off)
    uncompressed = b"\x04" + bytes(64) + made["p-256"].wrapped[33:]
    yield vector("p-256-uncompressed", "65 bytes, where a compressed point has 33.", made["p-256"], uncompressed)
    low = for_public_keys.x25519(other.data_key, context, low_order=True)
    yield vector("x25519-low-order", "A point of low order, with which every private key gives the same secret.", low, low.wrapped)
    tagged = for_public_keys.rsa_2048(other.data_key, context, tag_of=DATA_KEY)
    yield vector("rsa-other-tag", "The context tag of another data key.", tagged, tagged.wrapped)
    short = for_public_keys.rsa_2048(other.data_key[:31], context)
    yield vector("rsa-31-bytes", "What was wrapped is no data key: anybody can wrap 31 bytes.", short, short.wrapped)
    for name, number in (("registered-number", -31), ("other-number", -65541)):
        m = replace(other, recipients=((number, made["x25519"].kid, made["x25519"].wrapped),))
        what = f"Our kid beside the number {number}, which is not that key's: passed over."
        yield refused(f"unknown-key-recipient-{name}", what, "6.3, 8 step 8", "unknown-key", 8, make(m).envelope, PLAIN, opening_keys=keys)


def forged_signatures(vector: Any) -> Iterator[Vector]:
    for m in (PRIVATE, SIGNED):
        kind = m.protection
        for key in RING:
            word = ALGORITHMS[key.alg].lower().replace("-sha-256", "")
            one = replace(m, key=key)
            made = make(one)
            yield vector(f"{kind}-{word}-flipped", "One bit of the MAC or signature.", 6, flip(made.envelope, len(made.envelope) - 1), one)
        made = make(m)
        forged_body = made.envelope.replace(BODY, b"4111 1111 1111 1112") if kind == "integrity" else flip(made.envelope, made.envelope.index(made.steps["ciphertext"]))
        yield vector(f"{kind}-body", "E5: one bit of the body, refused before any call to a key service.", 6, forged_body, m)
        yield vector(f"{kind}-sender", "E4: the MAC of another sender, who holds the same secret.", 6, resigned(m, sender="shop-web"), m)
        yield vector(f"{kind}-destination", "E4: the MAC for another destination under the same secret.", 6, resigned(m, destination="kafka:refunds"), m)
        yield vector(f"{kind}-other-secret", "E4: the MAC of somebody without the secret.", 6, make(replace(m, key=replace(HMAC, secret=OTHER_MAC_SECRET))), m)
        confused = replace(m, key=Key("ed-1", ref.HMAC_256, None, secret=public_bytes(EDDSA)))
        yield vector(f"{kind}-hmac-with-ed25519-public-key", "Algorithm confusion: an HMAC whose secret is the public key that everybody knows.", 6, make(confused), replace(m, key=EDDSA))
        confused = replace(m, key=Key("es-1", ref.HMAC_256, None, secret=ES256.public))
        yield vector(f"{kind}-hmac-with-p256-public-key", "Algorithm confusion: the same with the P-256 key.", 6, make(confused), replace(m, key=ES256))
        crossed = replace(m, key=replace(ES256, key_id="ed-1"))
        yield vector(f"{kind}-es256-for-eddsa", "Algorithm confusion: ES256 under the kid of an Ed25519 key.", 6, make(crossed), replace(m, key=EDDSA))
        says = {"alg": b"\x01\x26"}
        ed = replace(m, key=EDDSA)
        other = make(ed, outer=says) if m.hides else make(ed, header=says)
        yield vector(f"{kind}-eddsa-says-es256", "Algorithm confusion: signed by the right Ed25519 key, under a header that says ES256.", 6, other, ed)
        es = make(replace(m, key=ES256))
        zero = es.envelope[:-64] + bytes(64)
        yield vector(f"{kind}-es256-zero", "An ECDSA signature of zeros.", 6, zero, replace(m, key=ES256))
        bound = replace(m, bound=("a",), headers=(("a", "1"),))
        changed = [value_json("a", "2")]
        yield vector(f"{kind}-bound-value", "E2: the value of a bound header was changed.", 6, make(bound), bound, headers=changed)
        yield vector(f"{kind}-bound-removed", "A bound header was taken away.", 6, make(bound), bound, headers=[])
        yield vector(f"{kind}-content-encoding-added", "A content encoding was added.", 6, make(m), m, content_encoding="gzip")
    made = make(PRIVATE)
    swapped = made.envelope.replace(recipient_piece(*local(PRIVATE)), recipient_piece(*local(PRIVATE, data_key=OTHER_DATA_KEY)))
    yield vector("privacy-recipients", "In privacy the recipients are signed, too.", 6, swapped, PRIVATE)
    inner_of_other = make(replace(PRIVATE, body=b"another"))
    grafted = make(PRIVATE, signed={"payload": bstr(inner_of_other.steps["inner"])})
    yield vector("privacy-grafted", "The MAC of one message around another.", 6, grafted, PRIVATE)
    made_up = replace(PRIVATE, data_key=OTHER_DATA_KEY)
    committed = make(made_up, header={"commitment": bstr(made.steps["commitment"])}, encrypt={"recipient 0": recipient_piece(*local(PRIVATE))})
    yield vector("privacy-data-key-other", "Rightly signed, but the ciphertext is of another data key than header and recipients.", 10, committed, PRIVATE)


def public_bytes(key: Key) -> bytes:
    """Return the 32 bytes of an Ed25519 public key."""
    return bytes(key.private.public_key().public_bytes(serialization.Encoding.Raw, serialization.PublicFormat.Raw))


def resigned(m: Message, **changes: str) -> Made:
    """Return *m* with a MAC whose key is that of another sender or destination."""
    made = make(m)
    assert m.key is not None
    seal = signature(replace(m, **changes), m.key, made.steps["to_be_signed"])  # type: ignore[arg-type] - texts, all of them
    return make(m, signed={"signature": bstr(seal)})


# --- step 7


def out_of_time() -> Iterator[Vector]:
    for m in (PLAIN, PRIVATE, SIGNED):
        kind = m.protection
        aged = policy_json(m, max_message_age_s=60)
        yield refused(f"stale-{kind}", "A9: an old copy: a millisecond older than the policy allows.", "8 step 7", "stale", 7, make(m).envelope, m, clock_ms=NOW + 60_001, policy=aged, warm_at=NOW)
        expiring = replace(m, expires_s=NOW // 1000 + 10)
        yield refused(f"stale-{kind}-expired", "Opened in the second in which it expires.", "8 step 7", "stale", 7, make(expiring).envelope, expiring, clock_ms=(NOW // 1000 + 10) * 1000, warm_at=NOW)
        yield refused(f"future-{kind}", "From a millisecond more in the future than the policy allows.", "8 step 7", "future", 7, make(m).envelope, m, clock_ms=NOW - 300_001, warm_up=replace(m, clock_ms=NOW - 300_001))


# fmt: on
# --- SPEC.md section 13


MEANING = {
    "map": "map of {}",
    "alg": "alg",
    "content type": "content type",
    "IV": "IV: the nonce",
    "kid": "kid: the signing key",
    "claims": "CWT claims: map of {}",
    "iss": "iss: the sender",
    "aud": "aud: the logical destination",
    "exp": "exp",
    "iat": "iat",
    "cti": "cti: the message id",
    "postseal": "label -65537: array of {}",
    "version": "version",
    "protection": "protection",
    "milliseconds": "milliseconds",
    "policy": "policy",
    "policy version": "policy version",
    "bound": "names of bound headers",
    "more": "more: a frame, the reference of the request",
    "commitment": "key commitment",
    "content format": "content format: 96",
}


IN_CLAIMS = ("iss", "aud", "exp", "iat", "cti")
IN_POSTSEAL = (
    "version",
    "protection",
    "milliseconds",
    "policy",
    "policy version",
    "bound",
    "more",
    "commitment",
)


def block(lines: Sequence[str]) -> str:
    """Return lines as an indented block."""
    return "\n".join(f"    {line}" if line else "" for line in lines)


def wrapped(name: str, value: bytes) -> list[str]:
    """Return a named value, its hex over as many lines as it takes."""
    lines = textwrap.wrap(value.hex(), 88) or ["(empty)"]
    return [f"{name:<16}{lines[0]}", *(" " * 16 + line for line in lines[1:])]


def annotated(pieces: Mapping[str, bytes]) -> list[str]:
    """Return the pieces of a header, each with its meaning."""
    out = []
    for name, piece in pieces.items():
        if not piece:
            continue
        meaning = MEANING[name].format(piece[-1] & 0x1F)
        depth = 0 if name == "map" else 6 if name in IN_CLAIMS + IN_POSTSEAL else 3
        lines = [" " * depth + line for line in textwrap.wrap(piece.hex(), 72)]
        out += [*lines[:-1], f"{lines[-1]:<80}{meaning}"]
    return out


WITH_HEADERS = replace(PRIVATE, content_type="application/json", bound=FULL.bound, headers=FULL.headers)
EXAMPLES = (
    ("Confidentiality, nothing bound", PLAIN),
    ("Privacy with HMAC, two bound headers and a content type", WITH_HEADERS),
    ("Privacy with Ed25519", replace(PRIVATE, key=EDDSA)),
    ("Integrity with ES256", replace(SIGNED, key=ES256)),
    (
        "Confidentiality, a reply with an encrypted header",
        replace(
            PLAIN, encrypted=("tenant",), inside=(("tenant", "north"),), in_reply_to=filled("a request", 32)
        ),
    ),
)


def examples() -> str:
    """Return the worked examples as Markdown."""
    parts = [
        textwrap.dedent("""\
            Made by `tests/vectors/make.py`, which shares nothing with the library; a test compares what both make. More, with every way to fail,
            are in `tests/vectors/`. All values are in hex but for what stands in quotes.""")
    ]
    for number, (title, m) in enumerate(EXAMPLES, 1):
        parts += [f"### 13.{number} {title}", *example(m)]
    parts += [f"### 13.{len(EXAMPLES) + 1} A data key wrapped for public keys", *wrapping_examples()]
    parts += [f"### 13.{len(EXAMPLES) + 2} Short forms", *short_examples()]
    return "\n\n".join(parts)


def short_examples() -> list[str]:
    """Return the parts of the worked example of SPEC.md 3.6: of the first two messages."""
    out = []
    for number, (title, m) in enumerate(EXAMPLES[:2], 1):
        envelope = make(m).envelope
        record, short = ref.record_of(envelope), ref.shortened(envelope)
        out += [
            f"Of 13.{number}, {title[0].lower()}{title[1:]}: {len(short)} bytes instead of {len(envelope)}.",
            block(
                [
                    *wrapped("record", record),
                    *wrapped("its SHA-256", hashlib.sha256(record).digest()),
                    *wrapped("short form", short),
                ]
            ),
        ]
    return out


def wrapping_examples() -> list[str]:
    """Return the parts of the worked example of SPEC.md 6.3."""
    context = for_public_keys.context_bytes(PLAIN.policy, PLAIN.destination)
    out = ["Given:", block([*wrapped("data key", PLAIN.data_key), *wrapped("context bytes", context)])]
    titles = {
        "x25519": "X25519 (-65540).",
        "p-256": "P-256 (-65540); points are compressed.",
        "x-wing": "X-Wing (-65541): seed, ciphertext and shared secret of test vector 1 of the draft's appendix C; what is long is cut.",
    }
    made = wraps()
    for kind, title in titles.items():
        wrap, steps = made[kind], made[kind].steps
        lines = wrapped(
            "private key",
            wrap.private[-32:] if kind != "p-256" else filled("P-256 recipient", 31).rjust(32, b"\0"),
        )
        out += [
            title,
            block(
                [
                    *lines,
                    *(
                        line
                        for name, value in (
                            ("public key", steps["public"]),
                            ("kid", wrap.kid),
                            ("sent", steps["sent"]),
                            ("shared secret", steps["secret"]),
                            ("KDF context", steps["info"]),
                            ("wrapping key", steps["kek"]),
                            ("wrapped key", wrap.wrapped),
                        )
                        for line in cut(name, value)
                    ),
                ]
            ),
        ]
    rsa = made["rsa"]
    out += [
        "RSA (-41). Its parts are in `tests/vectors/confidentiality-for-rsa.json`.",
        block([*wrapped("kid", rsa.kid), *wrapped("context tag", rsa.steps["tag"])]),
    ]
    return out


def cut(name: str, value: bytes) -> list[str]:
    """Return *value* as lines; where it is long, how it begins and ends, and its SHA-256."""
    if len(value) <= 200:
        return wrapped(name, value)
    begin, end = value[:16].hex(), value[-44:].hex()
    return [
        f"{name:<16}{begin} ... {end}",
        f"{'':<16}{len(value)} bytes, SHA-256 {hashlib.sha256(value).hexdigest()}",
    ]


def example(m: Message) -> list[str]:  # noqa: C901, PLR0912 - section by section
    """Return the parts of one worked example."""
    made, key = make(m), m.key
    given = [
        f'{"sender":<16}"{m.sender}"',
        f'{"destination":<16}"{m.destination}"',
        f'{"policy":<16}"{m.policy}", version {m.policy_version}',
        f"{'time':<16}{m.clock_ms} ms since the epoch: 2026-10-01T09:30:15.123Z",
        *wrapped("message id", m.message_id),
    ]
    if m.content_type:
        given.append(f'{"content type":<16}"{m.content_type}"')
    for name, value in m.headers:
        given.append(f'{"bound header":<16}"{name}" = bytes "{value.decode()}"')
    for name, value in m.inside:
        given.append(f'{"encrypted":<16}"{name}" = text "{value}"')
    if m.in_reply_to:
        given += wrapped("in reply to", m.in_reply_to)
    if m.hides:
        given += [*wrapped("data key", m.data_key), *wrapped("nonce", m.nonce)]
        given += [f'{"wrapping key":<16}"main-1", local', *wrapped("", WRAPPING_KEY)]
    if key:
        given.append(f'{"signing key":<16}"{key.key_id}", {ALGORITHMS[key.alg]}')
        if key.alg == ref.HMAC_256:
            given += wrapped("secret", key.secret)
        elif key.alg == ref.EDDSA:
            given += [
                *wrapped("private key", filled("Ed25519", 32)),
                *wrapped("public key", public_bytes(key)),
            ]
        else:
            point = key.private.public_key().public_numbers()
            given += wrapped("private key", key.private.private_numbers().private_value.to_bytes(32, "big"))
            given += [
                *wrapped("public key, x", point.x.to_bytes(32, "big")),
                *wrapped("public key, y", point.y.to_bytes(32, "big")),
            ]
    given += [f'{"body":<16}"{m.body.decode()}"', *wrapped("", m.body)]
    out = ["Given:", block(given)]
    if m.hides:
        out += [
            "HKDF (6.1):",
            block(
                [
                    *wrapped("message key", made.steps["message_key"]),
                    *wrapped("commitment", made.steps["commitment"]),
                ]
            ),
        ]
    out += [
        f"Context (5.2), {len(made.steps['external_aad'])} bytes:",
        block(wrapped("external_aad", made.steps["external_aad"])),
    ]
    out += [f"Protected header (4), {len(made.steps['protected'])} bytes:", block(annotated(made.pieces))]
    if m.encrypted:
        out += [
            f"Frame (3.5), {len(made.steps['frame'])} bytes:",
            block(wrapped("frame", made.steps["frame"])),
        ]
    if m.hides:
        out += [
            "Encryption (3.1):",
            block(
                [
                    *wrapped("Enc_structure", made.steps["enc_structure"]),
                    *wrapped("ciphertext", made.steps["ciphertext"]),
                ]
            ),
        ]
        nonce = local(m)[2][:12]
        out += [
            "Recipients (6.3), the data key wrapped with the nonce that stands first in the wrapped key:",
            block(
                [
                    *wrapped("wrapping nonce", nonce),
                    *wrapped("wrapped key", local(m)[2]),
                    *wrapped("recipients", made.steps["recipients"]),
                ]
            ),
        ]
    if m.protection == "privacy":
        out += ["The inner envelope:", block(wrapped("inner", made.steps["inner"]))]
        out += ["Outer protected header (3.2):", block(wrapped("protected", made.steps["outer_protected"]))]
    if key:
        lines = wrapped("HMAC key", made.steps["hmac_key"]) if key.alg == ref.HMAC_256 else []
        name = "MAC_structure" if key.alg == ref.HMAC_256 else "Sig_structure"
        lines += [
            *wrapped(name, made.steps["to_be_signed"]),
            *wrapped("MAC" if key.alg == ref.HMAC_256 else "signature", made.steps["signature"]),
        ]
        note = " ES256 signatures are random; this one is by RFC 6979." if key.alg == ref.ES256 else ""
        out += [f"Signature (7).{note}", block(lines)]
    out += [f"The envelope, {len(made.envelope)} bytes:", block(textwrap.wrap(made.envelope.hex(), 104))]
    return out


BEGIN, END = "<!-- made by tests/vectors/make.py -->", "<!-- end of what it made -->"


def with_examples(spec: str) -> str:
    """Return SPEC.md with its worked examples made anew."""
    before, _, rest = spec.partition(BEGIN)
    _, _, after = rest.partition(END)
    return f"{before}{BEGIN}\n\n{examples()}\n\n{END}{after}"


# --- writing


def write(directory: Path) -> int:
    """Write all vectors into *directory*; return how many."""
    for old in directory.glob("*.json"):
        old.unlink()
    count = 0
    for name, vector in all_vectors():
        path = directory / f"{name}.json"
        if path.exists():
            raise FileExistsError(path)
        path.write_text(json.dumps(vector, indent=1, ensure_ascii=False) + "\n", "utf-8")
        count += 1
    return count


if __name__ == "__main__":
    target = Path(sys.argv[1]) if len(sys.argv) > 1 else HERE
    target.mkdir(parents=True, exist_ok=True)
    write(target)
    if target == HERE:
        spec_file = ROOT / "core" / "SPEC.md"
        spec_file.write_text(with_examples(spec_file.read_text("utf-8")), "utf-8")
