"""The contract of all adapters, through aio-pika, on RabbitMQ."""

import pytest

from tests.contract import AdapterContract, BinaryBodies, LedgerContract
from tests.rabbitmq.aio_pika_lines import (
    CallbackLine,
    GetLine,
    IteratorLine,
    Loop,
    RobustIteratorLine,
    RobustLine,
)


@pytest.fixture(scope="module")
def loop():
    loop = Loop()
    yield loop
    loop.close()


class Contract(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, rabbitmq, loop):
        line = self.kind(loop, rabbitmq.url)
        yield line
        line.close()


class TestCallback(Contract):
    kind = CallbackLine


class TestIterator(Contract):
    kind = IteratorLine


class TestGet(Contract):
    kind = GetLine


class TestRobustCallback(Contract):
    kind = RobustLine


class TestRobustIterator(Contract):
    kind = RobustIteratorLine
