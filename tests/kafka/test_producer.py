"""Producers that seal, on the mock cluster."""

from __future__ import annotations

import confluent_kafka
import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.serialization import StringSerializer

from postseal.core import ConfigError, Refused, TooLarge, Verdict
from postseal.kafka import MessageTooLarge, Producer, SerializingProducer
from tests.contract import World
from tests.kafka.lines import ClientLine


@pytest.fixture
def line(cluster, make_topic) -> ClientLine:
    return ClientLine(cluster, make_topic)


@pytest.fixture
def world(line: ClientLine) -> World:
    return World(line)


def opened(world: World, line: ClientLine, policy, topic: str, count: int) -> list:
    """Read what lies in *topic* and open it by hand: value, key, headers of each message."""
    sealer = world.sealer(policy)
    return [
        (
            sealer.open(
                message.value(),
                destination=f"kafka:{topic}",
                headers=message.headers(),
                ordering_key=message.key(),
            ).body,
            message.key(),
            message.headers(),
        )
        for message in line.messages(topic, count)
    ]


def test_it_is_a_producer(world: World, line: ClientLine) -> None:
    sealer = world.sealer(world.policy("orders"))
    with line.producer(sealer) as producer:
        assert isinstance(producer, confluent_kafka.Producer)
        assert isinstance(producer, Producer)
    serializing = SerializingProducer(line.conf(), sealer=sealer)
    assert isinstance(serializing, confluent_kafka.SerializingProducer)


def test_every_argument_reaches_the_client_by_place_and_by_name(world: World, line: ClientLine) -> None:
    topic = line.place()
    policy = world.policy(topic)
    reports: list = []
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(
            topic, b"1", b"k", 2, lambda *report: reports.append(report), None, 1234, [("a", "b")]
        )
        producer.produce(
            topic=topic, value=b"2", key="k", partition=2, timestamp=1235, headers={"a": b"b"},
            on_delivery=lambda *report: reports.append(report),
        )  # fmt: skip
        producer.flush(20)
    found = line.messages(topic, 2)
    assert [(m.partition(), m.timestamp()[1], m.key(), m.headers()) for m in found] == [
        (2, 1234, b"k", [("a", b"b")]),
        (2, 1235, b"k", [("a", b"b")]),
    ]
    assert [error for error, _ in reports] == [None, None]


def test_a_delivery_report_shows_what_was_sent(world: World, line: ClientLine) -> None:
    topic = line.place()
    reports: list = []
    with line.producer(world.sealer(world.policy(topic))) as producer:
        producer.produce(
            topic, b"4111 1111 1111 1111", on_delivery=lambda _, message: reports.append(message)
        )
        producer.flush(20)
    [message] = line.messages(topic, 1)
    assert reports[0].value() == message.value()
    assert b"4111" not in reports[0].value()


@pytest.mark.parametrize("name", ["callback", "on_delivery"])
def test_a_report_is_made_to_the_argument_that_is_given_else_to_the_configured_one(
    world: World, line: ClientLine, name: str
) -> None:
    topic = line.place()
    default: list = []
    given: list = []
    conf = {"on_delivery": lambda *report: default.append(report)}
    with line.producer(world.sealer(world.policy(topic)), **conf) as producer:
        producer.produce(topic, b"1", **{name: lambda *report: given.append(report)})
        producer.produce_batch(topic, [{"value": b"2"}], **{name: lambda *report: given.append(report)})
        producer.flush(20)
        assert (len(given), len(default)) == (2, 0)
        producer.produce(topic, b"3")
        producer.produce_batch(topic, [{"value": b"4"}])
        producer.flush(20)
    assert (len(given), len(default)) == (2, 2)


def test_text_is_sealed_as_utf_8(world: World, line: ClientLine) -> None:
    topic = line.place()
    policy = world.policy(topic)
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(topic, "grün")
        producer.flush(20)
    assert opened(world, line, policy, topic, 1) == [("grün".encode(), None, None)]


@pytest.mark.parametrize("headers", [
    [("tenant", "north"), ("tenant", b"\xff"), ("x", None), ("tenant", None), ("empty", "")],
    {"tenant": "grün", "empty": b"", "x": "1"},
    [], {}, None,
])  # fmt: skip
def test_bound_headers_open_in_every_form_that_the_client_takes(
    world: World, line: ClientLine, headers
) -> None:
    topic = line.place()
    policy = world.policy(topic, bind_headers=["tenant", "empty", "absent"])
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(topic, b"1", headers=headers)
        producer.flush(20)
    assert opened(world, line, policy, topic, 1)[0][0] == b"1"


