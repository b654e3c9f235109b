"""Signing keys in Azure Key Vault and Managed HSM: they never leave it, its roles say who may sign, its logs record who did.

A call for each message would be slow and dear, so they sign no messages: they delegate to short-lived keys in memory::

    root = AzureEs256Key("billing-root", client, "https://billing.vault.azure.net/keys/signing/0123456789abcdef0123456789abcdef")
    ring = KeyRing([DelegatedKey(root, senders=["billing-api"])])

Source: SPEC.md 7.3; Azure Key Vault REST API: Sign, Get Key; RFC 7518 3.4.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from postseal.core import crypto
from postseal.core.findings import Finding
from postseal.core.providers._azure_keys import encode, signature_of, signing_key_of, versioned
from postseal.core.providers._azure_rest import Vault
from postseal.core.providers._azure_states import examined
from postseal.core.providers._service_keys import Es256InService

if TYPE_CHECKING:
    from postseal.core.providers._azure_rest import AnyKeyClient

__all__ = ["AzureEs256Key"]


class AzureEs256Key(Es256InService):
    """A key of Azure Key Vault or Managed HSM on P-256 (``EC``, ``EC-HSM``), to delegate with. Proves sender origin.

    Who signs needs the rights ``keys/sign`` and ``keys/get``, who verifies ``keys/get``; or nothing, with an export of the public key::

        DelegatedKey(Es256Key("billing-root", public_key=public, senders=["billing-api"]), senders=["billing-api"])

    Args:
        key_id: Names it in the policy and in delegations; the same on both sides.
        client: ``azure.keyvault.keys.KeyClient``, or that of ``azure.keyvault.keys.aio``, made by the caller, with short timeouts. The
            asyncio one serves ``Sealer.aseal`` and ``aopen`` on the loop where this key is made, and on no other.
        key: Its identifier **with the version**: ``https://VAULT/keys/NAME/VERSION``. Another version is another key, with its own id.
        signs: Whether this process may sign with it.
        refresh: Seconds for which a fetched public key verifies: the revocation window of a version that was disabled or deleted.
        max_stale: Seconds for which it goes on while the vault does not answer.

    Raises:
        ConfigError: No such key can be, it is of another vault than the client, or the client is none.
    """

    def __init__(
        self,
        key_id: str,
        client: AnyKeyClient,
        key: str,
        *,
        signs: bool = True,
        refresh: float = 300.0,
        max_stale: float = 3600.0,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__(key_id, signs=signs, refresh=refresh, max_stale=max_stale, monotonic=monotonic)
        self._vault = Vault(client)
        self._name, self._version = versioned(key, self._vault.url)

    def __repr__(self) -> str:
        return f"<AzureEs256Key {self.id!r} {self._where}>"

    def examine(self, *, clock: Callable[[], float] = time.time) -> Iterator[Finding]:
        """Ask the vault about the key: one call."""
        yield from examined(self._vault, self._name, clock(), version=self._version)

    @property
    def _where(self) -> str:
        return f"{self._vault.url}/keys/{self._name}/{self._version}"

    def _ask_for_public_key(self) -> crypto.P256PublicKey:
        self._vault.refuse_to_block_its_loop()
        self.calls["get"].tick()
        answer = self._vault.get(self._name, self._version)
        return signing_key_of(answer, self._name, self._version, f"Azure Key Vault {self._where}")

    def _ask_to_sign(self, message: bytes) -> bytes:
        self._vault.refuse_to_block_its_loop()
        self.calls["sign"].tick()
        answer = self._vault.sign(self._name, self._version, "ES256", encode(crypto.sha256(message)))
        return signature_of(answer, self._name, self._version)
