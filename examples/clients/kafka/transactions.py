"""Exactly once: consume, transform, produce, and commit the offsets in the transaction; one transaction is aborted, and done again.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python transactions.py
"""

import os
from typing import Any

import confluent_kafka


def run(kafka: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*kafka* has the client's classes: the module itself, or whoever has others of the same names."""
    source, target = f"{topic}-in", f"{topic}-out"
    with kafka.Producer(conf) as producer:
        for number in range(10):
            producer.produce(source, str(number), partition=0)
        producer.flush()

    reading = {
        **conf,
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
        "isolation.level": "read_committed",
    }
    consumer = kafka.Consumer({**reading, "group.id": f"{topic}-squares"})
    consumer.subscribe([source])
    producer = kafka.Producer({**conf, "transactional.id": f"{topic}-squares"})
    producer.init_transactions()

    done = 0
    aborts = 1
    while done < 10:  # noqa: PLR2004
        messages = [m for m in consumer.consume(4, timeout=1.0) if m.error() is None]
        if not messages:
            continue
        producer.begin_transaction()
        for message in messages:
            producer.produce(target, str(int(message.value()) ** 2), partition=0)
        if aborts:
            aborts -= 1
            producer.flush()
            producer.abort_transaction()
            consumer.seek(confluent_kafka.TopicPartition(source, 0, messages[0].offset()))
            continue
        producer.send_offsets_to_transaction(
            consumer.position(consumer.assignment()), consumer.consumer_group_metadata()
        )
        producer.commit_transaction()
        done += len(messages)
    here = confluent_kafka.TopicPartition(source, 0)
    seen: list[Any] = [partition.offset for partition in consumer.committed([here], timeout=10)]
    consumer.close()

    reader = kafka.Consumer({**reading, "group.id": f"{topic}-reader"})
    reader.subscribe([target])
    while len(seen) < 11:  # noqa: PLR2004
        message = reader.poll(1.0)
        if message is not None:
            seen.append(message.value())
    reader.close()
    return seen


if __name__ == "__main__":
    print(
        *run(
            confluent_kafka,
            {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]},
            "example-transactions",
        ),
        sep="\n",
    )
