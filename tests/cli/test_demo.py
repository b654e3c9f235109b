"""``postseal demo``: that what it shows is so, and that it says when it is not."""

import base64
import json
import logging
import os
import pty
import re
import select
import struct
import subprocess
import sys
import termios
import warnings
from collections import Counter
from fcntl import ioctl
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from postseal.core.cli import _parties
from postseal.core.cli._app import run
from postseal.core.cli._orders import Order, leaks, orders
from postseal.core.wire import decode

COMMAND = [sys.executable, "-c", "from postseal.core.cli import main; raise SystemExit(main())", "demo"]
SECRETS = [secret for order in orders(41) for secret in order.secrets]
DUE = {
    "tampered": "forged",
    "injected": "unprotected",
    "moved": "wrong-destination",
    "relabelled": "forged",
    "wrong sender": "unknown-sender",
    "impostor": "forged",
}


@pytest.fixture(scope="module")
def ran() -> subprocess.CompletedProcess[str]:
    """The demonstration, run as a person would, where the environment leads elsewhere."""
    elsewhere = {
        "AWS_PROFILE": "no-such-profile",
        "AWS_ENDPOINT_URL": "http://127.0.0.1:9",
        "AWS_DEFAULT_REGION": "mars-north-1",
    }
    return subprocess.run(
        [*COMMAND, "--json"],
        capture_output=True,
        text=True,
        check=False,
        timeout=100,
        env=os.environ | elsewhere,
    )


@pytest.fixture(scope="module")
def shown(ran):
    return json.loads(ran.stdout)


@pytest.fixture(params=["kafka", "sqs"])
def act(request, shown):
    return shown["brokers"][request.param]


def test_nothing_but_one_object_is_printed(ran, shown):
    assert ran.returncode == 0
    assert ran.stderr == ""
    assert ran.stdout.count("\n") == 1
    assert shown["ok"] is True
    assert shown["problems"] == []


def test_what_was_sent_was_handed_on(act):
    assert act["messages"] == act["handler_calls"] == act["handed_on_unchanged"] == 41


def test_the_broker_holds_nothing_of_the_order(act):
    """A1, A2: looked for here once more, in what the demonstration shows as held."""
    assert act["secrets_looked_for"] == 120
    assert act["secrets_found"] == []
    held = base64.b64decode(act["example"]["held_base64"])
    envelope = bytes.fromhex(act["example"]["envelope_hex"])
    for secret in Order(**act["example"]["sent"]).secrets:
        assert secret.encode() not in held + envelope


def test_what_the_broker_holds_is_an_envelope(act):
    envelope = decode(bytes.fromhex(act["example"]["envelope_hex"]))
    assert envelope.outer is not None
    assert envelope.header.sender == "shop"
    assert envelope.header.bound == ("content-type",)
    [recipient] = envelope.recipients
    assert recipient.algorithm == -65537


def test_the_key_service_is_asked_once_each_way(act):
    """D4: forty-one messages, one data key made and one opened; a forgery costs none (B6)."""
    assert act["key_service_calls"] == {"GenerateDataKey": 1, "Decrypt": 1}
    assert [attack["key_service_calls"] for attack in act["attacks"]] == [0] * len(DUE)


def test_every_attack_is_refused_with_its_verdict_and_one_audit_event(act):
    """A9, E3, E5, E6."""
    assert {attack["attack"]: attack["verdict"] for attack in act["attacks"]} == DUE
    for attack in act["attacks"]:
        assert attack["handed_on"] == 0
        [event] = attack["audit"]
        assert event["verdict"] == attack["verdict"]
        assert event["policy"] == "orders"
        assert event["coordinates"]


