"""Key pairs of recipients: whoever has the public part wraps a data key that only the private part unwraps.

RSA (RSAES-OAEP with SHA-256), P-256 and X25519 (ECDH-ES + A256KW), and X-Wing, which joins X25519 with ML-KEM-768 so that what is
recorded today stays sealed when either of them falls. Every wrap is bound to the bytes of a context.

Source: SPEC.md 6.3; RFC 8017 7.1; RFC 9053 5.2 and 6.4; RFC 3394; draft-connolly-cfrg-xwing-kem-10.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeAlias

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric.ec import (
    ECDH,
    SECP256R1,
    EllipticCurvePrivateKey,
    EllipticCurvePublicKey,
    derive_private_key,
)
from cryptography.hazmat.primitives.asymmetric.padding import MGF1, OAEP
from cryptography.hazmat.primitives.asymmetric.rsa import (
    RSAPrivateKey,
    RSAPublicKey,
    RSAPublicNumbers,
    generate_private_key,
)
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey, X25519PublicKey
from cryptography.hazmat.primitives.hashes import SHA3_256, SHA256, SHAKE256, Hash
from cryptography.hazmat.primitives.keywrap import InvalidUnwrap, aes_key_unwrap, aes_key_wrap
from cryptography.hazmat.primitives.serialization import Encoding, PrivateFormat, PublicFormat, pkcs12

from postseal.core import certificates, crypto
from postseal.core.context import head
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.errors import ConfigError, KeyBroken, nearest

if TYPE_CHECKING:
    from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey, MLKEM768PublicKey

__all__ = [
    "ECDH_ES_A256KW",
    "KEY_ID_SIZE",
    "KINDS",
    "RSA_OAEP_256",
    "X_WING_A256KW",
    "OpeningKey",
    "RecipientKey",
    "offers_ml_kem",
]

RSA_OAEP_256: Final = -41
ECDH_ES_A256KW: Final = -65540
X_WING_A256KW: Final = -65541
KEY_ID_SIZE: Final = 8
KINDS: Final = ("p-256", "rsa-3072", "x-wing", "x25519")
"""What `OpeningKey.generate` makes."""

Password: TypeAlias = bytes | str | Callable[[], bytes | str] | None
"""Of a private key's file; a function is asked once, when the file is read."""

_A256KW: Final = -5
_WRAPPED_SIZE: Final = DATA_KEY_SIZE + 8  # RFC 3394 adds 8 bytes
_TAG_SIZE: Final = 16  # SPEC.md 6.2
_P256_POINT: Final = 33  # SEC 1 2.3.3, compressed
_P256_ORDER: Final = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
_X25519_SIZE: Final = 32
# draft-connolly-cfrg-xwing-kem-10, 5.1 to 5.4 and 7
_ML_KEM_PUBLIC: Final = 1184
_ML_KEM_CIPHERTEXT: Final = 1088
_X_WING_PUBLIC: Final = _ML_KEM_PUBLIC + _X25519_SIZE
_X_WING_CIPHERTEXT: Final = _ML_KEM_CIPHERTEXT + _X25519_SIZE
_X_WING_SEED: Final = 32
_X_WING_LABEL: Final = rb"\.//^" + b"\\"
# DER of SubjectPublicKeyInfo and of PKCS #8 with the OID 1.3.6.1.4.1.62253.25722, up to the raw key.
_X_WING_OID: Final = bytes.fromhex("300d060b2b0601040183e62d81c87a")
_X_WING_SPKI: Final = bytes.fromhex("308204d4") + _X_WING_OID + bytes.fromhex("038204c100")
_X_WING_PKCS8: Final = bytes.fromhex("3034020100") + _X_WING_OID + bytes.fromhex("0420")


def offers_ml_kem() -> bool:
    """Tell whether the `cryptography` that is installed has ML-KEM-768; the wheels of version 50 do."""
    try:
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey  # noqa: PLC0415

        MLKEM768PrivateKey.from_seed_bytes(bytes(64))
    except (ImportError, UnsupportedAlgorithm):
        return False
    return True


def _need_ml_kem() -> None:
    if not offers_ml_kem():
        raise ConfigError(
            "an X-Wing key needs ML-KEM-768, which the installed cryptography does not offer: "
            "install a newer one, or use x25519"
        )


