"""What every adapter does, done by this one."""

import pytest

from tests.contract import AdapterContract, EncryptedHeaders, LedgerContract
from tests.sqs.conftest import make_client, make_resource
from tests.sqs.line import ClientLine, FifoLine, ResourceLine


class TestClient(EncryptedHeaders, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ClientLine(make_client)


class TestResource(EncryptedHeaders, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ResourceLine(make_client, make_resource)


class TestFifo(EncryptedHeaders, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return FifoLine(make_client)


class TestAiobotocore(EncryptedHeaders, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aio_line):
        return aio_line


class TestDirect(TestClient):
    direct = True


class TestAiobotocoreDirect(TestAiobotocore):
    direct = True
