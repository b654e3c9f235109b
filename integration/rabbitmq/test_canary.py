"""What the broker and the wire hold: never the body of a protected client; that of a bare one, found by the same search."""

import secrets
import time
from contextlib import ExitStack

import pika
import pytest

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from integration.servers import RabbitMq
from postseal.core import Policy, Sealer
from postseal.rabbitmq import protect
from tests.fakes import local_keys


@pytest.fixture
def canary():
    """A body nobody else has."""
    return f"canary {secrets.token_hex(8)} 4111 1111 1111 1111".encode()


def sealer_for(queue):
    policy = Policy(
        name="orders",
        destinations=[f"rabbitmq:/{queue}"],
        accept_from=[f"rabbitmq:/{queue}.dead"],
        keys=["main"],
    )
    return Sealer(sender="shop", policies=[policy], keys={"main": local_keys()})


def send_and_receive(connection, queue, body):
    """Publish persistently, get, dead-letter, get from there, and leave one message in each queue."""
    channel = connection.channel()
    dead = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": f"{queue}.dead"}
    channel.queue_declare(queue, durable=True, arguments=dead)
    channel.queue_declare(f"{queue}.dead", durable=True)
    channel.confirm_delivery()
    persistent = pika.BasicProperties(delivery_mode=2)
    for _ in range(2):
        channel.basic_publish("", queue, body, persistent)
    method, _, first = channel.basic_get(queue)
    channel.basic_nack(method.delivery_tag, requeue=False)
    end = time.monotonic() + 30
    while (got := channel.basic_get(f"{queue}.dead"))[0] is None:
        assert time.monotonic() < end
    channel.basic_nack(got[0].delivery_tag, requeue=True)
    return {first, got[2]}


def run(rabbitmq, queue, canary, folder, sealer):
    """Do it through a recorder; return what the consumer got."""
    with Recorder(rabbitmq.route, folder) as recorder:
        url = rabbitmq.url_at(recorder.address)
        with pika.BlockingConnection(pika.URLParameters(url)) as connection:
            if sealer is not None:
                protect(connection, sealer)
            came = send_and_receive(connection, queue, canary)
        assert recorder.connections > 0
    return came


def in_memory(rabbitmq, canary):
    if rabbitmq.pid is None:
        pytest.skip(
            "the broker runs elsewhere (a container, or one that was given), so its memory cannot be read"
        )
    return scan_memory(canary, rabbitmq.pid)


def test_a_sealed_body_is_in_the_consumer_and_nowhere_else(rabbitmq, fresh, canary, tmp_path):
    """A1, A2, A10: not in the broker's memory, not in its files, not in plain traffic of either direction; nor as a dead letter."""
    queue = fresh("orders")
    assert run(rabbitmq, queue, canary, tmp_path / "wire", sealer_for(queue)) == {canary}
    assert scan(canary, tmp_path / "wire") == []
    assert in_memory(rabbitmq, canary) == []
    assert scan(canary, rabbitmq.data_dir) == []


def test_a_clear_body_is_found_by_the_same_search(rabbitmq, fresh, canary, tmp_path):
    """The control: a bare client's is on the wire, both ways, and in the broker's files."""
    assert run(rabbitmq, fresh("orders"), canary, tmp_path / "wire", None) == {canary}
    places = {hit.place.rpartition("-")[2] for hit in scan(canary, tmp_path / "wire")}
    assert places == {"sent", "received"}
    end = time.monotonic() + 30
    while not scan(canary, rabbitmq.data_dir) and time.monotonic() < end:
        time.sleep(0.1)
    assert scan(canary, rabbitmq.data_dir) != []


@pytest.fixture
def own_rabbitmq(tmp_path):
    """A broker that a test may kill."""
    with ExitStack() as stack:
        folder = tmp_path / "rabbitmq"
        folder.mkdir()
        yield stack.enter_context(RabbitMq(data_dir=folder))


def test_what_a_killed_broker_leaves_is_sealed_and_opens_when_it_is_back(own_rabbitmq, fresh, canary):
    """A3: stolen disks hold ciphertext; and a restarted broker loses nothing that it confirmed."""
    queue = fresh("orders")
    sealer = sealer_for(queue)
    connection = protect(pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url)), sealer)
    channel = connection.channel()
    channel.queue_declare(queue, durable=True)
    channel.confirm_delivery()
    for number in range(20):
        channel.basic_publish("", queue, canary + b" %d" % number, pika.BasicProperties(delivery_mode=2))
    own_rabbitmq.flush()
    own_rabbitmq.kill()
    with pytest.raises(pika.exceptions.AMQPError):
        channel.basic_get(queue)
    assert scan(canary, own_rabbitmq.data_dir) == []
    own_rabbitmq.start()
    with pika.BlockingConnection(pika.URLParameters(own_rabbitmq.url)) as connection:
        channel = protect(connection, sealer).channel()
        came = []
        for method, _, body in channel.consume(queue, inactivity_timeout=30):
            assert method is not None
            came.append(body)
            channel.basic_ack(method.delivery_tag)
            if len(came) == 20:
                break
        channel.cancel()
    assert came == [canary + b" %d" % number for number in range(20)]
