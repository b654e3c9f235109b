"""Each flavour of the Kafka adapter does what every adapter does."""

from __future__ import annotations

import pytest

from tests.contract import AdapterContract, BinaryBodies, NullBodies
from tests.kafka.lines import ClientBatchLine, ClientLine, KafkaLine, SerializerLine, SerializingLine


class TestPoll(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return ClientLine(cluster, make_topic)


class TestConsume(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return ClientBatchLine(cluster, make_topic)


class TestSerializingClients(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return SerializingLine(cluster, make_topic)


class TestSerializersInStockClients(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return SerializerLine(cluster, make_topic)
