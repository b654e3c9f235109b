"""`postseal doctor` at the key services that a policy file names: what works, and what somebody broke."""

from __future__ import annotations

import json
from contextlib import closing

import pytest

from integration.servers import AwsEmulator, Redis
from postseal.core import RedisLedger
from postseal.core.cli._app import run
from postseal.core.examining import examine
from tests.core.stand_ins import local_keys

POLICY = """
[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
"""


@pytest.fixture
def doctor(tmp_path, capsys):
    """Has the doctor look at a section [keys.main]; returns its exit code, and findings by grade."""

    def doctor(section: str, *args: str) -> tuple[int, dict[str, str]]:
        path = tmp_path / "postseal.toml"
        path.write_text(f'sender = "shop"\n[keys.main]\n{section}\n{POLICY}')
        code = run(["doctor", "--config", str(path), "--json", *args])
        told: dict[str, str] = {"good": "", "warning": "", "bad": ""}
        for each in json.loads(capsys.readouterr().out)["findings"]:
            told[each["grade"]] += f"{each['what']}: {each['says']} -> {each['mend']}\n"
        return code, told

    return doctor


@pytest.fixture
def at_aws(aws: AwsEmulator, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "postseal")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "postseal")
    return lambda arn: f'provider = "aws-kms"\nkey_id = "{arn}"\nendpoint_url = "{aws.address}"'


def test_a_key_of_aws_kms(doctor, kms, at_aws):
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    code, told = doctor(at_aws(arn))
    assert (code, told["bad"]) == (0, "")
    assert f"keys.main: {arn} is enabled" in told["good"]
    assert "its clock and ours are the same" in told["good"]
    assert "a message is sealed and opened" in told["good"]
    assert f"enable-key-rotation --key-id {arn}" in told["warning"]
    kms.enable_key_rotation(KeyId=arn)
    assert doctor(at_aws(arn))[1]["warning"] == ""


def test_a_key_of_aws_kms_that_somebody_took_away(doctor, kms, at_aws):
    arn = kms.create_key()["KeyMetadata"]["Arn"]
    kms.disable_key(KeyId=arn)
    code, told = doctor(at_aws(arn))
    assert code == 1
    assert f"is disabled -> aws kms enable-key --key-id {arn}" in told["bad"]
    kms.enable_key(KeyId=arn)
    kms.schedule_key_deletion(KeyId=arn, PendingWindowInDays=7)
    code, told = doctor(at_aws(arn))
    assert code == 1
    assert "is waiting for deletion on " in told["bad"]
    assert "cancel-key-deletion" in told["bad"]


def test_a_kms_that_is_not_there(doctor):
    section = (
        'provider = "aws-kms"\nkey_id = "arn:aws:kms:eu-west-1:111122223333:key/1"\nmax_attempts = 1\n'
        'endpoint_url = "http://127.0.0.1:9"'
    )
    code, told = doctor(section)
    assert code == 1
    assert "look at region, endpoint, credentials and network" in told["bad"]


def test_a_key_of_azure(doctor, key_vault, fresh, monkeypatch):
    """With the identity that a managed machine has."""
    if key_vault.flavour == "lowkey-vault":
        pytest.skip("Lowkey Vault gives no tokens")
    authority = key_vault.options["connection_verify"]
    monkeypatch.setenv("IDENTITY_ENDPOINT", f"{key_vault.address}/identity")
    monkeypatch.setenv("IDENTITY_HEADER", "of tests")
    monkeypatch.setenv("REQUESTS_CA_BUNDLE", authority)
    with key_vault.client() as client:
        name = client.create_rsa_key(fresh("orders")).name
        section = (
            f'provider = "azure-key-vault"\nkey = "{key_vault.address}/keys/{name}"\n'
            'credential = "managed-identity"\nverify_challenge_resource = false\n'
            f'connection_verify = "{authority}"'
        )
        code, told = doctor(section)
        assert (code, told["bad"]) == (0, "")
        assert f"/keys/{name} is enabled" in told["good"]
        client.update_key_properties(name, enabled=False)
        code, told = doctor(section)
        assert code == 1
        assert "set-attributes --enabled true" in told["bad"]


def test_a_key_of_openbao(doctor, openbao, fresh, monkeypatch):
    client = openbao.client()
    with closing(client.adapter):
        name = fresh("orders")
        client.secrets.transit.create_key(name, auto_rotate_period="8760h")
        section = f'provider = "vault"\nurl = "{openbao.address}"\nkey = "{name}"\ntoken = {{ env = "BAO" }}'
        monkeypatch.setenv("BAO", client.token)
        code, told = doctor(section)
        assert (code, told["bad"], told["warning"]) == (0, "", "")
        assert "its clock and ours are the same" in told["good"]
        client.secrets.transit.update_key_configuration(name, deletion_allowed=True)
        assert "deletion_allowed=false" in doctor(section)[1]["warning"]
        # A token that may wrap and not unwrap, and sees no state: a producer's.
        rules = f'path "transit/encrypt/{name}" {{ capabilities = ["update"] }}'
        client.sys.create_or_update_policy(name, rules)
        monkeypatch.setenv(
            "BAO", client.auth.token.create(policies=[name], ttl="30m")["auth"]["client_token"]
        )
        code, told = doctor(section)
        assert code == 1
        assert "give this process the right to decrypt" in told["bad"]
        assert "the token ends in 30 min" in told["warning"]
        code, told = doctor(section, "--role", "producer")
        assert (code, told["bad"]) == (0, "")


def test_a_ledger_in_redis(tmp_path):
    path = tmp_path / "postseal.toml"
    path.write_text(f'sender = "shop"\n[keys.main]\nprovider = "given"\n{POLICY}')
    with Redis() as server, closing(server.client()) as client:

        def said() -> list[str]:
            found = examine(path, keys={"main": local_keys()}, ledger=lambda: RedisLedger(client))
            return [each.says for each in found if each.what == "ledger"]

        assert said() == ["it answers"]
        client.config_set("maxmemory", "100mb")
        client.config_set("maxmemory-policy", "allkeys-lru")
        assert "it forgets messages" in said()[1]
        server.kill()
        assert said() == ["no answer (ConnectionError)"]
