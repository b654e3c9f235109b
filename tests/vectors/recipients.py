"""Data keys wrapped for public keys, put together from SPEC.md 6.3 alone, from fixed inputs.

RSAES-OAEP is done by hand, so that its seed can be fixed. The encapsulation of X-Wing is test vector 1 of appendix C of
draft-connolly-cfrg-xwing-kem-10: ML-KEM in cryptography takes no randomness from outside.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from typing import Any

import cbor2
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF, HKDFExpand
from cryptography.hazmat.primitives.keywrap import aes_key_wrap

RSA_OAEP, ECDH_ES, X_WING = -41, -65540, -65541


def filled(word: str, size: int) -> bytes:
    """Return *size* bytes that look random and follow from *word*."""
    return hashlib.shake_256(b"postseal vectors: " + word.encode()).digest(size)


def hkdf(secret: bytes, info: bytes, size: int) -> bytes:
    """HKDF-SHA-256 with an empty salt."""
    return HKDF(hashes.SHA256(), size, salt=None, info=info).derive(secret)


def context_bytes(policy: str, destination: str) -> bytes:
    """The context bytes of SPEC.md 6.2."""
    return cbor2.dumps(["postseal v1 context", policy, destination])


@dataclass(frozen=True)
class Wrap:
    """A wrapped key, and what was computed on the way."""

    algorithm: int
    private: bytes  # PKCS #8, DER
    public: bytes  # SubjectPublicKeyInfo, DER
    wrapped: bytes
    steps: dict[str, bytes]

    @property
    def kid(self) -> bytes:
        """The first 8 bytes of SHA-256 of the public key."""
        return hashlib.sha256(self.public).digest()[:8]

    @property
    def recipient(self) -> tuple[int, bytes, bytes]:
        """As it stands in an envelope."""
        return self.algorithm, self.kid, self.wrapped


def branch(  # noqa: PLR0917 - in the order of SPEC.md
    data_key: bytes, context: bytes, name: str, version: int, key: bytes, nonce: bytes
) -> tuple[int, bytes, bytes]:
    """Return *data_key* wrapped under a branch key, as it stands in an envelope."""
    kid = hashlib.sha256(cbor2.dumps(["postseal v1 branch", name])).digest()[:8] + version.to_bytes(4, "big")
    wrapping = HKDFExpand(hashes.SHA256(), 32, b"postseal v1 branch" + context).derive(key)
    return -65542, kid, nonce + AESGCM(wrapping).encrypt(nonce, data_key, context)


def both_parts(private: Any) -> tuple[bytes, bytes]:
    """Return PKCS #8 and SubjectPublicKeyInfo."""
    der = serialization.Encoding.DER
    return (
        private.private_bytes(der, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()),
        private.public_key().public_bytes(der, serialization.PublicFormat.SubjectPublicKeyInfo),
    )


def kdf_context(sent: bytes, public: bytes, context: bytes) -> bytes:
    """COSE_KDF_Context. Source: SPEC.md 6.3; RFC 9053 5.2."""
    return cbor2.dumps([-5, [None, None, sent], [None, None, public], [256, b"", context]])


def agreed(algorithm: int, parts: tuple[bytes, bytes], secret: bytes, sent: bytes, public: bytes, data_key: bytes, context: bytes) -> Wrap:  # noqa: PLR0917 - in the order in which they are used  # fmt: skip
    """Wrap under what two parties agreed upon."""
    info = kdf_context(sent, public, context)
    kek = hkdf(secret, info, 32)
    steps = {"sent": sent, "public": public, "secret": secret, "info": info, "kek": kek}
    return Wrap(algorithm, *parts, sent + aes_key_wrap(kek, data_key), steps)


