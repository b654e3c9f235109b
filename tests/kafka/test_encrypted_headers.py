"""Headers that travel in the envelope: what is Kafka's own of it. The rest stands in the contract."""

from __future__ import annotations

import asyncio
from base64 import b64decode, b64encode

import confluent_kafka
import pytest
from confluent_kafka.serialization import MessageField, SerializationContext

from postseal.core import ConfigError, Policy, Refused, Sealer, Verdict
from postseal.kafka import OpeningDeserializer, Producer, SealingSerializer, open_records
from tests.contract import Raw, World
from tests.fakes import FakeKeys
from tests.kafka.aio_lines import AIOLine
from tests.kafka.lines import ClientBatchLine, ClientLine


@pytest.fixture
def line(cluster, make_topic):
    return ClientLine(cluster, make_topic)


def received(line, sealer, place, count):
    """Return the messages that our consumer hands on."""
    consumer = line.consumer(sealer, place)
    consumer.subscribe([place])
    found = []
    while len(found) < count:
        message = consumer.poll(10)
        assert message is not None
        found.append(message)
    consumer.close()
    return found


def test_bytes_null_and_repeated_names_come_back_as_they_were(line):
    world, place = World(line), line.place()
    policy = world.policy(place, encrypt_headers=["a", "b"])
    producer = line.producer(world.sealer(policy))
    headers = [("a", b"\x00\xff"), ("x", "plain"), ("b", None), ("a", ""), ("b", "grün")]
    producer.produce(place, b"one", headers=headers)
    producer.flush()
    [raw] = line.messages(place, 1)
    assert raw.headers() == [("x", b"plain")]
    [message] = received(line, world.sealer(policy), place, 1)
    assert message.headers() == [
        ("x", b"plain"),
        ("a", b"\x00\xff"),
        ("a", b""),
        ("b", None),
        ("b", "grün".encode()),
    ]


def test_a_batch_carries_encrypted_headers_which_the_client_alone_drops(line):
    world, place = World(line), line.place()
    policy = world.policy(place, encrypt_headers=["tenant"])
    batch = [
        {"value": b"one", "partition": 0, "headers": {"tenant": "north"}},
        {"value": b"two", "partition": 0},
    ]
    line.send_batch(world.sealer(policy), place, batch)
    assert batch[0]["headers"] == {"tenant": "north"}
    assert not any(raw.headers() for raw in line.messages(place, 2))
    one, two = sorted(received(line, world.sealer(policy), place, 2), key=lambda message: message.value())
    assert (one.value(), one.headers()) == (b"one", [("tenant", b"north")])
    assert (two.value(), two.headers()) == (b"two", None)


def test_the_asyncio_producer_carries_encrypted_headers_which_the_client_alone_refuses(cluster, make_topic):
    with asyncio.Runner() as runner:
        line = AIOLine(cluster, make_topic, runner)
        world, place = World(line), line.place()
        policy = world.policy(place, encrypt_headers=["tenant"])
        sealer = world.sealer(policy)
        line.send_batch(sealer, place, [{"value": b"one", "partition": 0, "headers": {"tenant": "north"}}])
        with line.receiving(world.sealer(policy), place) as receiving:
            receiving.take(1)
        assert receiving.headers == [{"tenant": "north"}]
        with pytest.raises(NotImplementedError):
            line.send_batch(sealer, place, [{"value": b"two", "headers": {"tenant": "north", "other": "x"}}])


def test_a_tombstone_has_nothing_to_encrypt_headers_with(line):
    world, place = World(line), line.place()
    policy = world.policy(place, encrypt_headers=["tenant"])
    producer = line.producer(world.sealer(policy))
    for headers in ({"tenant": "north"}, {"Tenant": "north"}):
        with pytest.raises(ConfigError, match="without a value"):
            producer.produce(place, None, key="k", headers=headers)
        with pytest.raises(ConfigError, match="without a value"):
            producer.produce_batch(place, [{"value": None, "key": "k", "headers": headers}])
    producer.produce(place, None, key="k", headers={"other": "x"})
    producer.flush()
    line.bare.produce(place, None, key="k", headers={"tenant": "mallory", "TENANT": "mallory", "other": "y"})
    line.bare.flush()
    found = received(line, world.sealer(policy), place, 2)
    assert [(message.value(), message.headers()) for message in found] == [
        (None, [("other", b"x")]),
        (None, [("other", b"y")]),
    ]


