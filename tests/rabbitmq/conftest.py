"""RabbitMQ in this process."""

from collections.abc import Iterator

import pytest

from tests.rabbitmq.broker import Broker


@pytest.fixture
def broker() -> Iterator[Broker]:
    with Broker() as broker:
        yield broker
