"""The servers hold what the other tests build on: shown with the real clients."""

import json
import os
import re
import subprocess
import sys
import threading
import time
from contextlib import closing, contextmanager
from pathlib import Path

import pytest
from azure.core.exceptions import HttpResponseError, ResourceNotFoundError
from botocore.exceptions import ClientError
from confluent_kafka import Consumer, Producer, TopicPartition

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from integration.servers import (
    AwsEmulator,
    Kafka,
    KeyVault,
    OpenBao,
    ServerFailed,
    ServerUnavailable,
    containers,
    machine,
    start_all,
    stop_all,
)
from integration.servers.process import Leashed
from integration.servers.server import Launch, Route, Server
from integration.servers.shared import Borrower, Servers, lend

CANARY = b"canary 4111 1111 1111 1111, in clear"
CONTEXT = {"policy": "orders", "destination": "kafka:orders"}


@contextmanager
def consuming(address, topic, group, **options):
    consumer = Consumer(
        {
            "bootstrap.servers": address,
            "group.id": group,
            "auto.offset.reset": "earliest",
            "enable.auto.commit": False,
            **options,
        }
    )
    consumer.subscribe([topic])
    try:
        yield consumer
    finally:
        consumer.close()


def read(consumer, count, timeout=30):
    """The values of the next *count* messages."""
    values, deadline = [], time.monotonic() + timeout
    while len(values) < count and time.monotonic() < deadline:
        message = consumer.poll(0.5)
        if message is not None and message.error() is None:
            values.append(message.value())
    return values


def send(address, topic, *values):
    producer = Producer({"bootstrap.servers": address})
    for value in values:
        producer.produce(topic, value)
    assert producer.flush(30) == 0


def gone(pid):
    with pytest.raises(ProcessLookupError):
        os.kill(pid, 0)
    return True


def refusal(call, **arguments):
    """The error code of a call that must be refused."""
    with pytest.raises(ClientError) as caught:
        call(**arguments)
    return caught.value.response["Error"]["Code"]


# Kafka


@pytest.mark.parametrize("protocol", ["classic", "consumer"])
def test_messages_arrive_in_a_group_of_either_protocol(kafka, fresh, protocol):
    topic = fresh("orders")
    send(kafka.address, topic, b"one", b"two")

    with consuming(kafka.address, topic, fresh("group"), **{"group.protocol": protocol}) as consumer:
        assert read(consumer, 2) == [b"one", b"two"]
        consumer.commit(asynchronous=False)


def test_what_a_transaction_aborted_is_not_read(kafka, fresh):
    topic = fresh("orders")
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": fresh("tx")})
    producer.init_transactions(30)
    for value, end in [(b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)]:
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(30)
        end(30)

    with consuming(kafka.address, topic, fresh("group"), **{"isolation.level": "read_committed"}) as consumer:
        assert read(consumer, 1) == [b"committed"]
        assert consumer.poll(1) is None


def test_a_transaction_holds_messages_and_offsets_together(kafka, fresh):
    source, target, group = fresh("source"), fresh("target"), fresh("group")
    send(kafka.address, source, b"one")
    producer = Producer({"bootstrap.servers": kafka.address, "transactional.id": fresh("tx")})
    producer.init_transactions(30)

    with consuming(kafka.address, source, group) as consumer:
        (value,) = read(consumer, 1)
        producer.begin_transaction()
        producer.produce(target, value)
        positions = consumer.position(consumer.assignment())
        producer.send_offsets_to_transaction(positions, consumer.consumer_group_metadata(), 30)
        producer.commit_transaction(30)

        (committed,) = consumer.committed([TopicPartition(source, 0)], timeout=30)
        assert committed.offset == 1


