"""Recipients by public key and an archive's dump, as a policy file says them."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ed25519

from postseal.core import BranchKeys, OpeningKey, PublicKeyRecipients, Refused, Sealer
from postseal.core.cli._app import run
from postseal.core.config import PolicyFile
from postseal.core.errors import ConfigError
from postseal.core.providers.branch_stores import MemoryBranches
from tests.core.authority import Authority

SIGNER = ed25519.Ed25519PrivateKey.from_private_bytes(bytes(range(1, 33)))
PEM = serialization.Encoding.PEM
TEXT = """
sender = "shop"

[keys.main]
provider = "public-key"
certificate = "main.pem"
{more}

[signers.shop]
algorithm = "ed25519"
keys = [{{ id = "shop-1", {key}, senders = ["shop"] }}]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "privacy"
keys = ["main"]
sign = "shop"
senders = ["shop"]
"""
SIGNS, VERIFIES = 'private_key = { file = "sign.key" }', 'public_key = "sign.pub"'
OPENS = 'private_key = { file = "main.key" }\npassword = { env = "MAIN_PASSWORD" }'


@pytest.fixture
def files(tmp_path, monkeypatch):
    """The files that the policy file speaks of; returns what writes it and reads it."""
    key = OpeningKey.from_seed(bytes(range(32)))
    private = (serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    contents = {
        "main.pem": key.public.to_pem(),
        "main.key": key.to_pem("secret"),
        "sign.key": SIGNER.private_bytes(PEM, *private),
        "sign.pub": SIGNER.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo),
    }
    for name, content in contents.items():
        (tmp_path / name).touch(0o600)
        (tmp_path / name).write_bytes(content)
    monkeypatch.setenv("MAIN_PASSWORD", "secret")

    def put(name: str = "policy.toml", *, more: str = "", key: str = SIGNS):
        path = tmp_path / name
        path.write_text(TEXT.format(more=more, key=key))
        return path

    put.folder = tmp_path
    put.key = key
    return put


def test_a_producer_has_the_certificate_alone_and_a_consumer_its_private_key(files):
    shop = Sealer.from_file(files())
    envelope = shop.seal(b"4111", destination="kafka:orders")
    consumer = Sealer.from_file(files(more=OPENS, key=VERIFIES), sender="warehouse")
    assert consumer.open(envelope, destination="kafka:orders").body == b"4111"
    shop.close()
    with pytest.raises(Refused):
        shop.open(envelope, destination="kafka:orders")


@pytest.mark.parametrize(
    ("changed", "why"),
    [
        (('certificate = "main.pem"', ""), "needs a certificate to wrap for, or a private_key"),
        (('certificate = "main.pem"', 'roots = "main.pem"\n' + OPENS), "there is none"),
        (('certificate = "main.pem"', 'certificate = "sign.pub"'), "kind Ed25519"),
        (('certificate = "main.pem"', 'certificate = "main.pem"\nroots = "main.pem"'), "not for a bare key"),
        (('certificate = "main.pem"', OPENS.replace("MAIN_PASSWORD", "PATH")), "private_key"),
    ],
)  # fmt: skip
def test_mistakes_are_told_with_their_section(files, changed, why):
    path = files()
    path.write_text(path.read_text().replace(*changed))
    with pytest.raises(ConfigError, match=why) as caught:
        PolicyFile.read(path).resolve()
    assert "keys.main" in str(caught.value)
    assert "secret" not in str(caught.value).replace("private_key", "")


def test_a_certificate_must_lead_to_the_roots_of_the_file(files):
    authority = Authority()
    public = serialization.load_pem_public_key(files.key.public.to_pem())
    (files.folder / "main.pem").write_bytes(authority.issue("orders", public, key_agreement=True))
    (files.folder / "ca.pem").write_bytes(Authority().pem)
    with pytest.raises(ConfigError, match=r"does not lead to a root|is not valid yet|has expired"):
        PolicyFile.read(files(more='roots = "ca.pem"')).resolve()


def test_recover_verifies_with_the_signers_of_a_policy_file(files, capsys):
    """B11: what is signed is checked where the keys to verify with are given."""
    shop = Sealer.from_file(files())
    dump = files.folder / "dump"
    dump.mkdir()
    good = shop.seal(b"4111", destination="kafka:orders")
    (dump / "good.bin").write_bytes(good)
    (dump / "forged.bin").write_bytes(good[:-1] + bytes([good[-1] ^ 1]))
    asked = [
        "recover",
        str(dump),
        "--private-key",
        str(files.folder / "main.key"),
        "--password-env",
        "MAIN_PASSWORD",
        "--json",
    ]
    assert run([*asked, "--out", str(files.folder / "unchecked")]) == 0
    assert json.loads(capsys.readouterr().out)["proofs"]["unchecked"] == 2
    policy = files("verify.toml", key=VERIFIES)
    assert run([*asked, "--out", str(files.folder / "checked"), "--policy", str(policy)]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["proofs"] == {"sender": 1, "group": 0, "none": 0, "unchecked": 0}
    assert report["failures"][0]["examples"] == ["forged.bin"]
    assert report["failures"][0]["reason"].startswith("forged")


def test_what_the_file_has_no_word_for_is_handed_in(files):
    """Branch keys, directories and groups: docs/keys.md."""
    path = files()
    section = 'provider = "public-key"\ncertificate = "main.pem"'
    path.write_text(path.read_text().replace(section, 'provider = "given"'))
    keys = BranchKeys(
        PublicKeyRecipients([files.key.public], open_with=[files.key]), MemoryBranches(), "orders"
    )
    sealer = Sealer.from_file(path, keys={"main": keys})
    envelope = sealer.seal(b"4111", destination="kafka:orders")
    sealer.close()
    assert sealer.open(envelope, destination="kafka:orders").body == b"4111"
