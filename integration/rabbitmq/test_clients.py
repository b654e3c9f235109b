"""What only a true broker does to pika: limits of quorum queues, users, connections that it closes."""

import pika
import pytest

from postseal.core import Verdict
from tests.contract import ORDER, Raw, World
from tests.rabbitmq.line import CallbackLine


@pytest.fixture
def line(rabbitmq):
    return CallbackLine(pika.URLParameters(rabbitmq.url))


@pytest.fixture
def world(line):
    return World(line)


def until(connection, done, seconds=30):
    for _ in range(seconds * 20):
        if done():
            return
        connection.process_data_events(0.05)
    raise AssertionError("never came")


def test_an_outage_does_not_use_up_the_deliveries_of_a_quorum_queue(world, line):
    """B14: what is requeued too often is dropped, so what waits for its key is not requeued."""
    place = line.place(**{"x-queue-type": "quorum", "x-delivery-limit": 1})
    policy = world.policy(place)
    line.send(world.sealer(policy), place, ORDER)
    world.keys.unavailable.set()
    with line.receiving(world.sealer(policy), place) as receiving:
        receiving.until(lambda: world.keys.calls["unwrap"] >= 4)
        world.keys.unavailable.clear()
        assert receiving.take(1) == [ORDER]


def test_a_redelivery_of_a_quorum_queue_opens_though_its_headers_changed(world, line):
    place = line.place(**{"x-queue-type": "quorum"})
    policy = world.policy(place, bind_headers=["tenant"])
    line.send(world.sealer(policy), place, ORDER, {"tenant": "north"})
    with line.connect(world.sealer(policy)) as connection:
        channel = connection.channel()
        counts = []
        for _ in range(3):
            while (got := channel.basic_get(line.queue(place)))[0] is None:
                pass
            counts.append((got[1].headers or {}).get("x-delivery-count"))
            assert got[2] == ORDER
            channel.basic_nack(got[0].delivery_tag, requeue=True)
    assert counts in ([None, 1, 2], [0, 1, 2])  # from RabbitMQ 4 on, a first delivery may say 0


def test_a_retry_queue_brings_a_message_back_where_it_was_sent(world, line, fresh):
    """A10: through a queue of retries, dead-lettered twice, and home again with another ``x-death``."""
    retry = fresh("retry")
    exchange = fresh("shop")
    place = line.place(**{"x-dead-letter-exchange": retry})
    queue = line.queue(place)
    with line.bare() as channel:
        channel.exchange_declare(exchange, "topic")
        channel.queue_bind(queue, exchange, "orders.new")
        channel.exchange_declare(retry, "fanout")
        channel.queue_declare(retry, arguments={"x-message-ttl": 50, "x-dead-letter-exchange": exchange})
        channel.queue_bind(retry, retry)
    policy = world.policy(f"{exchange}/orders.new")
    came = []

    def on_message(channel, method, properties, body):
        came.append((body, properties.headers is not None and "x-death" in properties.headers))
        if len(came) < 2:
            channel.basic_nack(method.delivery_tag, requeue=False)
        else:
            channel.basic_ack(method.delivery_tag)

    with line.connect(world.sealer(policy)) as connection:
        channel = connection.channel()
        channel.basic_consume(queue, on_message)
        channel.basic_publish(exchange, "orders.new", ORDER)
        until(connection, lambda: len(came) == 2)
    assert came == [(ORDER, False), (ORDER, True)]


def test_the_quarantine_takes_what_another_user_sent(world, line, fresh):
    """The broker refuses a message that names a user other than the connection's, so a copy names none."""
    refused = fresh("refused")
    place = line.place()
    with line.bare() as channel:
        channel.queue_declare(refused)
        properties = pika.BasicProperties(user_id="guest", expiration="600000", headers={"n": 1})
        channel.basic_publish("", line.queue(place), b"forged", properties)
    policy = world.policy(place, on_refused="quarantine", quarantine=f"rabbitmq:/{refused}")
    with line.connect(world.sealer(policy)) as connection:
        connection.channel().basic_consume(line.queue(place), lambda *_: pytest.fail("handed on"))
        with line.bare() as channel:
            until(connection, lambda: channel.queue_declare(refused, passive=True).method.message_count == 1)
            _, properties, body = channel.basic_get(refused)
    assert (body, properties.user_id, properties.expiration) == (b"forged", None, None)
    assert properties.headers["postseal-verdict"] == "unprotected"
    assert properties.headers["n"] == 1
    assert world.verdicts() == [Verdict.UNPROTECTED]
    assert not line.has_message(place)


def test_a_connection_that_the_broker_closes_costs_no_message(world, line, rabbitmq):
    place = line.place()
    policy = world.policy(place)
    line.send(world.sealer(policy), place, ORDER)
    line.put(place, Raw(b"forged"))
    world.keys.unavailable.set()
    connection = line.connect(world.sealer(policy))
    connection.channel().basic_consume(line.queue(place), lambda *_: pytest.fail("handed on"))
    until(connection, lambda: world.keys.calls["unwrap"] >= 1)
    rabbitmq.control("close_all_connections", "as ordered")
    with pytest.raises(pika.exceptions.ConnectionClosedByBroker):
        until(connection, lambda: False)
    world.keys.unavailable.clear()
    with line.receiving(world.sealer(policy), place) as receiving:
        assert receiving.take(1) == [ORDER]
        receiving.until(lambda: len(receiving.refused) == 1)


def test_heartbeats_go_on_while_the_key_service_dawdles(world, rabbitmq):
    """The broker drops a connection that is silent for two heartbeats."""
    parameters = pika.URLParameters(rabbitmq.url)
    parameters.heartbeat = 1
    line = CallbackLine(parameters)
    place = line.place()
    policy = world.policy(place)
    line.send(world.sealer(policy), place, ORDER)
    world.keys.slow.set()
    with line.receiving(world.sealer(policy), place) as receiving:
        receiving.until(world.keys.waiting.is_set)
        for _ in range(40):  # four seconds and more
            receiving.step()
        world.keys.unblock()
        assert receiving.take(1) == [ORDER]


def test_a_direct_reply_opens_under_the_name_that_the_broker_made(world, line):
    place = line.place()
    sealer = world.sealer(world.policy(place, "/amq.rabbitmq.reply-to.#"))
    came = []
    with line.connect(sealer) as connection, line.connect(sealer) as server:

        def answer(channel, method, properties, body):
            channel.basic_publish("", properties.reply_to, body + b" done")
            channel.basic_ack(method.delivery_tag)

        server.channel().basic_consume(line.queue(place), answer)
        channel = connection.channel()
        channel.basic_consume(
            "amq.rabbitmq.reply-to", lambda *message: came.append(message[3]), auto_ack=True
        )
        asking = pika.BasicProperties(reply_to="amq.rabbitmq.reply-to")
        channel.basic_publish("", line.queue(place), ORDER, asking)
        until(connection, lambda: bool(server.process_data_events(0.05) or came))
    assert came == [ORDER + b" done"]