def test_a_clear_canary_is_found_in_files_memory_and_traffic(own_kafka, fresh, tmp_path):
    if own_kafka.pid is None or own_kafka.data_dir is None:
        pytest.skip("the broker is not ours to look into")
    topic = fresh("clear")

    with Recorder(own_kafka.route, tmp_path) as recorder:
        send(recorder.address, topic, *[CANARY] * 100)
        with consuming(recorder.address, topic, fresh("group")) as consumer:
            assert read(consumer, 100) == [CANARY] * 100
        assert recorder.connections > 1

    assert {hit.form for hit in scan(CANARY, own_kafka.data_dir)} == {"raw"}
    assert any(topic in hit.place for hit in scan(CANARY, own_kafka.data_dir))
    assert "raw" in {hit.form for hit in scan_memory(CANARY, own_kafka.pid)}
    assert {hit.place[-4:] for hit in scan(CANARY, tmp_path)} == {"sent", "ived"}
    # It answers again: the scan had it stand still.
    assert own_kafka.is_up()


def test_messages_outlive_a_killed_broker(fresh):
    topic = fresh("orders")
    with Kafka() as kafka:
        send(kafka.address, topic, b"before")
        killed = kafka.pid

        kafka.kill()
        assert gone(killed)
        assert not kafka.is_up()

        kafka.start()
        send(kafka.address, topic, b"after")
        with consuming(kafka.address, topic, fresh("group")) as consumer:
            assert read(consumer, 2) == [b"before", b"after"]
        running, folder = kafka.pid, kafka.data_dir

    assert gone(running)
    assert not folder.exists()


def test_a_broker_listens_on_the_loopback_interface_only(kafka):
    if kafka.pid is None:
        pytest.skip("the broker is not ours to look into")
    assert _listening(kafka.pid) == {"127.0.0.1"}


# SQS and KMS


def test_a_message_goes_to_the_dead_letters_and_back(aws, sqs, fresh):
    dead = sqs.create_queue(QueueName=fresh("dead"))["QueueUrl"]
    dead_arn = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = json.dumps({"deadLetterTargetArn": dead_arn, "maxReceiveCount": "1"})
    queue = sqs.create_queue(
        QueueName=fresh("orders"), Attributes={"VisibilityTimeout": "0", "RedrivePolicy": redrive}
    )["QueueUrl"]
    attributes = {"content-type": {"DataType": "String", "StringValue": "text/plain"}}
    sqs.send_message(QueueUrl=queue, MessageBody="order 7", MessageAttributes=attributes)

    def receive(url):
        got = sqs.receive_message(
            QueueUrl=url, MessageAttributeNames=["All"], WaitTimeSeconds=2, VisibilityTimeout=0
        )
        return [(message["Body"], message["MessageAttributes"]) for message in got.get("Messages", [])]

    assert receive(queue) == [("order 7", attributes)]
    assert receive(queue) == []
    assert receive(dead) == [("order 7", attributes)]

    if aws.flavour == "moto":
        return  # it knows no way back
    sqs.start_message_move_task(SourceArn=dead_arn)
    assert receive(queue) == [("order 7", attributes)]


def test_a_deleted_message_is_not_received_again(sqs, fresh):
    queue = sqs.create_queue(QueueName=fresh("orders"))["QueueUrl"]
    sqs.send_message(QueueUrl=queue, MessageBody="order 7")
    (message,) = sqs.receive_message(QueueUrl=queue, VisibilityTimeout=1)["Messages"]
    sqs.delete_message(QueueUrl=queue, ReceiptHandle=message["ReceiptHandle"])

    time.sleep(1.1)
    assert sqs.receive_message(QueueUrl=queue).get("Messages", []) == []


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture
def wrapped(kms, key):
    return kms.generate_data_key(KeyId=key, KeySpec="AES_256", EncryptionContext=CONTEXT)


def test_a_data_key_is_unwrapped(kms, key, wrapped):
    got = kms.decrypt(KeyId=key, CiphertextBlob=wrapped["CiphertextBlob"], EncryptionContext=CONTEXT)

    assert got["Plaintext"] == wrapped["Plaintext"]
    assert len(got["Plaintext"]) == 32
    assert got["KeyId"] == key


