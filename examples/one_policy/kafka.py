"""Orders through Kafka: ``python kafka.py send``, then ``python kafka.py receive``. What protects them are the import and the hook line."""

import os
import sys
from typing import Any

from confluent_kafka import Consumer, Producer

from postseal.core import Sealer
from postseal.kafka import Consumer, Producer  # noqa: F811 - in the place of the client's own

ORDERS = [f'{{"order": {number}, "card": "4111 1111 1111 1111"}}' for number in range(3)]


def main(verb: str, topic: str = "orders") -> None:
    conf = {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]}
    options: dict[str, Any] = {}
    options["sealer"] = Sealer.from_file(os.environ["POSTSEAL_POLICY"])  # the hook line
    if verb == "send":
        with Producer(conf, **options) as producer:
            for order in ORDERS:
                producer.produce(topic, order, key="shop-1", headers={"tenant": "north"})
    else:
        group = {
            **conf,
            "group.id": f"{topic}-billing",
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
        }
        with Consumer(group, **options) as consumer:
            consumer.subscribe([topic])
            for _ in ORDERS:
                while (message := consumer.poll(1)) is None or message.error() is not None:
                    pass
                print(message.key(), message.headers(), message.value())
                consumer.commit(message, asynchronous=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
