"""The clients' own expectations: sealing is invisible to correct code."""

import os
import subprocess
import sys
from pathlib import Path

import pika
import pytest
from pika.adapters.asyncio_connection import AsyncioConnection

from tests.rabbitmq.client_examples import BLOCKING, FOLDER, bare_and_protected

EXAMPLES = Path(__file__).parents[2] / "examples"


def run_program(path, broker):
    environment = {**os.environ, "RABBITMQ_URL": f"amqp://guest:guest@127.0.0.1:{broker.port}"}
    done = subprocess.run(
        [sys.executable, str(path)], capture_output=True, text=True, check=True, env=environment
    )
    assert done.stderr == ""
    return done.stdout.splitlines()


def test_every_example_is_run():
    pika_s = {path.stem for path in FOLDER.glob("*.py") if "import aio_pika" not in path.read_text()}
    assert pika_s == {*BLOCKING, "asynchronous"}


@pytest.mark.parametrize("topic", BLOCKING)
def test_a_blocking_program_sees_no_difference(parameters, broker, topic):
    bare, protected, sealer = bare_and_protected(
        topic, lambda: pika.BlockingConnection(parameters), "example", lambda connection: connection.close()
    )
    assert bare == protected
    assert bare
    assert sealer._outgoing  # it did seal


@pytest.mark.parametrize("adapter", [pika.SelectConnection, AsyncioConnection])
@pytest.mark.filterwarnings("ignore:There is no current event loop:DeprecationWarning")
def test_an_asynchronous_program_sees_no_difference(parameters, broker, adapter):
    bare, protected, sealer = bare_and_protected(
        "asynchronous", lambda: adapter(parameters), "example", lambda _: None
    )
    assert bare == protected
    assert bare[1] == list(range(1, 21))
    assert sealer._outgoing


@pytest.mark.parametrize("topic", ["hello_world", "asynchronous"])
def test_an_example_runs_from_the_command_line(broker, topic):
    assert run_program(FOLDER / f"{topic}.py", broker)


def test_the_example_of_orders_runs(broker):
    lines = run_program(EXAMPLES / "rabbitmq_orders.py", broker)
    assert [line for line in lines if line.startswith("consumer gets")] == [
        'consumer gets {"order": 4711, "card": "4111 1111 1111 1111"}'
    ]
    [held] = [line for line in lines if line.startswith("queue holds")]
    assert "4111" not in held
    assert sum(line.startswith("quarantined") for line in lines) == 2
