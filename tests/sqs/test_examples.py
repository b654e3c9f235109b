"""What the client's own documentation shows goes on working, and looks the same (A10, and the one line of the README)."""

import os
import subprocess
import sys

import boto3
import pytest

from tests.sqs.conftest import _OPTIONS
from tests.sqs.examples import _FOLDER, ASYNC, FAN_OUT, SYNC, Travelled, compare, program


@pytest.fixture
def travelled():
    return Travelled()


@pytest.mark.parametrize("name", SYNC)
def test_a_program_sees_the_same(aws, travelled, name):
    def run(with_line, queue):
        target = getattr(boto3, SYNC[name])("sqs", **_OPTIONS)
        travelled.listen(target)
        return program(name).run(with_line(target), queue)

    compare(run, travelled)


@pytest.mark.parametrize("name", FAN_OUT)
def test_a_program_with_topics_sees_the_same(aws, travelled, name):
    def run(with_line, queue):
        clients = [boto3.client(service, **_OPTIONS) for service in ("sqs", "sns")]
        for client in clients:
            travelled.listen(client)
        return program(name).run(*map(with_line, clients), queue)

    compare(run, travelled)


@pytest.mark.parametrize("name", ASYNC)
def test_a_program_of_coroutines_sees_the_same(aio, travelled, name):
    def run(with_line, queue):
        client = aio.client()
        travelled.listen(client)
        return aio.run(program(name).run(with_line(client), queue))

    compare(run, travelled)


@pytest.mark.parametrize("name", [*SYNC, *FAN_OUT, *ASYNC])
def test_a_program_runs_from_the_command_line(moto_address, name):
    environment = {
        **os.environ,
        "AWS_ENDPOINT_URL": moto_address,
        "AWS_DEFAULT_REGION": "eu-west-1",
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
    }
    done = subprocess.run(
        [sys.executable, str(_FOLDER / f"{name}.py")],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout


def test_every_program_is_run():
    assert {path.stem for path in _FOLDER.glob("*.py")} == {*SYNC, *FAN_OUT, *ASYNC}
