"""A serializer that seals and a deserializer that opens, around the client's own; and the front door."""

from __future__ import annotations

import subprocess
import sys
from types import ModuleType
from typing import Any

import confluent_kafka
import pytest
from confluent_kafka.error import ValueDeserializationError, ValueSerializationError
from confluent_kafka.schema_registry import SchemaRegistryClient
from confluent_kafka.schema_registry.avro import AvroDeserializer, AvroSerializer
from confluent_kafka.schema_registry.json_schema import JSONDeserializer, JSONSerializer
from confluent_kafka.schema_registry.protobuf import ProtobufDeserializer, ProtobufSerializer
from confluent_kafka.serialization import (
    DoubleDeserializer,
    DoubleSerializer,
    IntegerDeserializer,
    IntegerSerializer,
    MessageField,
    SerializationContext,
    StringDeserializer,
    StringSerializer,
)
from google.protobuf.struct_pb2 import Struct

import postseal.kafka
from postseal.core import ConfigError, KeyUnavailable, Refused, Verdict
from postseal.core.wire import looks_sealed
from postseal.kafka import DeserializingConsumer, OpeningDeserializer, SealingSerializer, SerializingProducer
from tests.contract import World
from tests.kafka.lines import SerializerLine

ORDER = {"order": 4711, "card": "4111 1111 1111 1111"}
AVRO = """{"type": "record", "name": "Order", "fields": [
    {"name": "order", "type": "int"}, {"name": "card", "type": "string"}]}"""
JSON = """{"title": "Order", "type": "object", "properties": {
    "order": {"type": "integer"}, "card": {"type": "string"}}}"""


def value_of(topic: str, headers: Any = None) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE, headers)


@pytest.fixture
def line(cluster, make_topic) -> SerializerLine:
    return SerializerLine(cluster, make_topic)


@pytest.fixture
def world(line: SerializerLine) -> World:
    return World(line)


@pytest.fixture
def registry() -> SchemaRegistryClient:
    return SchemaRegistryClient.new_client({"url": "mock://"})


def _struct() -> Struct:
    message = Struct()
    message.update(ORDER)
    return message


@pytest.fixture(params=["string", "integer", "double", "avro", "json", "protobuf"])
def serde(request: pytest.FixtureRequest, registry: SchemaRegistryClient) -> tuple[Any, Any, Any]:
    """A serializer, its deserializer, and what they carry."""
    kinds: dict[str, Any] = {
        "string": lambda: (StringSerializer(), StringDeserializer(), "grün"),
        "integer": lambda: (IntegerSerializer(), IntegerDeserializer(), -5),
        "double": lambda: (DoubleSerializer(), DoubleDeserializer(), 0.5),
        "avro": lambda: (AvroSerializer(registry, AVRO), AvroDeserializer(registry), ORDER),
        "json": lambda: (JSONSerializer(JSON, registry), JSONDeserializer(JSON), ORDER),
        "protobuf": lambda: (ProtobufSerializer(Struct, registry), ProtobufDeserializer(Struct), _struct()),
    }
    return kinds[request.param]()


def test_every_kind_of_serializer_comes_back_by_hand(world: World, serde: tuple[Any, Any, Any]) -> None:
    serializer, deserializer, value = serde
    sealer = world.sealer(world.policy("orders"))
    sealed = SealingSerializer(serializer, sealer)(value, value_of("orders"))
    assert sealed is not None
    assert looks_sealed(sealed)
    assert b"4111" not in sealed
    assert OpeningDeserializer(deserializer, sealer)(sealed, value_of("orders")) == value


