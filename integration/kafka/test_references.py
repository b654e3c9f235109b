"""Records of data keys in a compacted topic of a real broker."""

from __future__ import annotations

import os
import time
import uuid

import pytest
from confluent_kafka import Consumer, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient, NewPartitions, NewTopic

from postseal.core import KeyRefused
from postseal.kafka import KafkaReferences
from tests.core.reference_store_contract import ReferenceStoreContract


def wait_for_leaders(address: str, name: str, partitions: int) -> None:
    """Wait until a new topic can be read. Until then a store says `KeyUnavailable`: come again."""
    consumer = Consumer({"bootstrap.servers": address, "group.id": "-", "log_level": 0})
    end = time.monotonic() + 60
    try:
        for partition in range(partitions):
            while True:
                try:
                    consumer.get_watermark_offsets(TopicPartition(name, partition), 10)
                    break
                except KafkaException:
                    if time.monotonic() > end:
                        raise
                    time.sleep(0.05)
    finally:
        consumer.close()


class TestKafkaReferences(ReferenceStoreContract):
    @pytest.fixture
    def topic(self, kafka):
        name = f"references-{uuid.uuid4().hex}"
        # Rolled and compacted as soon as can be.
        config = {
            "cleanup.policy": "compact",
            "segment.ms": "100",
            "min.cleanable.dirty.ratio": "0.01",
            "max.compaction.lag.ms": "100",
        }
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_topics([NewTopic(name, 3, 1, config=config)])[name].result(30)
        wait_for_leaders(kafka.address, name, 3)
        return name

    @pytest.fixture
    def make(self, kafka, topic):
        made = []

        def make() -> KafkaReferences:
            made.append(KafkaReferences({"bootstrap.servers": kafka.address}, topic, timeout=60))
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

    def test_partitions_that_are_added_are_read_too(self, kafka, topic, store, again):
        assert again.get(bytes(16)) is None
        admin = AdminClient({"bootstrap.servers": kafka.address})
        admin.create_partitions([NewPartitions(topic, 6)])[topic].result(30)
        records = {os.urandom(16): os.urandom(100) for _ in range(24)}
        for reference, record in records.items():
            store.put(reference, record)
        assert {each: again.get(each) for each in records} == records


def test_a_topic_that_is_not_there_is_a_no(kafka):
    store = KafkaReferences(
        {"bootstrap.servers": kafka.address, "allow.auto.create.topics": False}, "no-such"
    )
    with pytest.raises(KeyRefused, match="no-such"):
        store.get(bytes(16))
    store.close()