def x25519(data_key: bytes, context: bytes, *, low_order: bool = False) -> Wrap:
    """ECDH-ES + A256KW with X25519. With *low_order*, a point that gives every key the same secret."""
    private = X25519PrivateKey.from_private_bytes(filled("X25519", 32))
    once = X25519PrivateKey.from_private_bytes(filled("ephemeral X25519", 32))
    secret = bytes(32) if low_order else once.exchange(private.public_key())
    sent = bytes(32) if low_order else once.public_key().public_bytes_raw()
    public = private.public_key().public_bytes_raw()
    return agreed(ECDH_ES, both_parts(private), secret, sent, public, data_key, context)


def p256(data_key: bytes, context: bytes) -> Wrap:
    """ECDH-ES + A256KW with P-256."""
    curve, form = ec.SECP256R1(), (serialization.Encoding.X962, serialization.PublicFormat.CompressedPoint)
    private = ec.derive_private_key(int.from_bytes(filled("P-256 recipient", 31), "big"), curve)
    once = ec.derive_private_key(int.from_bytes(filled("ephemeral P-256", 31), "big"), curve)
    secret = once.exchange(ec.ECDH(), private.public_key())
    sent, public = once.public_key().public_bytes(*form), private.public_key().public_bytes(*form)
    return agreed(ECDH_ES, both_parts(private), secret, sent, public, data_key, context)


def rsa_2048(data_key: bytes, context: bytes, *, tag_of: bytes | None = None) -> Wrap:
    """RSAES-OAEP (RFC 8017 7.1.1) and the context tag; *tag_of* another data key."""
    p, q = (
        (int.from_bytes(filled(word, 128), "big") | 3 << 1022 | 1) + up
        for word, up in (("RSA p", 166), ("RSA q", 1056))
    )
    d = rsa.rsa_recover_private_exponent(65537, p, q)
    crt = rsa.rsa_crt_dmp1(d, p), rsa.rsa_crt_dmq1(d, q), rsa.rsa_crt_iqmp(p, q)
    private = rsa.RSAPrivateNumbers(p, q, d, *crt, rsa.RSAPublicNumbers(65537, p * q)).private_key()
    seed = filled("OAEP seed", 32)
    block = hashlib.sha256(b"").digest() + bytes(256 - 2 * 32 - 2 - len(data_key)) + b"\x01" + data_key
    masked = xor(block, mgf1(seed, len(block)))
    encoded = b"\x00" + xor(seed, mgf1(masked, 32)) + masked
    wrapped = pow(int.from_bytes(encoded, "big"), 65537, p * q).to_bytes(256, "big")
    tag = hkdf(tag_of or data_key, context, 16)
    return Wrap(RSA_OAEP, *both_parts(private), wrapped + tag, {"tag": tag})


