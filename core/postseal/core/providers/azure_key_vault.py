"""Wrapping keys in Azure Key Vault and Managed HSM: they never leave it, its roles say who may unwrap, its logs record who did.

With an RSA key, a data key is made and wrapped here with the public part, which is fetched now and then; the vault is asked to unwrap, by
the key **version** that wrapped. With a symmetric key of a Managed HSM, the HSM wraps, too. A vault knows no encryption context:
policy and destination are bound by a tag of ours beside the wrapped key, and its roles cannot tell them apart.

Source: SPEC.md 6.2 and 6.3; Azure Key Vault REST API: Get Key, Wrap Key, Unwrap Key.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from hashlib import sha256
from typing import TYPE_CHECKING, Any, Final

from postseal.core import crypto
from postseal.core.crypto import DATA_KEY_SIZE, RandomBytes
from postseal.core.errors import (
    ConfigError,
    KeyBroken,
    KeyRefused,
    KeyUnavailable,
    MissingExtraError,
    NotMine,
    TooLarge,
    nearest,
)
from postseal.core.findings import Finding
from postseal.core.forking import ForkSafeLock
from postseal.core.keys import KeyContext, NewDataKey, Recipient
from postseal.core.providers._attempts import first_that_opens
from postseal.core.providers._azure_keys import (
    A256KW,
    NAMES,
    OVERHEAD,
    RSA_OAEP_256,
    SIZES,
    WrappingKey,
    data_key_of,
    encode,
    secret_of,
    wrapped_of,
    wrapping_key_of,
)
from postseal.core.providers._azure_rest import Vault
from postseal.core.providers._azure_states import examined
from postseal.core.providers._binding import TAG_SIZE, check_tag, tag

try:
    from azure.keyvault.keys import KeyClient
except ImportError as missing:
    raise MissingExtraError.naming("azure", __name__, missing) from missing

if TYPE_CHECKING:
    from azure.core.credentials import TokenCredential

    from postseal.core.providers._azure_rest import AnyKeyClient

__all__ = ["A256KW", "RSA_OAEP_256", "AzureKeyVault", "key_id_of"]

_PREFIX_SIZE: Final = 8
_IDENTIFIER: Final = re.compile(
    r"(?P<vault>https://[a-z0-9.-]+(:\d+)?)/keys/(?P<name>[a-z0-9-]{1,127})/?", re.IGNORECASE
)
_NAME: Final = re.compile(r"[A-Za-z0-9-]{1,127}")

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
        *("retry_mode", "per_call_policies", "per_retry_policies"),
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
        self._key: WrappingKey | None = None
        self._fresh_until = 0.0
        self._failure: KeyUnavailable | KeyRefused | None = None

    def __repr__(self) -> str:
        return f"<AzureKeyVault {self._vault.url}/keys/{self._name}>"

    def examine(self) -> Iterator[Finding]:
        """Ask the vault about the key that wraps and those that may open: one call each."""
        for name in dict.fromkeys((self._name, *self._ours.values())):
            yield from examined(self._vault, name, self._clock(), wraps=name == self._name)

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
            key = self._usable(self._newest(), "wrapKey")
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

    @property
    def most_direct(self) -> int:
        """What the key takes: 190, 318 or 446 bytes for a modulus of 2048, 3072 or 4096 bits. Until it was fetched, the last."""
        key = self._key
        return max(SIZES[RSA_OAEP_256]) - OVERHEAD if key is None or not key.most else key.most

    @property
    def anybody_encrypts(self) -> bool:
        """Yes: its public key is no secret."""
        return True

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:  # noqa: ARG002 - no vault takes a context
        """Encrypt *plaintext* here, with the newest version of the RSA key: no call where that was fetched lately.

        Raises:
            TooLarge: It is over the bytes of the modulus less 66.
        """
        try:
            self._vault.refuse_to_block_its_loop()
            key = self._usable(self._newest(), "encrypt")
            if key.encrypt is None:
                raise KeyRefused(
                    f"Azure Key Vault {self._vault.url}/keys/{self._name}: a symmetric key wraps keys, and encrypts no bodies"
                )
            if len(plaintext) > key.most:
                raise TooLarge(f"{len(plaintext)} bytes for a key that takes {key.most}")
            ciphertext = key.encrypt(plaintext)
        finally:
            del plaintext  # as in `wrap`
        return Recipient(key.algorithm, self._prefix + bytes.fromhex(key.version), ciphertext)

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:  # noqa: ARG002 - likewise
        """Have the vault undo that: one call of Decrypt, with the version that *recipient* names."""
        self._vault.refuse_to_block_its_loop()
        for prefix, ours in self._named((recipient,)).items():
            if ours.algorithm != RSA_OAEP_256 or len(ours.wrapped_key) not in SIZES[RSA_OAEP_256]:
                raise KeyBroken(f"{len(ours.wrapped_key)} bytes are not of an RSA key")
            name, version = self._ours[prefix], ours.key_id[_PREFIX_SIZE:].hex()
            answer = self._vault.decrypt(name, version, NAMES[RSA_OAEP_256], encode(ours.wrapped_key))
            try:
                return secret_of(answer, "decrypt", name, version)
            except NotMine as error:
                raise KeyBroken(str(error)) from error
        raise NotMine(f"it was not encrypted by {self._vault.url}/keys/{self._name}")

    def _named(self, recipients: Sequence[Recipient]) -> dict[bytes, Recipient]:
        """Find the first recipient of each of our keys: a sealer makes one, and a forger's sixteen are not to cost sixteen calls."""
        named: dict[bytes, Recipient] = {}
        for recipient in recipients:
            prefix = recipient.key_id[:_PREFIX_SIZE]
            if (
                recipient.algorithm in NAMES
                and prefix in self._ours
                and len(recipient.key_id) == _PREFIX_SIZE + 16
            ):
                named.setdefault(prefix, recipient)
        return named

    def _unwrap(self, name: str, recipient: Recipient, context: KeyContext) -> bytes:
        wrapped, claimed = recipient.wrapped_key[:-TAG_SIZE], recipient.wrapped_key[-TAG_SIZE:]
        if len(wrapped) not in SIZES[recipient.algorithm]:
            raise KeyBroken(f"{len(recipient.wrapped_key)} bytes are no wrapped key of this kind")
        # Sixteen bytes, so that nothing but a version can come to stand in the address.
        version = recipient.key_id[_PREFIX_SIZE:].hex()
        answer = self._vault.unwrap(name, version, NAMES[recipient.algorithm], encode(wrapped))
        data_key = data_key_of(answer, name, version)
        del answer
        try:
            check_tag(data_key, context, claimed)
        except KeyBroken:
            del data_key  # likewise
            raise
        return data_key

    def forget(self) -> None:
        """Drop the public key that is kept to wrap: the next use asks again."""
        with self._lock:
            self._key = None

    # -- the key that wraps ----------------------------------------------------------------------------------------

    def _newest(self) -> WrappingKey:
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

    def _fetched(self) -> WrappingKey:
        return wrapping_key_of(
            self._vault.get(self._name), self._name, f"Azure Key Vault {self._vault.url}/keys/{self._name}"
        )

    def _usable(self, key: WrappingKey, operation: str) -> WrappingKey:
        # The vault says so where it wraps; here, nobody else would.
        if key.operations and operation not in key.operations:
            raise KeyRefused(
                f"Azure Key Vault {self._vault.url}/keys/{self._name}: the key is not for {operation}"
            )
        if not key.not_before <= self._clock() < key.expires:
            raise KeyRefused(
                f"Azure Key Vault {self._vault.url}/keys/{self._name}: version {key.version} is not valid now: "
                "expired, or not yet begun"
            )
        return key

    def _wrap_there(self, key: WrappingKey, data_key: bytes) -> bytes:
        try:
            answer = self._vault.wrap(self._name, key.version, NAMES[key.algorithm], encode(data_key))
        finally:
            del data_key  # as in `wrap`
        return wrapped_of(answer, key.algorithm, self._name, key.version)

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
