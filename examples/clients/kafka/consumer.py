"""Poll for messages in a group: errors, keys, headers, timestamps, deletes; commit by hand, and go on behind it.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python consumer.py
"""

import os
from typing import Any

import confluent_kafka
from confluent_kafka import KafkaError, TopicPartition


def run(kafka: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*kafka* has the client's classes: the module itself, or whoever has others of the same names."""
    with kafka.Producer(conf) as producer:
        producer.produce(
            topic, "Zoë", "k", 0, headers=[("trace", b"\x00\xff"), ("trace", None)], timestamp=17
        )
        producer.produce(topic, b"", "k", 0, headers={"trace": "grün"}, timestamp=18)
        producer.produce(topic, None, "k", 0, timestamp=19)
        producer.flush()

    seen: list[Any] = []
    group = {
        **conf,
        "group.id": f"{topic}-group",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "enable.partition.eof": True,
    }
    here = TopicPartition(topic, 0)
    with kafka.Consumer(group) as consumer:
        consumer.subscribe([topic], on_assign=lambda _, partitions: seen.append(bool(partitions)))
        count = 0
        while count < 3:  # noqa: PLR2004
            message = consumer.poll(1.0)
            if message is None:
                continue
            if message.error() is not None:
                if message.error().code() == KafkaError._PARTITION_EOF:  # noqa: SLF001 - as the client's own examples do
                    continue
                raise confluent_kafka.KafkaException(message.error())
            count += 1
            seen.append(
                (message.offset(), message.key(), message.value(), message.headers(), message.timestamp())
            )
            if count == 2:  # noqa: PLR2004
                committed = consumer.commit(message=message, asynchronous=False)
                seen.append([partition.offset for partition in committed])
        seen.append([partition.offset for partition in consumer.position([here])])
        consumer.pause([here])
        consumer.resume([here])

    with kafka.Consumer(group) as again:
        again.assign(again.committed([here], timeout=10))
        while (message := again.poll(1.0)) is None or message.error() is not None:
            pass
        seen.append((message.offset(), message.value()))
        again.seek(TopicPartition(topic, 0, 0))
        while (message := again.poll(1.0)) is None or message.error() is not None:
            pass
        seen.append((message.offset(), message.value()))
    return seen


if __name__ == "__main__":
    print(
        *run(
            confluent_kafka, {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}, "example-consumer"
        ),
        sep="\n",
    )