def test_bound_headers_of_one_name_in_another_order_are_refused(world: World, line: ClientLine) -> None:
    """A9."""
    policy = world.policy("orders", bind_headers=["tenant"])
    sealer = world.sealer(policy)
    topic = line.place()
    policy = world.policy(topic, bind_headers=["tenant"])
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(topic, b"1", headers=[("tenant", "a"), ("tenant", "b")])
        producer.flush(20)
    [message] = line.messages(topic, 1)
    sealer = world.sealer(policy)
    with pytest.raises(Refused) as refused:
        sealer.open(
            message.value(), destination=f"kafka:{topic}", headers=[("tenant", b"b"), ("tenant", b"a")]
        )
    assert refused.value.verdict is Verdict.FORGED


@pytest.mark.parametrize("key", ["grün", b"\xff\x00", "", b"", None])
def test_a_bound_key_opens_with_its_own_key_only(world: World, line: ClientLine, key) -> None:
    topic = line.place()
    policy = world.policy(topic, bind_ordering_key=True)
    with line.producer(world.sealer(policy)) as producer:
        producer.produce(topic, b"1", key=key)
        assert producer.produce_batch(topic, [{"value": b"2", "key": key}]) == 1
        producer.flush(20)
    assert {value for value, _, _ in opened(world, line, policy, topic, 2)} == {b"1", b"2"}
    message = line.messages(topic, 2)[0]
    for other in (b"other", b"" if message.key() is None else None):
        with pytest.raises(Refused):
            world.sealer(policy).open(message.value(), destination=f"kafka:{topic}", ordering_key=other)


def test_too_large_once_sealed_says_both_sizes(world: World, line: ClientLine) -> None:
    topic = line.place()
    with line.producer(world.sealer(world.policy(topic)), **{"message.max.bytes": 2000}) as producer:
        with pytest.raises(MessageTooLarge, match=r"1,900 bytes is 2,\d\d\d bytes once sealed") as raised:
            producer.produce(topic, b"x" * 1900)
        assert len(producer) == 0
    error = raised.value
    assert isinstance(error, TooLarge)
    assert isinstance(error, KafkaException)
    assert error.args[0].code() == KafkaError.MSG_SIZE_TOO_LARGE
    assert (error.clear_size, error.sealed_size > 2000) == (1900, True)


def test_an_error_of_the_client_stays_its_own(world: World, line: ClientLine) -> None:
    topic = line.place()
    sealer = world.sealer(world.policy(topic))
    with line.producer(sealer, **{"queue.buffering.max.messages": 1, "linger.ms": 10_000}) as producer:
        producer.produce(topic, b"1")
        with pytest.raises(BufferError):
            producer.produce(topic, b"2")
        producer.purge()
        producer.poll(0)
    with pytest.raises(KafkaException, match="No such configuration property"):
        Producer(line.conf(nonsense="x"), sealer=sealer)


def test_tombstones_of_a_too_small_queue_stay_the_clients_own_error(world: World, line: ClientLine) -> None:
    topic = line.place()
    sealer = world.sealer(world.policy(topic))
    with (
        line.producer(sealer, **{"message.max.bytes": 1000}) as producer,
        pytest.raises(KafkaException) as raised,
    ):
        producer.produce(topic, None, key=b"k" * 2000)
    assert not isinstance(raised.value, MessageTooLarge)


def test_configuration_by_name_reaches_the_client(world: World, line: ClientLine) -> None:
    sealer = world.sealer(world.policy("orders"))
    with Producer(sealer=sealer, **line.conf()) as producer:
        assert producer.list_topics(timeout=10).brokers
    with pytest.raises(KafkaException):
        Producer(line.conf(), sealer=sealer, nonsense="x")


def test_a_topic_without_a_policy_takes_nothing(world: World, line: ClientLine) -> None:
    """A9: a destination without a policy is refused, in both directions."""
    with line.producer(world.sealer(world.policy("orders"))) as producer:
        with pytest.raises(ConfigError, match="no policy"):
            producer.produce("unheard-of", b"1")
        with pytest.raises(ConfigError, match="no policy"):
            producer.produce_batch("unheard-of", [{"value": b"1"}])
        with pytest.raises(TypeError, match="topic must be a str"):
            producer.produce(5, b"1")
        assert len(producer) == 0


@pytest.mark.parametrize("value", [5, ["x"], object()])
def test_a_value_that_is_no_body_is_a_type_error(world: World, line: ClientLine, value) -> None:
    with line.producer(world.sealer(world.policy("orders"))) as producer:
        with pytest.raises(TypeError):
            producer.produce("orders", value)
        with pytest.raises(TypeError):
            producer.produce_batch("orders", [{"value": value}])
        assert len(producer) == 0


