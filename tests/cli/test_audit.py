"""``postseal audit``: the chain checked, the events added up."""

from __future__ import annotations

import json
from datetime import UTC, datetime

import pytest

from postseal.core import AlarmEvent, AuditEvent, AuditFile, MoreEvents, Verdict
from postseal.core.cli._app import run

SECRET = bytes(range(32))
NOW = datetime(2026, 10, 1, tzinfo=UTC)
EVENT = AuditEvent(NOW, Verdict.FORGED, "wrong", "kafka:orders", "orders", "shop")


@pytest.fixture
def path(tmp_path):
    path = tmp_path / "audit.jsonl"
    AuditFile(path, secret=SECRET).write(
        [
            EVENT.as_dict(),
            EVENT._replace(verdict=Verdict.STALE).as_dict(),
            EVENT.as_dict(),
            MoreEvents(NOW, NOW, Verdict.FORGED, "kafka:orders", 12_345).as_dict(),
            AlarmEvent(NOW, True, 100, 900, 5.0, {"forged": 100}).as_dict(),
            AlarmEvent(NOW, False, 1, 900, 60.0, {}).as_dict(),
        ]
    )
    (tmp_path / "secret").write_text(SECRET.hex() + "\n")
    return path


def test_a_good_chain_is_said_to_be_one(path, capsys):
    assert run(["audit", "verify", str(path), "--secret-file", str(path.with_name("secret"))]) == 0
    out = capsys.readouterr().out
    assert "6 lines, numbers 1 to 6, hang together (keyed)" in out
    assert "last: 6:" in out


def test_the_secret_may_be_written_as_in_the_policy_file(path, monkeypatch):
    import base64

    monkeypatch.setenv("POSTSEAL_AUDIT", base64.b64encode(SECRET).decode())
    assert run(["audit", "verify", str(path), "--secret-env", "POSTSEAL_AUDIT"]) == 0
    path.with_name("secret").write_bytes(SECRET)
    assert run(["audit", "verify", str(path), "--secret-file", str(path.with_name("secret"))]) == 0


def test_the_first_bad_line_is_named_and_the_exit_code_is_1(path, capsys, monkeypatch):
    monkeypatch.setenv("POSTSEAL_AUDIT", SECRET.hex())
    path.write_bytes(path.read_bytes().replace(b'"verdict":"stale"', b'"verdict":"clear"'))
    options = ["--secret-env", "POSTSEAL_AUDIT"]
    assert run(["audit", "verify", str(path), *options]) == 1
    assert f"{path}:2: was altered" in capsys.readouterr().out.replace("\n", "")
    assert run(["audit", "verify", str(path), *options, "--json"]) == 1
    report = json.loads(capsys.readouterr().out)
    assert report["ok"] is False
    assert report["problems"] == [
        {"file": str(path), "line": 2, "what": "was altered: its hash is wrong"},
    ]
    assert (report["lines"], report["last"], report["keyed"]) == (6, 6, True)


def test_what_was_printed_can_be_expected_the_next_time(path, capsys):
    secret = ["--secret-file", str(path.with_name("secret"))]
    run(["audit", "verify", str(path), *secret, "--json"])
    report = json.loads(capsys.readouterr().out)
    noted = f"{report['last']}:{report['last_hash']}"
    AuditFile(path, secret=SECRET).write([EVENT.as_dict()])
    assert run(["audit", "verify", str(path), *secret, "--expect", noted]) == 0
    assert run(["audit", "verify", str(path), *secret, "--expect", f"6:{'0' * 64}"]) == 1


def test_a_shells_star_takes_heads_and_locks_along(path, capsys):
    names = [str(each) for each in sorted(path.parent.glob("audit.jsonl*"))]
    assert len(names) == 3
    assert run(["audit", "verify", *names, "--secret-file", str(path.with_name("secret"))]) == 0
    assert run(["audit", "summary", *names, "--json"]) == 0


def test_the_summary_adds_up_what_was_told_one_by_one_and_in_numbers(path, capsys):
    assert run(["audit", "summary", str(path), "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert found["events"] == 12_348
    assert found["alarms"] == 1
    by = {(row["verdict"], row["unverified_sender"]): row["events"] for row in found["by"]}
    assert by == {("forged", "shop"): 2, ("forged", "(not told one by one)"): 12_345, ("stale", "shop"): 1}
    assert run(["audit", "summary", str(path)]) == 0
    out = capsys.readouterr().out
    assert "12,345" in out
    assert "kafka:orders" in out
    assert "12,348 events; 1 alarms" in out


def test_names_of_a_message_cannot_act_on_the_terminal(tmp_path, capsys):
    path = tmp_path / "audit.jsonl"
    AuditFile(path).write([EVENT._replace(unverified_sender="\x1b[2J\u202e").as_dict()])
    run(["audit", "summary", str(path)])
    out = capsys.readouterr().out
    assert "\x1b[2J" not in out
    assert "\u202e" not in out


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["verifi"], "did you mean 'verify'"),
        (["verify", "{path}x"], "did you mean '{path}'"),
        (["verify", "{path}", "--expect", "6"], "--expect is a number"),
        (
            ["verify", "{path}", "--secret-env", "POSTSEAL_NOT_SET"],
            "no environment variable 'POSTSEAL_NOT_SET'",
        ),
        (["verify", "{path}", "--secret-file", "{path}.nowhere"], "cannot be read"),
        (["verify", "{path}.head"], "only heads and locks"),
    ],
)
def test_what_is_used_wrongly_is_said_in_one_line(path, capsys, args, said):
    assert run(["audit", *(arg.format(path=path) for arg in args)]) == 2
    assert said.format(path=path) in capsys.readouterr().err