def test_every_kind_of_serializer_comes_back_through_stock_clients(
    world: World, line: SerializerLine, serde: tuple[Any, Any, Any]
) -> None:
    serializer, deserializer, value = serde
    topic = line.place()
    sealer = world.sealer(world.policy(topic))
    producing = line.conf(
        **{"key.serializer": StringSerializer(), "value.serializer": SealingSerializer(serializer, sealer)}
    )
    producer = confluent_kafka.SerializingProducer(producing)
    producer.produce(topic, key="4711", value=value)
    producer.produce(topic, key="4711", value=None)
    producer.flush(20)
    [message, _] = line.messages(topic, 2)
    assert message.key() == b"4711"
    assert looks_sealed(message.value())
    consuming = line.consuming(topic) | {
        "key.deserializer": StringDeserializer(),
        "value.deserializer": OpeningDeserializer(deserializer, sealer),
        "enable.auto.offset.store": False,
    }
    assert _take(confluent_kafka.DeserializingConsumer(consuming), topic, 2) == [
        ("4711", value),
        ("4711", None),
    ]


def test_every_kind_of_serializer_comes_back_through_our_clients(
    world: World, line: SerializerLine, serde: tuple[Any, Any, Any]
) -> None:
    serializer, deserializer, value = serde
    topic = line.place()
    sealer = world.sealer(world.policy(topic, bind_ordering_key=True))
    conf = line.conf(**{"key.serializer": StringSerializer(), "value.serializer": serializer})
    with SerializingProducer(conf, sealer=sealer) as producer:
        producer.produce(topic, key="4711", value=value)
        producer.produce(topic, key="4711", value=None)
        producer.flush(20)
    consuming = line.consuming(topic) | {
        "key.deserializer": StringDeserializer(),
        "value.deserializer": deserializer,
    }
    consumer = DeserializingConsumer(consuming, sealer=sealer)
    assert _take(consumer, topic, 2) == [("4711", value), ("4711", None)]


def test_what_is_sealed_by_hand_opens_in_our_consumer_and_the_other_way_round(world: World) -> None:
    sealer = world.sealer(world.policy("orders"))
    sealed = SealingSerializer(StringSerializer(), sealer)("grün", value_of("orders"))
    assert sealer.open(sealed or b"", destination="kafka:orders").body == "grün".encode()
    envelope = sealer.seal(b"gr", destination="kafka:orders")
    assert OpeningDeserializer(StringDeserializer(), sealer)(envelope, value_of("orders")) == "gr"


@pytest.mark.parametrize("headers", [{"tenant": "x", "y": "1"}, [("tenant", b"x"), ("tenant", None)], None])
def test_bound_headers_open_by_hand(world: World, headers: Any) -> None:
    sealer = world.sealer(world.policy("orders", bind_headers=["tenant"]))
    sealed = SealingSerializer(StringSerializer(), sealer)("1", value_of("orders", headers))
    deserializer = OpeningDeserializer(StringDeserializer(), sealer)
    assert deserializer(sealed, value_of("orders", headers)) == "1"
    with pytest.raises(Refused):
        deserializer(sealed, value_of("orders", {"tenant": "other"}))


def test_a_header_that_the_inner_serializer_adds_can_be_bound(world: World) -> None:
    """A9: Confluent's serializers may carry the schema id in a header, which decides how the body is decoded."""
    sealer = world.sealer(world.policy("orders", bind_headers=["__value_schema_id"]))

    def inner(obj: str, ctx: SerializationContext) -> bytes:
        ctx.headers.append(("__value_schema_id", b"7"))
        return obj.encode()

    headers: list[Any] = []
    sealed = SealingSerializer(inner, sealer)("1", value_of("orders", headers))
    deserializer = OpeningDeserializer(StringDeserializer(), sealer)
    assert deserializer(sealed, value_of("orders", headers)) == "1"
    with pytest.raises(Refused):
        deserializer(sealed, value_of("orders", [("__value_schema_id", b"8")]))


def test_a_sender_may_bind_more_than_the_consumer_demands(world: World) -> None:
    """Policies are rolled out to one side first."""
    sender = world.sealer(world.policy("orders", bind_headers=["tenant"]))
    consumer = world.sealer(world.policy("orders"))
    sealed = SealingSerializer(StringSerializer(), sender)("1", value_of("orders", {"tenant": "x"}))
    deserializer = OpeningDeserializer(StringDeserializer(), consumer)
    assert deserializer(sealed, value_of("orders", [("tenant", b"x")])) == "1"