def mgf1(seed: bytes, size: int) -> bytes:
    """MGF1 with SHA-256. Source: RFC 8017 B.2.1."""
    blocks = (hashlib.sha256(seed + i.to_bytes(4, "big")).digest() for i in range(size // 32 + 1))
    return b"".join(blocks)[:size]


def xor(a: bytes, b: bytes) -> bytes:
    """Exclusive or of two of one length."""
    return bytes(x ^ y for x, y in zip(a, b, strict=True))


def x_wing(data_key: bytes, context: bytes) -> Wrap:
    """X-Wing + A256KW."""
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey

    expanded = hashlib.shake_256(X_WING_SEED).digest(96)
    ml_kem = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
    mine = X25519PrivateKey.from_private_bytes(expanded[64:])
    public = ml_kem.public_key().public_bytes_raw() + mine.public_key().public_bytes_raw()
    oid = bytes.fromhex("300d060b2b0601040183e62d81c87a")
    parts = (
        bytes.fromhex("3034020100") + oid + b"\x04\x20" + X_WING_SEED,
        bytes.fromhex("308204d4") + oid + bytes.fromhex("038204c100") + public,
    )
    return agreed(X_WING, parts, X_WING_SECRET, X_WING_CIPHERTEXT, public, data_key, context)


# draft-connolly-cfrg-xwing-kem-10, appendix C, vector 1: seed, ss and ct.
X_WING_SEED = bytes.fromhex("7f9c2ba4e88f827d616045507605853ed73b8093f6efbc88eb1a6eacfa66ef26")
X_WING_SECRET = bytes.fromhex("d2df0522128f09dd8e2c92b1e905c793d8f57a54c3da25861f10bf4ca613e384")
X_WING_CIPHERTEXT = bytes.fromhex("""
b83aa828d4d62b9a83ceffe1d3d3bb1ef31264643c070c5798927e41fb07914a273f8f96e7826cd5375a283d7da885304c5de0516a0f0654
243dc5b97f8bfeb831f68251219aabdd723bc6512041acbaef8af44265524942b902e68ffd23221cda70b1b55d776a92d1143ea3a0c475f6
3ee6890157c7116dae3f62bf72f60acd2bb8cc31ce2ba0de364f52b8ed38c79d719715963a5dd3842d8e8b43ab704e4759b5327bf027c63c
8fa857c4908d5a8a7b88ac7f2be394d93c3706ddd4e698cc6ce370101f4d0213254238b4a2e8821b6e414a1cf20f6c1244b699046f5a01ca
a0a1a55516300b40d2048c77cc73afba79afeea9d2c0118bdf2adb8870dc328c5516cc45b1a2058141039e2c90a110a9e16b318dfb53bd49
a126d6b73f215787517b8917cc01cabd107d06859854ee8b4f9861c226d3764c87339ab16c3667d2f49384e55456dd40414b70a6af841585
f4c90c68725d57704ee8ee7ce6e2f9be582dbee985e038ffc346ebfb4e22158b6c84374a9ab4a44e1f91de5aac5197f89bc5e5442f51f9a5
937b102ba3beaebf6e1c58380a4a5fedce4a4e5026f88f528f59ffd2db41752b3a3d90efabe463899b7d40870c530c8841e8712b733668ed
033adbfafb2d49d37a44d4064e5863eb0af0a08d47b3cc888373bc05f7a33b841bc2587c57eb69554e8a3767b7506917b6b70498727f16ea
c1a36ec8d8cfaf751549f2277db277e8a55a9a5106b23a0206b4721fa9b3048552c5bd5b594d6e247f38c18c591aea7f56249c72ce7b117a
fcc3a8621582f9cf71787e183dee09367976e98409ad9217a497df888042384d7707a6b78f5f7fb8409e3b535175373461b776002d799cba
d62860be70573ecbe13b246e0da7e93a52168e0fb6a9756b895ef7f0147a0dc81bfa644b088a9228160c0f9acf1379a2941cd28c06ebc80e
44e17aa2f8177010afd78a97ce0868d1629ebb294c5151812c583daeb88685220f4da9118112e07041fcc24d5564a99fdbde28869fe07223
87d7a9a4d16e1cc8555917e09944aa5ebaaaec2cf62693afad42a3f518fce67d273cc6c9fb5472b380e8573ec7de06a3ba2fd5f931d725b4
93026cb0acbd3fe62d00e4c790d965d7a03a3c0b4222ba8c2a9a16e2ac658f572ae0e746eafc4feba023576f08942278a041fb82a70a595d
5bacbf297ce2029898a71e5c3b0d1c6228b485b1ade509b35fbca7eca97b2132e7cb6bc465375146b7dceac969308ac0c2ac89e7863eb894
3015b24314cafb9c7c0e85fe543d56658c213632599efabfc1ec49dd8c88547bb2cc40c9d38cbd3099b4547840560531d0188cd1e9c23a0e
bee0a03d5577d66b1d2bcb4baaf21cc7fef1e03806ca96299df0dfbc56e1b2b43e4fc20c37f834c4af62127e7dae86c3c25a2f696ac8b589
dec71d595bfbe94b5ed4bc07d800b330796fda89edb77be0294136139354eb8cd37591578f9c600dd9be8ec6219fdd507adf3397ed4d6870
7b8d13b24ce4cd8fb22851bfe9d632407f31ed6f7cb1600de56f17576740ce2a32fc5145030145cfb97e63e0e41d354274a079d3e6fb2e15
""")