def test_a_tampered_wrapped_key_is_refused(aws, kms, key, wrapped):
    blob = wrapped["CiphertextBlob"]
    codes = set()
    for at in range(len(blob)):
        tampered = blob[:at] + bytes([blob[at] ^ 1]) + blob[at + 1 :]
        codes.add(refusal(kms.decrypt, KeyId=key, CiphertextBlob=tampered, EncryptionContext=CONTEXT))

    # A wrapped key of the emulators begins with the key's id: changed there, it is another key's.
    assert codes <= {"InvalidCiphertextException", _wrong_key(aws)}
    assert "InvalidCiphertextException" in codes


@pytest.mark.parametrize("change", [lambda blob: blob[:-1], lambda blob: blob + b"x", lambda blob: b"x"])
def test_a_wrapped_key_of_another_length_is_refused(kms, key, wrapped, change):
    blob = change(wrapped["CiphertextBlob"])

    assert (
        refusal(kms.decrypt, KeyId=key, CiphertextBlob=blob, EncryptionContext=CONTEXT)
        == "InvalidCiphertextException"
    )


def test_another_key_id_is_refused(aws, kms, wrapped):
    other = kms.create_key()["KeyMetadata"]["Arn"]
    blob = wrapped["CiphertextBlob"]

    assert refusal(kms.decrypt, KeyId=other, CiphertextBlob=blob, EncryptionContext=CONTEXT) == _wrong_key(
        aws
    )


@pytest.mark.parametrize("context", [{}, {"policy": "orders"}, {**CONTEXT, "destination": "sqs:orders"}])
def test_another_encryption_context_is_refused(kms, key, wrapped, context):
    blob = wrapped["CiphertextBlob"]

    assert (
        refusal(kms.decrypt, KeyId=key, CiphertextBlob=blob, EncryptionContext=context)
        == "InvalidCiphertextException"
    )


def test_a_disabled_key_is_refused_until_it_is_enabled(aws, kms, key, wrapped):
    if aws.flavour == "moto":
        pytest.skip("moto knows no disabled keys")
    blob = wrapped["CiphertextBlob"]
    kms.disable_key(KeyId=key)

    assert (
        refusal(kms.decrypt, KeyId=key, CiphertextBlob=blob, EncryptionContext=CONTEXT) == "DisabledException"
    )
    assert refusal(kms.generate_data_key, KeyId=key, KeySpec="AES_256") == "DisabledException"

    kms.enable_key(KeyId=key)
    assert (
        kms.decrypt(KeyId=key, CiphertextBlob=blob, EncryptionContext=CONTEXT)["Plaintext"]
        == wrapped["Plaintext"]
    )


def test_a_key_that_waits_for_deletion_is_refused(aws, kms, key, wrapped):
    if aws.flavour == "moto":
        pytest.skip("moto knows no such keys")
    kms.schedule_key_deletion(KeyId=key, PendingWindowInDays=7)
    blob = wrapped["CiphertextBlob"]

    assert (
        refusal(kms.decrypt, KeyId=key, CiphertextBlob=blob, EncryptionContext=CONTEXT)
        == "KMSInvalidStateException"
    )
    assert refusal(kms.generate_data_key, KeyId=key, KeySpec="AES_256") == "KMSInvalidStateException"


def test_an_unknown_key_is_not_found(kms, key):
    unknown = re.sub(r"[0-9a-f]{12}$", "0" * 12, key)

    assert refusal(kms.generate_data_key, KeyId=unknown, KeySpec="AES_256") == "NotFoundException"


