"""What aio-pika's own documentation shows goes on working, and looks the same (A10, and the one line of the README)."""

import asyncio
import os
import subprocess
import sys

import pytest

from tests.rabbitmq.aio_pika_examples import FOLDER, PROGRAMS, compare


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_sees_the_same(broker, program):
    asyncio.run(asyncio.wait_for(compare(_url(broker), program), 45))


@pytest.mark.parametrize("program", PROGRAMS)
def test_a_program_runs_from_the_command_line(broker, program):
    command = [sys.executable, str(FOLDER / f"{program}.py")]
    done = subprocess.run(
        command,
        env={**os.environ, "AMQP_URL": _url(broker)},
        capture_output=True,
        text=True,
        check=True,
        timeout=45,
    )
    assert done.stdout
    assert done.stderr == ""
    assert "postseal" not in (FOLDER / f"{program}.py").read_text()


def _url(broker):
    return f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F"
