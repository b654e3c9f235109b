"""The parts of an envelope, as plain values that JSON takes. Opens nothing and proves nothing."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any, Final

from postseal.core.crypto import TAG_SIZE
from postseal.core.shortening import read_short
from postseal.core.wire import (
    MESSAGE_ID_SIZE,
    NONCE_SIZE,
    VERSION,
    Algorithm,
    Credential,
    Envelope,
    Header,
    Protection,
    Recipient,
    byte_span,
)

__all__ = ["anatomy", "short_anatomy"]

_WRAPPING: Final = {
    -5: "A256KW",
    -41: "RSAES-OAEP with SHA-256",
    -65537: "AWS KMS",
    -65538: "local key file (development)",
    -65539: "Vault transit",
    -65540: "ECDH-ES + A256KW",
    -65541: "X-Wing + A256KW",
    -65542: "branch key",
}
"""Source: SPEC.md 10.3."""
_SIGNING: Final = {
    Algorithm.HMAC_256: ("HMAC 256/256", "group"),
    Algorithm.ES256: ("ES256", "sender"),
    Algorithm.EDDSA: ("EdDSA (Ed25519)", "sender"),
}
"""Names, and what a right one would prove. Source: SPEC.md 7 and 10.1."""


def anatomy(data: bytes, envelope: Envelope) -> dict[str, Any]:
    """Return the parts of *envelope*, which was decoded from *data*.

    All that the message says of itself stands below ``unverified``: whoever wrote the bytes chose it.
    """
    header = envelope.header
    return {
        "version": VERSION,  # `decode` knows no other
        "protection": header.protection.name.lower(),
        "structure": _structure(envelope),
        "bytes": _sizes(data, envelope),
        "unverified": {
            "sender": header.sender,
            "destination": header.destination,
            "sent_at": _time(header.seconds, header.millis),
            "expires_at": None if header.expires is None else _time(header.expires),
            "message_id": header.message_id.hex(),
            "content_type": header.content_type,
            "policy": header.policy,
            "policy_version": header.policy_version,
            "bound_headers": list(header.bound),
            "encrypts_headers": header.framed,
            "in_reply_to": None if header.in_reply_to is None else header.in_reply_to.hex(),
            "encryption": _encryption(header),
            "recipients": [_recipient(recipient) for recipient in envelope.recipients],
            "signature": _signature(envelope),
        },
    }


def short_anatomy(data: bytes) -> dict[str, Any]:
    """Return the parts of *data*, which is in the short form, without its record.

    Raises:
        Refused: *malformed*.
    """
    short = read_short(data)
    nonce, times = short.holes[:NONCE_SIZE], short.holes[NONCE_SIZE:-2]
    *exp, iat = (
        int.from_bytes(times[at : at + 4], "big") for at in range(0, len(times) - MESSAGE_ID_SIZE, 4)
    )
    start, stop = byte_span(short.payload, 0)
    body = stop - start - TAG_SIZE
    return {
        "structure": "short form",
        "reference": short.reference.hex(),
        "bytes": {"envelope": len(data), "body": body, "added": len(data) - body},
        "unverified": {
            "sent_at": _time(iat, int.from_bytes(short.holes[-2:], "big")),
            "expires_at": _time(exp[0]) if exp else None,
            "message_id": times[-MESSAGE_ID_SIZE:].hex(),
            "nonce": nonce.hex(),
            "signature_bytes": len(short.signature),
        },
    }


def _structure(envelope: Envelope) -> str:
    signed = "COSE_Mac0" if _signer(envelope)[0] is Algorithm.HMAC_256 else "COSE_Sign1"
    return {
        Protection.CONFIDENTIALITY: "COSE_Encrypt",
        Protection.PRIVACY: f"{signed} around COSE_Encrypt",
        Protection.INTEGRITY: f"{signed} around the clear body",
    }[envelope.header.protection]


def _sizes(data: bytes, envelope: Envelope) -> dict[str, int | None]:
    sealed = envelope.header.protection is not Protection.INTEGRITY
    # Without the AES-GCM tag. What a key service makes of a body, it alone knows.
    body = None if envelope.header.direct else len(envelope.payload) - (16 if sealed else 0)
    return {
        "envelope": len(data),
        "body": body,
        "added": None if body is None else len(data) - body,
        "ciphertext": len(envelope.payload) if sealed else 0,
        "header": len(envelope.protected),
        "recipients": len(envelope.recipients_bytes),
        "signature": len(_signer(envelope)[2]),
        "as_base64url": (len(data) * 4 + 2) // 3,
    }


def _encryption(header: Header) -> dict[str, Any] | None:
    if header.direct:
        return {
            "algorithm": "the key service itself",
            "number": int(header.algorithm),
            "nonce": None,
            "key_commitment": None,
        }
    if header.nonce is None or header.commitment is None:
        return None
    return {
        "algorithm": "AES-256-GCM",
        "number": int(header.algorithm),
        "nonce": header.nonce.hex(),
        "key_commitment": header.commitment.hex(),
    }


def _recipient(recipient: Recipient) -> dict[str, Any]:
    return {
        "algorithm": _WRAPPING.get(recipient.algorithm, "unknown here"),
        "number": recipient.algorithm,
        "key_id": _named(recipient.key_id),
        "key_id_hex": recipient.key_id.hex(),
        "wrapped_key_bytes": len(recipient.wrapped_key),
    }


def _signature(envelope: Envelope) -> dict[str, Any] | None:
    algorithm, key_id, signature = _signer(envelope)
    if algorithm is None:
        return None
    name, proves = _SIGNING[algorithm]
    return {
        "algorithm": name,
        "number": int(algorithm),
        "key_id": _named(key_id),
        "key_id_hex": key_id.hex(),
        "bytes": len(signature),
        "would_prove": proves,
        "credential": _credential(envelope.credential),
    }


def _credential(credential: Credential | None) -> dict[str, Any] | None:
    if credential is None:
        return None
    size = len(credential.encode())
    delegation = credential.delegation
    if delegation is None:
        return {"kind": "certificates", "count": len(credential.certificates), "bytes": size}
    return {
        "kind": "delegation",
        "by": _named(delegation.key_id) or delegation.key_id.hex(),
        "by_algorithm": _SIGNING[delegation.algorithm][0],
        "sender": delegation.sender,
        "begins": _time(delegation.begins),
        "ends": _time(delegation.ends),
        "bytes": size,
    }


def _signer(envelope: Envelope) -> tuple[Algorithm | None, bytes, bytes]:
    """Return the algorithm, key id and signature of whatever signs, in either form; None where nothing does."""
    if envelope.outer is not None:
        return envelope.outer.algorithm, envelope.outer.key_id, envelope.outer.signature
    if envelope.header.key_id is not None:
        return envelope.header.algorithm, envelope.header.key_id, envelope.signature
    return None, b"", b""


def _named(key_id: bytes) -> str | None:
    """Return *key_id* as text, where it is plain text."""
    return key_id.decode() if key_id.isascii() and key_id.decode().isprintable() else None


def _time(seconds: int, millis: int = 0) -> str:
    time = datetime.fromtimestamp(seconds, UTC).replace(microsecond=millis * 1000)
    return time.isoformat(timespec="milliseconds").replace("+00:00", "Z")
