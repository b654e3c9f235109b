"""Secrets of a policy file, fetched from the stores of two clouds in processes of their own, by the clients that the file makes."""

from __future__ import annotations

import base64
import json
import os

import pytest
from azure.keyvault.secrets import SecretClient

from integration.servers.aws import REGION
from postseal.core import Refused, Sealer
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from tests.core.key_vault import AnyCredential

HERE = "kafka:orders"
TEXT = """
sender = "billing-api"

[signers.billing]
algorithm = "hmac-sha256"
keys = [{{ id = "2026-10", secret = {{ {reference} }} }}]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "integrity"
sign = "billing"
senders = ["billing-api"]
"""


@pytest.fixture
def put(tmp_path):
    def put(reference: str):
        path = tmp_path / "postseal.toml"
        path.write_text(TEXT.format(reference=reference))
        return path

    return put


def test_a_secret_of_aws_secrets_manager_and_its_former_stage(aws, put, fresh, monkeypatch):
    client, name = aws.secrets(), fresh("billing")
    for variable, value in (
        ("AWS_ENDPOINT_URL", aws.address),
        ("AWS_ACCESS_KEY_ID", "postseal"),
        ("AWS_SECRET_ACCESS_KEY", "postseal"),
    ):
        monkeypatch.setenv(variable, value)
    first, second = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    arn = client.create_secret(Name=name, SecretString=first)["ARN"]
    by_name = put(f'aws-secret = "{name}", region = "{REGION}"')
    before = Sealer.from_file(by_name)
    envelope = before.seal(b"x", destination=HERE)
    client.put_secret_value(SecretId=name, SecretString=second)
    former = Sealer.from_file(put(f'aws-secret = "{arn}", version = "AWSPREVIOUS"'))
    assert former.open(envelope, destination=HERE).body == b"x"
    with pytest.raises(Refused):
        Sealer.from_file(put(f'aws-secret = "{arn}"')).open(envelope, destination=HERE)
    client.put_secret_value(SecretId=name, SecretString=json.dumps({"key": first}))
    member = Sealer.from_file(put(f'aws-secret = "{arn}", field = "key"'))
    assert member.open(envelope, destination=HERE).body == b"x"
    with pytest.raises(PolicyFileError, match="ResourceNotFoundException"):
        PolicyFile.read(put(f'aws-secret = "{name}-not", region = "{REGION}"')).resolve()
    client.close()


def test_a_secret_of_azure_key_vault_and_its_former_version(key_vault, put, fresh, monkeypatch):
    if key_vault.flavour == "lowkey-vault":
        pytest.skip("Lowkey Vault gives no tokens at this address")
    for variable, value in key_vault.environment.items():
        monkeypatch.setenv(variable, value)
    name = fresh("billing")
    first, second = (base64.b64encode(os.urandom(32)).decode() for _ in range(2))
    options = {
        "connection_verify": key_vault.options["connection_verify"],
        "verify_challenge_resource": False,
    }
    with SecretClient(key_vault.address, AnyCredential(), **options) as client:
        old = client.set_secret(name, first).id
        newest = f'azure-secret = "{key_vault.address}/secrets/{name}"'
        envelope = Sealer.from_file(put(newest)).seal(b"x", destination=HERE)
        client.set_secret(name, second)
    former = Sealer.from_file(put(f'azure-secret = "{old}"'))
    assert former.open(envelope, destination=HERE).body == b"x"
    with pytest.raises(Refused):
        Sealer.from_file(put(newest)).open(envelope, destination=HERE)
    with pytest.raises(PolicyFileError, match="ResourceNotFoundError"):
        PolicyFile.read(put(f'azure-secret = "{key_vault.address}/secrets/{name}-not"')).resolve()
