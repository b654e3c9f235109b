"""What is wrong with the words of ``postseal quarantine``: one line each, before any broker is asked."""

import pytest

from postseal.core.cli._app import run
from postseal.core.cli._quarantine import quarantine_by_policy


@pytest.mark.parametrize(
    ("args", "says"),
    [
        (["list", "kafka"], "must be scheme:name"),
        (["list", "kafak:bad"], "did you mean 'kafka'?"),
        (["list", "kafka:bad"], "set POSTSEAL_KAFKA"),
        (["list", "servicebus:bad"], "set POSTSEAL_SERVICEBUS"),
        (["list", "kafka:bad", "--verdict", "forgd"], "did you mean 'forged'?"),
        (["list", "kafka:bad", "--since", "yesterday"], "--since is 'yesterday'"),
        (["list", "kafka:bad", "--since", "2026-10-17T12:00:00"], "needs a time zone"),
        (["show", "kafka:bad"], "name the ids"),
        (["replay", "kafka:bad"], "or say --all"),
        (["replay", "kafka:bad", "0:1", "--all"], "or say --all"),
        (["drop", "kafka:bad"], "or say --all"),
        (["lsit", "kafka:bad"], "did you mean 'list'?"),
    ],
)
def test_a_wrong_word_is_told_in_one_line(args, says, capsys, monkeypatch):
    for name in ("KAFKA", "RABBITMQ", "SERVICEBUS", "SQS"):
        monkeypatch.delenv(f"POSTSEAL_{name}", raising=False)
    assert run(["quarantine", *args]) == 2
    out, err = capsys.readouterr()
    assert says.lower() in err.lower()
    assert len(err.splitlines()) == 1
    assert out == ""


POLICIES = """
sender = "shop"

[[policy]]
name = "orders"
destinations = ["kafka:orders", "servicebus:orders", "kafka:eu-*"]
keys = ["main"]
on_refused = "dead-letter"

[[policy]]
name = "bills"
destinations = ["sqs:bills"]
keys = ["main"]
on_refused = "quarantine"
quarantine = "sqs:bad-bills"

[[policy]]
name = "logs"
destinations = ["rabbitmq:logs/#"]
keys = ["main"]
on_refused = "dead-letter"

[keys.main]
provider = "given"
"""


@pytest.mark.parametrize(
    ("where", "quarantine"),
    [
        ("bills", "sqs:bad-bills"),
        ("sqs:bills", "sqs:bad-bills"),
        ("sqs:bad-bills", "sqs:bad-bills"),
        ("kafka:orders", "kafka:orders.refused"),
        ("kafka:eu-1", "kafka:eu-1.refused"),
        ("servicebus:orders", "servicebus:orders/$deadletterqueue"),
    ],
)
def test_a_policy_file_says_where_the_quarantine_is(where, quarantine, tmp_path):
    file = tmp_path / "postseal.toml"
    file.write_text(POLICIES)
    assert quarantine_by_policy(where, file) == quarantine


@pytest.mark.parametrize(
    ("where", "says"),
    [
        ("bils", "did you mean 'bills'?"),
        ("orders", "name one of kafka:orders.refused, servicebus:orders/$deadletterqueue"),
        ("logs", "names no quarantine"),
        ("kafka:others", "no policy speaks of"),
    ],
)
def test_what_a_policy_file_does_not_say_is_told_in_one_line(where, says, tmp_path, capsys):
    file = tmp_path / "postseal.toml"
    file.write_text(POLICIES)
    assert run(["quarantine", "list", where, "--policy", str(file)]) == 2
    _, err = capsys.readouterr()
    assert says in err
    assert len(err.splitlines()) == 1


def test_the_command_connects_there(tmp_path, capsys, monkeypatch):
    monkeypatch.delenv("POSTSEAL_KAFKA", raising=False)
    file = tmp_path / "postseal.toml"
    file.write_text(POLICIES)
    assert run(["quarantine", "list", "kafka:orders", "--policy", str(file)]) == 2
    assert "set POSTSEAL_KAFKA" in capsys.readouterr().err
