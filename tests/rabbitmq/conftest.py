"""RabbitMQ in this process."""

from collections.abc import Iterator

import pika
import pytest

from tests.contract import World
from tests.rabbitmq.broker import Broker
from tests.rabbitmq.line import CallbackLine


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker


@pytest.fixture
def parameters(broker: Broker) -> pika.ConnectionParameters:
    return pika.ConnectionParameters(host="127.0.0.1", port=broker.port)


@pytest.fixture
def line(parameters: pika.ConnectionParameters) -> CallbackLine:
    return CallbackLine(parameters)


@pytest.fixture
def world(line: CallbackLine) -> World:
    return World(line)
