"""The broker of these tests does what RabbitMQ does, as far as they rely on it."""

import pika
import pytest
from pika.exceptions import ChannelClosedByBroker, ConnectionClosedByBroker, StreamLostError, UnroutableError

from tests.rabbitmq.queues import matches


@pytest.fixture
def connection(parameters):
    with pika.BlockingConnection(parameters) as connection:
        yield connection


@pytest.fixture
def channel(connection):
    return connection.channel()


def waiting(channel, queue):
    return channel.queue_declare(queue, passive=True).method.message_count


@pytest.mark.parametrize(
    ("pattern", "key", "match"),
    [
        ("a.*", "a.b", True),
        ("a.*", "a", False),
        ("a.#", "a", True),
        ("#.z", "a.b.z", True),
        ("#", "", True),
        ("a.*.c", "a.b.b.c", False),
    ],
)
def test_topics_match_word_by_word(pattern, key, match):
    assert matches(pattern.split("."), key.split(".") if key else []) is match


@pytest.mark.parametrize(("kind", "came"), [("fanout", ["a", "b"]), ("direct", ["a"]), ("topic", ["a", "b"])])
def test_exchanges_route_by_their_kind(channel, kind, came):
    channel.exchange_declare("x", kind)
    for queue, key in (("a", "k.1"), ("b", "k.*")):
        channel.queue_declare(queue)
        channel.queue_bind(queue, "x", key)
    channel.basic_publish("x", "k.1", b"body")
    assert [queue for queue in ("a", "b") if waiting(channel, queue)] == came


def test_what_is_not_acknowledged_comes_again_in_its_place(connection):
    first, second = connection.channel(), connection.channel()
    first.queue_declare("q")
    for body in (b"1", b"2", b"3"):
        first.basic_publish("", "q", body)
    assert [first.basic_get("q")[2] for _ in range(2)] == [b"1", b"2"]
    first.close()
    came = [second.basic_get("q") for _ in range(3)]
    assert [body for _, _, body in came] == [b"1", b"2", b"3"]
    assert [method.redelivered for method, _, _ in came] == [True, True, False]


def test_a_consumer_gets_no_more_than_its_prefetch(connection, channel):
    channel.queue_declare("q")
    for _ in range(5):
        channel.basic_publish("", "q", b"")
    channel.basic_qos(prefetch_count=2)
    came = []
    channel.basic_consume("q", lambda _, method, *__: came.append(method.delivery_tag))
    connection.sleep(0.1)
    assert came == [1, 2]
    channel.basic_ack(2, multiple=True)
    connection.sleep(0.1)
    assert came == [1, 2, 3, 4]


def test_a_rejected_message_is_dead_lettered_and_says_so(channel):
    channel.queue_declare("q", arguments={"x-dead-letter-exchange": "", "x-dead-letter-routing-key": "dead"})
    channel.queue_declare("dead")
    channel.basic_publish("", "q", b"body", pika.BasicProperties(expiration="1000", headers={"CC": ["x"]}))
    channel.basic_reject(channel.basic_get("q")[0].delivery_tag, requeue=False)
    method, properties, body = channel.basic_get("dead")
    assert (method.exchange, method.routing_key, body) == ("", "dead", b"body")
    assert properties.expiration is None
    assert "CC" not in properties.headers
    [death] = properties.headers["x-death"]
    assert (death["reason"], death["queue"], death["routing-keys"]) == ("rejected", "q", ["q"])


def test_a_queue_gives_up_after_its_delivery_limit(channel):
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 2, "x-dead-letter-exchange": ""}
    channel.queue_declare("q", arguments={**arguments, "x-dead-letter-routing-key": "dead"})
    channel.queue_declare("dead")
    channel.basic_publish("", "q", b"body")
    for count in (None, 1, 2):
        method, properties, _ = channel.basic_get("q")
        assert (properties.headers or {}).get("x-delivery-count") == count
        channel.basic_nack(method.delivery_tag, requeue=True)
    assert waiting(channel, "dead") == 1


def test_confirms_and_returns(channel):
    channel.confirm_delivery()
    channel.queue_declare("q")
    channel.basic_publish("", "q", b"x" * 300_000, mandatory=True)
    with pytest.raises(UnroutableError):
        channel.basic_publish("", "absent", b"body", mandatory=True)
    assert len(channel.basic_get("q")[2]) == 300_000


@pytest.mark.parametrize(
    ("call", "code"),
    [
        (lambda channel: channel.basic_get("absent"), 404),
        (lambda channel: channel.queue_declare("absent", passive=True), 404),
        (lambda channel: channel.exchange_declare("absent", passive=True), 404),
        (lambda channel: channel.basic_consume("absent", lambda *_: None), 404),
    ],
)
def test_what_is_absent_closes_the_channel(connection, channel, call, code):
    with pytest.raises(ChannelClosedByBroker) as closed:
        call(channel)
    assert closed.value.reply_code == code
    assert connection.channel().is_open


def test_an_unknown_delivery_tag_closes_the_channel(connection, channel):
    channel.basic_ack(7)
    with pytest.raises(ChannelClosedByBroker, match="406"):
        channel.queue_declare("q")


@pytest.mark.parametrize(("fault", "error"), [("cut", StreamLostError), ("close", ConnectionClosedByBroker)])
def test_a_fault_ends_the_connection_where_it_was_ordered(broker, parameters, fault, error):
    connection = pika.BlockingConnection(parameters)
    channel = connection.channel()
    broker.faults["Queue.Declare"] = fault
    with pytest.raises(error):
        channel.queue_declare("q")
    assert broker.vhost.queues == {}
    assert broker.seen[-1] in ("Queue.Declare", "Connection.CloseOk")


def test_an_exclusive_queue_goes_with_its_connection(broker, parameters, channel):
    with pika.BlockingConnection(parameters) as other:
        name = other.channel().queue_declare("", exclusive=True).method.queue
        assert name in broker.vhost.queues
    with pytest.raises(ChannelClosedByBroker):
        channel.queue_declare(name, passive=True)