def test_serializers_cannot_take_headers_out_and_say_so():
    policy = Policy(name="p", destinations=["kafka:orders"], keys=["main"], encrypt_headers=["tenant"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    ctx = SerializationContext("orders", MessageField.VALUE, [("tenant", b"north")])
    with pytest.raises(ConfigError, match="encrypts headers"):
        SealingSerializer(lambda value, _: value, sealer)(b"one", ctx)
    with pytest.raises(ConfigError, match="encrypts headers"):
        OpeningDeserializer(lambda value, _: value, sealer)(b"one", ctx)


def test_lambda_gets_encrypted_headers_as_it_has_all_others():
    policy = Policy(name="p", destinations=["kafka:orders"], keys=["main"], encrypt_headers=["tenant"])
    sealer = Sealer(sender="shop", policies=[policy], keys={"main": FakeKeys()})
    sealed = sealer.seal(b"one", destination="kafka:orders", headers={"tenant": b"\xffa"})
    record = {
        "topic": "orders",
        "partition": 0,
        "offset": 1,
        "value": b64encode(sealed).decode(),
        "headers": [{"x": [97]}],
    }
    event = {"eventSource": "aws:kafka", "records": {"orders-0": [record]}}
    [opened] = open_records(event, sealer)
    assert b64decode(opened["value"]) == b"one"
    assert opened["headers"] == [{"x": [97]}, {"tenant": [-1, 97]}]
    record["headers"].append({"tenant": [98]})
    with pytest.raises(Refused) as refused:
        open_records(event, sealer)
    assert refused.value.verdict is Verdict.FORGED
    record["value"] = None
    [bare] = open_records(event, sealer)
    assert bare["headers"] == [{"x": [97]}]


@pytest.mark.parametrize(
    "tampered",
    [
        [("tenant", b"north"), ("tenant", b"south")],
        [("tenant", b"south"), ("tenant", b"north")],
        [("tenant", None)],
        [
            ("tenant", b"north "),
        ],
        [("Tenant", b"north")],
        [("tenant", b"north"), ("TENANT", b"south")],
        [("absent", b""), ("tenant", b"north")],
        None,
    ],
    ids=["second value", "second value first", "null", "longer", "other case", "twin", "added", "all gone"],
)
@pytest.mark.parametrize("flavour", ["poll", "consume"])
def test_bound_headers_that_were_tampered_with_are_refused(line, tampered, flavour):
    """A9."""
    world, home, place = World(line), line.place(), line.place()
    policy = world.policy(home, accept_from=[f"kafka:{place}"], bind_headers=["absent", "tenant"])
    line.send(world.sealer(policy), home, b"one", {"tenant": "north"})
    [raw] = line.messages(home, 1)
    line.bare.produce(place, raw.value(), headers=tampered)
    line.bare.flush()
    reader = (ClientLine if flavour == "poll" else ClientBatchLine)(line.address, lambda _: None)
    with reader.receiving(world.sealer(policy), place) as receiving:
        receiving.until(lambda: bool(world.events))
    assert receiving.bodies == []
    assert world.verdicts() == [Verdict.FORGED]


def test_repeated_values_of_a_bound_header_stay_in_order(line):
    """A9."""
    world, home, place = World(line), line.place(), line.place()
    policy = world.policy(home, accept_from=[f"kafka:{place}"], bind_headers=["tag"])
    producer: confluent_kafka.Producer = Producer(line.conf(), sealer=world.sealer(policy))
    producer.produce(home, b"one", headers=[("tag", "1"), ("other", "x"), ("tag", "2")])
    producer.flush()
    [raw] = line.messages(home, 1)
    line.bare.produce(place, raw.value(), headers=[("tag", "2"), ("tag", "1")])
    line.bare.flush()
    with line.receiving(world.sealer(policy), place) as receiving:
        receiving.until(lambda: bool(world.events))
    assert receiving.bodies == []
    line.put(place, Raw(raw.value(), {}))
    line.bare.produce(place, raw.value(), headers=[("tag", "1"), ("tag", "2"), ("other", "y")])
    line.bare.flush()
    with line.receiving(world.sealer(policy), place) as receiving:
        assert receiving.take(1) == [b"one"]
