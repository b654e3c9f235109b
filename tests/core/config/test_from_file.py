"""`Sealer.from_file`: a sealer of a file, its secrets by reference, its key services by their sections."""

from __future__ import annotations

import base64
import json
import os
import warnings

import pytest

from postseal.core import (
    AwsKms,
    Origin,
    Refused,
    Sealer,
    UnsafeLocalKeys,
    UnsafeLocalKeysWarning,
    VaultTransit,
)
from postseal.core.config import PolicyFile
from postseal.core.errors import PolicyFileError
from tests.core.config.kit import GOOD, NOW, SECRET
from tests.core.key_vault import KeyVaultDouble
from tests.core.kit import local_keys, ring

LOCAL = """\
sender = "billing-api"

[keys.main]
provider = "local"
file = "keys.toml"

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
keys = ["main"]
"""
SIGNED = """\
sender = "billing-api"

[signers.billing]
algorithm = "hmac-sha256"
keys = [{ id = "a", secret = SECRET }]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "integrity"
sign = "billing"
senders = ["billing-api"]
"""
PAIR = """\
sender = "billing-api"

[signers.billing]
algorithm = "ALGORITHM"
keys = [{ id = "a", senders = ["billing-api"], KEY }]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "integrity"
sign = "billing"
senders = ["billing-api"]
"""


@pytest.fixture
def put(tmp_path):
    """Writes a policy file, and returns its path."""

    def put(text: str, name: str = "policy.toml"):
        path = tmp_path / name
        path.write_text(text)
        return path

    return put


def test_a_file_makes_a_sealer_that_seals_and_opens(put, tmp_path):
    """A4: chosen by policy, not in code."""
    UnsafeLocalKeys.create_file(tmp_path / "keys.toml")
    with pytest.warns(UnsafeLocalKeysWarning, match="not for production"):
        sealer = Sealer.from_file(put(LOCAL))
    envelope = sealer.seal(b"4111", destination="kafka:orders")
    assert sealer.open(envelope, destination="kafka:orders").body == b"4111"
    assert sealer.sender == "billing-api"


def test_callers_hand_in_providers_rings_and_the_sender(put, monkeypatch):
    text = GOOD.replace('[keys.archive]\nprovider = "local"\nfile = "archive.toml"\n', "").replace(
        "2027-01-31", "9999-12-31"
    )
    path = put(text)
    sealer = Sealer.from_file(
        path,
        sender="shop-web",
        keys={"main": local_keys(), "archive": local_keys({"archive-1": bytes(32)})},
        signers={"billing": ring(senders=None)},
    )
    envelope = sealer.seal(b"1", destination="kafka:orders", content_type="a/b")
    opened = sealer.open(envelope, destination="kafka:orders")
    assert (opened.sender, opened.origin) == ("shop-web", Origin.GROUP)


def test_arguments_of_the_class_are_passed_on(put):
    events = []
    sealer = Sealer.from_file(put(LOCAL), keys={"main": local_keys()}, on_audit=events.append)
    with pytest.raises(Refused):
        sealer.open(b"clear", destination="kafka:orders")
    assert len(events) == 1


def test_a_provider_that_is_to_be_given_and_is_not_is_named(put):
    path = put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', 'provider = "given"'))
    Sealer.from_file(path, keys={"main": local_keys()})
    with pytest.raises(
        PolicyFileError, match=r"policy\.toml:4:12: keys\.main\.provider: .*hands in no key provider"
    ):
        Sealer.from_file(path)


def test_a_section_of_the_file_gives_way_to_what_is_handed_in(put):
    Sealer.from_file(put(LOCAL), keys={"main": local_keys()})  # there is no keys.toml


def test_the_sender_may_come_from_the_environment(put, monkeypatch):
    path = put(LOCAL.replace('"billing-api"', '{ env = "POSTSEAL_SENDER" }'))
    monkeypatch.setenv("POSTSEAL_SENDER", "shop-web")
    assert Sealer.from_file(path, keys={"main": local_keys()}).sender == "shop-web"


def test_nobody_is_no_sender(put):
    path = put(LOCAL.replace('sender = "billing-api"\n', ""))
    with pytest.raises(PolicyFileError, match="who are we"):
        Sealer.from_file(path, keys={"main": local_keys()})
    assert Sealer.from_file(path, keys={"main": local_keys()}, sender="x").sender == "x"


# -- secrets -----------------------------------------------------------------------------------------------------------


def resolved(path, **options):
    return PolicyFile.read(path, now=NOW).resolve(**options)


