"""Wrapping keys in Azure Key Vault and Managed HSM: they never leave it, its roles say who may unwrap, its logs record who did.

With an RSA key, a data key is made and wrapped here with the public part, which is fetched now and then; the vault is asked to unwrap, by
the key **version** that wrapped. With a symmetric key of a Managed HSM, the HSM wraps, too. A vault knows no encryption context:
policy and destination are bound by a tag of ours beside the wrapped key, and its roles cannot tell them apart.

Source: SPEC.md 6.2 and 6.3; Azure Key Vault REST API: Get Key, Wrap Key, Unwrap Key.
"""

from __future__ import annotations

import base64
import binascii
import re
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final, NamedTuple

from postseal.core import crypto
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    NotMine,
    nearest,
)
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._azure_rest import Vault
from postseal.core.providers._binding import TAG_SIZE, check_tag, tag

try:
    from azure.keyvault.keys import KeyClient
except ImportError as missing:
    raise MissingExtraError.naming("azure", __name__, missing) from missing

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from postseal.core.providers._azure_rest import AnyKeyClient

__all__ = ["A256KW", "RSA_OAEP_256", "AzureKeyVault", "key_id_of"]

RSA_OAEP_256: Final = -41
A256KW: Final = -5
_NAMES: Final = {RSA_OAEP_256: "RSA-OAEP-256", A256KW: "A256KW"}
# An RSA modulus of 2048, 3072 or 4096 bits; RFC 3394 adds 8 bytes to what it wraps.
_SIZES: Final = {RSA_OAEP_256: (256, 384, 512), A256KW: (DATA_KEY_SIZE + 8,)}

_PREFIX_SIZE: Final = 8
_IDENTIFIER: Final = re.compile(
    r"(?P<vault>https://[a-z0-9.-]+(:\d+)?)/keys/(?P<name>[a-z0-9-]{1,127})/?", re.IGNORECASE
)
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,127}")
_VERSION: Final = re.compile(r"[0-9a-f]{32}")

_DEFAULTS: Final = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 3}
_OPTIONS: Final = frozenset(
    {
        *("api_version", "verify_challenge_resource", "transport", "logging_enable", "user_agent"),
        *("connection_timeout", "read_timeout", "connection_verify", "connection_cert", "proxies"),
        *(
            "retry_total",
            "retry_connect",
            "retry_read",
            "retry_status",
            "retry_backoff_factor",
            "retry_backoff_max",
        ),
        *("retry_mode", "per_call_policies", "per_retry_policies", "additionally_allowed_tenants"),
    }
)
"""What `AzureKeyVault.connect` hands on. The SDK itself takes any name, and a mistyped one does nothing."""


def key_id_of(identifier: str) -> bytes:
    """Return how the kid of envelopes begins for the key ``https://VAULT/keys/NAME``: 8 bytes. Source: SPEC.md 6.3."""
    match = _IDENTIFIER.fullmatch(identifier)
    if match is None:
        raise ConfigError(f"not the identifier of a key, without a version: {identifier!r}")
    # Both are the same in capitals and small letters.
    canonical = f"{match['vault'].removesuffix(':443')}/keys/{match['name']}".lower()
    return sha256(canonical.encode()).digest()[:_PREFIX_SIZE]


class _WrappingKey(NamedTuple):
    """The newest version of a key, as it was fetched."""

    version: str
    algorithm: int
    encrypt: Callable[[bytes], bytes] | None
    """Wraps here, with the public part; None where the vault has to."""
    not_before: float
    expires: float
    """Seconds since the epoch."""


