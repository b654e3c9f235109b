"""What may go wrong around a message, for the sync and the asyncio clients: each is a clear error, and nothing is lost or handed on.

What is wrong with an envelope itself (cut, grown, swapped, of another topic, of a later version) is in the contract, for every flavour.
"""

from __future__ import annotations

import asyncio
import contextlib
import socket
import threading
from collections.abc import Callable, Iterator
from typing import Any

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.error import ValueSerializationError

from postseal.core import ConfigError, Verdict
from postseal.kafka import Consumer, Producer, RefusedMessage, SerializingProducer
from postseal.kafka.aio import AIOConsumer, AIOProducer
from tests.contract import World
from tests.kafka.lines import ClientLine

CLEAR = b"4111 1111 1111 1111"


@pytest.fixture
def line(cluster, make_topic) -> ClientLine:
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


@pytest.fixture
def hanging_up() -> Iterator[str]:
    """The address of a broker that closes each connection as soon as it is asked for something."""
    listening = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        while True:
            try:
                connection, _ = listening.accept()
            except OSError:
                return
            with connection:
                connection.settimeout(5)
                with contextlib.suppress(OSError):
                    connection.recv(1)

    thread = threading.Thread(target=serve)
    thread.start()
    yield f"127.0.0.1:{listening.getsockname()[1]}"
    listening.shutdown(socket.SHUT_RDWR)
    listening.close()
    thread.join(10)


class Sync:
    """The sync clients, by the verbs that both have."""

    def produce(self, conf: dict[str, Any], world: World, policy: Any, topic: str, value: Any) -> Any:
        reports: list[Any] = []
        with Producer(conf, sealer=world.sealer(policy)) as producer:
            producer.produce(topic, value, partition=0, on_delivery=lambda error, _: reports.append(error))
            producer.flush(20)
        return reports

    def receive(
        self, conf: dict[str, Any], world: World, policy: Any, topic: str, done: Callable[[list[Any]], bool]
    ) -> list[Any]:
        found: list[Any] = []
        with Consumer(conf, sealer=world.sealer(policy)) as consumer:
            consumer.subscribe([topic])
            for _ in range(100):
                if done(found):
                    return found
                try:
                    message = consumer.poll(0.2)
                except RefusedMessage as refused:
                    found.append(refused.verdict)
                else:
                    found += [] if message is None else [message.error() or message.value()]
        raise AssertionError(found)


class Asyncio(Sync):
    """Those of asyncio."""

    def produce(self, conf: dict[str, Any], world: World, policy: Any, topic: str, value: Any) -> Any:
        async def main() -> list[Any]:
            async with AIOProducer(conf, sealer=world.sealer(policy)) as producer:
                report = await producer.produce(topic, value, partition=0)
                await producer.flush(20)
                try:
                    return [(await report).error()]
                except KafkaException as error:
                    return [error.args[0]]

        return asyncio.run(main())

    def receive(
        self, conf: dict[str, Any], world: World, policy: Any, topic: str, done: Callable[[list[Any]], bool]
    ) -> list[Any]:
        async def main() -> list[Any]:
            found: list[Any] = []
            async with AIOConsumer(conf, sealer=world.sealer(policy)) as consumer:
                await consumer.subscribe([topic])
                for _ in range(100):
                    if done(found):
                        return found
                    try:
                        message = await consumer.poll(0.2)
                    except RefusedMessage as refused:
                        found.append(refused.verdict)
                    else:
                        found += [] if message is None else [message.error() or message.value()]
            raise AssertionError(found)

        return asyncio.run(main())


@pytest.fixture(params=[Sync, Asyncio])
def clients(request: pytest.FixtureRequest) -> Sync:
    return request.param()


