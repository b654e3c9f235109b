"""The programs of examples/clients/kafka on the mock cluster: bare, then with the one line changed; they see the same."""

from __future__ import annotations

import subprocess
import sys

import pytest

from tests.kafka.examples import FOLDER, PROGRAMS, compare
from tests.kafka.lines import ClientLine


@pytest.mark.parametrize("name", [name for name in PROGRAMS if name != "transactions"])
def test_a_program_sees_the_same(cluster, make_topic, name):
    compare(name, ClientLine(cluster, make_topic), make_topic)


def test_every_program_is_run():
    assert {path.stem for path in FOLDER.glob("*.py")} == set(PROGRAMS)


def test_a_program_runs_from_the_command_line(cluster, make_topic):
    make_topic("example-batches")
    done = subprocess.run(
        [sys.executable, FOLDER / "batches.py"],
        env={"KAFKA_BOOTSTRAP_SERVERS": cluster},
        capture_output=True,
        text=True,
        timeout=100,
        check=True,
    )
    assert done.stdout.splitlines()[0] == "20"


@pytest.mark.parametrize("name", PROGRAMS)
def test_a_program_knows_nothing_of_us(name):
    assert "postseal" not in (FOLDER / f"{name}.py").read_text()
