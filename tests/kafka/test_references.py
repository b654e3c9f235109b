"""Records of data keys in a topic: against librdkafka's mock cluster."""

from __future__ import annotations

import os
import uuid

import pytest

from postseal.core import ConfigError, KeyUnavailable
from postseal.kafka import KafkaReferences
from tests.core.reference_store_contract import ReferenceStoreContract


class TestKafkaReferences(ReferenceStoreContract):
    @pytest.fixture
    def make(self, cluster, make_topic):
        topic, made = f"references-{uuid.uuid4().hex}", []
        make_topic(topic)

        def make() -> KafkaReferences:
            made.append(KafkaReferences({"bootstrap.servers": cluster}, topic))
            return made[-1]

        yield make
        for each in made:
            each.close()

    @pytest.fixture
    def store(self, make):
        return make()

    @pytest.fixture
    def again(self, make):
        return make()

    def test_a_store_that_was_closed_begins_again(self, store):
        reference = os.urandom(16)
        store.put(reference, b"record")
        store.close()
        assert store.get(reference) == b"record"
        store.close()


def test_a_broker_that_is_gone_is_no_answer():
    store = KafkaReferences({"bootstrap.servers": "127.0.0.1:9", "log_level": 0}, "references", timeout=0.2)
    with pytest.raises(KeyUnavailable):
        store.put(bytes(16), b"record")
    with pytest.raises(KeyUnavailable):
        store.get(bytes(16))
    store.close()


def test_what_is_wrong_is_named():
    with pytest.raises(ConfigError, match="topic"):
        KafkaReferences({}, "")
    with pytest.raises(ConfigError, match="timeout"):
        KafkaReferences({}, "references", timeout=0)
