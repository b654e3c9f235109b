"""The RabbitMQ server holds what the other tests build on: shown with pika itself."""

import os
from contextlib import closing
from pathlib import Path

import pika
import pytest
from pika.exceptions import ConnectionClosedByBroker, UnroutableError

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from integration.servers import (
    RabbitMq,
    ServerFailed,
    ServerUnavailable,
    containers,
    debian,
    machine,
    rabbitmq,
)
from integration.servers.rabbitmq import RELEASES, VERSION

CANARY = b"canary 4111 1111 1111 1111, in clear"
DURABLE = pika.BasicProperties(delivery_mode=2)


def connected(url):
    """A connection to the broker, closed with the block."""
    return closing(pika.BlockingConnection(pika.URLParameters(url)))


def send(url, queue, *bodies):
    with connected(url) as connection:
        channel = connection.channel()
        channel.confirm_delivery()
        for body in bodies:
            channel.basic_publish("", queue, body, DURABLE, mandatory=True)


def receive(url, queue, count):
    """The next *count* messages, acknowledged: properties and body."""
    with connected(url) as connection:
        channel = connection.channel()
        found = []
        for method, properties, body in channel.consume(queue, inactivity_timeout=10):
            assert method is not None, f"{len(found)} of {count} came"
            channel.basic_ack(method.delivery_tag)
            found.append((properties, body))
            if len(found) == count:
                return found
    raise AssertionError("the broker ended the consumer")


@pytest.fixture
def queue(rabbitmq, fresh):
    name = fresh("orders")
    with connected(rabbitmq.url) as connection:
        connection.channel().queue_declare(name, durable=True)
    return name


