"""RSA key pairs in Azure Key Vault and Managed HSM as recipients: wrapped for here, unwrapped there.

`AzureKeyVault` does the same for one key, and follows its versions. Here each version is a recipient of its own, beside any others.

Source: SPEC.md 6.3; Azure Key Vault REST API: Get Key, Unwrap Key.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from postseal.core.errors import ConfigError
from postseal.core.findings import Finding
from postseal.core.providers._azure_keys import (
    NAMES,
    RSA_OAEP_256,
    data_key_of,
    encode,
    recipient_of,
    versioned,
)
from postseal.core.providers._azure_rest import Vault
from postseal.core.providers._azure_states import examined
from postseal.core.providers._binding import opened_by_service
from postseal.core.publickeys import RecipientKey

if TYPE_CHECKING:
    from azure.keyvault.keys import KeyClient

__all__ = ["AzureRsaKey"]


class AzureRsaKey:
    """One version of an RSA key of Azure Key Vault or Managed HSM: a key for `ServiceRecipients`, and to open with.

    Who wraps needs ``keys/get``; who opens that and ``keys/unwrapKey``.

    Args:
        client: ``azure.keyvault.keys.KeyClient``, made by the caller, with short timeouts. No asyncio one.
        key: Its identifier **with the version**: ``https://VAULT/keys/NAME/VERSION``.

    Raises:
        ConfigError: No such key can be, it is of another vault than the client, or the client is none.
    """

    def __init__(self, client: KeyClient, key: str) -> None:
        if hasattr(client, "__aenter__"):
            raise ConfigError(
                "AzureRsaKey takes no asyncio client: public keys are fetched beside, in threads"
            )
        self._vault = Vault(client)
        self._name, self._version = versioned(key, self._vault.url)
        self._public: RecipientKey | None = None

    def __repr__(self) -> str:
        return f"<AzureRsaKey {self._where}>"

    @property
    def _where(self) -> str:
        return f"{self._vault.url}/keys/{self._name}/{self._version}"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask the vault about the key: one call."""
        yield from examined(self._vault, self._name, clock(), version=self._version)

    @property
    def public(self) -> RecipientKey:
        """The public half; fetched the first time."""
        return self._public or self.fetch()

    def fetch(self) -> RecipientKey:
        """Fetch the public half: one call of Get Key."""
        answer = self._vault.get(self._name, self._version)
        self._public = recipient_of(answer, self._name, self._version, self._where)
        return self._public

    def unwrap(self, wrapped: bytes, context: bytes) -> bytes:
        """Have the vault unwrap a data key: one call of Unwrap Key. Raises what a key provider does."""
        return opened_by_service(self.public, wrapped, context, self._unwrapped)

    def _unwrapped(self, encrypted: bytes) -> bytes:
        answer = self._vault.unwrap(self._name, self._version, NAMES[RSA_OAEP_256], encode(encrypted))
        return data_key_of(answer, self._name, self._version)