def test_a_clear_canary_is_found_in_memory_and_traffic_of_a_queue(aws, fresh, tmp_path):
    if aws.pid is None:
        pytest.skip("the emulator is not ours to look into")
    with Recorder(aws.route, tmp_path) as recorder, closing(aws.sqs(f"http://{recorder.address}")) as sqs:
        queue = sqs.create_queue(QueueName=fresh("clear"))["QueueUrl"]
        sqs.send_message(QueueUrl=queue, MessageBody=CANARY.decode())
        assert sqs.receive_message(QueueUrl=queue)["Messages"][0]["Body"] == CANARY.decode()
        assert recorder.connections > 0

    assert {hit.place[-4:] for hit in scan(CANARY, tmp_path)} == {"sent", "ived"}
    assert "raw" in {hit.form for hit in scan_memory(CANARY, aws.pid)}
    assert aws.is_up()


def test_an_emulator_listens_on_the_loopback_interface_only(aws):
    if aws.pid is None:
        pytest.skip("the emulator is not ours to look into")
    assert _listening(aws.pid) == {"127.0.0.1"}


@pytest.mark.parametrize("flavour", ["moto", "localemu"])
def test_an_emulator_that_stopped_leaves_no_process(flavour):
    with AwsEmulator(flavour=flavour) as aws:
        assert aws.flavour == flavour
        pid, folder = aws.pid, aws.data_dir

    assert gone(pid)
    assert not folder.exists()
    assert not aws.is_up()


def _wrong_key(aws):
    # As KMS does; moto has a word of its own.
    return "AccessDeniedException" if aws.flavour == "moto" else "IncorrectKeyException"


# Key services


def test_a_key_vault_wraps_and_unwraps_over_tls(key_vault, fresh):
    with key_vault.client() as client:
        key = client.create_rsa_key(fresh("orders"))
        with client.get_cryptography_client(key.name, key_version=key.properties.version) as vault:
            wrapped = vault.wrap_key("RSA-OAEP-256", bytes(range(32))).encrypted_key
            assert vault.unwrap_key("RSA-OAEP-256", wrapped).key == bytes(range(32))
            with pytest.raises(HttpResponseError) as refused:
                vault.unwrap_key("RSA-OAEP-256", wrapped[:-1] + bytes([wrapped[-1] ^ 1]))
    assert refused.value.status_code == 400


def test_a_key_vault_that_runs_already_shows_its_certificate(key_vault, monkeypatch):
    """As Lowkey Vault does, which has signed its own."""
    monkeypatch.setenv("POSTSEAL_TEST_KEY_VAULT", key_vault.address)
    with KeyVault() as given:
        assert (given.flavour, given.pid, given.address) == ("lowkey-vault", None, key_vault.address)
        with given.client() as client, pytest.raises(ResourceNotFoundError):
            client.get_key("not-there")


def test_a_transit_engine_is_mounted_and_waits(openbao, fresh):
    client = openbao.client()
    with closing(client.adapter):
        name = fresh("orders")
        client.secrets.transit.create_key(name)
        made = client.secrets.transit.encrypt_data(name, plaintext="AAAA")["data"]["ciphertext"]
        assert client.secrets.transit.decrypt_data(name, ciphertext=made)["data"]["plaintext"] == "AAAA"


def test_key_services_listen_on_the_loopback_interface_only(key_vault, openbao):
    if key_vault.pid is None or openbao.pid is None:
        pytest.skip("they are not ours to look into")
    assert _listening(key_vault.pid) == _listening(openbao.pid) == {"127.0.0.1"}


@pytest.mark.parametrize("kind", [KeyVault, OpenBao])
def test_a_key_service_that_stopped_leaves_no_process_and_no_folder(kind):
    with kind() as server:
        pid, folder = server.pid, server.data_dir

    assert gone(pid)
    assert not folder.exists()
    assert not server.is_up()


# What is the same for all servers