def test_without_a_sealer_there_is_no_producer(line: ClientLine) -> None:
    with pytest.raises(ConfigError, match=r"sealer must be a postseal\.core\.Sealer, not NoneType"):
        Producer(line.conf(), sealer=None)
    with pytest.raises(TypeError, match="sealer"):
        Producer(line.conf())


class TestBatches:
    def test_a_batch_keeps_keys_tombstones_and_its_partition(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        policy = world.policy(topic)
        batch = [
            {"value": "text", "key": "k"},
            {"value": None, "key": b"gone"},
            {"key": b"gone too"},
            {"value": b""},
        ]
        with line.producer(world.sealer(policy)) as producer:
            # The client (2.16) passes over a partition that a message names for itself.
            assert producer.produce_batch(topic, batch, 1) == 4
            producer.flush(20)
        found = line.messages(topic, 4)
        assert [(m.key(), m.value() is None, m.partition()) for m in found] == [
            (b"k", False, 1),
            (b"gone", True, 1),
            (b"gone too", True, 1),
            (None, False, 1),
        ]
        sealer = world.sealer(policy)
        bodies = [sealer.open(found[at].value(), destination=f"kafka:{topic}").body for at in (0, 3)]
        assert bodies == [b"text", b""]

    def test_every_report_arrives(self, world: World, line: ClientLine) -> None:
        topic = line.place()
        mine: list = []
        common: list = []
        batch = [{"value": b"1", "callback": lambda *report: mine.append(report)}, {"value": b"2"}]
        with line.producer(world.sealer(world.policy(topic))) as producer:
            producer.produce_batch(topic, batch, on_delivery=lambda *report: common.append(report))
            producer.flush(20)
        assert len(mine) == len(common) == 1

    def test_what_the_client_did_not_take_is_marked_in_the_callers_dicts(
        self, world: World, line: ClientLine
    ) -> None:
        topic = line.place()
        batch = [{"value": b"x" * 1900}, {"value": b"small"}]
        with line.producer(world.sealer(world.policy(topic)), **{"message.max.bytes": 2000}) as producer:
            assert producer.produce_batch(topic, batch) == 1
            producer.flush(20)
        assert batch[0]["_error"].code() == KafkaError.MSG_SIZE_TOO_LARGE
        assert batch[0]["value"] == b"x" * 1900
        assert batch[1] == {"value": b"small"}

    def test_without_a_key_none_of_a_batch_is_sent(self, world: World, line: ClientLine) -> None:
        world.keys.unavailable.set()
        batch = [{"value": None}, {"value": b"1"}]
        with line.producer(world.sealer(world.policy("orders"))) as producer:
            with pytest.raises(Exception, match="fake key service"):
                producer.produce_batch("orders", batch)
            assert len(producer) == 0

    def test_headers_that_the_client_would_drop_are_a_mistake_where_they_are_bound(
        self, world: World, line: ClientLine
    ) -> None:
        sealer = world.sealer(world.policy("orders", bind_headers=["tenant"]))
        with (
            line.producer(sealer) as producer,
            pytest.raises(ConfigError, match="produce_batch sends no headers"),
        ):
            producer.produce_batch("orders", [{"value": b"1", "headers": {"tenant": "x"}}])

    @pytest.mark.parametrize("messages", [None, "text", ({"value": b"1"},), [b"1"]])
    def test_what_is_no_batch_is_a_type_error(self, world: World, line: ClientLine, messages) -> None:
        with line.producer(world.sealer(world.policy("orders"))) as producer:
            with pytest.raises(TypeError):
                producer.produce_batch("orders", messages)
            assert len(producer) == 0


def test_a_transaction_carries_sealed_messages(world: World, line: ClientLine) -> None:
    topic = line.place()
    policy = world.policy(topic)
    with line.producer(world.sealer(policy), **{"transactional.id": topic}) as producer:
        producer.init_transactions(20)
        producer.begin_transaction()
        producer.produce(topic, b"1", partition=0)
        producer.produce_batch(topic, [{"value": b"2", "partition": 0}])
        producer.commit_transaction(20)
    assert [value for value, _, _ in opened(world, line, policy, topic, 2)] == [b"1", b"2"]


def test_our_serializing_producer_seals_what_its_serializers_made_and_binds_the_key(
    world: World, line: ClientLine
) -> None:
    topic = line.place()
    policy = world.policy(topic, bind_ordering_key=True, bind_headers=["tenant"])
    serializers = {"key.serializer": StringSerializer(), "value.serializer": StringSerializer("utf_16_le")}
    with SerializingProducer(line.conf(**serializers), sealer=world.sealer(policy)) as producer:
        producer.produce(topic, "key", "grün", headers={"tenant": "x"})
        producer.flush(20)
    assert opened(world, line, policy, topic, 1) == [("grün".encode("utf_16_le"), b"key", [("tenant", b"x")])]
