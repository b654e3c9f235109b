"""What is wrong with the words of ``postseal quarantine``: one line each, before any broker is asked."""

import pytest

from postseal.core.cli._app import run


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