class Small(Server):
    """A server of a few lines, for what needs no real one."""

    name = "small"
    variable = "POSTSEAL_TEST_SMALL"
    patience = 2

    def __init__(self, program, **options):
        super().__init__(**options)
        self.port = machine.free_ports(1)[0]
        self.program = program

    @property
    def address(self):
        return self.given or f"127.0.0.1:{self.port}"

    @property
    def route(self):
        return Route(0, *self._listens())

    def is_up(self):
        return machine.connects(*self._listens())

    def _listens(self):
        host, port = self.address.split(":")
        return host, int(port)

    def _native(self, data_dir):
        if self.program is None:
            raise ServerUnavailable("small is missing: install it")
        return Launch([sys.executable, "-c", self.program, str(self.port)])

    def _container(self):
        up, down = containers.compose_up("kafka")
        environment = containers.environment({"POSTSEAL_KAFKA_PORT": self.port})
        return Launch(up, environment, afterwards=down, in_container=True)


LISTENS = """
import socket, sys, time
listener = socket.create_server(("127.0.0.1", int(sys.argv[1])))
time.sleep(600)
"""


def test_a_server_that_ends_at_once_shows_its_log():
    server = Small("import sys; sys.exit('no such setting: colour')")

    with pytest.raises(ServerFailed, match="no such setting: colour"):
        server.start()
    assert server.pid is None


def test_a_server_that_never_answers_is_stopped():
    server = Small("import os, time; print(os.getpid(), 'is here', flush=True); time.sleep(600)")

    with pytest.raises(ServerFailed, match=r"did not answer in 2 s:\n\d+ is here") as caught:
        server.start()
    assert gone(int(re.search(r"(\d+) is here", str(caught.value))[1]))


def test_a_given_server_is_used_and_left_running(monkeypatch):
    with Small(LISTENS) as running:
        monkeypatch.setenv("POSTSEAL_TEST_SMALL", running.address)
        with Small(None) as server:
            assert (server.address, server.pid, server.data_dir) == (running.address, None, None)
            with pytest.raises(ServerUnavailable, match="not ours to kill"):
                server.kill()
        monkeypatch.delenv("POSTSEAL_TEST_SMALL")
        assert running.is_up()


def test_a_given_data_folder_is_kept(tmp_path):
    with Small(LISTENS, data_dir=tmp_path / "data") as server:
        assert server.data_dir == tmp_path / "data"

    assert (tmp_path / "data" / "server.log").exists()


def test_all_start_side_by_side_and_each_failure_is_told(tmp_path):
    """Either of two listens only when it has seen the other."""
    waits = (
        "import pathlib, sys, time; pathlib.Path({own!r}).touch()\n"
        "while not pathlib.Path({other!r}).exists(): time.sleep(0.01)\n" + LISTENS
    )
    marks = [str(tmp_path / "one"), str(tmp_path / "two")]
    servers = [Small(waits.format(own=own, other=other)) for own, other in (marks, marks[::-1])]
    servers.append(Small(None))
    for number, server in enumerate(servers):
        server.name, server.patience = f"small-{number}", 60
    try:
        failed = start_all(servers)
        assert {name: str(error) for name, error in failed.items()} == {
            "small-2": "small is missing: install it"
        }
        # The threads that started them have ended, and they live on.
        time.sleep(0.3)
        assert all(server.is_up() for server in servers[:2])
    finally:
        stop_all(servers)


def test_a_server_of_this_run_is_started_once_and_lent_to_each_process_that_tests():
    servers = Servers({"small": lambda: Small(LISTENS)})
    try:
        borrower = Borrower(*lend(servers))
        borrower.begin(["small"])
        first, second, own = borrower.borrow("small"), borrower.borrow("small"), servers.borrow("small")
        assert first.pid == second.pid == own.pid is not None
        assert first.data_dir == own.data_dir
        for lent in (first, own):
            with pytest.raises(ServerUnavailable, match="other tests use it"):
                lent.kill()
            lent.stop()
        assert second.is_up()
        assert second.data_dir.exists()
    finally:
        servers.stop()
    assert gone(second.pid)


def test_who_would_borrow_a_server_hears_why_there_is_none():
    servers = Servers({"small": lambda: Small(None)})
    try:
        for lender in (servers, Borrower(*lend(servers))):
            with pytest.raises(ServerUnavailable, match="small is missing: install it"):
                lender.borrow("small")
    finally:
        servers.stop()


