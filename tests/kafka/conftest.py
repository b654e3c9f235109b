"""librdkafka's own mock cluster, in this process: no server, up in a tenth of a second."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import confluent_kafka
import pytest


@pytest.fixture(scope="session")
def _mock() -> Iterator[confluent_kafka.Producer]:
    producer = confluent_kafka.Producer(
        {"test.mock.num.brokers": 1, "bootstrap.servers": "-", "log_level": 0}
    )
    yield producer
    producer.close()


@pytest.fixture(scope="session")
def cluster(_mock: confluent_kafka.Producer) -> str:
    """The address of the mock cluster."""
    return ",".join(
        f"{broker.host}:{broker.port}" for broker in _mock.list_topics(timeout=10).brokers.values()
    )


@pytest.fixture(scope="session")
def make_topic(_mock: confluent_kafka.Producer) -> Callable[[str], None]:
    """Makes a topic of four partitions: the mock cluster does so as soon as it is asked about one."""
    return lambda name: _mock.list_topics(name, timeout=10) and None
