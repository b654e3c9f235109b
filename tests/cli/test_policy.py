"""``postseal policy``: show, test, diff. `check` and the schema are in tests/core/config."""

from __future__ import annotations

import json

import pytest

from postseal.core.cli._app import run
from tests.core.config.kit import GOOD, line_of


@pytest.fixture
def file(tmp_path):
    path = tmp_path / "postseal.toml"
    path.write_text(GOOD)
    return str(path)


def asked(capsys, *args, code=0):
    assert run(["policy", *args, "--json"]) == code
    return json.loads(capsys.readouterr().out)


def test_show_has_every_option_with_its_default(file, capsys):
    """A4: what is in force, not only what was written."""
    orders, logs = asked(capsys, "show", file)["policies"]
    assert orders["senders"] == ["billing-api", "shop-web"]
    assert orders["opening"] == {"max_age": 300.0, "max_stale": 3600.0, "max_keys": 1024, "max_failures": 1.0}
    assert (logs["protection"], logs["mode"], logs["max_message_age"]) == ("confidentiality", "enforce", None)
    assert run(["policy", "show", file]) == 0
    out = capsys.readouterr().out
    line = line_of('name = "orders"') - 1
    assert f"orders  (line {line})" in out
    assert "billing-api, shop-web" in out


@pytest.mark.parametrize(
    ("destination", "policy", "sent_to"),
    [
        ("kafka:orders", "orders", True),
        ("sqs:orders-eu", "orders", True),
        ("rabbitmq:shop/orders.new.eu", "orders", True),
        ("sqs:dead-orders", "orders", False),
        ("kafka:logs", "logs", True),
    ],
)
def test_a_destination_is_answered_with_its_policy(destination, policy, sent_to, file, capsys):
    found = asked(capsys, "test", destination, "--file", file)
    assert (found["policy"], found["sent_to"]) == (policy, sent_to)
    assert run(["policy", "test", destination, "--file", file]) == 0
    out = capsys.readouterr().out
    assert f"policy {policy!r}" in out
    assert ("accept_from" in out) is not sent_to


def test_a_destination_without_a_policy_is_refused(file, capsys):
    assert asked(capsys, "test", "kafka:payments", "--file", file, code=1) == {
        "destination": "kafka:payments",
        "policy": None,
    }
    assert run(["policy", "test", "orders", "--file", file]) == 2
    assert "scheme:name" in capsys.readouterr().err


def test_diff_names_what_differs_option_by_option(file, tmp_path, capsys):
    other = tmp_path / "new.toml"
    other.write_text(
        GOOD.replace('mode = "tolerate"\ntolerate_until = 2027-01-31\n', "").replace(
            'name = "logs"', 'name = "records"'
        )
    )
    found = asked(capsys, "diff", file, str(other), code=1)
    assert (found["added"], found["removed"]) == (["records"], ["logs"])
    assert found["changed"]["orders"]["mode"] == ["tolerate", "enforce"]
    assert set(found["changed"]["orders"]) == {"mode", "tolerate_until"}
    assert run(["policy", "diff", file, str(other)]) == 1
    out = capsys.readouterr().out
    assert "- logs" in out
    assert "mode: tolerate -> enforce" in out
    assert run(["policy", "diff", file, file]) == 0
    assert capsys.readouterr().out == "the policies are the same\n"


@pytest.mark.parametrize("command", [["show"], ["test", "kafka:orders", "--file"], ["diff", "same.toml"]])
def test_a_file_with_mistakes_is_answered_with_the_first_line(command, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "same.toml").write_text(GOOD)
    (tmp_path / "bad.toml").write_text(GOOD.replace('protection = "privacy"', 'protection = "privcy"'))
    assert run(["policy", *command, "bad.toml"]) == 2
    err = capsys.readouterr().err
    assert "bad.toml" in err
    assert "did you mean 'privacy'" in err
