"""B12: redundant key services of different makers; one of them killed, for real."""

from __future__ import annotations

from contextlib import closing

import pytest

from integration.servers import KeyVault, OpenBao, start_all, stop_all
from postseal.core import AwsKms, AzureKeyVault, DataKeyLimits, KeyUnavailable, Policy, Sealer, VaultTransit

HERE = "kafka:orders"


def test_every_message_opens_through_any_of_three_makers_alone(kms, key_vault, openbao, fresh):
    """A5, B10: AWS KMS, Azure Key Vault and a vault of one's own: one ciphertext, three wraps."""
    vault = openbao.client()
    with key_vault.client() as azure, closing(vault.adapter):
        name = fresh("orders")
        vault.secrets.transit.create_key(name)
        keys = {
            "aws": AwsKms(kms, kms.create_key()["KeyMetadata"]["Arn"]),
            "azure": AzureKeyVault(azure, azure.create_rsa_key(name).name),
            "vault": VaultTransit(vault, name),
        }
        policy = Policy(name="orders", destinations=[HERE], keys=list(keys))
        envelope = Sealer(sender="shop", policies=[policy], keys=keys).seal(b"body", destination=HERE)
        for which, provider in keys.items():
            alone = Sealer(sender="shop", policies=[policy.replace(keys=[which])], keys={which: provider})
            assert alone.open(envelope, destination=HERE).body == b"body"


@pytest.mark.parametrize("killed", ["azure", "vault"])
def test_with_one_killed_every_message_opens_through_the_other(killed):
    """100 messages, each with a data key of its own, so that each asks."""
    servers = {"azure": KeyVault(), "vault": OpenBao()}
    if started := start_all(servers.values()):
        raise next(iter(started.values()))
    try:
        vault = servers["vault"].client(timeout=5)
        with servers["azure"].client(retry_total=0) as azure, closing(vault.adapter):
            vault.secrets.transit.create_key("orders")
            keys = {
                "azure": AzureKeyVault(azure, azure.create_rsa_key("orders").name),
                "vault": VaultTransit(vault, "orders"),
            }
            policy = Policy(
                name="orders", destinations=[HERE], keys=list(keys), data_key=DataKeyLimits(max_messages=1)
            )
            both = Sealer(sender="shop", policies=[policy], keys=keys)
            envelopes = [both.seal(b"%d" % number, destination=HERE) for number in range(100)]
            both.close()
            servers[killed].kill()
            opened = [both.open(envelope, destination=HERE).body for envelope in envelopes]
            assert opened == [b"%d" % number for number in range(100)]
            # And whoever has a right to the dead one alone keeps its messages.
            alone = Sealer(
                sender="shop", policies=[policy.replace(keys=[killed])], keys={killed: keys[killed]}
            )
            with pytest.raises(KeyUnavailable):
                alone.open(envelopes[0], destination=HERE)
    finally:
        stop_all(servers.values())
