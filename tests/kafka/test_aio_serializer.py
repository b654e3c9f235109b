"""Serializers for asyncio: around those of the client, of either kind."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from collections.abc import Coroutine
from typing import Any

import confluent_kafka.aio
import pytest
from confluent_kafka.schema_registry import AsyncSchemaRegistryClient
from confluent_kafka.schema_registry.avro import AsyncAvroDeserializer, AsyncAvroSerializer
from confluent_kafka.schema_registry.json_schema import AsyncJSONDeserializer, AsyncJSONSerializer
from confluent_kafka.schema_registry.protobuf import AsyncProtobufDeserializer, AsyncProtobufSerializer
from confluent_kafka.serialization import (
    MessageField,
    SerializationContext,
    StringDeserializer,
    StringSerializer,
)
from google.protobuf.struct_pb2 import Struct

import postseal.kafka.aio
from postseal.core import ConfigError, KeyUnavailable, Refused, Verdict
from postseal.core.wire import looks_sealed
from postseal.kafka import OpeningDeserializer, SealingSerializer
from postseal.kafka.aio import AIOConsumer, AIOProducer, AsyncOpeningDeserializer, AsyncSealingSerializer
from tests.contract import World
from tests.core.test_house import check_all
from tests.kafka.lines import ClientLine

ORDER = {"order": 4711, "card": "4111 1111 1111 1111"}
AVRO = """{"type": "record", "name": "Order", "fields": [
    {"name": "order", "type": "int"}, {"name": "card", "type": "string"}]}"""
JSON = """{"title": "Order", "type": "object", "properties": {
    "order": {"type": "integer"}, "card": {"type": "string"}}}"""
KINDS = ["string", "avro", "json", "protobuf"]


@pytest.fixture
def line(cluster, make_topic) -> ClientLine:
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


def go(coroutine: Coroutine[Any, Any, Any]) -> Any:
    """Run *coroutine*; the time only ends what would fail anyway."""

    async def limited() -> Any:
        async with asyncio.timeout(60):
            return await coroutine

    return asyncio.run(limited())


def value_of(topic: str, headers: Any = None) -> SerializationContext:
    return SerializationContext(topic, MessageField.VALUE, headers)


async def serde(kind: str) -> tuple[Any, Any, Any]:
    """Make a serializer, its deserializer, and what they carry."""
    registry = AsyncSchemaRegistryClient.new_client({"url": "mock://"})
    match kind:
        case "string":
            return StringSerializer(), StringDeserializer(), "4111 1111 1111 1111"
        case "avro":
            return await AsyncAvroSerializer(registry, AVRO), await AsyncAvroDeserializer(registry), ORDER
        case "json":
            return await AsyncJSONSerializer(JSON, registry), await AsyncJSONDeserializer(JSON), ORDER
    message = Struct()
    message.update(ORDER)
    conf = {"use.deprecated.format": False}
    return (
        await AsyncProtobufSerializer(Struct, registry, conf),
        await AsyncProtobufDeserializer(Struct, conf),
        message,
    )


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_of_serializer_comes_back_by_hand(world: World, kind: str) -> None:
    sealer = world.sealer(world.policy("orders"))

    async def main() -> None:
        inner, back, value = await serde(kind)
        sealed = await AsyncSealingSerializer(inner, sealer)(value, value_of("orders"))
        assert sealed is not None
        assert looks_sealed(sealed)
        assert b"4111" not in sealed
        assert await AsyncOpeningDeserializer(back, sealer)(sealed, value_of("orders")) == value

    go(main())


@pytest.mark.parametrize("kind", KINDS)
def test_every_kind_comes_back_through_our_clients(world: World, line: ClientLine, kind: str) -> None:
    """The serializer's work and the sealing in one program, each in its place; a sealed value is not sealed again."""
    topic = line.place()
    sealer = world.sealer(world.policy(topic))

    async def main() -> None:
        inner, back, value = await serde(kind)
        async with AIOProducer(line.conf(), sealer=sealer) as producer:
            await producer.produce(topic, await inner(value, value_of(topic)) if kind != "string" else value)
            await producer.produce(topic, await AsyncSealingSerializer(inner, sealer)(value, value_of(topic)))
        async with AIOConsumer(line.consuming(topic), sealer=sealer) as consumer:
            await consumer.subscribe([topic])
            for _ in range(2):
                message = await consumer.poll(20)
                assert message is not None
                opened = back(message.value(), value_of(topic))
                assert (opened if kind == "string" else await opened) == value

    go(main())


def test_the_clients_own_asyncio_classes_take_them(world: World, line: ClientLine) -> None:
    topic = line.place()
    sealer = world.sealer(world.policy(topic))

    async def main() -> None:
        inner, back, value = await serde("avro")
        producer = await confluent_kafka.aio.AsyncSerializingProducer(
            line.conf(**{"value.serializer": AsyncSealingSerializer(inner, sealer)})
        )
        async with producer:
            await producer.produce(topic, value=value)
        conf = line.consuming(topic) | {
            "value.deserializer": AsyncOpeningDeserializer(back, sealer),
            "enable.auto.offset.store": False,
        }
        consumer = await confluent_kafka.aio.AsyncDeserializingConsumer(conf)
        async with consumer:
            await consumer.subscribe([topic])
            assert (await consumer.poll(20)).value() == value

    go(main())
    [message] = line.messages(topic, 1)
    assert looks_sealed(message.value())


