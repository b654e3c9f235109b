"""asyncio: produce many and await their reports, consume one by one and many at once, with callbacks that are coroutines.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python asyncio_clients.py
"""

import asyncio
import os
from typing import Any

import confluent_kafka.aio
from confluent_kafka import TopicPartition
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient
from confluent_kafka.schema_registry.avro import AsyncAvroDeserializer, AsyncAvroSerializer
from confluent_kafka.serialization import MessageField, SerializationContext

AVRO = """{"type": "record", "name": "User", "fields": [{"name": "name", "type": "string"}]}"""


async def run(aio: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*aio* has the client's classes: the module itself, or whoever has others of the same names."""
    seen: list[Any] = []
    value = SerializationContext(topic, MessageField.VALUE)
    registry = AsyncSchemaRegistryClient.new_client({"url": "mock://"})
    serializer = await AsyncAvroSerializer(registry, AVRO)
    deserializer = await AsyncAvroDeserializer(registry, AVRO)

    async def on_error(error: Any) -> None:
        seen.append(error)

    producer = aio.AIOProducer({**conf, "error_cb": on_error}, batch_size=4)
    reports = [await producer.produce(topic, f"order {n}", key="k", partition=0) for n in range(9)]
    avro = await serializer({"name": "Zoë"}, value)
    reports.append(await producer.produce(topic, value=avro, partition=0))
    reports.append(await producer.produce(topic, key="gone", partition=0))
    await producer.flush()
    delivered = await asyncio.gather(*reports)
    seen += [(message.partition(), message.offset(), message.key(), message.error()) for message in delivered]
    await producer.close()

    async def on_assign(consumer: Any, partitions: list[Any]) -> None:
        seen.append(("assigned", isinstance(consumer, confluent_kafka.aio.AIOConsumer), bool(partitions)))
        seen.append(await consumer.committed(partitions[:1], timeout=10) != [])

    group = {
        **conf,
        "group.id": f"{topic}-group",
        "auto.offset.reset": "earliest",
        "enable.auto.commit": False,
    }
    consumer = aio.AIOConsumer(group)
    await consumer.subscribe([topic], on_assign=on_assign)
    messages: list[Any] = []
    while len(messages) < 4:  # noqa: PLR2004
        message = await consumer.poll(timeout=1.0)
        messages += [] if message is None else [message]
    while len(messages) < 11:  # noqa: PLR2004
        messages += await consumer.consume(num_messages=3, timeout=1.0)
    seen += [(m.offset(), m.key(), m.value()) for m in messages]
    seen.append(await deserializer(messages[9].value(), value))
    seen.append([p.offset for p in await consumer.commit(message=messages[4], asynchronous=False)])
    await consumer.seek(TopicPartition(topic, 0, 7))
    while (message := await consumer.poll(timeout=1.0)) is None:
        pass
    seen.append((message.offset(), message.value()))
    await consumer.close()
    return seen


if __name__ == "__main__":
    print(
        *asyncio.run(
            run(
                confluent_kafka.aio,
                {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]},
                "example-asyncio",
            )
        ),
        sep="\n",
    )