def test_audit_events_name_what_a_forger_claims_and_no_clear_text(act):
    events = {attack["attack"]: attack["audit"][0] for attack in act["attacks"]}
    assert events["wrong sender"]["unverified_sender"] == "shop"
    assert events["wrong sender"]["unverified_key_id"] == "warehouse-2026"
    assert events["impostor"]["unverified_key_id"] == "shop-2026"
    assert events["injected"]["unverified_sender"] is None
    assert events["moved"]["destination"].endswith(":refunds")
    assert events["moved"]["unverified_destination"].endswith(":orders")
    assert not [secret for secret in SECRETS if secret in json.dumps(events, ensure_ascii=False)]


def test_refused_messages_are_kept(act):
    assert act["refused_kept"]["messages"] == len(DUE)


def test_bytes_added_are_those_of_the_envelope(act):
    added = (act["bytes"]["held"] - act["bytes"]["clear"]) // 40
    assert added == act["bytes"]["added_to_each"]
    assert 250 < added < 600


def test_the_summary_is_the_sum(shown):
    acts = shown["brokers"].values()
    summary = shown["summary"]
    assert summary["messages"] == sum(act["messages"] for act in acts)
    assert summary["handed_on_unchanged"] == summary["messages"]
    assert summary["refused"] == dict(Counter(DUE.values()) + Counter(DUE.values()))
    assert summary["key_service_calls"] == {"GenerateDataKey": 2, "Decrypt": 2}


def test_brokers_that_were_left_out_are_named_with_the_way_to_have_them(shown):
    assert set(shown["brokers"]) == {"kafka", "sqs"}
    assert "--rabbitmq" in shown["left_out"]["RabbitMQ"]
    assert "--servicebus" in shown["left_out"]["Service Bus"]


def test_a_server_that_is_not_there_is_named_without_its_password(capsys):
    assert run(["demo", "--json", "--rabbitmq", "amqp://guest:hunter2@127.0.0.1:9/"]) == 2
    out, err = capsys.readouterr()
    assert out == ""
    assert "no RabbitMQ lets us in at 127.0.0.1:9" in err
    assert "hunter2" not in err


# -- what must not happen ----------------------------------------------------------------------------------------------


def test_a_broker_that_can_read_fails_the_demonstration(monkeypatch, capsys):
    monkeypatch.setattr(_parties, "POLICY", _parties.POLICY.replace(mode="observe"))
    assert run(["demo", "--json"]) == 1
    out, err = capsys.readouterr()
    shown = json.loads(out)
    assert err == ""
    assert shown["ok"] is False
    assert "Kafka could read the card of A-1001, as text" in shown["problems"]
    assert "SQS could read the email of A-1040, as text" in shown["problems"]
    assert not [secret for secret in SECRETS if secret in json.dumps(shown["problems"], ensure_ascii=False)]
    # Nothing is refused either, and that is said of each attack.
    assert [p for p in shown["problems"] if p.startswith("SQS: injected: the verdict is unprotected")]


def test_an_attack_that_succeeds_fails_the_demonstration(monkeypatch, capsys):
    monkeypatch.setattr(_parties, "POLICY", _parties.POLICY.replace(bind_headers=[]))
    assert run(["demo"]) == 1
    out = capsys.readouterr().out
    assert "This must not happen:" in out
    words = " ".join(out.replace("│", " ").split())
    for broker in ("Kafka", "SQS"):
        assert (
            f"{broker}: relabelled: the verdict is none where forged is due, 0 audit events, 1 handed on"
            in words
        )
        assert (
            f"{broker}: 0 of 41 orders did not reach the handler as they were sent, 1 messages did" in words
        )
    assert "honest orders only" not in out


# -- how it looks ------------------------------------------------------------------------------------------------------