def test_what_the_sync_ones_seal_these_open_and_the_other_way_round(world: World) -> None:
    sealer = world.sealer(world.policy("orders", bind_headers=["tenant"]))
    context = value_of("orders", [("tenant", b"x")])

    async def main() -> None:
        sealed = SealingSerializer(StringSerializer(), sealer)("1", context)
        assert await AsyncOpeningDeserializer(StringDeserializer(), sealer)(sealed, context) == "1"
        sealed = await AsyncSealingSerializer(StringSerializer(), sealer)("2", context)
        assert OpeningDeserializer(StringDeserializer(), sealer)(sealed, context) == "2"
        with pytest.raises(Refused) as refused:
            await AsyncOpeningDeserializer(StringDeserializer(), sealer)(sealed, value_of("orders"))
        assert refused.value.verdict is Verdict.FORGED

    go(main())
    assert world.verdicts() == [Verdict.FORGED]


def test_none_stays_none_and_empty_is_sealed(world: World) -> None:
    sealer = world.sealer(world.policy("orders"))

    async def main() -> None:
        serializer = AsyncSealingSerializer(StringSerializer(), sealer)
        deserializer = AsyncOpeningDeserializer(StringDeserializer(), sealer)
        assert await serializer(None, value_of("orders")) is None
        assert await deserializer(None, value_of("orders")) is None
        sealed = await serializer("", value_of("orders"))
        assert sealed
        assert await deserializer(sealed, value_of("orders")) == ""

    go(main())


@pytest.mark.parametrize("verb", ["seal", "open"])
def test_a_slow_key_service_never_holds_the_loop(world: World, verb: str) -> None:
    """D6: one value waits for its data key, the loop goes on turning."""
    policy = world.policy("orders")
    envelope = world.sealer(policy).seal(b"1", destination="kafka:orders")
    sealer = world.sealer(policy)
    world.keys.slow.set()

    async def main() -> None:
        if verb == "seal":
            working = asyncio.create_task(
                AsyncSealingSerializer(StringSerializer(), sealer)("1", value_of("orders"))
            )
        else:
            working = asyncio.create_task(
                AsyncOpeningDeserializer(StringDeserializer(), sealer)(envelope, value_of("orders"))
            )
        await asyncio.to_thread(world.keys.waiting.wait, 30)
        for _ in range(1000):
            await asyncio.sleep(0)  # the ticking task: each turn of the loop while the key service dawdles
        assert not working.done()
        world.keys.unblock()
        assert await working

    go(main())


def test_an_absent_key_service_is_told(world: World) -> None:
    """B14."""
    sealer = world.sealer(world.policy("orders"))
    world.keys.unavailable.set()

    async def main() -> None:
        with pytest.raises(KeyUnavailable):
            await AsyncSealingSerializer(StringSerializer(), sealer)("1", value_of("orders"))

    go(main())


def test_mistakes_are_those_of_the_sync_ones(world: World) -> None:
    sealer = world.sealer(world.policy("orders"))

    async def main() -> None:
        for call in (
            AsyncSealingSerializer(StringSerializer(), sealer),
            AsyncOpeningDeserializer(StringDeserializer(), sealer),
        ):
            with pytest.raises(ConfigError, match="bound to its topic"):
                await call(None, None)
            with pytest.raises(ConfigError, match="keys are not sealed"):
                await call(None, SerializationContext("orders", MessageField.KEY))
            with pytest.raises(ConfigError, match="did you mean 'kafka:orders'"):
                await call(None, value_of("order"))
        for kind in (AsyncSealingSerializer, AsyncOpeningDeserializer):
            with pytest.raises(ConfigError, match="sealer must be"):
                kind(sealer, StringSerializer())
            with pytest.raises(ConfigError, match="inner must be a"):
                kind(None, sealer)

    go(main())


@pytest.mark.parametrize("kind", [AsyncSealingSerializer, AsyncOpeningDeserializer])
@pytest.mark.parametrize("closes", ["aclose", "close", "neither"])
def test_the_inner_one_lives_the_life_that_the_client_gives_to_ours(
    world: World, kind: Any, closes: str
) -> None:
    told: list[Any] = []

    class Inner:
        def __call__(self, obj: Any, ctx: Any) -> Any:
            return obj

        def set_async_cluster_id_resolver(self, resolver: Any) -> None:
            told.append(resolver)

    async def aclose(self: Inner) -> None:
        told.append("aclose")

    def close(self: Inner) -> None:
        told.append("close")

    if closes == "aclose":
        Inner.aclose = aclose  # type: ignore[attr-defined]
    if closes in ("aclose", "close"):
        Inner.close = close  # type: ignore[attr-defined]

    async def main() -> None:
        async def resolver() -> str:
            return "cluster"

        outer = kind(Inner(), world.sealer(world.policy("orders")))
        outer.set_async_cluster_id_resolver(resolver)
        await outer.aclose()
        assert told == [resolver, *([closes] if closes != "neither" else [])]

    go(main())


class TestFrontDoor:
    def test_all_is_what_is_public(self) -> None:
        check_all(postseal.kafka.aio)

    def test_a_client_without_asyncio_is_told_which_has_it(self) -> None:
        code = (
            "import sys; sys.modules['confluent_kafka.aio'] = None\n"
            "import postseal.kafka\n"
            "from postseal.core import MissingExtraError\n"
            "try: import postseal.kafka.aio\n"
            "except MissingExtraError as error: print(error)"
        )
        told = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout
        assert "confluent-kafka>=2.13" in told