def test_a_program_ends_with_its_owner_however_that_ends(tmp_path):
    """The owner is killed without a chance to clean up; program and grandchild end, though both ignore requests."""
    program = (
        "import os, signal, time; signal.signal(signal.SIGTERM, signal.SIG_IGN); os.fork();"
        "print(os.getpid(), flush=True); time.sleep(600)"
    )
    owner = f"""
import pathlib, sys, time
from integration.servers.process import Leashed
Leashed([sys.executable, "-c", {program!r}], environment={{}}, directory=pathlib.Path("."),
        log=pathlib.Path({str(tmp_path / "log")!r}), patience=0.5)
print("started", flush=True)
time.sleep(600)
"""
    process = subprocess.Popen([sys.executable, "-c", owner], cwd=machine.REPOSITORY, stdout=subprocess.PIPE)
    try:
        process.stdout.readline()
        log = tmp_path / "log"
        _until(lambda: log.exists() and len(log.read_text().split()) == 2)
        pids = [int(pid) for pid in log.read_text().split()]
        assert all(Path(f"/proc/{pid}").exists() for pid in pids)
    finally:
        process.kill()
        process.communicate()

    _until(lambda: not any(_runs(pid) for pid in pids))


def test_a_program_that_cannot_be_run_says_so(tmp_path):
    with pytest.raises(ServerFailed, match="/no/such/program cannot be run"):
        Leashed(["/no/such/program"], environment={}, directory=tmp_path, log=tmp_path / "log")


# Installing


def test_two_that_install_at_once_install_once(tmp_path):
    built = []

    def build(folder):
        built.append(folder)
        time.sleep(0.2)
        (folder / "done").touch()

    threads = [threading.Thread(target=machine.installed, args=(tmp_path, "tool-1", build)) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()

    assert len(built) == 1
    assert (tmp_path / "tool-1" / "done").exists()


def test_a_failed_installation_leaves_nothing_and_is_tried_again(tmp_path):
    def fail(folder):
        (folder / "half").touch()
        machine.run(["sh", "-c", "echo disk full; exit 3"], what="unpacking")

    with pytest.raises(ServerUnavailable, match="unpacking failed:\ndisk full"):
        machine.installed(tmp_path, "tool-1", fail)

    assert [path.name for path in tmp_path.iterdir()] == ["tool-1.lock"]
    assert machine.installed(tmp_path, "tool-1", lambda folder: None).is_dir()


def test_a_step_over_the_network_is_tried_again(tmp_path):
    script = f"echo x >> {tmp_path}/tries; [ $(wc -l < {tmp_path}/tries) = 3 ] && echo fetched"

    assert machine.run(["sh", "-c", script], what="fetching", tries=3) == "fetched\n"


def test_a_missing_program_is_named_with_its_package(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))

    with pytest.raises(ServerUnavailable, match=r"mvn is missing.*apt-get install maven"):
        machine.program("mvn", package="maven", base=tmp_path)


def test_a_missing_program_is_installed_where_that_is_possible(tmp_path, monkeypatch):
    _fake(tmp_path / "apt-get", f'echo "$@" >> {tmp_path}/asked; [ "$1" = update ] || cp "$0" {tmp_path}/mvn')
    monkeypatch.setenv("PATH", f"{tmp_path}:/usr/bin:/bin")
    monkeypatch.setattr(machine.shutil, "which", _which_only(tmp_path))
    monkeypatch.setattr(machine.os, "geteuid", lambda: 0)

    assert machine.program("mvn", package="maven", base=tmp_path / "base") == str(tmp_path / "mvn")
    assert (tmp_path / "asked").read_text().splitlines() == [
        "update -qq",
        "install -y --no-install-recommends maven",
    ]


# Containers: there is no engine here, so a stand-in for its command shows what is asked of it.