@pytest.mark.parametrize(
    ("reference", "content"),
    [
        ('{ env = "S" }', SECRET),
        ('{ env = "S", encoding = "base64" }', SECRET + "\n"),
        ('{ env = "S" }', base64.urlsafe_b64encode(bytes(range(32))).decode().rstrip("=")),
        ('{ env = "S", encoding = "hex" }', bytes(range(32)).hex()),
        ('{ env = "S", encoding = "raw" }', "x" * 32),
    ],
)
def test_a_secret_comes_from_the_environment_in_the_encoding_that_is_stated(put, reference, content):
    path = put(SIGNED.replace("SECRET", reference))
    assert resolved(path, environ={"S": content}).arguments["signers"]["billing"].active.id == "a"


@pytest.mark.parametrize(
    ("reference", "environ", "words"),
    [
        ('{ env = "SECRETT" }', {"SECRET": SECRET}, "did you mean 'SECRET'"),
        ('{ env = "S" }', {"T": SECRET}, "no S"),
        ('{ env = "S" }', {"S": ""}, "empty"),
        ('{ env = "S" }', {"S": "abc!"}, "not base64"),
        ('{ env = "S" }', {"S": bytes(range(32)).hex()}, "say encoding = 'hex'"),
        ('{ env = "S", encoding = "hex" }', {"S": "xyz"}, "not hex"),
        ('{ env = "S" }', {"S": base64.b64encode(bytes(31)).decode()}, "at least 32"),
    ],
)
def test_a_secret_that_is_missing_or_written_otherwise_is_named_and_not_shown(put, reference, environ, words):
    path = put(SIGNED.replace("SECRET", reference))
    with pytest.raises(PolicyFileError, match=r"policy\.toml:5:") as error:
        resolved(path, environ=environ)
    assert words in str(error.value)
    assert all(len(value) < 4 or value not in str(error.value) for value in environ.values())


def test_a_secret_comes_from_a_file_beside_the_policy_file(put, tmp_path):
    secret = tmp_path / "billing.key"
    secret.write_text(SECRET + "\n")
    secret.chmod(0o600)
    path = put(SIGNED.replace("SECRET", '{ file = "billing.key" }'))
    settings = resolved(path)
    assert settings.arguments["signers"]["billing"]
    assert settings.files == {secret}


@pytest.mark.skipif(os.name != "posix", reason="only there have files such rights")
@pytest.mark.parametrize("mode", [0o644, 0o602, 0o666])
def test_a_secret_that_all_users_may_read_is_refused(put, tmp_path, mode):
    secret = tmp_path / "billing.key"
    secret.write_text(SECRET)
    secret.chmod(mode)
    with pytest.raises(PolicyFileError, match=r"open to all users: chmod o-rw"):
        resolved(put(SIGNED.replace("SECRET", '{ file = "billing.key" }')))


def test_a_secret_comes_from_a_store_in_the_cloud_once(put):
    asked = []

    def fetch(ref):
        asked.append((ref.source, ref.name, ref.field))
        return json.dumps({"key": SECRET})

    text = SIGNED.replace("SECRET", '{ aws-secret = "prod/billing", field = "key" }')
    text = 'deduplication_secret = { aws-secret = "prod/billing", field = "key" }\n' + text
    settings = resolved(put(text), fetch=fetch)
    assert settings.arguments["deduplication_secret"] == bytes(range(32))
    assert asked == [("aws-secret", "prod/billing", "key")]
    assert SECRET not in repr(settings)
    with pytest.raises(PolicyFileError, match="did you mean 'key'"):
        resolved(put(text.replace('"key"', '"kye"')), fetch=fetch)
    with pytest.raises(PolicyFileError, match="no JSON object"):
        resolved(put(text), fetch=lambda _: "x")


def test_a_secret_comes_from_aws_secrets_manager(put, monkeypatch):
    boto3 = pytest.importorskip("boto3")
    from moto import mock_aws

    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        boto3.client("secretsmanager").create_secret(Name="billing", SecretString=SECRET)
        path = put(SIGNED.replace("SECRET", '{ aws-secret = "billing" }'))
        assert resolved(path).arguments["signers"]["billing"].active.id == "a"
        path = put(SIGNED.replace("SECRET", '{ aws-secret = "biling" }'))
        with pytest.raises(PolicyFileError, match="ResourceNotFoundException"):
            resolved(path)


