"""Many at once: `produce_batch` in, `consume` out, offsets stored by hand.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python batches.py
"""

import os
from typing import Any

import confluent_kafka
from confluent_kafka import TopicPartition


def run(kafka: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*kafka* has the client's classes: the module itself, or whoever has others of the same names."""
    seen: list[Any] = []
    reports: list[Any] = []
    producer = kafka.Producer(conf)
    messages = [{"value": f"order {number}", "key": "k"} for number in range(20)]
    taken = producer.produce_batch(topic, messages, 0, on_delivery=lambda error, _: reports.append(error))
    producer.flush()
    seen += [taken, reports, messages[0]["value"], [m for m in messages if "_error" in m]]

    group = {
        **conf,
        "group.id": f"{topic}-group",
        "auto.offset.reset": "earliest",
        "enable.auto.offset.store": False,
    }
    consumer = kafka.Consumer(group)
    try:
        consumer.subscribe([topic])
        got: list[Any] = []
        while len(got) < len(messages):
            for message in consumer.consume(num_messages=7, timeout=1.0):
                got.append((message.offset(), message.key(), message.value()))
                consumer.store_offsets(message=message)
        seen += got
        consumer.commit(asynchronous=False)
        seen += [partition.offset for partition in consumer.committed([TopicPartition(topic, 0)], timeout=10)]
    finally:
        consumer.close()
    return seen


if __name__ == "__main__":
    print(
        *run(
            confluent_kafka, {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}, "example-batches"
        ),
        sep="\n",
    )