class AzureKeyVault:
    """Key provider on a key of Azure Key Vault or Managed HSM.

    Args:
        client: ``azure.keyvault.keys.KeyClient``, or that of ``azure.keyvault.keys.aio``, made by the caller: credential, transport,
            timeouts, retries and API version are its own. Give it short timeouts: messages wait for it. The asyncio one serves
            ``Sealer.aseal`` and ``aopen`` on the loop where this provider is made, and on no other.
        key: The key that wraps: its name, or its identifier ``https://VAULT/keys/NAME``, without a version. The newest version wraps, all
            that are enabled unwrap. RSA of 2048 bits and more, or ``oct-HSM`` of 256.
        also_open: Names or identifiers of further keys of the same vault that may unwrap. They are not used to wrap.
        refresh: Seconds for which a fetched key wraps. A new version wraps, and a disabled one ends, within this and the age of a data key.

    Raises:
        ConfigError: No such key can be, it is of another vault than the client, or the client is none.
    """

    def __init__(
        self,
        client: AnyKeyClient,
        key: str,
        *,
        also_open: Iterable[str] = (),
        refresh: float = 300.0,
        random: RandomBytes = crypto.random_bytes,
        monotonic: Callable[[], float] = time.monotonic,
        clock: Callable[[], float] = time.time,
    ) -> None:
        if isinstance(also_open, str):
            raise ConfigError(f"also_open must be a list of keys, not one text: [{also_open!r}]")
        if not isinstance(refresh, (int, float)) or not refresh > 0:
            raise ConfigError(f"refresh must be seconds, over 0: {refresh!r}")
        self._vault = Vault(client)
        self._name = self._checked(key, "key")
        self._prefix = self._prefix_of(self._name)
        self._ours = {
            self._prefix_of(name): name for name in (self._checked(n, "also_open") for n in also_open)
        }
        self._ours[self._prefix] = self._name
        self._refresh = refresh
        self._random, self._monotonic, self._clock = random, monotonic, clock
        self._lock = ForkSafeLock()
        self._key: _WrappingKey | None = None
        self._fresh_until = 0.0
        self._failure: KeyUnavailable | KeyRefused | None = None

    def __repr__(self) -> str:
        return f"<AzureKeyVault {self._vault.url}/keys/{self._name}>"

    @classmethod
    def connect(
        cls,
        vault_url: str,
        key: str,
        credential: TokenCredential,
        *,
        also_open: Iterable[str] = (),
        refresh: float = 300.0,
        **options: Any,
    ) -> AzureKeyVault:
        """Make a `KeyClient` with short timeouts, and the provider on it.

        Args:
            vault_url: ``https://NAME.vault.azure.net`` or ``https://NAME.managedhsm.azure.net``.
            key: As for the class.
            credential: Of ``azure.identity``, say.
            also_open: As for the class.
            refresh: As for the class.
            **options: For the client: ``api_version``, ``verify_challenge_resource``, ``transport``, ``connection_verify``, ``proxies``,
                ``retry_total`` ...

        Raises:
            ConfigError: An option that the client does not know, or as for the class.
        """
        for option in options:
            if option not in _OPTIONS:
                raise ConfigError(
                    f"AzureKeyVault.connect has no option {option!r}{nearest(option, _OPTIONS)}"
                )
        try:
            client = KeyClient(vault_url, credential, **{**_DEFAULTS, **options})
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(f"AzureKeyVault.connect: {error}") from error
        return cls(client, key, also_open=also_open, refresh=refresh)

    def generate(self, context: KeyContext) -> NewDataKey:
        """Make a data key from the operating system's randomness, and wrap it: no call with an RSA key that was fetched lately."""
        data_key = self._random(DATA_KEY_SIZE)
        return NewDataKey(data_key, self.wrap(data_key, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Wrap *data_key* with the newest version: here with an RSA key; by one call of Wrap Key with a symmetric one."""
        try:
            self._vault.refuse_to_block_its_loop()
            key = self._usable(self._newest())
            wrapped = key.encrypt(data_key) if key.encrypt else self._wrap_there(key, data_key)
            bound = wrapped + tag(data_key, context)
        finally:
            del data_key  # a traceback shows the locals of its frames to whoever asks
        return (Recipient(key.algorithm, self._prefix + bytes.fromhex(key.version), bound),)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Have the vault unwrap the recipient that names a key of ours: one call of Unwrap Key, with the version that it names.

        Raises:
            NotMine: None names a key of ours.
        """
        self._vault.refuse_to_block_its_loop()
        return first_that_opens(
            (
                partial(self._unwrap, self._ours[prefix], recipient, context)
                for prefix, recipient in self._named(recipients).items()
            ),
            f"no recipient is of {self._vault.url}/keys/{self._name}",
        )

    def _named(self, recipients: Sequence[Recipient]) -> dict[bytes, Recipient]:
        """Find the first recipient of each of our keys: a sealer makes one, and a forger's sixteen are not to cost sixteen calls."""
        named: dict[bytes, Recipient] = {}
        for recipient in recipients:
            prefix = recipient.key_id[:_PREFIX_SIZE]
            if (
                recipient.algorithm in _NAMES
                and prefix in self._ours
                and len(recipient.key_id) == _PREFIX_SIZE + 16
            ):
                named.setdefault(prefix, recipient)
        return named

    def _unwrap(self, name: str, recipient: Recipient, context: KeyContext) -> bytes:
        wrapped, claimed = recipient.wrapped_key[:-TAG_SIZE], recipient.wrapped_key[-TAG_SIZE:]
        if len(wrapped) not in _SIZES[recipient.algorithm]:
            raise KeyBroken(f"{len(recipient.wrapped_key)} bytes are no wrapped key of this kind")
        # Sixteen bytes, so that nothing but a version can come to stand in the address.
        version = recipient.key_id[_PREFIX_SIZE:].hex()
        answer = self._vault.unwrap(name, version, _NAMES[recipient.algorithm], _encode(wrapped))
        data_key = _believed(answer, name, version)
        del answer
        try:
            check_tag(data_key, context, claimed)
        except KeyBroken:
            del data_key  # likewise
            raise
        return data_key

    # -- the key that wraps ----------------------------------------------------------------------------------------

    def _newest(self) -> _WrappingKey:
        """Return the newest version, as of `refresh` ago at most.

        Past that, nothing is wrapped while the vault does not answer, though it could be: a data key that no consumer could have unwrapped
        would hold up what goes on with the old one, which they have.
        """
        seen = self._failure
        with self._lock:
            now = self._monotonic()
            if self._key is not None and now < self._fresh_until:
                return self._key
            if self._failure is not None and self._failure is not seen:
                # Told while we waited for the lock: all who wait at a time share one answer, and its wait.
                raise type(self._failure)(*self._failure.args)
            self._key = None
            try:
                self._key = self._fetched()
            except (KeyUnavailable, KeyRefused) as error:
                self._failure = type(error)(*error.args)
                raise
            self._fresh_until = now + self._refresh
            return self._key

    def _fetched(self) -> _WrappingKey:
        answer = self._vault.get(self._name)
        key, attributes = answer.get("key"), answer.get("attributes") or {}
        where = f"Azure Key Vault {self._vault.url}/keys/{self._name}"
        if not isinstance(key, dict) or not isinstance(attributes, dict):
            raise KeyUnavailable(f"{where}: an answer without a key")
        head, _, version = str(key.get("kid", "")).rpartition("/")
        if _VERSION.fullmatch(version) is None or not head.lower().endswith(f"/keys/{self._name}".lower()):
            raise KeyRefused(f"{where}: an answer for another key, or for none")
        # The vault says so where it wraps; here, nobody else would.
        if attributes.get("enabled") is False:
            raise KeyRefused(f"{where}: version {version} is disabled")
        operations = key.get("key_ops")
        if isinstance(operations, list) and operations and "wrapKey" not in operations:
            raise KeyRefused(f"{where}: the key is not for wrapKey")
        kind = str(key.get("kty", "none"))
        times = _seconds(attributes.get("nbf"), 0.0), _seconds(attributes.get("exp"), float("inf"))
        if kind.startswith("oct"):
            return _WrappingKey(version, A256KW, None, *times)
        if not kind.startswith("RSA"):
            raise KeyRefused(f"{where}: a key of kind {kind[:16]}, where RSA or oct-HSM is needed")
        try:
            encrypt = crypto.rsa_oaep_sha256(_decode(key.get("n", "")), _decode(key.get("e", "")))
        except ValueError as error:
            raise KeyRefused(f"{where}: {error}") from None
        return _WrappingKey(version, RSA_OAEP_256, encrypt, *times)

    def _usable(self, key: _WrappingKey) -> _WrappingKey:
        if not key.not_before <= self._clock() < key.expires:
            raise KeyRefused(
                f"Azure Key Vault {self._vault.url}/keys/{self._name}: version {key.version} is not valid now: "
                "expired, or not yet begun"
            )
        return key

    def _wrap_there(self, key: _WrappingKey, data_key: bytes) -> bytes:
        try:
            answer = self._vault.wrap(self._name, key.version, _NAMES[key.algorithm], _encode(data_key))
        finally:
            del data_key  # as in `wrap`
        wrapped = _decode(answer.get("value", ""))
        if len(wrapped) not in _SIZES[key.algorithm]:
            raise KeyRefused(f"Azure Key Vault wrapKey on {self._name}: an answer of {len(wrapped)} bytes")
        return wrapped

    # -- names -----------------------------------------------------------------------------------------------------

    def _checked(self, key: str, option: str) -> str:
        """Return the name of *key*, seen to be of the client's own vault."""
        if _NAME.fullmatch(key):
            return key
        match = _IDENTIFIER.fullmatch(key)
        if match is None:
            versioned = _IDENTIFIER.fullmatch(key.rstrip("/").rpartition("/")[0])
            advice = "; leave the version out: the newest wraps, all open" if versioned else ""
            raise ConfigError(
                f"{option} is neither the name of a key nor https://VAULT/keys/NAME: {key!r}{advice}"
            )
        if key_id_of(f"{match['vault']}/keys/x") != key_id_of(f"{self._vault.url}/keys/x"):
            raise ConfigError(
                f"{option} is of {match['vault']}, but the client is of {self._vault.url}: {key!r}; "
                "give each vault an AzureKeyVault with a client of its own, and combine them"
            )
        return match["name"]

    def _prefix_of(self, name: str) -> bytes:
        return key_id_of(f"{self._vault.url}/keys/{name}")


def _believed(answer: dict[str, Any], name: str, version: str) -> bytes:
    """Return the data key of an answer that is of the key that was asked, and of the right size."""
    by, data_key = str(answer.get("kid", "")), _decode(answer.pop("value", ""))
    size = len(data_key)
    named = by.lower().endswith(f"/keys/{name}/{version}".lower())
    if named and size == DATA_KEY_SIZE:
        return data_key
    del data_key
    if not named:
        raise NotMine(f"the wrapped key was unwrapped by another key than {name}/{version}")
    # Whoever has the public key can wrap what is no data key.
    raise KeyBroken(f"a wrapped key of {size} bytes, where a data key has {DATA_KEY_SIZE}")


def _encode(value: bytes) -> str:
    return base64.urlsafe_b64encode(value).decode().rstrip("=")


def _decode(value: object) -> bytes:
    """Undo base64url, with or without padding; what is none is empty."""
    text = str(value).rstrip("=")
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError):
        return b""


def _seconds(value: object, otherwise: float) -> float:
    return float(value) if isinstance(value, (int, float)) else otherwise
