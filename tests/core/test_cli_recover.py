"""``postseal archive create`` and ``postseal recover``: what they write, tell and return."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys

import pytest

from postseal.core import OpeningKey, Policy, PublicKeyRecipients, RecipientKey, Sealer
from postseal.core.cli._app import run
from tests.core.stand_ins import local_keys
from tests.core.test_recovery import SIGNERS, as_lengths

HERE = "kafka:orders"


@pytest.fixture
def archive(tmp_path, capsys):
    """A folder with an archive's key in three shares, of which two open."""
    folder = tmp_path / "archive"
    assert run(["archive", "create", str(folder), "--threshold", "2", "--shares", "3"]) == 0
    capsys.readouterr()
    return folder


@pytest.fixture
def dump(archive, tmp_path):
    """Ten envelopes, one a file: five signed, five not. The key service that made their data keys is gone."""
    keys = {
        "main": local_keys(),
        "archive": PublicKeyRecipients([RecipientKey.from_file(archive / "archive.pem")]),
    }
    policies = [
        Policy(name="orders", destinations=[HERE], keys=list(keys)),
        Policy(
            name="signed",
            destinations=["kafka:signed"],
            keys=list(keys),
            protection="privacy",
            sign="ed",
            senders=["shop"],
        ),
    ]
    shop = Sealer(sender="shop", policies=policies, keys=keys, signers=SIGNERS)
    folder = tmp_path / "dump"
    folder.mkdir()
    for number in range(10):
        destination = HERE if number % 2 else "kafka:signed"
        (folder / f"{number}.bin").write_bytes(shop.seal(b"order %d" % number, destination=destination))
    return folder


def shares_of(folder, *numbers):
    return [option for number in numbers for option in ("--shares", str(folder / f"share-{number}-of-3.txt"))]


def bodies(folder) -> set[bytes]:
    lines = (folder / "recovered.jsonl").read_text().splitlines()
    return {base64.b64decode(json.loads(line)["body"]) for line in lines}


# -- the archive's key -------------------------------------------------------------------------------------------------


def test_the_private_key_is_in_the_shares_alone(archive):
    assert {path.name for path in archive.iterdir()} == {
        "archive.pem",
        *(f"share-{n}-of-3.txt" for n in (1, 2, 3)),
    }
    assert b"PRIVATE" not in b"".join(path.read_bytes() for path in archive.iterdir())
    if os.name == "posix":
        assert {path.stat().st_mode & 0o077 for path in archive.glob("share-*")} == {0}


def test_the_private_key_is_written_where_it_is_asked_for(tmp_path, capsys):
    folder = tmp_path / "a"
    asked = [
        "archive",
        "create",
        str(folder),
        "--threshold",
        "2",
        "--shares",
        "2",
        "--private-key",
        "--kind",
        "x-wing",
        "--json",
    ]
    assert run(asked) == 0
    told = json.loads(capsys.readouterr().out)
    key = OpeningKey.from_file(folder / "archive-private.pem")
    assert key.public == RecipientKey.from_file(folder / "archive.pem")
    assert (told["kind"], told["key_id"], told["threshold"]) == ("x-wing", key.public.key_id.hex(), 2)
    assert set(told["files"]) == {path.name for path in folder.iterdir()}


def test_no_key_is_ever_overwritten(archive, capsys):
    before = {path.name: path.read_bytes() for path in archive.iterdir()}
    assert run(["archive", "create", str(archive), "--threshold", "2", "--shares", "3"]) == 2
    assert "is there already" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in archive.iterdir()} == before


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["--threshold", "3", "--shares", "2"], "at most all of them"),
        (["--threshold", "2", "--shares", "3", "--kind", "rsa"], "an archive's key is x25519 or x-wing"),
        (["--threshold", "1", "--shares", "3"], "at least 2"),
    ],
)
def test_a_mistake_writes_nothing(options, sentence, tmp_path, capsys):
    assert run(["archive", "create", str(tmp_path / "a"), *options]) == 2
    assert sentence in capsys.readouterr().err
    assert not (tmp_path / "a").exists()


