"""What a vault says of keys: the version that wraps or signs, and what it unwrapped or signed. Nothing of it is believed unseen.

Source: Azure Key Vault REST API: KeyBundle, KeyOperationResult; RFC 7517 and 7518 for the key itself.
"""

from __future__ import annotations

import base64
import binascii
import re
from collections.abc import Callable
from typing import Any, Final, NamedTuple

from postseal.core import crypto
from postseal.core.crypto import DATA_KEY_SIZE
from postseal.core.errors import ConfigError, KeyBroken, KeyRefused, KeyUnavailable, NotMine
from postseal.core.publickeys import RecipientKey

__all__ = [
    "A256KW",
    "NAMES",
    "OVERHEAD",
    "RSA_OAEP_256",
    "SIZES",
    "WrappingKey",
    "data_key_of",
    "encode",
    "recipient_of",
    "secret_of",
    "signature_of",
    "signing_key_of",
    "versioned",
    "wrapped_of",
    "wrapping_key_of",
]

RSA_OAEP_256: Final = -41
A256KW: Final = -5
NAMES: Final = {RSA_OAEP_256: "RSA-OAEP-256", A256KW: "A256KW"}
# An RSA modulus of 2048, 3072 or 4096 bits; RFC 3394 adds 8 bytes to what it wraps.
SIZES: Final = {RSA_OAEP_256: (256, 384, 512), A256KW: (DATA_KEY_SIZE + 8,)}
OVERHEAD: Final = 66
"""Bytes of a modulus that OAEP with SHA-256 takes for itself. Source: RFC 8017 7.1.1, 2 hLen + 2."""
_SIGNATURE_SIZE: Final = 64
_VERSIONED: Final = re.compile(
    r"(?P<vault>https://[a-z0-9.-]+(:\d+)?)/keys/(?P<name>[a-z0-9-]{1,127})/(?P<version>[0-9a-f]{32})/?",
    re.IGNORECASE,
)
_VERSION: Final = re.compile(r"[0-9a-f]{32}")


class WrappingKey(NamedTuple):
    """The newest version of a key, as it was fetched."""

    version: str
    algorithm: int
    encrypt: Callable[[bytes], bytes] | None
    """Wraps here, with the public part; None where the vault has to."""
    not_before: float
    expires: float
    """Seconds since the epoch."""
    operations: tuple[str, ...] = ()
    """What it may be used for; nothing where the vault does not say."""
    most: int = 0
    """Bytes that it encrypts at most, with RSA."""


def wrapping_key_of(answer: dict[str, Any], name: str, where: str) -> WrappingKey:
    """Return the version that wraps, of the answer to Get Key for *name*.

    Raises:
        KeyUnavailable: The answer is none.
        KeyRefused: It is of another key, or of one that cannot wrap.
    """
    key, attributes = _bundle(answer, where)
    head, _, version = str(key.get("kid", "")).rpartition("/")
    if _VERSION.fullmatch(version) is None or not head.lower().endswith(f"/keys/{name}".lower()):
        raise KeyRefused(f"{where}: an answer for another key, or for none")
    # The vault says so where it wraps; here, nobody else would.
    if attributes.get("enabled") is False:
        raise KeyRefused(f"{where}: version {version} is disabled")
    operations = key.get("key_ops")
    uses = tuple(map(str, operations)) if isinstance(operations, list) else ()
    kind = str(key.get("kty", "none"))
    times = _seconds(attributes.get("nbf"), 0.0), _seconds(attributes.get("exp"), float("inf"))
    if kind.startswith("oct"):
        return WrappingKey(version, A256KW, None, *times, uses)
    if not kind.startswith("RSA"):
        raise KeyRefused(f"{where}: a key of kind {kind[:16]}, where RSA or oct-HSM is needed")
    try:
        modulus = decode(key.get("n", ""))
        encrypt = crypto.rsa_oaep_sha256(modulus, decode(key.get("e", "")))
    except ValueError as error:
        raise KeyRefused(f"{where}: {error}") from None
    return WrappingKey(version, RSA_OAEP_256, encrypt, *times, uses, len(modulus.lstrip(b"\0")) - OVERHEAD)


def signing_key_of(answer: dict[str, Any], name: str, version: str, where: str) -> crypto.P256PublicKey:
    """Return the public half of the answer to Get Key for that *version* of *name*.

    Raises:
        KeyUnavailable: The answer is none.
        KeyRefused: It is of another key, of one that is disabled, or of one that does not sign on P-256.
    """
    key, attributes = _bundle(answer, where)
    if not _is_of(key, name, version):
        raise KeyRefused(f"{where}: an answer for another key, or for none")
    if attributes.get("enabled") is False:
        raise KeyRefused(f"{where}: it is disabled")
    # An expired one signs no more, as the vault sees to; what it signed goes on to verify there, and here.
    if str(key.get("kty", "none")) not in ("EC", "EC-HSM") or key.get("crv") != "P-256":
        raise KeyRefused(f"{where}: a key of another kind, where EC or EC-HSM on P-256 is needed")
    operations = key.get("key_ops")
    if isinstance(operations, list) and operations and not {"sign", "verify"}.intersection(operations):
        raise KeyRefused(f"{where}: the key is not for signatures")
    try:
        return crypto.p256_of_point(decode(key.get("x", "")), decode(key.get("y", "")))
    except ValueError:
        raise KeyUnavailable(f"{where}: an answer with no point on P-256") from None


