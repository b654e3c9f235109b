"""``postseal doctor``: a line for each finding, an exit code for scripts, and never a secret."""

from __future__ import annotations

import base64
import json
import warnings

import pytest

from postseal.core import SqliteLedger, UnsafeLocalKeys
from postseal.core.cli import doctor
from postseal.core.cli._app import run

SECRET = base64.b64encode(bytes(range(32))).decode()
FILE = """\
sender = "billing-api"

[keys.main]
provider = "local"
file = "keys.toml"

[signers.billing]
algorithm = "hmac-sha256"
keys = [{ id = "2026-10", state = "active", secret = { env = "POSTSEAL_BILLING" } }]

[[policy]]
name = "orders"
destinations = ["kafka:orders"]
protection = "privacy"
keys = ["main"]
sign = "billing"
senders = ["billing-api"]

[[policy]]
name = "logs"
destinations = ["kafka:logs"]
keys = ["main"]
"""


@pytest.fixture
def file(tmp_path, monkeypatch):
    monkeypatch.setenv("POSTSEAL_BILLING", SECRET)
    monkeypatch.chdir(tmp_path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        UnsafeLocalKeys.create_file(tmp_path / "keys.toml")
    path = tmp_path / "postseal.toml"
    path.write_text(FILE)
    return path


def test_all_is_well_in_a_line_each_and_exit_code_0(file, capsys):
    assert run(["doctor"]) == 0
    out = capsys.readouterr().out
    lines = out.splitlines()
    assert lines[0].startswith("✓ postseal.toml: no mistake")
    assert lines[-1] == "✓ 6 good, 1 warnings, 0 to be mended"
    assert "! keys.main: its keys lie in this process: not for production -> name a key service" in out
    assert SECRET not in out
    assert (file.parent / "keys.toml").read_text().split('"')[-2] not in out


def test_a_script_reads_it_as_json(file, capsys):
    assert run(["doctor", "--config", str(file), "--json"]) == 0
    told = json.loads(capsys.readouterr().out)
    assert told["ok"] is True
    assert {each["grade"] for each in told["findings"]} == {"good", "warning"}
    assert set(told["findings"][0]) == {"grade", "what", "says", "mend"}


def test_warnings_count_where_that_is_asked_for(file):
    assert run(["doctor", "--strict"]) == 1


def test_what_is_to_be_mended_is_exit_code_1(file, monkeypatch, capsys):
    monkeypatch.delenv("POSTSEAL_BILLING")
    assert run(["doctor"]) == 1
    out = capsys.readouterr().out
    # Behind it may stand a variable that is there and named nearly so.
    assert out.startswith(
        "✗ postseal.toml:9: signers.billing.keys.0.secret: the environment has no POSTSEAL_BILLING"
    )
    assert "-> mend" in out


def test_one_policy_alone_and_one_that_is_not_there(file, capsys):
    assert run(["doctor", "--policy", "logs"]) == 0
    out = capsys.readouterr().out
    assert "policy logs" in out
    assert "policy orders" not in out
    assert run(["doctor", "--policy", "log"]) == 2
    assert "did you mean 'logs'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("args", "words"),
    [
        (["--config", "postsael.toml"], "did you mean 'postseal.toml'"),
        (["--role", "reader"], "is not one of"),
        (["--jsn"], "did you mean '--json'"),
    ],
)
def test_it_is_used_wrongly_with_exit_code_2(file, capsys, args, words):
    assert run(["doctor", *args]) == 2
    assert words in capsys.readouterr().err


def test_a_producer_is_not_asked_to_open(file, capsys):
    assert run(["doctor", "--role", "producer"]) == 0
    out = capsys.readouterr().out
    assert "a message is sealed in" in out
    assert "opens" not in out


def test_a_ledger_is_looked_at_and_never_made(file, tmp_path, capsys):
    assert run(["doctor", "--ledger", "ledger.db"]) == 0
    assert "ledger.db is not there yet, and can be made" in capsys.readouterr().out
    assert not (tmp_path / "ledger.db").exists()
    SqliteLedger(tmp_path / "ledger.db").close()
    assert run(["doctor", "--ledger", "ledger.db"]) == 0
    assert "holds 0 messages" in capsys.readouterr().out
    assert run(["doctor", "--ledger", "nowhere/ledger.db"]) == 1


def test_the_ledger_of_the_file_is_looked_at(file, capsys):
    file.write_text(FILE + '[ledger]\nstore = "sqlite"\npath = "ledger.db"\n')
    assert run(["doctor"]) == 0
    assert "ledger.db can be written, and holds 0 messages" in capsys.readouterr().out
    file.write_text(FILE + '[ledger]\nstore = "sqlite"\npath = "nowhere/ledger.db"\n')
    assert run(["doctor"]) == 1
    assert "ledger" in capsys.readouterr().out


def test_the_password_of_a_ledger_is_not_shown(file, capsys):
    assert run(["doctor", "--ledger", "redis://:hunter2@127.0.0.1:9/0"]) == 1
    told = capsys.readouterr()
    assert "ledger: no answer (ConnectionError)" in told.out
    assert "hunter2" not in told.out + told.err
    assert run(["doctor", "--ledger", "hunter2://x"]) == 1
    told = capsys.readouterr()
    assert "ledger: no address of Redis" in told.out
    assert "hunter2" not in told.out + told.err


def test_nothing_that_a_file_says_moves_the_terminal(file, capsys):
    file.write_text(FILE.replace('name = "logs"', 'name = "lo\\u001b[31mgs"'))
    run(["doctor"])
    assert "\x1b[31mgs" not in capsys.readouterr().out


def test_on_a_terminal_it_shows_what_it_does(file, monkeypatch, capsys):
    seen = []

    class Bar:
        def __enter__(self):
            return self

        def __exit__(self, *_):
            return None

        def add_task(self, *_, **__):
            return 0

        def update(self, _, description):
            seen.append(description)

    monkeypatch.setattr(doctor, "progress_bar", lambda *_, **__: Bar())
    assert run(["doctor"]) == 0
    assert "keys.main, policy orders: a data key" in seen