def in_a_terminal(*args: str, columns: int, **env: str) -> tuple[int, str]:
    """Run the demonstration in a pseudo-terminal and return its exit code and all that it wrote."""
    ours, theirs = pty.openpty()
    ioctl(theirs, termios.TIOCSWINSZ, struct.pack("HHHH", 50, columns, 0, 0))
    clean = {
        name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "FORCE_COLOR")
    }
    process = subprocess.Popen(
        [*COMMAND, *args],
        stdin=theirs,
        stdout=theirs,
        stderr=theirs,
        env=clean | {"TERM": "xterm-256color"} | env,
    )
    os.close(theirs)
    written = b""
    try:
        while select.select([ours], [], [], 60)[0]:
            piece = os.read(ours, 65536)
            if not piece:
                break
            written += piece
    except OSError:  # the other end was closed
        pass
    finally:
        os.close(ours)
    return process.wait(30), written.decode()


def test_it_fits_eighty_columns_without_colours():
    code, written = in_a_terminal(columns=80, NO_COLOR="1")
    assert code == 0
    assert not re.findall(r"\x1b\[(?:\d+;)*(?:3\d|4\d|9\d|10\d)(?:;\d+)*m", written)
    lines = re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n").split("\n")
    assert max(map(len, lines)) <= 80
    text = "\n".join(lines)
    for word in (
        "the shop sent",
        "Kafka holds",
        "SQS holds",
        "billing got",
        "4111 1111 1111 1111",
        *DUE,
        *DUE.values(),
    ):
        assert word in text
    assert "honest orders only" in text


def test_a_terminal_that_has_colours_gets_them_and_a_sign_of_life():
    code, written = in_a_terminal(columns=120)
    assert code == 0
    assert "\x1b[1;32m" in written
    assert "an administrator reads" in written


def test_what_is_no_terminal_gets_no_escapes_and_ascii_does_for_it():
    done = subprocess.run(
        COMMAND, capture_output=True, check=False, timeout=100, env=os.environ | {"PYTHONIOENCODING": "ascii"}
    )
    assert done.returncode == 0, done.stderr
    assert b"\x1b" not in done.stdout
    assert b"Zo? Beispiel" in done.stdout
    assert b"ok" in done.stdout


def state_of_the_process():
    log = logging.getLogger("postseal")
    return log.propagate, list(log.handlers), list(warnings.filters), dict(os.environ)


def test_the_picture_fetches_nothing_and_shows_what_the_brokers_hold(tmp_path, capsys):
    path, before = tmp_path / "demo.svg", state_of_the_process()
    assert run(["demo", "--svg", str(path)]) == 0
    assert state_of_the_process() == before
    assert capsys.readouterr().err == ""
    for svg in (path.read_text(), Path(__file__).parents[2].joinpath("docs", "demo.svg").read_text()):
        text = svg.replace("&#160;", " ")
        assert re.findall(r"https?:[^\"' <]*", text) == ["http://www.w3.org/2000/svg"]
        assert not re.search(r"@font-face|@import|url\((?!#)|<image|<script", text)
        for word in ("Kafka holds", "SQS holds", *DUE):
            assert word in text


# -- looking for secrets -----------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("form", "write"),
    [
        ("as text", bytes),
        ("as hex", lambda data: data.hex().encode()),
        ("as hex", lambda data: data.hex().upper().encode()),
        ("as base64", base64.b64encode),
        ("as base64url", base64.urlsafe_b64encode),
        ("as escaped text", lambda data: json.dumps(data.decode()).encode()),
    ],
)
@given(before=st.text("x~é", max_size=9), after=st.text("y?ü", max_size=9))
def test_a_secret_is_found_wherever_it_begins(form, write, before, after):
    order = Order("A-1", "Zoë Beispiel", "zoe@example.com", "4000 0566 5566 5556", "1 EUR")
    held = [b"nothing", write((before + order.customer + after).encode())]
    [found] = leaks([order], held)
    assert found.startswith("customer of A-1, as ")
    assert form.removesuffix("url") in found  # where the alphabets differ in nothing, it is both


def test_nothing_is_found_across_two_messages():
    order = orders(1)[0]
    card = order.card.encode()
    assert leaks([order], [card[:10], card[10:]]) == []
