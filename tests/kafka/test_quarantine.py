"""``postseal quarantine`` on Kafka's mock cluster, which deletes no records."""

import pytest

from tests.kafka.lines import ClientLine
from tests.quarantines import QuarantineContract


class TestKafka(QuarantineContract):
    keeps = True

    @pytest.fixture
    def line(self, cluster, make_topic):
        return ClientLine(cluster, make_topic)

    @pytest.fixture
    def at(self, cluster):
        return ["--at", cluster]

    test_nothing_is_dropped_without_a_yes = None  # type: ignore[assignment] # in integration/