# -- how each kind agrees upon a secret --------------------------------------------------------------------------------


class _XWingPublic:
    """Source: draft-connolly-cfrg-xwing-kem-10, 5.4."""

    def __init__(self, raw: bytes) -> None:
        _need_ml_kem()
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PublicKey  # noqa: PLC0415

        self.raw = raw
        self._ml_kem: MLKEM768PublicKey = MLKEM768PublicKey.from_public_bytes(raw[:_ML_KEM_PUBLIC])
        self._x25519 = X25519PublicKey.from_public_bytes(raw[_ML_KEM_PUBLIC:])

    def encapsulate(self, random: RandomBytes) -> tuple[bytes, bytes]:
        """Return a shared secret, and the ciphertext that carries it."""
        ephemeral = X25519PrivateKey.from_private_bytes(random(_X25519_SIZE))
        first, ciphertext = self._ml_kem.encapsulate()
        sent = ephemeral.public_key().public_bytes_raw()
        second = ephemeral.exchange(self._x25519)
        return _x_wing_secret(first, second, sent, self.raw[_ML_KEM_PUBLIC:]), ciphertext + sent


class _XWingPrivate:
    """Source: draft-connolly-cfrg-xwing-kem-10, 5.2 and 5.5."""

    def __init__(self, seed: bytes) -> None:
        _need_ml_kem()
        from cryptography.hazmat.primitives.asymmetric.mlkem import MLKEM768PrivateKey  # noqa: PLC0415

        digest = Hash(SHAKE256(96))
        digest.update(seed)
        expanded = digest.finalize()
        self.seed = seed
        self._ml_kem: MLKEM768PrivateKey = MLKEM768PrivateKey.from_seed_bytes(expanded[:64])
        self._x25519 = X25519PrivateKey.from_private_bytes(expanded[64:])
        self.public_raw = (
            self._ml_kem.public_key().public_bytes_raw() + self._x25519.public_key().public_bytes_raw()
        )

    def decapsulate(self, ciphertext: bytes) -> bytes:
        """Return the shared secret. Another ciphertext of the right size gives another one, not an error."""
        sent = ciphertext[_ML_KEM_CIPHERTEXT:]
        first = self._ml_kem.decapsulate(ciphertext[:_ML_KEM_CIPHERTEXT])
        second = self._x25519.exchange(X25519PublicKey.from_public_bytes(sent))
        return _x_wing_secret(first, second, sent, self.public_raw[_ML_KEM_PUBLIC:])


def _x_wing_secret(first: bytes, second: bytes, sent: bytes, public: bytes) -> bytes:
    """Combine both secrets; the ciphertext of ML-KEM is bound by its own construction. Source: the draft, 5.3."""
    digest = Hash(SHA3_256())
    digest.update(first + second + sent + public + _X_WING_LABEL)
    return digest.finalize()


def _ephemeral_p256(random: RandomBytes) -> EllipticCurvePrivateKey:
    while True:
        number = int.from_bytes(random(32), "big")
        if 0 < number < _P256_ORDER:
            return derive_private_key(number, SECP256R1())


def _compressed(key: EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.CompressedPoint)


def _wrapping_key(secret: bytes, sent: bytes, public: bytes, context: bytes) -> bytes:
    """Derive the key that wraps. Source: SPEC.md 6.3; RFC 9053 5.1 and 5.2, COSE_KDF_Context."""
    parties = b"".join(head(4, 3) + b"\xf6\xf6" + head(2, len(key)) + key for key in (sent, public))
    supplied = head(4, 3) + head(0, 256) + head(2, 0) + head(2, len(context)) + context
    return crypto.derive(secret, head(4, 4) + head(1, -1 - _A256KW) + parties + supplied)


_OAEP: Final = OAEP(mgf=MGF1(SHA256()), algorithm=SHA256(), label=None)

_PublicKey: TypeAlias = RSAPublicKey | EllipticCurvePublicKey | X25519PublicKey | _XWingPublic
_PrivateKey: TypeAlias = RSAPrivateKey | EllipticCurvePrivateKey | X25519PrivateKey | _XWingPrivate


