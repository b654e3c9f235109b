"""Each flavour of the Kafka adapter does what every adapter does."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator

import pytest

from tests.contract import AdapterContract, BinaryBodies, EncryptedHeaders, LedgerContract, NullBodies
from tests.kafka.aio_lines import AIOConsumeLine, AIOLine, AIOSerializerLine
from tests.kafka.lines import ClientBatchLine, ClientLine, KafkaLine, SerializerLine, SerializingLine


@pytest.fixture
def runner() -> Iterator[asyncio.Runner]:
    with asyncio.Runner() as runner:
        yield runner


class TestPoll(EncryptedHeaders, BinaryBodies, NullBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return ClientLine(cluster, make_topic)


class TestConsume(EncryptedHeaders, BinaryBodies, NullBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return ClientBatchLine(cluster, make_topic)


class TestSerializingClients(EncryptedHeaders, BinaryBodies, NullBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return SerializingLine(cluster, make_topic)


class TestSerializersInStockClients(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic) -> KafkaLine:
        return SerializerLine(cluster, make_topic)


class TestAIOPoll(EncryptedHeaders, BinaryBodies, NullBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic, runner) -> KafkaLine:
        return AIOLine(cluster, make_topic, runner)


class TestAIOConsume(EncryptedHeaders, BinaryBodies, NullBodies, LedgerContract, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic, runner) -> KafkaLine:
        return AIOConsumeLine(cluster, make_topic, runner)


class TestAsyncSerializersWithStockClients(BinaryBodies, NullBodies, AdapterContract):
    @pytest.fixture
    def line(self, cluster, make_topic, runner) -> KafkaLine:
        return AIOSerializerLine(cluster, make_topic, runner)


class TestPollDirect(TestPoll):
    direct = True


class TestAIOConsumeDirect(TestAIOConsume):
    direct = True
