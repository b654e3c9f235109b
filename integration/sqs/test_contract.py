"""The contract of all adapters, on the emulator."""

import boto3
import pytest

from tests.contract import AdapterContract
from tests.sqs.line import ClientLine, FifoLine, ResourceLine


class TestClient(AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ClientLine(aws.sqs)


class TestResource(AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return ResourceLine(aws.sqs, lambda: boto3.resource("sqs", **aws._options(None)))


class TestFifo(AdapterContract):
    @pytest.fixture
    def line(self, aws):
        return FifoLine(aws.sqs)
