"""postseal for Kafka, with confluent-kafka: seals in the producer, opens in the consumer.

A working program, which needs a broker; ``examples/kafka_orders.py`` brings its own::

    from postseal.core import Policy, Sealer, UnsafeLocalKeys
    from postseal.kafka import Consumer, Producer  # instead of confluent_kafka

    orders = Policy(name="orders", destinations=["kafka:orders"], keys=["main"])
    sealer = Sealer(sender="shop", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    producer = Producer({"bootstrap.servers": "localhost:9092"}, sealer=sealer)
    producer.produce("orders", b"4111 1111 1111 1111", key="4711")
    producer.flush()

    conf = {"bootstrap.servers": "localhost:9092", "group.id": "billing", "auto.offset.reset": "earliest"}
    with Consumer(conf, sealer=sealer) as consumer:
        consumer.subscribe(["orders"])
        print(consumer.poll(30).value())

Or keep the clients and wrap the serializers: `SealingSerializer` and `OpeningDeserializer`. For asyncio: `postseal.kafka.aio`.
See docs/kafka.md.
"""

from postseal.core import MissingExtraError

try:
    import confluent_kafka as _confluent_kafka  # noqa: F401 - asks whether it is there
except ImportError as missing:
    raise MissingExtraError.naming("kafka", "postseal.kafka", missing) from missing

from postseal.kafka._consumer import Consumer, DeserializingConsumer
from postseal.kafka._errors import MessageTooLarge, RefusedMessage
from postseal.kafka._producer import Producer, SerializingProducer
from postseal.kafka._records import open_records
from postseal.kafka._references import KafkaReferences
from postseal.kafka._serializer import OpeningDeserializer, SealingSerializer

__all__ = [
    "Consumer",
    "DeserializingConsumer",
    "KafkaReferences",
    "MessageTooLarge",
    "OpeningDeserializer",
    "Producer",
    "RefusedMessage",
    "SealingSerializer",
    "SerializingProducer",
    "open_records",
]
