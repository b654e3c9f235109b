"""``postseal group``: create, add, remove and show (B5)."""

from __future__ import annotations

import json

import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, ed25519

from postseal.core import Ed25519Key, KeyRing, OpeningKey
from postseal.core.cli._app import run
from postseal.core.crypto import fingerprint
from postseal.core.directory import LocalFile
from postseal.core.errors import NotMine
from postseal.core.groups import GroupKeys
from tests.core.stand_ins import CONTEXT

PEM = serialization.Encoding.PEM


def write_signer(folder, name: str, key) -> None:
    plain = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    (folder / f"{name}.key").write_bytes(key.private_bytes(PEM, *plain))
    (folder / f"{name}.pub").write_bytes(
        key.public_key().public_bytes(PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
    )


@pytest.fixture
def keys(tmp_path, monkeypatch, capsys):
    """Three members and two who introduce, each with its files in the working directory; a group of two members."""
    monkeypatch.chdir(tmp_path)
    members = {name: OpeningKey.generate("x25519") for name in ("ann", "bob", "eve")}
    for name, key in members.items():
        (tmp_path / f"{name}.pem").write_bytes(key.public.to_pem())
        (tmp_path / f"{name}-private.pem").touch(0o600)
        (tmp_path / f"{name}-private.pem").write_bytes(key.to_pem())
    write_signer(tmp_path, "admin", ed25519.Ed25519PrivateKey.generate())
    write_signer(tmp_path, "deputy", ec.generate_private_key(ec.SECP256R1()))
    assert (
        run(
            [
                "group",
                "create",
                "g",
                "--name",
                "warehouse",
                "--member",
                "ann=ann.pem",
                "--member",
                "eve=eve.pem",
                *AS_ADMIN,
            ]
        )
        == 0
    )
    capsys.readouterr()
    return members


AS_ADMIN = ("--issuer", "admin", "--sign-with", "admin.key")
AS_DEPUTY = ("--issuer", "deputy", "--sign-with", "deputy.key", "--trust", "admin=admin.pub")


def opens(tmp_path, key: OpeningKey, made) -> bool:
    public = serialization.load_pem_public_key((tmp_path / "admin.pub").read_bytes())
    ring = KeyRing([Ed25519Key(fingerprint(public).hex()[:16], public_key=public, senders=["admin"])])
    member = GroupKeys(LocalFile(tmp_path / "g"), name="warehouse", issuers=ring, open_with=[key])
    if made is None:
        return member.generate(CONTEXT)
    try:
        return member.unwrap(made.recipients, CONTEXT) == made.data_key
    except NotMine:
        return False


def test_three_members_and_one_that_leaves(keys, tmp_path, capsys):
    """B5, from the command line alone."""
    assert (
        run(["group", "add", "g", "--member", "bob=bob.pem", "--current", "ann-private.pem", *AS_ADMIN]) == 0
    )
    first = opens(tmp_path, keys["ann"], None)
    assert [opens(tmp_path, keys[name], first) for name in keys] == [True, True, True]
    assert run(["group", "remove", "g", "--member", "eve", *AS_ADMIN]) == 0
    second = opens(tmp_path, keys["ann"], None)
    assert [opens(tmp_path, keys[name], second) for name in ("ann", "bob", "eve")] == [True, True, False]
    capsys.readouterr()
    assert run(["group", "show", "g", "--trust", "admin=admin.pub", "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert (told["group"], told["version"], told["epoch"], told["issued_by"]) == ("warehouse", 3, 2, "admin")
    assert told["members"] == {name: keys[name].public.key_id.hex() for name in ("ann", "bob")}


def test_who_joins_without_current_reads_what_follows_alone(keys, tmp_path):
    before = opens(tmp_path, keys["ann"], None)
    assert run(["group", "add", "g", "--member", "bob=bob.pem", *AS_ADMIN]) == 0
    assert not opens(tmp_path, keys["bob"], before)
    assert opens(tmp_path, keys["bob"], opens(tmp_path, keys["ann"], None))


def test_another_may_introduce_who_is_trusted(keys, capsys):
    assert run(["group", "add", "g", "--member", "bob=bob.pem", *AS_DEPUTY]) == 0
    assert "signed by deputy" in capsys.readouterr().out
    assert run(["group", "show", "g", "--trust", "admin=admin.pub"]) == 2
    assert "unknown-" in capsys.readouterr().err
    assert run(["group", "show", "g", "--trust", "deputy=deputy.pub"]) == 0


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["remove", "g", "--member", "evee", *AS_ADMIN], "'warehouse' has no member 'evee'; did you mean 'eve'?"),
        (["add", "g", "--member", "ann=ann.pem", *AS_ADMIN], "'ann' is a member of 'warehouse' already"),
        (["add", "g", "--member", "bob", *AS_ADMIN], "this must be NAME=FILE: 'bob'"),
        (["add", "g", "--member", "bob=nowhere", *AS_ADMIN], "'nowhere' cannot be read: No such file or directory"),
        (["add", "g", "--member", "bob=bob.pem", "--issuer", "admin", "--sign-with", "bob.pem"], "'bob.pem' is no private key in PEM, or its password is another"),
        (["add", "g", "--member", "bob=bob.pem", "--issuer", "admin", "--sign-with", "bob-private.pem"], "'bob-private.pem' is no key that signs here: Ed25519 or P-256"),
        (["add", "ann.pem", "--member", "bob=bob.pem", *AS_ADMIN], "'ann.pem' is no signed document"),
        (["create", "g", "--name", "x", "--member", "bob=bob.pem", *AS_ADMIN], "'g' is there already: use add and remove"),
        (["add", "g", "--member", "bob=bob.pem", "--current", "bob-private.pem", *AS_ADMIN], "the key given is of no member of 'warehouse': it cannot hand on the group's"),
    ],
)  # fmt: skip
def test_a_mistake_gets_one_sentence_and_changes_nothing(args, sentence, keys, tmp_path, capsys):
    before = (tmp_path / "g").read_bytes()
    assert run(["group", *args]) == 2
    assert capsys.readouterr().err == f"postseal: {sentence}\n"
    assert (tmp_path / "g").read_bytes() == before
