"""What every adapter does, done by this one through each way of pika."""

import pytest

from tests.contract import AdapterContract, BinaryBodies, LedgerContract
from tests.rabbitmq.line import AsyncioLine, CallbackLine, GeneratorLine, GetLine, SelectLine


class TestCallbacks(BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return CallbackLine(parameters)


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
