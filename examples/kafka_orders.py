"""Orders through Kafka, sealed: runs as it is, on librdkafka's own mock cluster.

    python examples/kafka_orders.py            # or with the address of a broker of yours, Kafka 4

Shows what the application sent, what the broker holds, what the consumer got, and what became of a forged order.
"""

import sys

import confluent_kafka

from postseal.core import Policy, Sealer, UnsafeLocalKeys
from postseal.kafka import Consumer, Producer  # instead of confluent_kafka

ORDERS = [b'{"order": 1, "card": "4111 1111 1111 1111"}', b'{"order": 2, "card": "5500 0000 0000 0004"}']


def main(address: str) -> None:
    policy = Policy(
        name="orders",
        destinations=["kafka:orders"],
        keys=["main"],  # in production: keys={"main": AwsKms(...)}
        bind_headers=["tenant"],
        on_refused="dead-letter",  # to the topic orders.refused
    )
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": UnsafeLocalKeys.ephemeral()})
    plain = confluent_kafka.Producer({"bootstrap.servers": address})

    with Producer({"bootstrap.servers": address}, sealer=sealer) as producer:
        for order in ORDERS:
            print("sent         ", order.decode())
            producer.produce("orders", order, key="shop-1", headers={"tenant": "north"}, on_delivery=held)
    # Somebody who can write to the broker, and no more.
    plain.produce("orders", b'{"order": 3, "card": "none, it is on the house"}', key="shop-1")
    plain.flush()

    conf = {"bootstrap.servers": address, "auto.offset.reset": "earliest", "group.protocol": "consumer"}
    with Consumer(conf | {"group.id": "billing"}, sealer=sealer, quarantine=plain) as consumer:
        consumer.subscribe(["orders"])
        for _ in ORDERS:
            print("got          ", next_of(consumer).value().decode())
        consumer.poll(1)  # looks at the forged one, and hands on nothing

    with confluent_kafka.Consumer(conf | {"group.id": "audit"}) as bare:
        bare.subscribe(["orders.refused"])
        message = next_of(bare)
        print("in quarantine", {name: value.decode() for name, value in message.headers()})


def held(error: object, message: confluent_kafka.Message) -> None:
    print("broker holds ", error or f"{len(message.value())} bytes: {message.value()[:24].hex()}...")


def next_of(consumer: confluent_kafka.Consumer) -> confluent_kafka.Message:
    while (message := consumer.poll(1)) is None or message.error() is not None:
        pass
    return message


if __name__ == "__main__":
    if len(sys.argv) > 1:
        main(sys.argv[1])
    else:
        cluster = confluent_kafka.Producer(
            {"test.mock.num.brokers": 1, "bootstrap.servers": "-", "log_level": 0}
        )
        main(",".join(f"{broker.host}:{broker.port}" for broker in cluster.list_topics().brokers.values()))
