"""What every adapter does, done by this one through each way of pika."""

import pytest

from tests.contract import AdapterContract, BinaryBodies, EncryptedHeaders, LedgerContract
from tests.rabbitmq.line import AsyncioLine, CallbackLine, GeneratorLine, GetLine, SelectLine


class TestCallbacks(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return CallbackLine(parameters)


class TestGenerator(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GeneratorLine(parameters)


class TestGet(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return GetLine(parameters)


class TestSelectConnection(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return SelectLine(parameters)


class TestAsyncioConnection(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, parameters):
        return AsyncioLine(parameters)


class TestCallbacksDirect(TestCallbacks):
    direct = True


class TestSelectConnectionDirect(TestSelectConnection):
    direct = True