def test_none_stays_none_and_empty_is_sealed(world: World) -> None:
    sealer = world.sealer(world.policy("orders"))
    serializer = SealingSerializer(StringSerializer(), sealer)
    deserializer = OpeningDeserializer(StringDeserializer(), sealer)
    assert serializer(None, value_of("orders")) is None
    assert deserializer(None, value_of("orders")) is None
    sealed = serializer("", value_of("orders"))
    assert sealed
    assert deserializer(sealed, value_of("orders")) == ""


def test_a_refusal_carries_its_verdict_and_makes_one_event(world: World) -> None:
    """E6."""
    sealer = world.sealer(world.policy("orders"))
    with pytest.raises(Refused) as refused:
        OpeningDeserializer(StringDeserializer(), sealer)(b"clear", value_of("orders"))
    assert refused.value.verdict is Verdict.UNPROTECTED
    [event] = world.events
    assert event.coordinates == {"topic": "orders"}


def test_in_stock_clients_our_errors_are_the_exception_of_theirs(world: World, line: SerializerLine) -> None:
    topic = line.place()
    sealer = world.sealer(world.policy(topic))
    serializer = SealingSerializer(StringSerializer(), sealer)
    producer = confluent_kafka.SerializingProducer(line.conf(**{"value.serializer": serializer}))
    world.keys.unavailable.set()
    with pytest.raises(ValueSerializationError) as raised:
        producer.produce(topic, value="1")
    assert isinstance(raised.value.exception, KeyUnavailable)
    line.bare.produce(topic, b"clear")
    line.bare.flush(20)
    consuming = line.consuming(topic) | {
        "value.deserializer": OpeningDeserializer(StringDeserializer(), sealer)
    }
    with pytest.raises(ValueDeserializationError) as refused:
        _take(confluent_kafka.DeserializingConsumer(consuming), topic, 1)
    assert isinstance(refused.value.exception, Refused)
    assert refused.value.kafka_message.value() == b"clear"


def test_the_stock_consumer_loses_what_did_not_open_unless_told_not_to_store(
    world: World, line: SerializerLine
) -> None:
    """Why `OpeningDeserializer` says so; if this ever fails, the client stores later, and its docstring and docs/kafka.md can go."""
    topic = line.place()
    sealer = world.sealer(world.policy(topic))
    line.send(sealer, topic, b"1")
    world.keys.unavailable.set()
    group: dict[str, Any] = line.consuming(topic)
    group["value.deserializer"] = OpeningDeserializer(StringDeserializer(), world.sealer(world.policy(topic)))
    careful = group | {"group.id": f"{topic}-careful", "enable.auto.offset.store": False}
    with pytest.raises(ValueDeserializationError):
        _take(confluent_kafka.DeserializingConsumer(careful), topic, 1)
    with pytest.raises(ValueDeserializationError):
        _take(confluent_kafka.DeserializingConsumer(group), topic, 1)
    world.keys.unavailable.clear()
    assert _take(confluent_kafka.DeserializingConsumer(careful), topic, 1) == [(None, "1")]
    consumer = confluent_kafka.Consumer({**line.consuming(topic)})
    [lost] = [p.offset for p in consumer.committed([confluent_kafka.TopicPartition(topic, 0)], 10)]
    consumer.close()
    assert lost == 1


