"""Key services, as a sealer meets them: one provider each, and a count of what it asked."""

from __future__ import annotations

import uuid
from collections import Counter

import boto3
from azure.keyvault.keys import KeyClient
from botocore.exceptions import ClientError, EndpointConnectionError

from postseal.core import AwsKms, AzureKeyVault, KeyProvider, VaultTransit
from tests.core.key_vault import KeyVaultDouble
from tests.core.transit import TransitDouble


class Kms:
    """A key service with one key.

    Attributes:
        provider: On that key.
        asked: What it was asked.
        makes: What it is asked for each data key that is made; for some, nothing.
        opens: What it is asked for each that is unwrapped.
        fetches: What it is asked at first, and each time that the fetched key is too old.
        withdrawn: Whether it says no to whoever wants to unwrap.
        away: Whether it does not answer.
    """

    makes = ""
    fetches = ""
    opens = ""
    provider: KeyProvider
    asked: Counter[str]
    withdrawn = False
    away = False

    def costs(self, made: int = 0, opened: int = 0, *, fetched: int = 1) -> dict[str, int]:
        """What *made* data keys and *opened* ones must cost, made while the key was *fetched* so many times."""
        counts = {self.makes: made, self.opens: opened, self.fetches: fetched if made else 0}
        return {name: count for name, count in counts.items() if name and count}


class Aws(Kms):
    makes, opens = "GenerateDataKey", "Decrypt"

    def __init__(self) -> None:
        client = boto3.client(
            "kms", region_name="eu-west-1", aws_access_key_id="testing", aws_secret_access_key="testing"
        )
        self.provider = AwsKms(client, client.create_key()["KeyMetadata"]["Arn"])
        self.asked = Counter()
        client.meta.events.register("before-call.kms", self._hear)

    def _hear(self, model, **_) -> None:
        self.asked[model.name] += 1
        if self.away:
            raise EndpointConnectionError(endpoint_url="https://kms.example")
        if self.withdrawn and model.name == self.opens:
            raise ClientError({"Error": {"Code": "AccessDeniedException"}}, model.name)


class _OfADouble(Kms):
    """One that runs as a server in a thread."""

    _double: KeyVaultDouble | TransitDouble

    @property
    def withdrawn(self) -> bool:
        return self.opens in self._double.denied

    @withdrawn.setter
    def withdrawn(self, so: bool) -> None:
        (self._double.denied.add if so else self._double.denied.discard)(self.opens)

    @property
    def away(self) -> bool:
        return self._double.away

    @away.setter
    def away(self, so: bool) -> None:
        self._double.away = so


class Azure(_OfADouble):
    """With an RSA key: wrapping is local."""

    fetches, opens = "get", "unwrapkey"
    new = KeyClient.create_rsa_key

    def __init__(self, double, client, clock) -> None:
        double.begin_again()
        name = type(self).new(client, f"orders-{uuid.uuid4().hex}").name
        self._double = double
        self.provider = AzureKeyVault(client, name, monotonic=clock)
        self.asked = double.asked
        self.asked.clear()


class ManagedHsm(Azure):
    """With a symmetric key: wrapping is remote, too."""

    makes = "wrapkey"
    new = KeyClient.create_oct_key


class Transit(_OfADouble):
    makes, opens = "encrypt", "decrypt"

    def __init__(self, double, client) -> None:
        double.begin_again()
        self._double = double
        self.provider = VaultTransit(client, double.new_key())
        self.asked = double.asked
        self.asked.clear()
