"""``postseal quarantine`` on all four brokers: what is replayed after its cause was mended is delivered once."""

import pika
import pytest

from integration.kafka.conftest import topics_of
from tests.kafka.lines import ClientLine as KafkaLine
from tests.quarantines import QuarantineContract
from tests.rabbitmq.line import CallbackLine
from tests.servicebus.lines import QueueLine
from tests.servicebus.naps import short_naps
from tests.sqs.line import ClientLine as SqsLine


class TestKafka(QuarantineContract):
    keeps = True

    @pytest.fixture
    def line(self, kafka):
        return KafkaLine(kafka.address, topics_of(kafka))

    @pytest.fixture
    def at(self, kafka):
        return ["--at", kafka.address]


class TestRabbitMq(QuarantineContract):
    @pytest.fixture
    def line(self, rabbitmq):
        return CallbackLine(pika.URLParameters(rabbitmq.url))

    @pytest.fixture
    def at(self, rabbitmq):
        return ["--at", rabbitmq.url]


class TestSqs(QuarantineContract):
    @pytest.fixture
    def line(self, aws):
        return SqsLine(aws.sqs)

    @pytest.fixture
    def at(self, aws, monkeypatch):
        options = aws._options(None)
        monkeypatch.setenv("AWS_DEFAULT_REGION", options["region_name"])
        monkeypatch.setenv("AWS_ACCESS_KEY_ID", options["aws_access_key_id"])
        monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", options["aws_secret_access_key"])
        return ["--at", options["endpoint_url"]]


class TestServiceBus(QuarantineContract):
    @pytest.fixture
    def line(self, servicebus):
        with short_naps():
            line = QueueLine(servicebus)
            yield line
            line.close()

    @pytest.fixture
    def at(self, servicebus):
        return ["--at", servicebus.address]
