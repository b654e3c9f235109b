"""The contract of all adapters, on a real RabbitMQ, through each way of pika."""

import pika
import pytest

from tests.contract import AdapterContract, BinaryBodies, LedgerContract
from tests.rabbitmq.line import AsyncioLine, CallbackLine, GeneratorLine, GetLine, SelectLine


@pytest.fixture
def parameters(rabbitmq):
    return pika.URLParameters(rabbitmq.url)


class TestCallbacks(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return CallbackLine(parameters)


class TestQuorumQueues(LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return CallbackLine(parameters, x_queue_type="quorum")


class TestGenerator(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GeneratorLine(parameters)


class TestGet(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GetLine(parameters)


class TestSelectConnection(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return SelectLine(parameters)


class TestAsyncioConnection(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return AsyncioLine(parameters)