def recipient_of(answer: dict[str, Any], name: str, version: str, where: str) -> RecipientKey:
    """Return the recipient of the answer to Get Key for that *version* of *name*; it wraps while the version is valid.

    Raises:
        KeyUnavailable: The answer is none.
        KeyRefused: It is of another key, or of one that is disabled or cannot unwrap.
    """
    key, attributes = _bundle(answer, where)
    if not _is_of(key, name, version):
        raise KeyRefused(f"{where}: an answer for another key, or for none")
    if attributes.get("enabled") is False:
        raise KeyRefused(f"{where}: it is disabled")
    operations = key.get("key_ops")
    if not str(key.get("kty", "none")).startswith("RSA") or (
        isinstance(operations, list) and operations and "unwrapKey" not in operations
    ):
        raise KeyRefused(f"{where}: it is no RSA key for unwrapKey")
    times = _seconds(attributes.get("nbf"), 0.0), _seconds(attributes.get("exp"), float("inf"))
    try:
        return RecipientKey.from_rsa(
            decode(key.get("n", "")), decode(key.get("e", "")), name=where, valid=times
        )
    except ConfigError as error:
        raise KeyRefused(f"{where}: {error}") from None


def versioned(key: str, vault: str) -> tuple[str, str]:
    """Return name and version of the identifier *key*, seen to be of *vault*.

    Raises:
        ConfigError: It is none, has no version, or is of another vault.
    """
    match = _VERSIONED.fullmatch(key)
    if match is None:
        raise ConfigError(
            f"key must be https://VAULT/keys/NAME/VERSION, not {key!r}: each version is a key of its own"
        )
    if _address(match["vault"]) != _address(vault):
        raise ConfigError(f"key is of {match['vault']}, but the client is of {vault}: {key!r}")
    return match["name"], match["version"].lower()


def _address(vault: str) -> str:
    return vault.rstrip("/").removesuffix(":443").lower()


def _bundle(answer: dict[str, Any], where: str) -> tuple[dict[str, Any], dict[str, Any]]:
    key, attributes = answer.get("key"), answer.get("attributes") or {}
    if not isinstance(key, dict) or not isinstance(attributes, dict):
        raise KeyUnavailable(f"{where}: an answer without a key")
    return key, attributes


def signature_of(answer: dict[str, Any], name: str, version: str) -> bytes:
    """Return what Sign answered: r and s, 64 bytes.

    Raises:
        KeyUnavailable: It is half an answer, or of another key.
    """
    signature = decode(answer.get("value", ""))
    if not _is_of(answer, name, version) or len(signature) != _SIGNATURE_SIZE:
        raise KeyUnavailable(
            f"Azure Key Vault sign on {name}: an answer of another key, or of {len(signature)} bytes"
        )
    return signature


def wrapped_of(answer: dict[str, Any], algorithm: int, name: str, version: str) -> bytes:
    """Return what Wrap Key answered, seen to be of the key that was asked and of the right size.

    Raises:
        KeyRefused: It is not: what it is nobody might unwrap.
    """
    wrapped = decode(answer.get("value", ""))
    if not _is_of(answer, name, version) or len(wrapped) not in SIZES[algorithm]:
        raise KeyRefused(
            f"Azure Key Vault wrapKey on {name}: an answer of another key, or of {len(wrapped)} bytes"
        )
    return wrapped


def data_key_of(answer: dict[str, Any], name: str, version: str) -> bytes:
    """Return the data key that Unwrap Key answered, likewise.

    Raises:
        KeyUnavailable: It is half an answer, which says nothing about the message.
        NotMine: The answer is of another key.
        KeyBroken: It is no data key.
    """
    data_key = secret_of(answer, "unwrapKey", name, version)
    size = len(data_key)
    if size == DATA_KEY_SIZE:
        return data_key
    del data_key
    # Whoever has the public key can wrap what is no data key.
    raise KeyBroken(f"a wrapped key of {size} bytes, where a data key has {DATA_KEY_SIZE}")


def secret_of(answer: dict[str, Any], operation: str, name: str, version: str) -> bytes:
    """Return what Decrypt or Unwrap Key answered, seen to be of the key that was asked.

    Raises:
        KeyUnavailable: It is half an answer, which says nothing about the message.
        NotMine: The answer is of another key.
    """
    if not answer.get("kid") or not isinstance(answer.get("value"), str):
        raise KeyUnavailable(f"Azure Key Vault {operation} on {name}: half an answer")
    secret = decode(answer.pop("value", ""))
    if _is_of(answer, name, version):
        return secret
    del secret
    raise NotMine(f"the wrapped key was unwrapped by another key than {name}/{version}")


def _is_of(answer: dict[str, Any], name: str, version: str) -> bool:
    return str(answer.get("kid", "")).lower().endswith(f"/keys/{name}/{version}".lower())


def encode(value: bytes) -> str:
    """Return *value* in base64url, without padding."""
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def decode(value: object) -> bytes:
    """Undo base64url, with or without padding; what is none is empty."""
    text = str(value).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _seconds(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise
