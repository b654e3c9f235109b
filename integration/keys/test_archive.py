"""B11: both key services destroyed, for real; all of a dump opens offline with shares of the archive's key."""

from __future__ import annotations

import base64
import json

import pytest

from integration.servers import AwsEmulator, KeyVault, start_all, stop_all
from postseal.core import (
    AwsKms,
    AzureKeyVault,
    DataKeyLimits,
    Ed25519Key,
    KeyRing,
    KeyUnavailable,
    Policy,
    PublicKeyRecipients,
    RecipientKey,
    Refused,
    Sealer,
)
from postseal.core.cli._app import run
from tests.core.kit import ED25519

HERE = "kafka:orders"
MESSAGES = 1_000


@pytest.mark.parametrize("kind", ["x25519", "x-wing"])
def test_with_both_key_services_destroyed_all_of_a_dump_opens_from_shares(tmp_path, kind, capsys):
    """The drill of docs/recovery.md: 1,000 messages, 100 data keys, each wrapped by AWS KMS, by Azure Key Vault and for the archive."""
    archive = tmp_path / "archive"
    assert run(["archive", "create", str(archive), "--threshold", "3", "--shares", "5", "--kind", kind]) == 0
    servers = {"aws": AwsEmulator(), "azure": KeyVault()}
    if started := start_all(servers.values()):
        raise next(iter(started.values()))
    try:
        kms = servers["aws"].kms()
        key_id = kms.create_key()["KeyMetadata"]["Arn"]
        with servers["azure"].client(retry_total=0) as azure:
            keys = {
                "aws": AwsKms(kms, key_id),
                "azure": AzureKeyVault(azure, azure.create_rsa_key("orders").name),
                "archive": PublicKeyRecipients([RecipientKey.from_file(archive / "archive.pem")]),
            }
            policy = Policy(
                name="orders",
                destinations=[HERE],
                protection="privacy",
                keys=list(keys),
                sign="shop",
                senders=["shop"],
                data_key=DataKeyLimits(max_messages=10),
            )
            ring = KeyRing([Ed25519Key("shop-1", private_key=ED25519, senders=["shop"])])
            shop = Sealer(sender="shop", policies=[policy], keys=keys, signers={"shop": ring})
            envelopes = [shop.seal(b"order %d" % number, destination=HERE) for number in range(MESSAGES)]
            shop.close()
            # The one key is deleted, and then both services are killed.
            kms.schedule_key_deletion(KeyId=key_id, PendingWindowInDays=7)
            consumer = Sealer(
                sender="warehouse",
                policies=[policy.replace(keys=["aws"])],
                keys=keys,
                signers={"shop": ring},
            )
            with pytest.raises(Refused):
                consumer.open(envelopes[0], destination=HERE)
            for server in servers.values():
                server.kill()
            consumer = Sealer(
                sender="warehouse",
                policies=[policy.replace(keys=["aws", "azure"])],
                keys=keys,
                signers={"shop": ring},
            )
            with pytest.raises(KeyUnavailable):
                consumer.open(envelopes[-1], destination=HERE)
    finally:
        stop_all(servers.values())
    dump = tmp_path / "orders.jsonl"
    lines = (json.dumps({"value": base64.b64encode(envelope).decode()}) for envelope in envelopes)
    dump.write_text("\n".join(lines))
    capsys.readouterr()
    shares = [option for n in (5, 2, 4) for option in ("--shares", str(archive / f"share-{n}-of-5.txt"))]
    assert run(["recover", str(dump), *shares, "--out", str(tmp_path / "out"), "--json"]) == 0
    report = json.loads(capsys.readouterr().out)
    assert (report["messages"], report["recovered"], report["lost"]) == (MESSAGES, MESSAGES, 0)
    recovered = [json.loads(line) for line in (tmp_path / "out" / "recovered.jsonl").read_text().splitlines()]
    assert [base64.b64decode(line["body"]) for line in recovered] == [
        b"order %d" % n for n in range(MESSAGES)
    ]
