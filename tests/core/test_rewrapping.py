"""Stored envelopes moved to other wrapping keys: what changes, what does not, what cannot be moved, and going on after an interruption."""

from __future__ import annotations

import base64
import json

import boto3
import pytest
from moto import mock_aws

from postseal.core import (
    AwsKms,
    KeyUnavailable,
    OpeningKey,
    Policy,
    PublicKeyRecipients,
    Refused,
    Sealer,
)
from postseal.core.cli._app import run
from postseal.core.errors import ConfigError
from postseal.core.rewrapping import Rewrapper, rewrap_dump
from postseal.core.wire import decode
from tests.core.stand_ins import WatchedKeys
from tests.core.test_recovery import SIGNERS, as_lengths

HERE = "kafka:orders"
OLD, NEW = OpeningKey.generate("x25519"), OpeningKey.generate("p-256")
NAMES = ("orders", "signed", "open")


def sealer(key: OpeningKey = OLD) -> Sealer:
    """One policy of each protection; seals for and opens with *key*."""
    keys = PublicKeyRecipients([key.public], open_with=[key])
    policies = [
        Policy(name="orders", destinations=["kafka:orders"], keys=["main"]),
        Policy(
            name="signed",
            destinations=["kafka:signed"],
            keys=["main"],
            protection="privacy",
            sign="ed",
            senders=["shop"],
        ),
        Policy(name="open", destinations=["kafka:open"], protection="integrity", sign="ed", senders=["shop"]),
    ]
    return Sealer(sender="shop", policies=policies, keys={"main": keys}, signers=SIGNERS)


def envelopes(count: int) -> list[bytes]:
    shop = sealer()
    return [shop.seal(b"order %d" % n, destination=HERE) for n in range(count)]


def rewrapper(old=None, new=None, **options) -> Rewrapper:
    return Rewrapper(
        old or PublicKeyRecipients(open_with=[OLD]), new or PublicKeyRecipients([NEW.public]), **options
    )


def opens(envelope: bytes, key: OpeningKey) -> bool:
    try:
        return sealer(key).open(envelope, destination=HERE).body.startswith(b"order")
    except Refused:
        return False


def test_the_new_key_opens_and_the_old_one_does_not_and_nothing_else_has_changed():
    [envelope] = envelopes(1)
    moved = rewrapper().rewrap(envelope)
    assert (opens(moved, NEW), opens(moved, OLD)) == (True, False)
    before, after = decode(envelope), decode(moved)
    assert (after.protected, after.payload) == (before.protected, before.payload)
    size = len(envelope) - len(before.recipients_bytes)
    assert moved[:size] == envelope[:size]


def test_the_old_recipients_may_stay():
    [envelope] = envelopes(1)
    both = rewrapper(keep=True).rewrap(envelope)
    assert opens(both, NEW)
    assert opens(both, OLD)
    # Again, for the same: one wrap a key.
    assert len(decode(rewrapper(keep=True).rewrap(both)).recipients) == 2


def test_a_data_key_is_unwrapped_once_for_all_its_messages():
    old = WatchedKeys(PublicKeyRecipients(open_with=[OLD]))
    mover = rewrapper(old)
    for envelope in envelopes(20):
        assert opens(mover.rewrap(envelope), NEW)
    assert len(old.unwraps) == 1


def test_what_cannot_be_moved_says_why():
    shop = sealer()
    good = envelopes(1)[0]
    other = Sealer(
        sender="shop",
        policies=[Policy(name="orders", destinations=[HERE], keys=["main"])],
        keys={"main": PublicKeyRecipients([NEW.public])},
    )
    # A data key of the forger's own, under the header of a good message.
    forged = good[: -len(decode(good).recipients_bytes)] + decode(envelopes(1)[0]).recipients_bytes
    for envelope, why in (
        (shop.seal(b"x", destination="kafka:signed"), "its sender signed its recipients, too"),
        (shop.seal(b"x", destination="kafka:open"), "nothing to wrap"),
        (other.seal(b"x", destination=HERE), "not wrapped for the old key"),
        (good[:-1] + bytes([good[-1] ^ 1]), "is changed"),
        (forged, "not the one that it is committed to"),
        (b"clear", "no envelope"),
    ):
        with pytest.raises(Refused) as refused:
            rewrapper().rewrap(envelope)
        assert why in refused.value.detail


