"""``--references``: the tools on messages whose data keys travel by reference."""

from __future__ import annotations

import json

import pytest

from postseal.core import OpeningKey, Policy, PublicKeyRecipients, Sealer, SqliteReferences
from postseal.core.cli._app import run
from postseal.core.shortening import is_short, read_short
from tests.core.stand_ins import join_threads
from tests.core.test_recovery import SIGNERS

HERE = "kafka:orders"
KEY = OpeningKey.generate("x25519")


@pytest.fixture
def records(tmp_path):
    return tmp_path / "references.db"


@pytest.fixture(params=["confidentiality", "privacy"])
def message(request, tmp_path, records):
    """A file with a message in its short form."""
    signs = {"sign": "ed", "senders": ["shop"]} if request.param == "privacy" else {}
    orders = Policy(
        name="orders",
        destinations=[HERE],
        keys=["main"],
        protection=request.param,
        key_by_reference=True,
        **signs,
    )
    keys = {"main": PublicKeyRecipients([KEY.public])}
    shop = Sealer(
        sender="shop",
        policies=[orders],
        keys=keys,
        signers=SIGNERS if signs else None,
        references=SqliteReferences(records),
    )
    shop.seal(b"", destination=HERE)
    join_threads("postseal-references")
    envelope = shop.seal(b"order 1", destination=HERE)
    assert is_short(envelope)
    file = tmp_path / "message.bin"
    file.write_bytes(envelope)
    return file


@pytest.fixture
def private_key(tmp_path):
    file = tmp_path / "archive.key"
    file.write_bytes(KEY.to_pem())
    file.chmod(0o600)
    return file


def shown(capsys, *arguments) -> dict[str, object]:
    assert run([*map(str, arguments), "--json"]) == 0
    return json.loads(capsys.readouterr().out.splitlines()[-1])


def test_inspect_shows_a_short_form_and_with_its_record_all_of_it(message, records, capsys):
    short = shown(capsys, "inspect", message)
    assert short["structure"] == "short form"
    assert short["reference"] == read_short(message.read_bytes()).reference.hex()
    assert short["bytes"]["body"] == len(b"order 1")
    whole = shown(capsys, "inspect", message, "--references", records)
    assert whole["reference"] == short["reference"]
    assert whole["unverified"]["sender"] == "shop"
    assert whole["unverified"]["sent_at"] == short["unverified"]["sent_at"]
    assert whole["unverified"]["message_id"] == short["unverified"]["message_id"]
    for options in ([], ["--references", str(records)]):
        assert run(["inspect", str(message), *options]) == 0
        assert short["reference"] in capsys.readouterr().out


def test_recover_opens_it_with_its_record(message, records, private_key, tmp_path, capsys):
    """B11."""
    told = shown(
        capsys,
        *("recover", message, "--private-key", private_key, "--out", tmp_path / "out"),
        *("--references", records),
    )
    assert told["recovered"] == 1
    assert (
        run(["recover", str(message), "--private-key", str(private_key), "--out", str(tmp_path / "other")])
        == 1
    )
    assert "no references here" in " ".join(capsys.readouterr().out.split())


def test_rewrap_writes_it_whole(message, records, private_key, tmp_path, capsys):
    new = OpeningKey.generate("x25519")
    (tmp_path / "new.pem").write_bytes(new.public.to_pem())
    arguments = ["rewrap", message, "--old", private_key, "--new", tmp_path / "new.pem"]
    arguments += ["--out", tmp_path / "moved", "--references", records, "--json"]
    code = run([*map(str, arguments)])
    told = json.loads(capsys.readouterr().out)
    if told["left"]:  # its sender signed its recipients
        assert code == 1
        return
    envelope = (tmp_path / "moved" / "message.bin").read_bytes()
    assert not is_short(envelope)
    orders = Policy(name="orders", destinations=[HERE], keys=["main"])
    billing = Sealer(sender="billing", policies=[orders], keys={"main": PublicKeyRecipients(open_with=[new])})
    assert billing.open(envelope, destination=HERE).body == b"order 1"


@pytest.mark.parametrize("content", [None, b"something else that is long enough to be looked at" * 100])
def test_a_file_that_is_none_of_records_is_named(message, tmp_path, capsys, content):
    other = tmp_path / "other"
    if content is not None:
        other.write_bytes(content)
    assert run(["inspect", str(message), "--references", str(other)]) == 2
    assert "other" in capsys.readouterr().err
