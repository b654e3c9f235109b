"""One message, two key services: Azure Key Vault and HashiCorp Vault (or OpenBao). Either opens it, without the other.

    pip install 'postseal[azure,vault]' azure-identity
    AZURE_VAULT_URL=https://billing.vault.azure.net VAULT_ADDR=https://vault.example:8200 VAULT_TOKEN=... \
        python examples/two_key_services.py

It needs an RSA key ``orders`` in the one and a transit key ``orders`` in the other, with the rights of docs/keys.md.
"""

import os

import hvac
from azure.keyvault.keys import KeyClient

from postseal.core import AzureKeyVault, Policy, Sealer, VaultTransit

ORDER = b'{"order": 4711, "card": "4111 1111 1111 1111"}'
HERE = "kafka:orders"


def run(azure: KeyClient, vault: hvac.Client, key: str = "orders") -> list[str]:
    """Seal once under both, and open with each alone."""
    keys = {"azure": AzureKeyVault(azure, key), "vault": VaultTransit(vault, key)}
    both = Policy(name="orders", destinations=[HERE], keys=["azure", "vault"])
    envelope = Sealer(sender="shop", policies=[both], keys=keys).seal(ORDER, destination=HERE)
    lines = [f"sealed under both: {len(envelope)} bytes, card number inside: {b'4111' in envelope}"]
    for name, provider in keys.items():
        # A consumer with a right to one of them, or while the other is away.
        alone = Sealer(sender="shop", policies=[both.replace(keys=[name])], keys={name: provider})
        lines.append(f"opened with {name}: {alone.open(envelope, destination=HERE).body.decode()}")
    return lines


def main() -> None:
    from azure.identity import DefaultAzureCredential  # noqa: PLC0415 - `run` takes any client

    options = {"connection_timeout": 5, "read_timeout": 10, "retry_total": 3}
    with KeyClient(os.environ["AZURE_VAULT_URL"], DefaultAzureCredential(), **options) as azure:
        print("\n".join(run(azure, hvac.Client(timeout=5))))


if __name__ == "__main__":
    main()
