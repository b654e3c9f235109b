"""``postseal plan``: options, a file of them, what is printed, the picture."""

from __future__ import annotations

import json
import xml.etree.ElementTree as ET

import pytest

from postseal.core.cli._app import run


def planned(capsys, *args):
    assert run(["plan", *args, "--json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_the_table_has_all_modes_and_says_what_to_take(capsys):
    """D7."""
    assert run(["plan"]) == 0
    out = capsys.readouterr().out
    for word in (
        "direct",
        "per-message",
        "cached",
        "branch",
        "15,552.00",
        "take cached",
        "aws.amazon.com/kms/pricing",
    ):
        assert word in " ".join(out.split())


def test_options_have_units_and_json_has_everything(capsys):
    found = planned(
        capsys,
        *(
            "--rate",
            "100_000",
            "--size",
            "2KiB",
            "--retention",
            "7d",
            "--max-age",
            "5m",
            "--max-messages",
            "1,000,000",
        ),
        *(
            "--max-bytes",
            "1GiB",
            "--opening-age",
            "90s",
            "--producers",
            "3",
            "--consumers",
            "4",
            "--destinations",
            "2",
        ),
        *(
            "--branches",
            "5",
            "--branch-age",
            "2h",
            "--backlog",
            "1h",
            "--catch-up",
            "3",
            "--opening-keys",
            "9",
        ),
    )
    assert found["load"] == {
        "rate": 100_000,
        "size": 2048,
        "retention": 604_800,
        "producers": 3,
        "consumers": 4,
        "destinations": 2,
        "branches": 5,
        "branch_age": 7200,
        "backlog": 3600,
        "catch_up": 3,
        "data_key": {"max_age": 300, "max_messages": 1_000_000, "max_bytes": 2**30},
        "opening": {"max_age": 90, "max_keys": 9},
    }
    assert set(found["modes"]) == {"direct", "per-message", "cached", "branch"}
    assert found["modes"]["per-message"]["calls"] == 200_000
    assert found["modes"]["per-message"]["restart_seconds"] is None
    assert found["service"]["quota"] == 10_000


@pytest.mark.parametrize("ending", ["toml", "json"])
def test_a_file_may_say_it_and_an_option_goes_before(tmp_path, capsys, ending):
    options = {"service": "azure-key-vault", "rate": 50, "max-age": "1h", "producers": 2}
    path = tmp_path / f"load.{ending}"
    text = (
        json.dumps(options)
        if ending == "json"
        else "".join(f"{k} = {json.dumps(v)}\n" for k, v in options.items())
    )
    path.write_text(text)
    found = planned(capsys, str(path), "--producers", "7", "--quota", "200")
    assert (found["load"]["rate"], found["load"]["producers"]) == (50, 7)
    assert found["load"]["data_key"]["max_age"] == 3600
    assert found["service"]["name"].startswith("Azure Key Vault")
    assert found["service"]["quota"] == 200
    assert found["modes"]["cached"]["sealing"] == 0


def test_the_picture_stands_alone_and_has_a_line_for_each_mode(tmp_path, capsys):
    path = tmp_path / "plan.svg"
    assert run(["plan", "--plot", str(path)]) == 0
    root = ET.fromstring(path.read_text())  # noqa: S314 - of our own making
    space = "{http://www.w3.org/2000/svg}"
    lines = root.findall(f"{space}polyline")
    assert len(lines) == 4
    texts = [each.text or "" for each in root.iter(f"{space}text")]
    for word in (
        "direct",
        "per-message",
        "cached",
        "branch",
        "messages a second",
        "calls a second",
        "a month",
    ):
        assert word in texts
    assert any("the quota: 10,000" in text for text in texts)
    assert any("you: 1,000" in text for text in texts)
    for each in root.iter(f"{space}text"):
        assert 0 <= float(each.get("x")) <= 960
        assert 0 <= float(each.get("y")) <= 600
    assert "http" not in path.read_text().replace("http://www.w3.org/2000/svg", "")
    page = tmp_path / "plan.html"
    assert run(["plan", "--plot", str(page)]) == 0
    assert "<svg" in page.read_text()
    assert "take cached" in page.read_text()


@pytest.mark.parametrize("rate", ["0.001", "1", "999", "1000000"])
@pytest.mark.parametrize("service", ["aws-kms", "azure-key-vault"])
def test_a_picture_of_any_rate_can_be_drawn(tmp_path, rate, service):
    path = tmp_path / "plan.svg"
    assert run(["plan", "--rate", rate, "--service", service, "--price", "0", "--plot", str(path)]) == 0
    ET.fromstring(path.read_text())  # noqa: S314


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--service", "aws"], "no key service 'aws'; did you mean 'aws-kms'"),
        (["--rate", "many"], "rate is a number"),
        (["--rate", "0"], "rate must be over 0"),
        (["--max-age", "10"], "max_age needs a unit"),
        (["--max-age", "10x"], "max_age is an amount like 10m"),
        (["--size", "1KB2"], "size is an amount like 64GiB"),
        (["--max-messages", "1.5"], "max_messages is a whole number"),
        (["--plot", "plan.png"], "draws .svg and .html"),
        (["--plot", "/nowhere/plan.svg"], "cannot be written"),
        (["/nowhere.toml"], "cannot be read"),
        (["--producer", "1"], "did you mean '--producers'"),
    ],
)
def test_what_is_used_wrongly_is_said_in_one_line(capsys, args, said):
    assert run(["plan", *args]) == 2
    assert said in capsys.readouterr().err


def test_a_wrong_word_in_a_file_is_named(tmp_path, capsys):
    path = tmp_path / "load.toml"
    path.write_text("ratte = 1\n")
    assert run(["plan", str(path)]) == 2
    assert "there is no option 'ratte'; did you mean 'rate'" in capsys.readouterr().err