def test_a_secret_comes_from_azure_key_vault(put, monkeypatch):
    """Over TLS: a token of a managed identity, a challenge, the secret; the newest, or the version that is named."""
    with KeyVaultDouble() as double:
        for name, value in double.environment.items():
            monkeypatch.setenv(name, value)
        old = double.put_secret("billing", base64.b64encode(bytes(range(1, 33))).decode())
        double.put_secret("billing", json.dumps({"key": SECRET}))
        path = put(
            SIGNED.replace("SECRET", f'{{ azure-secret = "{double.url}/secrets/billing", field = "key" }}')
        )
        settings = resolved(path)
        assert settings.arguments["signers"]["billing"].active._secret == bytes(range(32))
        assert SECRET not in repr(settings)
        path = put(SIGNED.replace("SECRET", f'{{ azure-secret = "{old}" }}'))
        assert resolved(path).arguments["signers"]["billing"].active._secret == bytes(range(1, 33))
        double.denied.add("get")
        with pytest.raises(PolicyFileError, match=r"has not given .*/secrets/billing.*HttpResponseError"):
            resolved(path)
        double.begin_again()
        path = put(SIGNED.replace("SECRET", f'{{ azure-secret = "{double.url}/secrets/biling" }}'))
        with pytest.raises(PolicyFileError, match="ResourceNotFoundError"):
            resolved(path)


def test_every_missing_secret_is_named_at_once(put):
    path = put(GOOD)
    with pytest.raises(PolicyFileError) as error:
        resolved(path, keys={"main": local_keys(), "archive": local_keys()}, environ={})
    assert [mistake.line for mistake in error.value.mistakes] == [14, 15]


# -- signers -----------------------------------------------------------------------------------------------------------


def pem(private, passphrase=None):
    from cryptography.hazmat.primitives import serialization as s

    encryption = s.BestAvailableEncryption(passphrase) if passphrase else s.NoEncryption()
    return private.private_bytes(s.Encoding.PEM, s.PrivateFormat.PKCS8, encryption)


def public_pem(private):
    from cryptography.hazmat.primitives import serialization as s

    return private.public_key().public_bytes(s.Encoding.PEM, s.PublicFormat.SubjectPublicKeyInfo)


@pytest.mark.parametrize("algorithm", ["ed25519", "es256"])
def test_a_private_key_signs_and_a_public_key_verifies(put, tmp_path, algorithm):
    from tests.core.kit import ED25519, P256

    private = {"ed25519": ED25519, "es256": P256}[algorithm]
    (tmp_path / "private.pem").write_bytes(pem(private, b"open sesame"))
    (tmp_path / "private.pem").chmod(0o600)
    (tmp_path / "public.pem").write_bytes(public_pem(private))
    text = PAIR.replace("ALGORITHM", algorithm)
    producer = put(
        text.replace("KEY", 'private_key = { file = "private.pem" }, passphrase = { env = "P" }'), "a.toml"
    )
    consumer = put(text.replace("KEY", 'public_key = "public.pem"'), "b.toml")
    sealing = Sealer(**resolved(producer, environ={"P": "open sesame"}).arguments)
    opening = Sealer.from_file(consumer)
    envelope = sealing.seal(b"1", destination="kafka:orders")
    assert opening.open(envelope, destination="kafka:orders").origin is Origin.SENDER
    assert (
        Sealer.from_file(consumer, verify_only=True).verify(envelope, destination="kafka:orders").sender
        == "billing-api"
    )
    with pytest.raises(PolicyFileError, match="passphrase is wrong"):
        resolved(producer, environ={"P": "sesame"})
    with pytest.raises(PolicyFileError, match="needs a passphrase"):
        resolved(put(text.replace("KEY", 'private_key = { file = "private.pem" }')))
    with pytest.raises(PolicyFileError, match="no public key"):
        resolved(put(text.replace("KEY", 'public_key = "a.toml"')))
    with pytest.raises(PolicyFileError, match=r"did you mean 'public\.pem'"):
        resolved(put(text.replace("KEY", 'public_key = "publik.pem"')))


def test_a_key_of_another_algorithm_is_refused_with_its_line(put, tmp_path):
    from tests.core.kit import P256

    (tmp_path / "public.pem").write_bytes(public_pem(P256))
    path = put(PAIR.replace("ALGORITHM", "ed25519").replace("KEY", 'public_key = "public.pem"'))
    with pytest.raises(PolicyFileError, match=r"policy\.toml:5:9: .*no Ed25519 key"):
        resolved(path)


# -- key services ------------------------------------------------------------------------------------------------------


