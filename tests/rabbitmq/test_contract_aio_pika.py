"""What every adapter does, done by this one through each way of aio-pika."""

import pytest

from tests.contract import AdapterContract, BinaryBodies, EncryptedHeaders, LedgerContract
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


class Contract(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, broker, loop):
        line = self.kind(loop, f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F")
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


class TestIteratorDirect(Contract):
    kind = IteratorLine
    direct = True
