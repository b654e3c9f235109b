"""Topics on a real broker."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from confluent_kafka.admin import AdminClient, NewTopic

from integration.servers import Kafka


@pytest.fixture(scope="session")
def make_topic(kafka: Kafka) -> Callable[[str], None]:
    """Makes a topic of two partitions."""
    return topics_of(kafka)


def topics_of(kafka: Kafka) -> Callable[[str], None]:
    """Return what makes topics of two partitions at *kafka*."""
    admin = AdminClient({"bootstrap.servers": kafka.address, "log_level": 0})

    def make(name: str) -> None:
        admin.create_topics([NewTopic(name, 2)])[name].result(20)

    return make