# -- dumps -------------------------------------------------------------------------------------------------------------


def written(folder, form: str, messages: list[bytes]):
    """Write *messages* in one of the formats; return what to name, and how to read it back."""
    if form == "folder":
        for number, message in enumerate(messages):
            content = base64.b64encode(message) if number % 2 else message
            path = folder / "dump" / ("deeper" if number > 5 else ".") / f"{number:02}.bin"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(content)
        return folder / "dump"
    path = folder / f"orders.{form}"
    lines = (json.dumps({"value": base64.b64encode(m).decode(), "offset": n}) for n, m in enumerate(messages))
    path.write_bytes(as_lengths(messages) if form == "lengths" else "\n".join(lines).encode())
    return path


def read_back(folder) -> list[bytes]:
    from postseal.core.recovery import read_dump

    return [kept.envelope for kept in read_dump(folder)]


@pytest.mark.parametrize("form", ["folder", "lengths", "jsonl"])
def test_a_dump_is_written_in_its_own_format(form, tmp_path):
    messages = envelopes(10)
    source = written(tmp_path, form, messages)
    report = rewrap_dump(source, tmp_path / "out", rewrapper())
    assert (report.moved, report.seen) == (10, 10)
    found = read_back(tmp_path / "out")
    assert [decode(m).payload for m in found] == [decode(m).payload for m in messages]
    assert all(opens(message, NEW) for message in found)
    assert not list((tmp_path / "out").rglob("*.part"))
    if form == "jsonl":
        lines = (tmp_path / "out" / "orders.jsonl").read_text().splitlines()
        assert [json.loads(line)["offset"] for line in lines] == list(range(10))


@pytest.mark.parametrize("form", ["folder", "lengths", "jsonl"])
@pytest.mark.parametrize("torn", [b"", b"\x00"])
def test_what_was_interrupted_goes_on_and_does_nothing_twice(form, torn, tmp_path):
    """The key service goes away at the sixth message, of which each has a data key of its own."""
    shop = sealer()
    messages = []
    for n in range(10):
        messages.append(shop.seal(b"order %d" % n, destination=HERE))
        shop.close()
    source = written(tmp_path, form, messages)
    old = WatchedKeys(PublicKeyRecipients(open_with=[OLD]))
    unwrap, old.unwrap = old.unwrap, lambda *args: fail() if len(old.unwraps) == 5 else unwrap(*args)

    def fail():
        raise KeyUnavailable("away")

    with pytest.raises(KeyUnavailable):
        rewrap_dump(source, tmp_path / "out", rewrapper(old))
    for part in (tmp_path / "out").rglob("*.part"):
        with part.open("ab") as file:
            file.write(torn)
    report = rewrap_dump(source, tmp_path / "out", rewrapper())
    assert (report.before, report.moved, report.seen) == (5, 5, 10)
    found = read_back(tmp_path / "out")
    assert [decode(m).payload for m in found] == [decode(m).payload for m in messages]
    assert all(opens(message, NEW) for message in found)
    assert rewrap_dump(source, tmp_path / "out", rewrapper()).before == 10


@pytest.mark.parametrize("form", ["folder", "lengths", "jsonl"])
def test_what_cannot_be_moved_is_copied_as_it_is(form, tmp_path):
    messages = [*envelopes(3), sealer().seal(b"x", destination="kafka:signed")]
    report = rewrap_dump(written(tmp_path, form, messages), tmp_path / "out", rewrapper())
    assert (report.moved, report.left.total()) == (3, 1)
    assert read_back(tmp_path / "out")[3] == messages[3]


