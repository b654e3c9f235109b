"""Schemas: Avro, JSON Schema and Protobuf through the serializing clients, with a registry in this process.

KAFKA_BOOTSTRAP_SERVERS=127.0.0.1:9092 python serializers.py
"""

import os
from typing import Any

import confluent_kafka
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import StringDeserializer, StringSerializer
from google.protobuf.struct_pb2 import Struct

USER = {"name": "Zoë", "favorite_number": 42}
AVRO = """{"type": "record", "name": "User", "fields": [
    {"name": "name", "type": "string"}, {"name": "favorite_number", "type": "int"}]}"""
JSON = """{"title": "User", "type": "object", "required": ["name"], "properties": {
    "name": {"type": "string"}, "favorite_number": {"type": "integer"}}}"""


def run(kafka: Any, conf: dict[str, Any], topic: str) -> list[Any]:
    """*kafka* has the client's classes: the module itself, or whoever has others of the same names."""
    registry = SchemaRegistryClient.new_client({"url": "mock://"})
    message = Struct()
    message.update(USER)
    kinds = {
        "avro": (AvroSerializer(registry, AVRO), AvroDeserializer(registry, AVRO), USER),
        "json": (JSONSerializer(JSON, registry), JSONDeserializer(JSON), USER),
        "protobuf": (
            ProtobufSerializer(Struct, registry, {"use.deprecated.format": False}),
            ProtobufDeserializer(Struct, {"use.deprecated.format": False}),
            message,
        ),
    }
    seen: list[Any] = []
    for kind, (serializer, deserializer, value) in kinds.items():
        producer = kafka.SerializingProducer(
            {**conf, "key.serializer": StringSerializer("utf_8"), "value.serializer": serializer}
        )
        producer.produce(f"{topic}-{kind}", key="Zoë", value=value, partition=0)
        producer.produce(f"{topic}-{kind}", key="Zoë", value=None, partition=0)
        producer.flush()
        seen.append((kind, registry.get_subjects()[-1].removeprefix(topic)))

        consumer = kafka.DeserializingConsumer(
            {
                **conf,
                "group.id": f"{topic}-{kind}",
                "auto.offset.reset": "earliest",
                "key.deserializer": StringDeserializer("utf_8"),
                "value.deserializer": deserializer,
            }
        )
        consumer.subscribe([f"{topic}-{kind}"])
        for _ in range(2):
            while (got := consumer.poll(1.0)) is None:
                pass
            seen.append((got.key(), str(got.value()), got.offset()))
        consumer.close()
    return seen


if __name__ == "__main__":
    print(
        *run(
            confluent_kafka,
            {"bootstrap.servers": os.environ["KAFKA_BOOTSTRAP_SERVERS"]},
            "example-serializers",
        ),
        sep="\n",
    )
