"""The primitives: AES-256-GCM, HKDF, HMAC, random bytes. Nothing here knows what a message is.

Source: SPEC.md 6.1, 7 and 12.
"""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final, TypeAlias

from cryptography.exceptions import InvalidSignature, InvalidTag, UnsupportedAlgorithm
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256, Hash
from cryptography.hazmat.primitives.hmac import HMAC
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from postseal.core.errors import ConfigError

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA
    from cryptography.hazmat.primitives.asymmetric.types import PublicKeyTypes

__all__ = [
    "COMMITMENT_SIZE",
    "DATA_KEY_SIZE",
    "NONCE_SIZE",
    "TAG_SIZE",
    "HmacContext",
    "InvalidSignature",
    "InvalidTag",
    "MessageKey",
    "P256PublicKey",
    "RandomBytes",
    "decrypt_once",
    "derive",
    "encrypt_once",
    "equal",
    "fingerprint",
    "hmac_context",
    "new_private_key",
    "p256_of_der",
    "p256_of_point",
    "private_key_of",
    "public_key",
    "public_key_of",
    "random_bytes",
    "raw_public_key",
    "raw_signature",
    "rsa_oaep_sha256",
    "sha256",
]

DATA_KEY_SIZE: Final = 32
NONCE_SIZE: Final = 12
TAG_SIZE: Final = 16
COMMITMENT_SIZE: Final = 32
_COORDINATE: Final = 32

_MESSAGE_KEY_INFO: Final = b"postseal v1 A256GCM"

RandomBytes: TypeAlias = Callable[[int], bytes]
"""Gives that many random bytes. An argument everywhere, so that vectors can cover sealing too."""

HmacContext: TypeAlias = HMAC
"""HMAC-SHA-256 that has absorbed its key: ``copy``, ``update``, ``finalize``, ``verify``."""

P256PublicKey: TypeAlias = "ec.EllipticCurvePublicKey"
"""A public key on P-256."""

random_bytes: Final[RandomBytes] = os.urandom


class MessageKey:
    """The AES-256-GCM key of messages, kept as a cipher object: the key's bytes are not.

    ``encrypt(nonce, body, aad)`` and ``decrypt(nonce, ciphertext, aad)`` are the cipher's own methods, kept because making the
    cipher costs more than using it. *decrypt* raises `InvalidTag`.
    """

    __slots__ = ("__weakref__", "commitment", "decrypt", "encrypt")

    def __init__(self, data_key: bytes) -> None:
        if (size := len(data_key)) != DATA_KEY_SIZE:
            del data_key  # a traceback shows the locals of its frames to whoever asks
            raise ValueError(f"a data key has {DATA_KEY_SIZE} bytes, not {size}")
        okm = derive(data_key, _MESSAGE_KEY_INFO, 64)
        cipher = AESGCM(okm[:32])
        self.encrypt = cipher.encrypt
        self.decrypt = cipher.decrypt
        self.commitment = okm[32:]

    def __repr__(self) -> str:
        return "<MessageKey>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")


def derive(secret: bytes, info: bytes, length: int = 32) -> bytes:
    """Derive *length* bytes from *secret* by HKDF-SHA-256 with an empty salt. Source: RFC 5869."""
    return HKDF(algorithm=SHA256(), length=length, salt=None, info=info).derive(secret)


def encrypt_once(key: bytes, plaintext: bytes, aad: bytes, *, random: RandomBytes = random_bytes) -> bytes:
    """Encrypt with AES-256-GCM under a key that is not kept: nonce, ciphertext and tag in one."""
    nonce = random(NONCE_SIZE)
    return nonce + AESGCM(key).encrypt(nonce, plaintext, aad)


def decrypt_once(key: bytes, sealed: bytes, aad: bytes) -> bytes:
    """Undo `encrypt_once`, or raise `InvalidTag`."""
    if len(sealed) < NONCE_SIZE + TAG_SIZE:
        raise InvalidTag
    return AESGCM(key).decrypt(sealed[:NONCE_SIZE], sealed[NONCE_SIZE:], aad)


def hmac_context(key: bytes) -> HmacContext:
    """Make an HMAC-SHA-256 context, to be copied for each message: absorbing the key is half of a short HMAC's cost.

    The copy has ``update``, ``finalize`` and ``verify``; the last compares in constant time and raises `InvalidSignature`.
    """
    return HMAC(key, SHA256())


def sha256(data: bytes) -> bytes:
    """Return the SHA-256 digest of *data*."""
    digest = Hash(SHA256())
    digest.update(data)
    return digest.finalize()


def fingerprint(public_key: PublicKeyTypes) -> bytes:
    """Return what tells public keys apart: SHA-256 of the DER SubjectPublicKeyInfo. Source: RFC 5280 4.1.2.7; RFC 7469 2.4."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - keys are made rarely

    return sha256(public_key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo))


def private_key_of(pem: bytes, passphrase: bytes | None = None) -> Any:
    """Read a private key in PEM.

    Raises:
        ConfigError: It is none, or its *passphrase* is missing or wrong. The text quotes neither.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_private_key  # noqa: PLC0415 - keys are made rarely

    try:
        return load_pem_private_key(pem, passphrase)
    except TypeError:
        needs = (
            "is encrypted: it needs a passphrase"
            if passphrase is None
            else "is not encrypted: it takes no passphrase"
        )
        raise ConfigError(f"the private key {needs}") from None
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("this is no private key in PEM, or the passphrase is wrong") from None