def _known(key: Any, what: str) -> Any:
    """Return *key* where it is of a kind that wraps."""
    if isinstance(key, (RSAPublicKey, RSAPrivateKey)):
        if not 2048 <= key.key_size <= 8192:  # noqa: PLR2004 - as the text says
            raise ConfigError(f"{what}: an RSA key of {key.key_size} bits, where 2048 to 8192 are needed")
        return key
    if isinstance(key, (EllipticCurvePublicKey, EllipticCurvePrivateKey)) and isinstance(
        key.curve, SECP256R1
    ):
        return key
    if isinstance(key, (X25519PublicKey, X25519PrivateKey, _XWingPublic, _XWingPrivate)):
        return key
    kind = type(key).__name__.removesuffix("PublicKey").removesuffix("PrivateKey")
    if isinstance(key, (EllipticCurvePublicKey, EllipticCurvePrivateKey)):
        kind = key.curve.name
    raise ConfigError(f"{what}: a key of kind {kind}, where RSA, P-256, X25519 or X-Wing is needed")


# -- the public part ---------------------------------------------------------------------------------------------------


class RecipientKey:
    """The public key of a recipient: wraps for it, and opens nothing.

    Attributes:
        algorithm: How it wraps. Source: SPEC.md 10.3.
        fingerprint: SHA-256 of its SubjectPublicKeyInfo, 32 bytes.
        key_id: Its kid in envelopes: the first 8 bytes of that.
        kind: ``rsa-3072``, ``p-256``, ``x25519``, ``x-wing``.
        name: Whose it is, for people: the subject of a certificate.
        not_before, not_after: When it may wrap: seconds since the epoch.
    """

    __slots__ = (
        "_key",
        "_spki",
        "algorithm",
        "fingerprint",
        "key_id",
        "kind",
        "name",
        "not_after",
        "not_before",
    )

    def __init__(
        self,
        key: _PublicKey,
        *,
        name: str = "",
        not_before: float = 0.0,
        not_after: float = float("inf"),
    ) -> None:
        self._key: _PublicKey = _known(key, name or "a recipient's key")
        if isinstance(key, _XWingPublic):
            self._spki = _X_WING_SPKI + key.raw
        else:
            self._spki = key.public_bytes(Encoding.DER, PublicFormat.SubjectPublicKeyInfo)
        self.kind, self.algorithm = _kind_of(key)
        self.fingerprint = crypto.sha256(self._spki)
        self.key_id = self.fingerprint[:KEY_ID_SIZE]
        self.name, self.not_before, self.not_after = name, not_before, not_after

    def __repr__(self) -> str:
        return f"<RecipientKey {self.kind} {self.key_id.hex()}{' of ' + self.name if self.name else ''}>"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, RecipientKey) and other.fingerprint == self.fingerprint

    def __hash__(self) -> int:
        return hash(self.fingerprint)

    @classmethod
    def from_pem(
        cls,
        pem: bytes | str,
        *,
        roots: bytes | str | None = None,
        name: str = "",
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Read a bare public key (``PUBLIC KEY``) or a certificate, followed by those that lead to a root.

        Args:
            pem: Either of them.
            roots: Certificates in PEM of the authorities that must vouch for it; None where this very certificate is trusted.
            name: Whose key it is; of a certificate, its subject says so.
            clock: Seconds since the epoch.

        Raises:
            ConfigError: It cannot be read, is of a wrong kind or usage, has expired, or no root vouches for it.
        """
        data = pem.encode() if isinstance(pem, str) else pem
        if b"BEGIN CERTIFICATE" in data:
            return cls._from_chain(certificates.read(data, name or "certificate"), roots, clock())
        if roots is not None:
            raise ConfigError(f"{name or 'a recipient'}: roots vouch for certificates, not for a bare key")
        what = name or "a recipient's key"
        if b"PRIVATE KEY" in data:
            raise ConfigError(f"{what}: this is a private key; a recipient is known by its public one")
        if (raw := _x_wing_in(data, "PUBLIC KEY", _X_WING_SPKI, _X_WING_PUBLIC)) is not None:
            return cls(_x_wing_public(raw, what), name=name)
        try:
            return cls(_known(serialization.load_pem_public_key(data), what), name=name)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{what}: {error}") from None

    @classmethod
    def from_der(cls, der: bytes, *, name: str = "") -> Self:
        """Read a bare public key of its SubjectPublicKeyInfo in DER.

        Raises:
            ConfigError: It cannot be read, or is of a wrong kind.
        """
        what = name or "a recipient's key"
        try:
            return cls(_known(serialization.load_der_public_key(der), what), name=name)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{what}: {error}") from None

    @classmethod
    def from_rsa(
        cls,
        modulus: bytes,
        exponent: bytes,
        *,
        name: str = "",
        valid: tuple[float, float] = (0.0, float("inf")),
    ) -> Self:
        """Make the recipient of an RSA key by its numbers, big-endian; *valid* says from when to when it may wrap.

        Raises:
            ConfigError: There is no such key.
        """
        what = name or "a recipient's key"
        try:
            key = RSAPublicNumbers(
                int.from_bytes(exponent, "big"), int.from_bytes(modulus, "big")
            ).public_key()
        except ValueError as error:
            raise ConfigError(f"{what}: {error}") from None
        return cls(key, name=name, not_before=valid[0], not_after=valid[1])

    @classmethod
    def _from_chain(cls, chain: Any, roots: bytes | str | None, at: float) -> Self:
        own = chain[0]
        subject = certificates.subject_of(own)
        certificates.check_window(own, at)
        if roots is not None:
            trusted = certificates.read(roots.encode() if isinstance(roots, str) else roots, "roots")
            certificates.check_chain(chain, trusted, at)
        try:
            key = _known(own.public_key(), subject)
        except (ValueError, UnsupportedAlgorithm) as error:
            raise error if isinstance(error, ConfigError) else ConfigError(f"{subject}: {error}") from None
        certificates.check_usage(
            own, "key_encipherment" if isinstance(key, RSAPublicKey) else "key_agreement"
        )
        begins, ends = certificates.window(own)
        return cls(key, name=subject, not_before=begins, not_after=ends)

    @classmethod
    def from_file(
        cls,
        path: str | os.PathLike[str],
        *,
        roots: str | os.PathLike[str] | None = None,
        clock: Callable[[], float] = time.time,
    ) -> Self:
        """Read what `from_pem` reads, from files."""
        return cls.from_pem(
            _content(path),
            roots=None if roots is None else _content(roots),
            name=Path(path).name,
            clock=clock,
        )

    def to_pem(self) -> bytes:
        """Return the bare public key in PEM, without what a certificate said of it."""
        return _pem("PUBLIC KEY", self._spki)

    def wrap(self, data_key: bytes, context: bytes, *, random: RandomBytes = crypto.random_bytes) -> bytes:
        """Wrap *data_key* so that only the private key opens it, and only for *context*."""
        key = self._key
        if isinstance(key, RSAPublicKey):
            return key.encrypt(data_key, _OAEP) + crypto.derive(data_key, context, _TAG_SIZE)
        if isinstance(key, _XWingPublic):
            secret, sent = key.encapsulate(random)
            return sent + aes_key_wrap(_wrapping_key(secret, sent, key.raw, context), data_key)
        if isinstance(key, X25519PublicKey):
            ephemeral = X25519PrivateKey.from_private_bytes(random(_X25519_SIZE))
            sent, public = ephemeral.public_key().public_bytes_raw(), key.public_bytes_raw()
            secret = ephemeral.exchange(key)
        else:
            once = _ephemeral_p256(random)
            sent, public = _compressed(once.public_key()), _compressed(key)
            secret = once.exchange(ECDH(), key)
        return sent + aes_key_wrap(_wrapping_key(secret, sent, public, context), data_key)


def _kind_of(key: _PublicKey) -> tuple[str, int]:
    if isinstance(key, RSAPublicKey):
        return f"rsa-{key.key_size}", RSA_OAEP_256
    if isinstance(key, _XWingPublic):
        return "x-wing", X_WING_A256KW
    return ("x25519" if isinstance(key, X25519PublicKey) else "p-256"), ECDH_ES_A256KW


def _x_wing_public(raw: bytes, what: str) -> _XWingPublic:
    try:
        return _XWingPublic(raw)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"{what}: {error}") from None


# -- the private part --------------------------------------------------------------------------------------------------


class OpeningKey:
    """The private key of a recipient: unwraps what was wrapped for its public part. Does not show in `repr`, and does not pickle.

    Attributes:
        public: Its public part.
    """

    __slots__ = ("_key", "public")

    def __init__(self, key: _PrivateKey, *, name: str = "") -> None:
        self._key: _PrivateKey = _known(key, name or "an opening key")
        public = _XWingPublic(key.public_raw) if isinstance(key, _XWingPrivate) else key.public_key()
        self.public = RecipientKey(public, name=name)

    def __repr__(self) -> str:
        return f"<OpeningKey {self.public.kind} {self.public.key_id.hex()}>"

    def __reduce__(self) -> str:
        raise TypeError("a key is not for pickling")

    @classmethod
    def generate(cls, kind: str = "x25519") -> Self:
        """Make a new key pair of one of `KINDS`.

        Raises:
            ConfigError: No such kind, or X-Wing where `cryptography` has no ML-KEM.
        """
        if kind == "rsa-3072":
            return cls(generate_private_key(public_exponent=65537, key_size=3072))
        if kind == "p-256":
            return cls(_ephemeral_p256(crypto.random_bytes))
        if kind in {"x25519", "x-wing"}:
            return cls.from_seed(crypto.random_bytes(_X_WING_SEED), kind)
        raise ConfigError(f"there is no kind of key {kind!r}{nearest(kind, KINDS)}")

    @classmethod
    def from_seed(cls, seed: bytes, kind: str = "x25519", *, name: str = "") -> Self:
        """Make the key pair of ``x25519`` or ``x-wing`` whose private key is *seed*: 32 bytes, which shares are made of.

        Raises:
            ConfigError: Another kind or size.
        """
        if len(seed) != _X_WING_SEED:
            raise ConfigError(f"a private key of {len(seed)} bytes, where {_X_WING_SEED} are needed")
        if kind == "x25519":
            return cls(X25519PrivateKey.from_private_bytes(seed), name=name)
        if kind == "x-wing":
            return cls(_XWingPrivate(seed), name=name)
        raise ConfigError(f"no seed makes a key of kind {kind!r}; x25519 and x-wing have one")

    @classmethod
    def from_pem(cls, pem: bytes | str, password: Password = None, *, name: str = "") -> Self:
        """Read a private key: PKCS #8 in PEM, encrypted or not, or what OpenSSL wrote before it.

        Raises:
            ConfigError: It cannot be read, the password is wrong, missing or superfluous, or it is of a wrong kind.
        """
        data = pem.encode() if isinstance(pem, str) else pem
        what = name or "an opening key"
        if (seed := _x_wing_in(data, "PRIVATE KEY", _X_WING_PKCS8, _X_WING_SEED)) is not None:
            return cls.from_seed(seed, "x-wing", name=name)
        try:
            key = serialization.load_pem_private_key(data, _secret(password))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            # The texts of the library speak of formats and passwords, and quote neither.
            raise ConfigError(f"{what}: {error}") from None
        return cls(_known(key, what), name=name)

    @classmethod
    def from_pkcs12(cls, data: bytes, password: Password = None, *, name: str = "") -> Self:
        """Read the private key of a PKCS #12 file.

        Raises:
            ConfigError: As for `from_pem`, or there is no private key in it.
        """
        what = name or "an opening key"
        try:
            key, _, _ = pkcs12.load_key_and_certificates(data, _secret(password))
        except (ValueError, TypeError, UnsupportedAlgorithm) as error:
            raise ConfigError(f"{what}: {error}") from None
        if key is None:
            raise ConfigError(f"{what}: no private key in it")
        return cls(_known(key, what), name=name)

    @classmethod
    def from_file(cls, path: str | os.PathLike[str], password: Password = None) -> Self:
        """Read a private key from a file: PEM or PKCS #12.

        Raises:
            ConfigError: As for the two, or a file without a password that every user of this machine can read.
        """
        data = _content(path)
        name = Path(path).name
        if password is None and os.name == "posix" and Path(path).stat().st_mode & 0o007:
            raise ConfigError(f"{path} is open to other users: chmod 600 {path}")
        read = cls.from_pem if b"-----BEGIN" in data else cls.from_pkcs12
        return read(data, password, name=name)

    @property
    def seed(self) -> bytes:
        """The 32 bytes that `from_seed` makes this key of.

        Raises:
            ConfigError: It is not of a kind that has a seed.
        """
        if isinstance(self._key, _XWingPrivate):
            return self._key.seed
        if isinstance(self._key, X25519PrivateKey):
            return self._key.private_bytes_raw()
        raise ConfigError(f"a key of kind {self.public.kind} has no seed; x25519 and x-wing have one")

    def to_pem(self, password: Password = None) -> bytes:
        """Return the private key as PKCS #8 in PEM, encrypted where there is a *password*.

        Raises:
            ConfigError: A password for X-Wing, which PKCS #8 of `cryptography` does not know.
        """
        secret = _secret(password)
        if isinstance(self._key, _XWingPrivate):
            if secret is not None:
                raise ConfigError("an X-Wing key cannot be written with a password: split it into shares")
            return _pem("PRIVATE KEY", _X_WING_PKCS8 + self._key.seed)
        how = serialization.BestAvailableEncryption(secret) if secret else serialization.NoEncryption()
        return self._key.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, how)

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Unwrap a data key that was wrapped for this key and *context*.

        Raises:
            KeyBroken: It was not, or was changed.
        """
        try:
            return self._unwrapped(wrapped, context)
        except (ValueError, InvalidUnwrap):
            raise KeyBroken("the wrapped key was changed, or is of another context") from None

    def _unwrapped(self, wrapped: bytes, context: bytes) -> bytes:
        key = self._key
        if isinstance(key, RSAPrivateKey):
            return self._by_rsa(key, wrapped, context)
        sent, inner = wrapped[:-_WRAPPED_SIZE], wrapped[-_WRAPPED_SIZE:]
        sizes = {"x-wing": _X_WING_CIPHERTEXT, "x25519": _X25519_SIZE, "p-256": _P256_POINT}
        if len(sent) != sizes[self.public.kind]:
            raise ValueError("size")
        if isinstance(key, _XWingPrivate):
            secret, public = key.decapsulate(sent), key.public_raw
        elif isinstance(key, X25519PrivateKey):
            secret = key.exchange(X25519PublicKey.from_public_bytes(sent))
            public = key.public_key().public_bytes_raw()
        else:
            # Refuses what is not on the curve.
            secret = key.exchange(ECDH(), EllipticCurvePublicKey.from_encoded_point(SECP256R1(), sent))
            public = _compressed(key.public_key())
        return aes_key_unwrap(_wrapping_key(secret, sent, public, context), inner)

    @staticmethod
    def _by_rsa(key: RSAPrivateKey, wrapped: bytes, context: bytes) -> bytes:
        if len(wrapped) != key.key_size // 8 + _TAG_SIZE:
            raise ValueError("size")
        data_key = key.decrypt(wrapped[:-_TAG_SIZE], _OAEP)
        # Whoever has the public key can wrap what is no data key.
        right = len(data_key) == DATA_KEY_SIZE and crypto.equal(
            crypto.derive(data_key, context, _TAG_SIZE), wrapped[-_TAG_SIZE:]
        )
        if right:
            return data_key
        del data_key  # a traceback shows the locals of its frames to whoever asks
        raise ValueError("tag")


# -- files -------------------------------------------------------------------------------------------------------------


def _content(path: str | os.PathLike[str]) -> bytes:
    try:
        return Path(path).read_bytes()
    except OSError as error:
        raise ConfigError(f"{os.fspath(path)!r} cannot be read: {error.strerror}") from None


def _secret(password: Password) -> bytes | None:
    given = password() if callable(password) else password
    return given.encode() if isinstance(given, str) else given


def _pem(label: str, der: bytes) -> bytes:
    import base64  # noqa: PLC0415 - for who writes keys
    import textwrap  # noqa: PLC0415

    lines = textwrap.wrap(base64.b64encode(der).decode(), 64)
    return "\n".join([f"-----BEGIN {label}-----", *lines, f"-----END {label}-----", ""]).encode()


def _x_wing_in(pem: bytes, label: str, prefix: bytes, size: int) -> bytes | None:
    """Return the raw X-Wing key of *pem*; None where there is none, and `cryptography` may know better."""
    import base64  # noqa: PLC0415
    import binascii  # noqa: PLC0415

    _, found, rest = pem.partition(f"-----BEGIN {label}-----".encode())
    text, ended, _ = rest.partition(f"-----END {label}-----".encode())
    if not found or not ended:
        return None
    try:
        der = base64.b64decode(b"".join(text.split()), validate=True)
    except (binascii.Error, ValueError):
        return None
    return der[len(prefix) :] if der.startswith(prefix) and len(der) == len(prefix) + size else None