class TestBrokerThatHangsUp:
    def test_while_producing_the_report_says_so_and_a_retry_sends(
        self, world: World, line: ClientLine, clients: Sync, hanging_up: str
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        away = line.conf(**{"bootstrap.servers": hanging_up, "message.timeout.ms": 500})
        [error] = clients.produce(away, world, policy, topic, CLEAR)
        assert error.code() == KafkaError._MSG_TIMED_OUT
        assert clients.produce(line.conf(), world, policy, topic, CLEAR) == [None]
        with line.receiving(world.sealer(policy), topic) as receiving:
            assert receiving.take(1) == [CLEAR]

    def test_while_consuming_the_client_says_so_and_nothing_is_lost(
        self, world: World, line: ClientLine, clients: Sync, hanging_up: str
    ) -> None:
        """The client tells of it by its own event, and goes on trying; a consumer of the same group finds all later."""
        topic = line.place()
        policy = world.policy(topic)
        line.send(world.sealer(policy), topic, CLEAR)
        told: list[Any] = []

        async def tell_later(error: Any) -> None:
            told.append(error.code())

        away = line.consuming(topic) | {
            "bootstrap.servers": hanging_up,
            "error_cb": tell_later
            if isinstance(clients, Asyncio)
            else lambda error: told.append(error.code()),
        }
        errors = clients.receive(away, world, policy, topic, lambda _: KafkaError._ALL_BROKERS_DOWN in told)
        assert [error for error in errors if isinstance(error, bytes)] == []
        got = clients.receive(line.consuming(topic), world, policy, topic, lambda found: len(found) >= 1)
        assert got == [CLEAR]
        assert world.events == []


class TestTopicThatIsNot:
    def test_producing_to_it_is_the_clients_own_error(
        self, world: World, line: ClientLine, clients: Sync
    ) -> None:
        topic = "never-made"
        conf = line.conf(
            **{
                "allow.auto.create.topics": False,
                "topic.metadata.propagation.max.ms": 100,
                "message.timeout.ms": 3000,
            }
        )
        [error] = clients.produce(conf, world, world.policy(topic), topic, CLEAR)
        assert error.code() in (KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC)

    def test_subscribing_to_it_is_the_clients_own_event(
        self, world: World, line: ClientLine, clients: Sync
    ) -> None:
        topic = "never-made-either"
        conf = line.consuming(topic, **{"allow.auto.create.topics": False, "group.protocol": "classic"})
        [error] = clients.receive(conf, world, world.policy(topic), topic, lambda found: len(found) >= 1)
        assert error.code() == KafkaError.UNKNOWN_TOPIC_OR_PART


class TestArguments:
    @pytest.mark.parametrize(
        "headers", [{"tenant": 5}, [("tenant", 1.5)], [("tenant", ["x"])], {"tenant": object()}]
    )
    def test_a_bound_header_of_a_wrong_type_is_a_type_error_and_nothing_is_sent(
        self, world: World, line: ClientLine, headers: Any
    ) -> None:
        topic = line.place()
        with Producer(
            line.conf(), sealer=world.sealer(world.policy(topic, bind_headers=["tenant"]))
        ) as producer:
            with pytest.raises(TypeError):
                producer.produce(topic, CLEAR, headers=headers)
            assert len(producer) == 0

    @pytest.mark.parametrize("headers", [5, "text", [5], [("tenant",)], [("a", "b", "c")]])
    def test_headers_that_are_none_are_the_clients_own_error_or_a_type_error(
        self, world: World, line: ClientLine, headers: Any
    ) -> None:
        topic = line.place()
        for policy in (world.policy(topic), world.policy(topic, bind_headers=["tenant"])):
            with Producer(line.conf(), sealer=world.sealer(policy)) as producer:
                with pytest.raises((TypeError, ValueError)):
                    producer.produce(topic, CLEAR, headers=headers)
                assert len(producer) == 0

    @pytest.mark.parametrize("key", [5, ["k"], 1.5])
    def test_a_key_of_a_wrong_type_is_a_type_error(
        self, world: World, line: ClientLine, clients: Sync, key: Any
    ) -> None:
        topic = line.place()
        for binds in (False, True):
            policy = world.policy(topic, bind_ordering_key=binds)
            with Producer(line.conf(), sealer=world.sealer(policy)) as producer:
                with pytest.raises(TypeError):
                    producer.produce(topic, CLEAR, key=key)
                assert len(producer) == 0

    def test_text_from_a_serializer_is_sealed_as_utf_8_as_the_client_would_send_it(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        conf = line.conf(**{"value.serializer": lambda value, _: value})
        with SerializingProducer(conf, sealer=world.sealer(policy)) as producer:
            producer.produce(topic, value="grün", partition=0)
        with line.receiving(world.sealer(policy), topic) as receiving:
            assert receiving.take(1) == ["grün".encode()]

    def test_what_a_serializer_makes_that_is_no_body_is_a_type_error(
        self, world: World, line: ClientLine
    ) -> None:
        conf = line.conf(**{"value.serializer": lambda value, _: value})
        with SerializingProducer(conf, sealer=world.sealer(world.policy("orders"))) as producer:
            with pytest.raises((TypeError, ValueSerializationError)):
                producer.produce("orders", value=5)
            assert len(producer) == 0


def test_a_bad_policy_and_a_closed_producer_are_told(world: World, line: ClientLine) -> None:
    sealer = world.sealer(world.policy("orders"))
    producer = Producer(line.conf(), sealer=sealer)
    producer.close()
    with pytest.raises(RuntimeError, match="closed"):
        producer.produce("orders", CLEAR)
    with pytest.raises(ConfigError):
        Producer(line.conf(), sealer=sealer).produce("unheard-of", CLEAR)


@pytest.mark.parametrize("junk", [b"\xd8\x60", b"\xd8\x60" * 100, b"\xff" * 50, b"", b"\xd2", b"null"])
def test_junk_is_refused_and_what_follows_is_handed_on(
    world: World, line: ClientLine, clients: Sync, junk: bytes
) -> None:
    """A9."""
    topic = line.place()
    policy = world.policy(topic)
    line.bare.produce(topic, junk, partition=0)
    line.bare.flush(20)
    line.send(world.sealer(policy), topic, CLEAR)
    found = clients.receive(line.consuming(topic), world, policy, topic, lambda found: len(found) >= 2)
    assert found[0] in (Verdict.UNPROTECTED, Verdict.MALFORMED)
    assert found[1] == CLEAR
    assert len(world.events) == 1
