"""E11: shells complete commands, options and the names of the policy file."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.one_policy import EXAMPLES

POSTSEAL = Path(sys.executable).with_name("postseal")


def completed(folder, *words):
    """Return what a shell is offered for the last of *words*, by the protocol of fish: no shell breaks words there."""
    done = subprocess.run(
        [POSTSEAL],
        env={
            **os.environ,
            "_POSTSEAL_COMPLETE": "complete_fish",
            "_TYPER_COMPLETE_ARGS": " ".join(["postseal", *words]),
            "_TYPER_COMPLETE_FISH_ACTION": "get-args",
        },
        cwd=folder,
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    assert done.stderr == ""
    return [name for line in done.stdout.splitlines() if (name := line.partition("\t")[0])]


@pytest.fixture
def folder(tmp_path):
    (tmp_path / "postseal.toml").write_text((EXAMPLES / "postseal.toml").read_text())
    return tmp_path


def test_commands_and_options_are_completed(folder):
    assert completed(folder, "pol") == ["policy"]
    assert {"check", "diff", "show", "test"} <= set(completed(folder, "policy", ""))
    assert "--destination" in completed(folder, "explain", "--d")


@pytest.mark.parametrize("words", [("policy", "test"), ("explain", "--destination")])
def test_destinations_of_the_policy_file_are_completed(folder, words):
    assert completed(folder, *words, "s") == ["servicebus:orders", "sqs:orders"]
    assert completed(folder, *words, "rabbitmq:") == ["rabbitmq:shop/orders."]


def test_the_file_of_the_command_line_is_the_one(folder):
    (folder / "postseal.toml").rename(folder / "other.toml")
    assert completed(folder, "policy", "test", "s") == []
    assert completed(folder, "policy", "test", "--file", "other.toml", "sq") == ["sqs:orders"]


def test_a_file_with_a_mistake_completes_nothing_and_says_nothing(folder):
    (folder / "postseal.toml").write_text("sender = 7")
    assert completed(folder, "policy", "test", "k") == []


def test_bash_takes_what_show_completion_prints():
    if (bash := shutil.which("bash")) is None:
        pytest.skip("there is no bash")
    script = """
eval "$(postseal --show-completion)"
complete -p postseal
COMP_WORDS=(postseal expl); COMP_CWORD=1; _postseal_completion postseal; printf '%s\\n' "${COMPREPLY[@]}"
"""
    path = f"{POSTSEAL.parent}{os.pathsep}{os.environ['PATH']}"
    done = subprocess.run(
        [bash, "--norc"],
        input=script,
        env={**os.environ, "PATH": path, "SHELL": bash},
        capture_output=True,
        text=True,
        check=True,
        timeout=60,
    )
    assert done.stdout.splitlines() == ["complete -o default -F _postseal_completion postseal", "explain"]
