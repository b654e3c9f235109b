"""Produce with delivery reports: the callback is served by `poll` while producing, and by `flush` at the end.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python delivery_reports.py
"""

import os
from typing import Any

import confluent_kafka


def run(kafka: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*kafka* has the client's classes: the module itself, or whoever has others of the same names."""
    seen: list[Any] = []

    def report(error: Any, message: Any) -> None:
        if error is not None:
            seen.append(("failed", error.code()))
        else:
            seen.append(("delivered", message.partition(), message.offset(), message.key(), message.error()))

    producer = kafka.Producer({**conf, "message.max.bytes": 5000, "client.id": "example"})
    for number in range(5):
        producer.poll(0)
        producer.produce(
            topic, f"order {number}: Zoë, 漢字", key=f"customer {number}", partition=0, callback=report
        )
    producer.flush()

    try:
        producer.produce(topic, b"x" * 10_000, on_delivery=report)
    except confluent_kafka.KafkaException as error:
        seen.append(("too large", error.args[0].code() == confluent_kafka.KafkaError.MSG_SIZE_TOO_LARGE))
    producer.produce(topic, None, key="customer 0", partition=0, on_delivery=report)
    seen += [producer.flush(), topic in producer.list_topics(topic, timeout=10).topics]
    return seen


if __name__ == "__main__":
    print(
        *run(
            confluent_kafka,
            {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]},
            "example-delivery-reports",
        ),
        sep="\n",
    )