def public_key_of(pem: bytes) -> Any:
    """Read a public key in PEM, or that of a certificate.

    Raises:
        ConfigError: It is neither.
    """
    from cryptography.hazmat.primitives.serialization import load_pem_public_key  # noqa: PLC0415 - keys are made rarely

    try:
        if b"BEGIN CERTIFICATE" in pem:
            from cryptography.x509 import load_pem_x509_certificate  # noqa: PLC0415 - likewise

            return load_pem_x509_certificate(pem).public_key()
        return load_pem_public_key(pem)
    except (ValueError, UnsupportedAlgorithm):
        raise ConfigError("this is no public key in PEM, and no certificate") from None


def new_private_key(kind: str) -> Any:
    """Make a private key to sign with: ``"ed25519"``, or any other word for one on P-256."""
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - loaded by who uses it

    if kind == "ed25519":
        return ed25519.Ed25519PrivateKey.generate()
    return ec.generate_private_key(ec.SECP256R1())


def raw_public_key(key: ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey) -> bytes:
    """Return the 32 bytes of an Ed25519 key, or both coordinates of a point on P-256, 64 bytes."""
    from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat  # noqa: PLC0415 - keys are made rarely

    if hasattr(key, "curve"):
        return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)[1:]
    return key.public_bytes(Encoding.Raw, PublicFormat.Raw)


def public_key(raw: bytes) -> ed25519.Ed25519PublicKey | ec.EllipticCurvePublicKey:
    """Undo `raw_public_key`.

    Raises:
        ValueError: No such key.
    """
    from cryptography.hazmat.primitives.asymmetric import ec, ed25519  # noqa: PLC0415 - loaded by who uses it

    if len(raw) == 32:  # noqa: PLR2004 - as there
        return ed25519.Ed25519PublicKey.from_public_bytes(raw)
    return ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), b"\x04" + raw)


def p256_of_der(der: bytes) -> ec.EllipticCurvePublicKey:
    """Read a public key on P-256 of its SubjectPublicKeyInfo in DER.

    Raises:
        ValueError: It is none.
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - keys are made rarely
    from cryptography.hazmat.primitives.serialization import load_der_public_key  # noqa: PLC0415 - likewise

    try:
        key = load_der_public_key(der)
    except UnsupportedAlgorithm as error:
        raise ValueError("a curve that is not known here") from error
    if not isinstance(key, ec.EllipticCurvePublicKey) or not isinstance(key.curve, ec.SECP256R1):
        raise ValueError("no key on P-256")  # noqa: TRY004 - a wrong key is a wrong value
    return key


def p256_of_point(x: bytes, y: bytes) -> ec.EllipticCurvePublicKey:
    """Make a public key on P-256 of its coordinates, big-endian.

    Raises:
        ValueError: There is no such point.
    """
    from cryptography.hazmat.primitives.asymmetric import ec  # noqa: PLC0415 - keys are made rarely

    numbers = int.from_bytes(x, "big"), int.from_bytes(y, "big")
    return ec.EllipticCurvePublicNumbers(*numbers, ec.SECP256R1()).public_key()


def raw_signature(der: bytes) -> bytes:
    """Return r and s of an ECDSA signature on P-256 in DER: 64 bytes. Source: RFC 3279 2.2.3; RFC 9053 2.1.

    Raises:
        ValueError: It is none.
    """
    from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature  # noqa: PLC0415 - likewise

    try:
        r, s = decode_dss_signature(der)
        return r.to_bytes(_COORDINATE, "big") + s.to_bytes(_COORDINATE, "big")
    except OverflowError as error:
        raise ValueError("no signature on P-256") from error


def ecdsa_sha256() -> ECDSA:
    """Make the scheme of ES256."""
    from cryptography.hazmat.primitives.asymmetric.ec import ECDSA  # noqa: PLC0415 - loaded by who uses it

    return ECDSA(SHA256())


def rsa_oaep_sha256(modulus: bytes, exponent: bytes) -> Callable[[bytes], bytes]:
    """Make what encrypts for the holder of an RSA key: RSAES-OAEP with SHA-256, in MGF1 too, without a label.

    Args:
        modulus: Big-endian, 2048 to 8192 bits.
        exponent: Big-endian; odd.

    Raises:
        ValueError: No such RSA key.

    Source: RFC 8017 7.1; RFC 8230 2.
    """
    # Loaded by who uses it.
    from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP  # noqa: PLC0415
    from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicNumbers  # noqa: PLC0415

    key = RSAPublicNumbers(int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")).public_key()
    if not 2048 <= key.key_size <= 8192:  # noqa: PLR2004 - as the docstring says
        raise ValueError(f"an RSA key of {key.key_size} bits")
    padding = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)
    return lambda plaintext: key.encrypt(plaintext, padding)


def equal(a: bytes, b: bytes) -> bool:
    """Compare in constant time."""
    from hmac import compare_digest  # noqa: PLC0415 - it loads hashlib; keys are unwrapped rarely

    return compare_digest(a, b)