# -- recovering --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("some", [(1, 2), (3, 1), (1, 2, 3)])
def test_enough_shares_open_all_of_a_dump(archive, dump, tmp_path, capsys, some):
    """B11."""
    out = tmp_path / "out"
    assert run(["recover", str(dump), *shares_of(archive, *some), "--out", str(out)]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "10 of 10 messages opened" in told
    assert bodies(out) == {b"order %d" % number for number in range(10)}


def test_what_was_not_verified_is_said_loudly(archive, dump, tmp_path, capsys):
    assert run(["recover", str(dump), "--shares", str(archive), "--out", str(tmp_path / "out")]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert "UNVERIFIED: 5 signed messages were not checked" in told
    assert "NOT SIGNED: 5 messages" in told


def test_too_few_shares_open_nothing_and_write_nothing(archive, dump, tmp_path, capsys):
    assert run(["recover", str(dump), *shares_of(archive, 2), "--out", str(tmp_path / "out")]) == 2
    assert capsys.readouterr().err == "postseal: 2 different shares are needed; there are 1\n"
    assert not (tmp_path / "out").exists()


def test_what_does_not_open_is_told_with_why_and_the_exit_code_says_so(archive, dump, tmp_path, capsys):
    (dump / "3.bin").write_bytes(b"not sealed")
    (dump / "4.bin").write_bytes((dump / "4.bin").read_bytes()[:-1])
    asked = ["recover", str(dump), "--shares", str(archive), "--out", str(tmp_path / "out")]
    assert run([*asked, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert (report["messages"], report["recovered"], report["lost"]) == (10, 8, 2)
    assert {tuple(failure["examples"]) for failure in report["failures"]} == {("3.bin",), ("4.bin",)}
    assert report["proofs"] == {"sender": 0, "group": 0, "none": 4, "unchecked": 4}
    assert run(asked) == 1
    told = " ".join(capsys.readouterr().out.split())
    assert "8 of 10 messages opened" in told
    assert "8 of them by an earlier run" in told
    assert "unprotected: the body is no envelope (3.bin)" in told


def test_several_inputs_and_formats_at_once(archive, dump, tmp_path, capsys):
    messages = [file.read_bytes() for file in sorted(dump.iterdir())]
    (tmp_path / "a.lengths").write_bytes(as_lengths(messages[:5]))
    (tmp_path / "b.jsonl").write_text(
        "".join(json.dumps({"value": base64.b64encode(m).decode()}) + "\n" for m in messages[5:])
    )
    out = tmp_path / "out"
    asked = [
        "recover",
        str(tmp_path / "a.lengths"),
        str(tmp_path / "b.jsonl"),
        "--shares",
        str(archive),
        "--out",
        str(out),
    ]
    assert run(asked) == 0
    assert bodies(out) == {b"order %d" % number for number in range(10)}


def test_a_private_key_with_its_password_by_reference_does_instead_of_shares(
    archive, dump, tmp_path, capsys, monkeypatch
):
    from postseal.core.recovery import join

    key = join([path.read_text() for path in archive.glob("share-*")])
    (tmp_path / "key.pem").write_bytes(key.to_pem("secret"))
    monkeypatch.setenv("ARCHIVE_PASSWORD", "secret")
    asked = ["recover", str(dump), "--private-key", str(tmp_path / "key.pem"), "--out", str(tmp_path / "out")]
    assert run([*asked, "--password-env", "ARCHIVE_PASSWORD"]) == 0
    assert run([*asked, "--password-env", "ARCHIVE_PASWORD"]) == 2
    assert capsys.readouterr().err == "postseal: the environment has no ARCHIVE_PASWORD\n"


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        (["{dump}"], "give either --shares or --private-key"),
        (["{dump}", "--shares", "{archive}", "--private-key", "x"], "give either --shares or --private-key"),
        (["{dump}", "--shares", "nowhere.txt"], "'nowhere.txt' cannot be read"),
        (["nowhere", "--shares", "{archive}"], "there is no 'nowhere'"),
        (["{dump}", "--shares", "{archive}", "--format", "jsnol"], "did you mean 'jsonl'?"),
        (["{dump}", "--shares", "{dump}/1.bin"], "is no share"),
    ],
)
def test_a_mistake_gets_one_sentence(options, sentence, archive, dump, capsys):
    filled = [option.format(dump=dump, archive=archive) for option in options]
    assert run(["recover", *filled, "--out", str(dump.parent / "out")]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert sentence in err
    assert err.count("\n") == 1


def test_it_needs_no_network_and_no_cloud(archive, dump, tmp_path):
    """Offline: with sockets taken away."""
    code = """
import socket, sys
def no(*_, **__): raise AssertionError("asked the network")
socket.socket = socket.create_connection = socket.getaddrinfo = no
from postseal.core.cli._app import run
code = run(sys.argv[1:])
assert not {"boto3", "botocore", "azure", "hvac"} & set(sys.modules)
sys.exit(code)
"""
    asked = ["recover", str(dump), "--shares", str(archive), "--out", str(tmp_path / "out"), "--json"]
    done = subprocess.run([sys.executable, "-c", code, *asked], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["recovered"] == 10


@pytest.mark.parametrize("inside", [".", "recovered"])
def test_clear_text_is_not_written_into_the_dump(inside, archive, dump, capsys):
    """It would go wherever the dump goes, and be read as a part of it by the next run."""
    before = sorted(dump.rglob("*"))
    assert run(["recover", str(dump), "--shares", str(archive), "--out", str(dump / inside)]) == 2
    assert "must not be written among" in capsys.readouterr().err
    assert sorted(dump.rglob("*")) == before


def test_a_mistake_in_an_input_leaves_no_folder_behind(archive, tmp_path, capsys):
    assert run(["recover", "nowhere", "--shares", str(archive), "--out", str(tmp_path / "out")]) == 2
    assert "there is no 'nowhere'" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_only_the_owner_reads_what_is_in_clear_whoever_made_the_files(archive, dump, tmp_path):
    """docs/recovery.md: only you can read them."""
    out = tmp_path / "out"
    out.mkdir()
    for name in ("recovered.jsonl", "failed.jsonl"):
        (out / name).touch()
        (out / name).chmod(0o644)
    assert run(["recover", str(dump), "--shares", str(archive), "--out", str(out)]) == 0
    assert {file.stat().st_mode & 0o777 for file in out.iterdir()} == {0o600}