def test_aws_kms_is_reached_as_its_section_says(put, monkeypatch):
    pytest.importorskip("boto3")
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    section = (
        'provider = "aws-kms"\nkey_id = "arn:aws:kms:eu-west-1:111122223333:key/1"\n'
        'endpoint_url = "http://127.0.0.1:9"\nread_timeout = "3s"\nmax_attempts = 1'
    )
    provider = (
        resolved(put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', section)))
        .arguments["keys"]["main"]
        .inner
    )
    assert isinstance(provider, AwsKms)
    config = provider._kms._client.meta.config
    assert (provider._kms._client.meta.region_name, config.read_timeout) == ("eu-west-1", 3.0)
    assert config.retries["total_max_attempts"] == 1
    other = section + '\nregion = "us-east-1"'
    with pytest.raises(PolicyFileError, match=r"policy\.toml:3:1: keys\.main: key_id is in eu-west-1"):
        resolved(put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', other)))


def test_azure_key_vault_is_reached_as_its_section_says(put):
    pytest.importorskip("azure.identity")
    section = 'provider = "azure-key-vault"\nkey = "https://shop.vault.azure.net/keys/orders"\ncredential = "managed-identity"'
    provider = resolved(put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', section))).arguments[
        "keys"
    ]["main"]
    assert "shop.vault.azure.net/keys/orders" in repr(provider)


def test_vault_is_reached_as_its_section_says(put):
    pytest.importorskip("hvac")
    section = 'provider = "vault"\nurl = "https://vault:8200"\nkey = "orders"\nmount_point = "shop"\ntoken = { env = "VAULT_TOKEN" }'
    path = put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', section))
    provider = resolved(path, environ={"VAULT_TOKEN": "hvs.x"}).arguments["keys"]["main"].inner
    assert isinstance(provider, VaultTransit)
    assert (provider._client.token, provider._client.url, repr(provider)) == (
        "hvs.x",
        "https://vault:8200",
        "<VaultTransit shop/orders>",
    )


@pytest.mark.parametrize(
    ("module", "section", "extra"),
    [
        ("botocore", 'provider = "aws-kms"\nkey_id = "alias/a"', "aws"),
        (
            "azure.keyvault.keys",
            'provider = "azure-key-vault"\nkey = "https://a.vault.azure.net/keys/b"',
            "azure",
        ),
        ("hvac", 'provider = "vault"\nurl = "https://a"\nkey = "b"\ntoken = { env = "PATH" }', "vault"),
    ],
)
def test_a_key_service_without_its_library_names_the_extra(put, module, section, extra):
    import subprocess
    import sys

    path = put(LOCAL.replace('provider = "local"\nfile = "keys.toml"', section))
    code = (
        f"import sys; sys.modules[{module!r}] = None; sys.modules[{module.split('.')[0] + '.exceptions'!r}] = None\n"
        f"from postseal.core import Sealer, MissingExtraError\n"
        f"try: Sealer.from_file({str(path)!r})\nexcept MissingExtraError as error: print(error)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert f"pip install 'postseal[{extra}]'" in done.stdout, done.stderr


def test_combined_keys_wrap_under_all_and_open_with_any(put):
    text = LOCAL.replace(
        'provider = "local"\nfile = "keys.toml"', 'provider = "combined"\nkeys = ["one", "two"]'
    )
    text += '[keys.one]\nprovider = "given"\n[keys.two]\nprovider = "given"\n'
    one, two = local_keys({"one": bytes(32)}), local_keys({"two": bytes(range(32))})
    path = put(text)
    sealer = Sealer.from_file(path, keys={"one": one, "two": two})
    envelope = sealer.seal(b"1", destination="kafka:orders")
    for name, provider in (("one", one), ("two", two)):
        alone = Sealer.from_file(
            put(LOCAL.replace('["main"]', f'["{name}"]'), f"{name}.toml"), keys={name: provider}
        )
        assert alone.open(envelope, destination="kafka:orders").body == b"1"


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system does not fork")
def test_a_forked_child_makes_a_client_of_its_own(put):
    """Connections are not for sharing."""
    from postseal.core.config._keys import Made

    made = []
    provider = Made(lambda: made.append(os.getpid()) or local_keys())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # threads of the tests' runner
        child = os.fork()
    if not child:
        provider.inner.generate  # noqa: B018 - makes it
        os._exit(0 if made == [os.getppid(), os.getpid()] else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def test_the_core_does_not_load_the_file_reader_without_a_file():
    import subprocess
    import sys

    code = "import sys, postseal.core; print('postseal.core.config' in sys.modules, 'tomllib' in sys.modules)"
    assert (
        subprocess.run(
            [sys.executable, "-c", code], capture_output=True, text=True, check=True
        ).stdout.split()
        == ["False"] * 2
    )
