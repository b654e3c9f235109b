"""The asyncio producer that seals, on the mock cluster."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from typing import Any
from unittest.mock import create_autospec

import confluent_kafka.aio
import pytest
from confluent_kafka import KafkaError, KafkaException

from postseal.core import ConfigError, KeyUnavailable, Refused
from postseal.core.wire import looks_sealed
from postseal.kafka import MessageTooLarge
from postseal.kafka.aio import AIOProducer
from tests.contract import World
from tests.kafka.lines import ClientLine


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


def bodies(world: World, line: ClientLine, policy: Any, topic: str, count: int) -> list[bytes | None]:
    """Read what lies in *topic* and open it by hand."""
    sealer = world.sealer(policy)
    return [
        message.value()
        and sealer.open(
            message.value(),
            destination=f"kafka:{topic}",
            headers=message.headers(),
            ordering_key=message.key(),
        ).body
        for message in line.messages(topic, count)
    ]


def test_it_is_an_aio_producer_and_leaves_its_configuration_alone(world: World, line: ClientLine) -> None:
    async def main() -> None:
        async def on_error(error: KafkaError) -> None: ...

        conf = line.conf(error_cb=on_error)
        before = dict(conf)
        async with AIOProducer(conf, sealer=world.sealer(world.policy("orders"))) as producer:
            assert isinstance(producer, confluent_kafka.aio.AIOProducer)
        assert conf == before

    go(main())


def test_whoever_asks_is_told_that_produce_is_a_coroutine_function() -> None:
    twin = create_autospec(AIOProducer, instance=True)
    go(twin.produce("orders", b"1"))


def test_what_is_not_awaited_is_not_sent(world: World, line: ClientLine) -> None:
    topic = line.place()

    async def main() -> None:
        sealer = world.sealer(world.policy(topic))
        async with AIOProducer(line.conf(), batch_size=1, sealer=sealer) as producer:
            await (await producer.produce(topic, b"1", partition=0))
            for value in (b"2", "2", None):
                producer.produce(topic, value, key="k").close()
            assert len(producer) == 0
            await (await producer.produce(topic, b"3", partition=0))

    go(main())
    assert bodies(world, line, world.policy(topic), topic, 2) == [b"1", b"3"]


def test_every_argument_reaches_the_client(world: World, line: ClientLine) -> None:
    topic = line.place()
    policy = world.policy(topic, bind_ordering_key=True)

    async def main() -> None:
        async with AIOProducer(line.conf(), 2, batch_size=2, sealer=world.sealer(policy)) as producer:
            await producer.produce(topic, b"1", b"k", partition=2)
            report = await producer.produce(topic=topic, value="grün", key="k", partition=2)
            await producer.produce(topic, key="gone", partition=2)
            await producer.produce(topic, b"", "k", partition=2)
            await producer.flush()
            assert looks_sealed((await report).value())

    go(main())
    found = line.messages(topic, 4)
    assert [(m.partition(), m.key()) for m in found] == [(2, b"k"), (2, b"k"), (2, b"gone"), (2, b"k")]
    assert found[2].value() is None
    assert bodies(world, line, policy, topic, 4) == [b"1", "grün".encode(), None, b""]


def test_headers_are_the_clients_own_error(world: World, line: ClientLine) -> None:
    """A9: if a later client takes them, those that the policy binds are sealed with the message."""
    topic = line.place()

    async def main() -> None:
        sealer = world.sealer(world.policy(topic))
        async with AIOProducer(line.conf(), sealer=sealer) as producer:
            for _ in range(3):  # the whole way, then with a data key at hand
                call = producer.produce(topic, b"1", headers={"tenant": "x"})
                with pytest.raises(NotImplementedError, match="Headers are not supported"):
                    await call
            assert sealer.data_keys_at_hand["sealing"] == 1
            assert len(producer) == 0

    go(main())
    assert not line.has_message(topic)


def test_where_the_policy_binds_headers_their_absence_is_bound(world: World, line: ClientLine) -> None:
    """A9."""
    topic = line.place()
    policy = world.policy(topic, bind_headers=["tenant"])

    async def main() -> None:
        async with AIOProducer(line.conf(), sealer=world.sealer(policy)) as producer:
            await producer.produce(topic, b"1")

    go(main())
    assert bodies(world, line, policy, topic, 1) == [b"1"]
    [message] = line.messages(topic, 1)
    with pytest.raises(Refused):
        world.sealer(policy).open(message.value(), destination=f"kafka:{topic}", headers=[("tenant", b"x")])


@pytest.mark.parametrize(("value", "key"), [(b"x" * 1900, None), ("ü" * 950, "k"), (b"x" * 1900, b"k")])
def test_too_large_once_sealed_says_both_sizes(world: World, line: ClientLine, value: Any, key: Any) -> None:
    topic = line.place()
    conf = line.conf(**{"message.max.bytes": "2000"})

    async def main() -> None:
        async with AIOProducer(conf, sealer=world.sealer(world.policy(topic))) as producer:
            large = await producer.produce(topic, value, key)
            small = await producer.produce(topic, b"small")
            await producer.flush()
            assert (await small).error() is None
            with pytest.raises(MessageTooLarge, match=r"1,900 bytes is 2,\d\d\d bytes once sealed") as raised:
                await large
            assert isinstance(raised.value, KafkaException)
            assert raised.value.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE

    go(main())


def test_what_just_fits_is_reported_like_all_others(world: World, line: ClientLine) -> None:
    topic = line.place()
    conf = line.conf(**{"message.max.bytes": 3000})

    async def main() -> None:
        async with AIOProducer(conf, sealer=world.sealer(world.policy(topic))) as producer:
            report = await producer.produce(topic, b"x" * 2200)
            await producer.flush()
            assert looks_sealed((await report).value())
            purged = await producer.produce(topic, b"x" * 2200)
            await producer.purge()
            with pytest.raises(asyncio.CancelledError):
                await purged

    go(main())


def test_a_topic_without_a_policy_takes_nothing(world: World, line: ClientLine) -> None:
    """A9."""

    async def main() -> None:
        async with AIOProducer(line.conf(), sealer=world.sealer(world.policy("orders"))) as producer:
            with pytest.raises(ConfigError, match="did you mean 'kafka:orders'"):
                await producer.produce("order", b"1")
            for wrong in (5, ["x"]):
                with pytest.raises(TypeError):
                    await producer.produce("orders", wrong)
            assert len(producer) == 0

    go(main())


def test_mistakes_are_told_at_construction(world: World, line: ClientLine) -> None:
    async def main() -> None:
        with pytest.raises(ConfigError, match=r"sealer must be a postseal\.core\.Sealer"):
            AIOProducer(line.conf(), sealer=None)
        sealer = world.sealer(world.policy("orders"))
        with pytest.raises(KafkaException, match="No such configuration property"):
            AIOProducer(line.conf(nonsense="x"), sealer=sealer)
        with pytest.raises(TypeError):
            AIOProducer(None, sealer=sealer)

    go(main())


def test_a_slow_key_service_never_holds_the_loop(world: World, line: ClientLine) -> None:
    """D6: other tasks go on while a data key is fetched; that one message waits for it."""
    topic = line.place()
    policy = world.policy(topic)
    world.keys.slow.set()

    async def main() -> None:
        async with AIOProducer(line.conf(), sealer=world.sealer(policy)) as producer:
            producing = asyncio.create_task(producer.produce(topic, b"1", partition=0))
            await asyncio.to_thread(world.keys.waiting.wait, 30)
            for _ in range(1000):
                await asyncio.sleep(
                    0
                )  # the ticking task: each turn of the loop while the key service dawdles
            assert not producing.done()
            world.keys.unblock()
            await producing

    go(main())
    assert bodies(world, line, policy, topic, 1) == [b"1"]


def test_calls_made_at_once_keep_their_order_though_the_first_key_is_slow(
    world: World, line: ClientLine
) -> None:
    topic = line.place()
    policy = world.policy(topic)
    world.keys.slow.set()
    sent = [b"%d" % number for number in range(50)]

    async def main() -> None:
        async with AIOProducer(line.conf(), sealer=world.sealer(policy)) as producer:
            producing = [asyncio.create_task(producer.produce(topic, body, partition=0)) for body in sent]
            await asyncio.to_thread(world.keys.waiting.wait, 30)
            world.keys.unblock()
            await asyncio.gather(*producing)

    go(main())
    assert bodies(world, line, policy, topic, 50) == sent
    assert world.keys.calls["generate"] == 1


def test_without_a_key_nothing_is_sent(world: World, line: ClientLine) -> None:
    """B14."""
    topic = line.place()
    policy = world.policy(topic)
    world.keys.unavailable.set()

    async def main() -> None:
        async with AIOProducer(line.conf(), sealer=world.sealer(policy)) as producer:
            with pytest.raises(KeyUnavailable):
                await producer.produce(topic, b"1")
            assert len(producer) == 0
            world.keys.unavailable.clear()
            await producer.produce(topic, b"1")

    go(main())
    assert bodies(world, line, policy, topic, 1) == [b"1"]


class TestCancellation:
    def test_a_call_cancelled_while_it_waits_for_a_key_sends_nothing(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        policy = world.policy(topic)
        world.keys.slow.set()

        async def main() -> None:
            async with AIOProducer(line.conf(), sealer=world.sealer(policy)) as producer:
                producing = asyncio.create_task(producer.produce(topic, b"cancelled", partition=0))
                await asyncio.to_thread(world.keys.waiting.wait, 30)
                producing.cancel()
                with pytest.raises(asyncio.CancelledError):
                    await producing
                assert len(producer) == 0
                world.keys.unblock()
                await producer.produce(topic, b"sent", partition=0)

        go(main())
        assert bodies(world, line, policy, topic, 1) == [b"sent"]

    def test_a_call_cancelled_while_it_empties_the_buffer_loses_nothing_of_it(
        self, world: World, line: ClientLine
    ) -> None:
        """The client alone drops the whole batch here, and its futures never end."""
        topic = line.place()
        policy = world.policy(topic)

        async def main() -> None:
            producer = AIOProducer(
                line.conf(), 1, batch_size=3, buffer_timeout=0, sealer=world.sealer(policy)
            )
            held = asyncio.Event()
            loop = asyncio.get_running_loop()
            released = threading.Event()

            def occupy() -> None:
                loop.call_soon_threadsafe(held.set)
                released.wait(30)

            busy = loop.run_in_executor(producer.executor, occupy)  # its only thread
            await held.wait()
            reports = [await producer.produce(topic, body, partition=0) for body in (b"1", b"2")]
            third = asyncio.create_task(producer.produce(topic, b"3", partition=0))
            while len(producer):  # noqa: ASYNC110 - until it waits for the thread
                await asyncio.sleep(0)
            third.cancel()
            with pytest.raises(asyncio.CancelledError):
                await third
            released.set()
            await busy
            await producer.close()
            for report in reports:
                assert (await report).error() is None

        go(main())
        assert bodies(world, line, policy, topic, 3) == [b"1", b"2", b"3"]


def test_a_transaction_carries_sealed_messages(world: World, line: ClientLine) -> None:
    topic = line.place()
    policy = world.policy(topic)
    conf = line.conf(**{"transactional.id": topic})

    async def main() -> None:
        async with AIOProducer(conf, sealer=world.sealer(policy)) as producer:
            await producer.init_transactions(20)
            await producer.begin_transaction()
            await producer.produce(topic, b"1", partition=0)
            await producer.commit_transaction(20)

    go(main())
    assert bodies(world, line, policy, topic, 1) == [b"1"]
