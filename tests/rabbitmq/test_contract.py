"""What every adapter does, done by this one through each way of pika."""

import pytest

from tests.contract import AdapterContract, BinaryBodies
from tests.rabbitmq.line import AsyncioLine, CallbackLine, GeneratorLine, GetLine, SelectLine


class TestCallbacks(BinaryBodies, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return CallbackLine(parameters)


class TestGenerator(BinaryBodies, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GeneratorLine(parameters)


class TestGet(BinaryBodies, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GetLine(parameters)


class TestSelectConnection(BinaryBodies, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return SelectLine(parameters)


class TestAsyncioConnection(BinaryBodies, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return AsyncioLine(parameters)
