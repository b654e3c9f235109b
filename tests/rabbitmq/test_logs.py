"""What pika and this adapter log, at any level: never a body in clear."""

import logging

import pika
import pytest
from pika.exceptions import UnroutableError

from postseal.core import Refused
from tests.contract import ORDER, SECRETS
from tests.rabbitmq.line import GeneratorLine, GetLine, Running


@pytest.fixture
def logged(caplog):
    caplog.set_level(logging.DEBUG)
    yield
    records = caplog.get_records("call")
    assert "pika" in {record.name.partition(".")[0] for record in records}
    text = "".join(record.getMessage() + str(record.__dict__) for record in records)
    assert not [secret for secret in SECRETS if secret.decode() in text]
    assert "north" not in text  # nor a header's value


@pytest.fixture(params=["callback", "generator", "get"])
def any_line(request, line, parameters):
    return {"callback": line, "generator": GeneratorLine(parameters), "get": GetLine(parameters)}[
        request.param
    ]


def test_there_and_back(logged, world, any_line):
    place = any_line.place()
    policy = world.policy(place, bind_headers=["tenant"])
    any_line.send(world.sealer(policy), place, ORDER)
    world.keys.unavailable.set()
    with any_line.receiving(world.sealer(policy), place) as receiving:
        receiving.until(lambda: world.keys.calls["unwrap"] >= 2)
        world.keys.unavailable.clear()
        assert receiving.take(1) == [ORDER]


def test_what_comes_back(logged, world, line):
    with line.connect(world.sealer(world.policy("/nowhere"))) as connection:
        channel = connection.channel()
        came = []
        channel.add_on_return_callback(lambda *message: came.append(message[3]))
        channel.basic_publish("", "nowhere", ORDER, mandatory=True)
        connection.sleep(0.1)
        assert came == [ORDER]
        channel = connection.channel()
        channel.confirm_delivery()
        with pytest.raises(UnroutableError):
            channel.basic_publish("", "nowhere", ORDER, mandatory=True)


def test_an_asynchronous_connection(logged, world, line, parameters):
    place = line.place()
    policy = world.policy(place)
    line.send(world.sealer(policy), place, ORDER)
    running = Running(parameters, world.sealer(policy))
    running.consume(line.queue(place), settles=True)
    assert running.take(1) == [ORDER]
    running.close()


def test_what_is_refused(logged, world, line):
    """A body in clear that somebody injected is not logged either."""
    place = line.place()
    with line.bare() as channel:
        channel.basic_publish("", line.queue(place), ORDER, pika.BasicProperties(headers={"tenant": "north"}))
    with line.connect(world.sealer(world.policy(place))) as connection, pytest.raises(Refused):
        connection.channel().basic_get(line.queue(place))