class TestMistakes:
    def test_a_context_is_needed(self, world: World) -> None:
        sealer = world.sealer(world.policy("orders"))
        for call in (
            SealingSerializer(StringSerializer(), sealer),
            OpeningDeserializer(StringDeserializer(), sealer),
        ):
            for context in (None, SerializationContext("", MessageField.VALUE)):
                with pytest.raises(ConfigError, match="bound to its topic"):
                    call(None, context)

    def test_keys_are_left_alone(self, world: World) -> None:
        sealer = world.sealer(world.policy("orders"))
        of_key = SerializationContext("orders", MessageField.KEY)
        for call in (
            SealingSerializer(StringSerializer(), sealer),
            OpeningDeserializer(StringDeserializer(), sealer),
        ):
            with pytest.raises(ConfigError, match="keys are not sealed"):
                call(None, of_key)

    def test_a_policy_that_binds_the_key_needs_a_client_that_sees_it(self, world: World) -> None:
        sealer = world.sealer(world.policy("orders", bind_ordering_key=True))
        for call in (
            SealingSerializer(StringSerializer(), sealer),
            OpeningDeserializer(StringDeserializer(), sealer),
        ):
            with pytest.raises(ConfigError, match="binds the record key"):
                call(None, value_of("orders"))

    def test_a_topic_without_a_policy_is_refused(self, world: World) -> None:
        sealer = world.sealer(world.policy("orders"))
        for call in (
            SealingSerializer(StringSerializer(), sealer),
            OpeningDeserializer(StringDeserializer(), sealer),
        ):
            with pytest.raises(ConfigError, match="did you mean 'kafka:orders'"):
                call(None, value_of("order"))

    def test_swapped_arguments_are_told(self, world: World) -> None:
        sealer = world.sealer(world.policy("orders"))
        for kind in (SealingSerializer, OpeningDeserializer):
            with pytest.raises(ConfigError, match="sealer must be"):
                kind(sealer, StringSerializer())
            with pytest.raises(ConfigError, match="inner must be a"):
                kind(None, sealer)


class TestInner:
    """The inner serializer lives the life that the client gives to ours."""

    class Inner:
        def __init__(self) -> None:
            self.told: list[Any] = []

        def __call__(self, obj: Any, ctx: Any) -> Any:
            return obj

        def set_cluster_id_resolver(self, resolver: Any) -> None:
            self.told.append(resolver())

        def close(self) -> None:
            self.told.append("closed")

    @pytest.mark.parametrize("kind", [SealingSerializer, OpeningDeserializer])
    def test_it_gets_the_resolver_and_is_closed(self, world: World, kind: Any) -> None:
        inner = self.Inner()
        outer = kind(inner, world.sealer(world.policy("orders")))
        outer.set_cluster_id_resolver(lambda: "cluster")
        outer.close()
        assert inner.told == ["cluster", "closed"]

    @pytest.mark.parametrize("kind", [SealingSerializer, OpeningDeserializer])
    def test_a_plain_function_will_do(self, world: World, kind: Any) -> None:
        outer = kind(lambda obj, ctx: obj, world.sealer(world.policy("orders")))
        outer.set_cluster_id_resolver(lambda: "cluster")
        outer.close()
        assert outer(None, value_of("orders")) is None


class TestFrontDoor:
    def test_all_is_what_is_public(self) -> None:
        public = {
            name
            for name, thing in vars(postseal.kafka).items()
            if not name.startswith("_") and not isinstance(thing, ModuleType)
        }
        assert public - {"MissingExtraError"} == set(postseal.kafka.__all__)
        assert postseal.kafka.__all__ == sorted(postseal.kafka.__all__)

    def test_without_the_client_its_extra_is_named(self) -> None:
        code = (
            "import sys; sys.modules['confluent_kafka'] = None\n"
            "from postseal.core import MissingExtraError\n"
            "try: import postseal.kafka\n"
            "except MissingExtraError as error: print(error)"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "postseal.kafka needs confluent_kafka" in told
        assert "pip install 'postseal[kafka]'" in told


def _take(consumer: Any, topic: str, count: int) -> list[tuple[Any, Any]]:
    """Receive *count* messages: key and value of each."""
    consumer.subscribe([topic])
    found: list[tuple[Any, Any]] = []
    try:
        for _ in range(300):
            message = consumer.poll(0.1)
            if message is not None:
                found.append((message.key(), message.value()))
            if len(found) == count:
                return found
    finally:
        consumer.close()
    raise AssertionError(f"{found} came, not {count} messages")
