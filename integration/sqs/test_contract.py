"""The contract of all adapters, on the emulator."""

import boto3
import pytest

from tests.contract import AdapterContract, LedgerContract
from tests.sqs.line import AioLine, ClientLine, FifoLine, ResourceLine


class TestClient(LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ClientLine(aws.sqs)


class TestResource(LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ResourceLine(aws.sqs, lambda: boto3.resource("sqs", **aws._options(None)))


class TestFifo(LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return FifoLine(aws.sqs)


class TestAiobotocore(LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, aws, aio):
        return AioLine(aws.sqs, aio)
