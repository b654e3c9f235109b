"""What every adapter does, done by this one."""

import pytest

from tests.contract import AdapterContract, BinaryBodies, EncryptedHeaders, LedgerContract
from tests.servicebus import lines
from tests.servicebus.conftest import closing


class _Flavour(EncryptedHeaders, BinaryBodies, LedgerContract, AdapterContract):
    kind: type[lines.QueueLine]

    @pytest.fixture
    def line(self, server):
        yield from closing(self.kind(server))


class TestQueue(_Flavour):
    kind = lines.QueueLine


class TestBatch(_Flavour):
    kind = lines.BatchLine


class TestSession(_Flavour):
    kind = lines.SessionLine


class TestTopic(_Flavour):
    kind = lines.TopicLine


class TestAioQueue(_Flavour):
    kind = lines.AioLine


class TestAioBatch(_Flavour):
    kind = lines.AioBatchLine


class TestAioSession(_Flavour):
    kind = lines.AioSessionLine


class TestAioTopic(_Flavour):
    kind = lines.AioTopicLine


class TestQueueDirect(_Flavour):
    kind = lines.QueueLine
    direct = True


class TestAioBatchDirect(_Flavour):
    kind = lines.AioBatchLine
    direct = True