def test_a_cut_file_and_a_wrong_line_are_copied_too(tmp_path):
    (tmp_path / "a.lengths").write_bytes(as_lengths(envelopes(1)) + b"\x00\x00\x01\x00cut")
    (tmp_path / "b.jsonl").write_bytes(b'{"value": 7}\n{"value": "')
    for name in ("a.lengths", "b.jsonl"):
        report = rewrap_dump(tmp_path / name, tmp_path / "out", rewrapper())
        assert report.left.total() >= 1
    assert (tmp_path / "out" / "a.lengths").read_bytes().endswith(b"\x00\x00\x01\x00cut")
    assert (tmp_path / "out" / "b.jsonl").read_bytes() == b'{"value": 7}\n{"value": "\n'


def test_nothing_is_written_among_the_old(tmp_path):
    source = written(tmp_path, "folder", envelopes(1))
    for out in (source, source / "new"):
        with pytest.raises(ConfigError, match="among the old ones"):
            rewrap_dump(source, out, rewrapper())
    with pytest.raises(ConfigError, match="there is no"):
        rewrap_dump(tmp_path / "nothing", tmp_path / "out", rewrapper())


# -- the command -------------------------------------------------------------------------------------------------------


@pytest.fixture
def files(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old.key").touch(0o600)
    (tmp_path / "old.key").write_bytes(OLD.to_pem())
    (tmp_path / "new.pem").write_bytes(NEW.public.to_pem())
    written(tmp_path, "folder", envelopes(4))
    return tmp_path


def test_the_command_moves_a_folder_and_tells_what_it_left(files, capsys):
    asked = ["rewrap", "dump", "--old", "old.key", "--new", "new.pem", "--out", "out"]
    (files / "dump" / "signed.bin").write_bytes(sealer().seal(b"x", destination="kafka:signed"))
    assert run([*asked, "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["messages"], told["moved"], told["left"]) == (5, 4, 1)
    assert told["reasons"][0]["examples"] == ["signed.bin"]
    assert run(asked) == 1  # what is left is told by each run
    assert "4 were written by an earlier run" in capsys.readouterr().out


def test_the_command_moves_from_a_file_to_aws_kms(files, monkeypatch, capsys):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "testing")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "testing")
    with mock_aws():
        kms = boto3.client("kms", region_name="eu-west-1")
        arn = kms.create_key()["KeyMetadata"]["Arn"]
        assert run(["rewrap", "dump", "--old", "old.key", "--new", arn, "--out", "out"]) == 0
        policy = Policy(name="orders", destinations=[HERE], keys=["main"])
        reader = Sealer(sender="r", policies=[policy], keys={"main": AwsKms(kms, arn)})
        bodies = {reader.open(message, destination=HERE).body for message in read_back(files / "out")}
        assert bodies == {b"order %d" % n for n in range(4)}
    assert "4 of 4 messages moved" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("args", "sentence"),
    [
        (["dump", "--old", "new.pem", "--new", "new.pem"], "new.pem"),
        (["dump", "--old", "old.key", "--new", "old.key"], "this is a private key"),
        (
            ["dump", "--old", "arn:aws:sqs:eu-west-1:1:x", "--new", "new.pem"],
            "not the ARN of a key of AWS KMS",
        ),
        (["nowhere", "--old", "old.key", "--new", "new.pem"], "there is no 'nowhere'"),
        (
            ["dump", "--old", "old.key", "--new", "new.pem", "--password-env", "NONE_SUCH"],
            "the environment has no NONE_SUCH",
        ),
    ],
)
def test_a_mistake_gets_one_sentence(args, sentence, files, capsys):
    assert run(["rewrap", *args, "--out", "out"]) == 2
    err = capsys.readouterr().err
    assert sentence in err
    assert err.count("\n") == 1