@pytest.fixture
def engine(tmp_path, monkeypatch):
    """A `docker` that writes down what it is asked, and serves the port when a service is brought up."""
    folder = tmp_path / "bin"
    folder.mkdir()
    serve = f"exec {sys.executable} -c '{LISTENS}' \"$POSTSEAL_KAFKA_PORT\""
    _fake(
        folder / "docker",
        f'echo "$@" >> {tmp_path}/asked\ncase "$*" in *" up "*) {serve};; esac',
    )
    monkeypatch.setenv("PATH", f"{folder}:{os.environ['PATH']}")
    return lambda: [
        re.sub(r"postseal-kafka-\w+", "PROJECT", line)
        for line in (tmp_path / "asked").read_text().splitlines()
    ]


COMPOSE = f"compose --project-name PROJECT --file {machine.REPOSITORY}/docker/compose.yaml"


def test_containers_are_used_where_asked_for(engine, monkeypatch):
    monkeypatch.setenv("POSTSEAL_TEST_CONTAINERS", "1")
    with Small(LISTENS) as server:
        assert (server.pid, server.data_dir) == (None, None)
        server.kill()
        assert not server.is_up()
        server.start()
        assert server.is_up()

    assert engine() == [
        "info",
        f"{COMPOSE} up --no-log-prefix kafka",
        f"{COMPOSE} kill kafka",
        f"{COMPOSE} up --no-log-prefix kafka",
        f"{COMPOSE} down --volumes",
    ]
    assert not server.is_up()


def test_containers_are_used_where_nothing_else_is_possible(engine):
    with Small(None) as server:
        assert server.is_up()
    assert engine()[1] == f"{COMPOSE} up --no-log-prefix kafka"


def test_containers_asked_for_without_an_engine_are_an_error(tmp_path, monkeypatch):
    _fake(tmp_path / "docker", "exit 1")
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    monkeypatch.setenv("POSTSEAL_TEST_CONTAINERS", "1")

    with pytest.raises(ServerUnavailable, match="no container engine answers"):
        Small(LISTENS).start()


def test_the_compose_file_names_the_versions_and_ports_of_the_native_servers():
    from integration.servers import kafka, key_vault, openbao

    text = (machine.REPOSITORY / "docker" / "compose.yaml").read_text()
    ports = re.findall(r'^      - "(.*)"', text, re.MULTILINE)

    assert f"image: apache/kafka:{kafka.VERSION}\n" in text
    assert f"image: nagyesta/lowkey-vault:{key_vault.VERSION}\n" in text
    assert f"image: openbao/openbao:{openbao.VERSION}\n" in text
    assert ports
    assert all(port.startswith("127.0.0.1:${POSTSEAL_") for port in ports)


def _until(condition, timeout=15):
    deadline = time.monotonic() + timeout
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def _runs(pid):
    try:
        return " Z " not in Path(f"/proc/{pid}/stat").read_text()
    except FileNotFoundError:
        return False


def _fake(path, script):
    path.write_text(f"#!/bin/sh\n{script}\n")
    path.chmod(0o755)


def _which_only(folder):
    return lambda name: str(folder / name) if (folder / name).exists() else None


def _listening(pid):
    """The addresses on which a process accepts connections."""
    sockets = set()
    for link in Path(f"/proc/{pid}/fd").iterdir():
        try:
            sockets.add(link.readlink().name)
        except FileNotFoundError:
            continue
    found = set()
    for table in ["tcp", "tcp6"]:
        for line in Path(f"/proc/{pid}/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if fields[3] == "0A" and f"socket:[{fields[9]}]" in sockets:
                found.add(_address(fields[1].split(":")[0]))
    return found


def _address(text):
    # Four bytes in the machine's order; the last four of sixteen where an IPv4 address is written as IPv6.
    assert len(text) == 8 or text.startswith("0" * 16 + "FFFF0000"), f"listens on {text}"
    return ".".join(str(byte) for byte in reversed(bytes.fromhex(text[-8:])))
