"""The programs of examples/clients/sqs on the emulator: bare, then with the one line changed; they see the same."""

import boto3
import pytest

from tests.sqs.examples import ASYNC, FAN_OUT, SYNC, Travelled, compare, program


@pytest.fixture
def travelled():
    return Travelled()


@pytest.mark.parametrize("name", SYNC)
def test_a_program_sees_the_same(aws, travelled, name):
    def run(with_line, queue):
        target = getattr(boto3, SYNC[name])("sqs", **aws._options(None))
        travelled.listen(target)
        return program(name).run(with_line(target), queue)

    compare(run, travelled)


@pytest.mark.parametrize("name", FAN_OUT)
def test_a_program_with_topics_sees_the_same(aws, travelled, name):
    def run(with_line, queue):
        clients = [aws.sqs(), aws.sns()]
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