def test_keys_of_a_policy_file_are_named(tmp_path, capsys):
    """A key that no policy uses yet, too."""
    (tmp_path / "old.key").touch(0o600)
    (tmp_path / "old.key").write_bytes(OLD.to_pem())
    (tmp_path / "new.pem").write_bytes(NEW.public.to_pem())
    (tmp_path / "postseal.toml").write_text(
        """
        sender = "billing"
        [keys.main]
        provider = "public-key"
        private_key = { file = "old.key" }
        [keys.next]
        provider = "public-key"
        certificate = "new.pem"
        [[policy]]
        name = "orders"
        destinations = ["kafka:orders"]
        keys = ["main"]
        """
    )
    (tmp_path / "dump").mkdir()
    (tmp_path / "dump" / "1").write_bytes(sealer().seal(b"order 1", destination=HERE))
    arguments = ["rewrap", str(tmp_path / "dump"), "--out", str(tmp_path / "out"), "--new", "next"]
    arguments += ["--policy", str(tmp_path / "postseal.toml"), "--old"]
    assert run([*arguments, "mian"]) == 2
    assert "did you mean 'main'?" in capsys.readouterr().err
    assert run([*arguments, "main"]) == 0
    assert sealer(NEW).open((tmp_path / "out" / "1").read_bytes(), destination=HERE).body == b"order 1"


@pytest.mark.parametrize(
    ("options", "says"),
    [
        (["kafka:orders", "--out", "x"], "is a place at a broker: say --to"),
        (["dump", "--to", "kafka:moved"], "is a file or folder: say --out"),
        (["kafka:orders", "--to", "kafka:orders"], "must not go back to where it lies"),
        (["kafka:orders", "--to", "kafka:moved"], "where is the broker? Say --at"),
    ],
)
def test_where_it_goes_has_to_be_said(tmp_path, capsys, monkeypatch, options, says):
    monkeypatch.delenv("POSTSEAL_KAFKA", raising=False)
    (tmp_path / "old.key").touch(0o600)
    (tmp_path / "old.key").write_bytes(OLD.to_pem())
    (tmp_path / "new.pem").write_bytes(NEW.public.to_pem())
    keys = ["--old", str(tmp_path / "old.key"), "--new", str(tmp_path / "new.pem")]
    assert run(["rewrap", *options, *keys]) == 2
    assert says in " ".join(capsys.readouterr().err.split())


# -- another run into the same folder ----------------------------------------------------------------------------------


@pytest.mark.parametrize("form", ["folder", "lengths", "jsonl"])
def test_what_an_earlier_run_left_as_it_was_is_never_told_as_moved(form, tmp_path):
    """Else who reads it destroys the old key, and with it these messages (B10)."""
    source = written(tmp_path, form, envelopes(3))
    wrong = Rewrapper(
        PublicKeyRecipients(open_with=[OpeningKey.generate()]), PublicKeyRecipients([NEW.public])
    )
    assert rewrap_dump(source, tmp_path / "out", wrong).left.total() == 3
    again = rewrap_dump(source, tmp_path / "out", rewrapper())
    assert (again.moved, again.before, again.left.total()) == (0, 0, 3)
    assert "an earlier run" in next(iter(again.left))


@pytest.mark.parametrize("form", ["lengths", "jsonl"])
def test_what_was_left_before_an_interruption_is_told_after_it(form, tmp_path):
    """The third message is signed and stays; the key service goes away at the fifth."""
    shop = sealer()
    messages = []
    for n in range(5):
        messages.append(shop.seal(b"%d" % n, destination="kafka:signed" if n == 2 else HERE))
        shop.close()
    source = written(tmp_path, form, messages)
    old = WatchedKeys(PublicKeyRecipients(open_with=[OLD]))
    unwrap = old.unwrap

    def away(*args):
        if len(old.unwraps) == 3:
            raise KeyUnavailable("away")
        return unwrap(*args)

    old.unwrap = away
    with pytest.raises(KeyUnavailable):
        rewrap_dump(source, tmp_path / "out", rewrapper(old))
    again = rewrap_dump(source, tmp_path / "out", rewrapper())
    assert (again.before, again.moved, again.left.total(), again.seen) == (3, 1, 1, 5)