def processes(group):
    """The processes of a group, by id."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(") ")[2].split()
        except OSError:
            continue
        if int(fields[2]) == group and fields[0] != "Z":
            found.append(int(stat.parent.name))
    return found


def test_confirmed_messages_arrive_in_order(rabbitmq, queue):
    bodies = [b"%d" % number for number in range(20)]
    send(rabbitmq.url, queue, *bodies)

    assert [body for _, body in receive(rabbitmq.url, queue, 20)] == bodies


def test_a_message_for_no_queue_is_returned(rabbitmq, fresh):
    with pytest.raises(UnroutableError):
        send(rabbitmq.url, fresh("nowhere"), b"one")


def test_a_rejected_message_goes_to_the_dead_letters(rabbitmq, fresh):
    orders, dead = fresh("orders"), fresh("dead")
    with connected(rabbitmq.url) as connection:
        channel = connection.channel()
        channel.queue_declare(dead, durable=True)
        routing = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
        channel.queue_declare(orders, durable=True, arguments=routing)
        send(rabbitmq.url, orders, b"one")
        method, _, _ = channel.basic_get(orders)
        channel.basic_reject(method.delivery_tag, requeue=False)

    ((properties, body),) = receive(rabbitmq.url, dead, 1)
    (death,) = properties.headers["x-death"]
    assert (body, death["queue"], death["reason"]) == (b"one", orders, "rejected")


def test_a_quorum_queue_gives_up_a_message_that_returns_too_often(rabbitmq, fresh):
    orders, dead = fresh("orders"), fresh("dead")
    with connected(rabbitmq.url) as connection:
        channel = connection.channel()
        channel.queue_declare(dead, durable=True)
        arguments = {
            "x-queue-type": "quorum",
            "x-delivery-limit": 1,
            "x-dead-letter-exchange": "",
            "x-dead-letter-routing-key": dead,
        }
        channel.queue_declare(orders, durable=True, arguments=arguments)
        send(rabbitmq.url, orders, b"one")
        channel.basic_qos(prefetch_count=1)
        counts = []
        for method, properties, _ in channel.consume(orders, inactivity_timeout=2):
            if method is None:
                break
            counts.append((properties.headers or {}).get("x-delivery-count", 0))
            channel.basic_nack(method.delivery_tag, requeue=True)

    assert counts == [0, 1]
    assert [body for _, body in receive(rabbitmq.url, dead, 1)] == [b"one"]


def test_a_clear_canary_is_found_in_files_memory_and_traffic(rabbitmq, queue, tmp_path):
    if rabbitmq.pid is None or rabbitmq.data_dir is None:
        pytest.skip("the broker is not ours to look into")

    with Recorder(rabbitmq.route, tmp_path) as recorder:
        url = rabbitmq.url_at(recorder.address)
        send(url, queue, *[CANARY] * 100)
        assert "raw" in {hit.form for hit in scan_memory(CANARY, rabbitmq.pid)}
        assert {hit.form for hit in scan(CANARY, rabbitmq.data_dir)} == {"raw"}
        assert [body for _, body in receive(url, queue, 100)] == [CANARY] * 100
        assert recorder.connections > 1

    assert {hit.place[-4:] for hit in scan(CANARY, tmp_path)} == {"sent", "ived"}
    # It answers again: the scan had it stand still.
    assert rabbitmq.is_up()


def test_everything_of_it_listens_on_the_loopback_interface_only(rabbitmq):
    if rabbitmq.pid is None:
        pytest.skip("the broker is not ours to look into")
    ports, addresses = set(), set()
    sockets = set()
    for pid in processes(rabbitmq.pid):
        for link in Path(f"/proc/{pid}/fd").iterdir():
            sockets.add(str(link.readlink()))
    for table in ["tcp", "tcp6"]:
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                address, _, port = fields[1].partition(":")
                addresses.add(address)
                ports.add(int(port, 16))

    # 127.0.0.1 and ::1, as the kernel writes them; the broker, Erlang's own port, its port mapper.
    assert addresses <= {"0100007F", "0" * 24 + "01000000"}
    assert len(ports) == 3


@pytest.mark.parametrize("release", RELEASES)
def test_messages_outlive_a_killed_broker_of_either_release(fresh, release):
    if os.environ.get("POSTSEAL_TEST_RABBITMQ") or os.environ.get("POSTSEAL_TEST_CONTAINERS"):
        pytest.skip("releases are chosen for native brokers")
    orders = fresh("orders")
    with RabbitMq(release=release) as broker:
        with connected(broker.url) as connection:
            connection.channel().queue_declare(orders, durable=True)
        send(broker.url, orders, b"before")
        killed = broker.pid

        broker.flush()
        broker.kill()
        assert processes(killed) == []
        assert not broker.is_up()

        broker.start()
        send(broker.url, orders, b"after")
        assert [body for _, body in receive(broker.url, orders, 2)] == [b"before", b"after"]
        running, folder = broker.pid, broker.data_dir

    assert processes(running) == []
    assert not folder.exists()


def test_it_is_controlled_by_its_own_tool(fresh):
    if os.environ.get("POSTSEAL_TEST_RABBITMQ"):
        pytest.skip("the broker is not ours to control")
    with RabbitMq() as broker:
        connection = pika.BlockingConnection(pika.URLParameters(broker.url))
        assert "Closed 1 connections" in broker.control("close_all_connections", "the test asks for it")
        with pytest.raises(ConnectionClosedByBroker, match="the test asks for it"):
            connection.process_data_events(time_limit=10)

        with pytest.raises(ServerFailed, match="rabbitmqctl no_such_command failed"):
            broker.control("no_such_command")
        if broker.data_dir is not None:
            assert VERSION in broker.control("version") or "3.10" in broker.control("version")


# Without a broker


def test_a_given_broker_is_used_and_its_password_not_shown(monkeypatch):
    monkeypatch.setenv("POSTSEAL_TEST_RABBITMQ", "amqps://billing:s3cret@broker.example:5671/shop")
    broker = RabbitMq()

    assert broker.url == "amqps://billing:s3cret@broker.example:5671/shop"
    assert broker.url_at("127.0.0.1:99") == "amqps://billing:s3cret@127.0.0.1:99/shop"
    assert broker.address == "broker.example:5671"
    assert (broker.route.host, broker.route.port) == ("broker.example", 5671)
    for refused in [broker.kill, lambda: broker.control("stop")]:
        with pytest.raises(ServerUnavailable, match="not ours") as caught:
            refused()
        assert "s3cret" not in str(caught.value)


@pytest.fixture
def no_engine(monkeypatch):
    monkeypatch.delenv("POSTSEAL_TEST_RABBITMQ", raising=False)
    monkeypatch.delenv("POSTSEAL_TEST_CONTAINERS", raising=False)
    monkeypatch.setattr(containers, "engine_answers", lambda: False)


def test_an_older_broker_stands_in_and_says_so(no_engine, tmp_path, monkeypatch, capsys):
    def unpack(folder, *, release, package):
        if release == "trixie":
            raise ServerUnavailable("the archive does not answer")
        (folder / "usr/lib/rabbitmq/lib/rabbitmq_server-3.10.8").mkdir(parents=True)
        (folder / "usr/lib/erlang/erts-13/bin").mkdir(parents=True)
        (folder / "usr/lib/erlang/erts-13/bin/beam.smp").touch()

    monkeypatch.setattr(debian, "unpack", unpack)
    monkeypatch.setattr(debian, "make_erlang_run_anywhere", lambda folder: None)
    # What it is told to start is no broker; which one it chose is all that is asked here.
    monkeypatch.setattr(rabbitmq, "_START", "echo chosen: $RABBITMQ_HOME")

    with pytest.raises(ServerFailed, match=r"chosen: .*rabbitmq-bookworm.*3\.10\.8"):
        RabbitMq(base_dir=tmp_path).start()
    assert (
        "an older RabbitMQ stands in. Reason: Debian trixie: the archive does not answer"
        in capsys.readouterr().err
    )


def test_where_it_cannot_be_had_the_way_out_is_told(no_engine, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(machine.shutil, "which", lambda name: None)

    with pytest.raises(
        ServerUnavailable, match=r"POSTSEAL_TEST_RABBITMQ may name one.*\n.*apt-get is missing"
    ):
        RabbitMq(base_dir=tmp_path).start()


def test_an_erlang_that_does_not_run_here_is_unavailable(tmp_path):
    bin_folder = tmp_path / "usr/lib/erlang/erts-15/bin"
    (tmp_path / "usr/lib/erlang/bin").mkdir(parents=True)
    bin_folder.mkdir(parents=True)
    (bin_folder / "beam.smp").write_text("not for this machine")
    (tmp_path / "enter").write_text("#!/bin/sh\necho cannot run $1; exit 1\n")
    (tmp_path / "enter").chmod(0o755)

    with pytest.raises(ServerUnavailable, match=r"Erlang of another release failed:\ncannot run .*beam\.smp"):
        debian.make_erlang_run_anywhere(tmp_path)


def test_the_compose_file_names_the_version_of_the_native_broker():
    text = (machine.REPOSITORY / "docker" / "compose.yaml").read_text()

    assert f"image: rabbitmq:{VERSION}\n" in text
    assert '- "127.0.0.1:${POSTSEAL_RABBITMQ_PORT:-15672}:5672"' in text
