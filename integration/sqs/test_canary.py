"""What the emulator and the wire hold: never the body of a protected client; that of a bare one, found by the same search."""

import secrets
from contextlib import closing

import pytest

from integration.capture import Recorder
from integration.scan import scan, scan_memory
from postseal.core import Policy, Sealer
from postseal.sqs import protect
from tests.fakes import local_keys


@pytest.fixture
def canary():
    """A body nobody else has."""
    return f"canary {secrets.token_hex(8)} 4111 1111 1111 1111"


def send_and_receive(client, url, canary):
    """Send by both verbs, receive and hand back, and leave the messages on the queue."""
    client.send_message(QueueUrl=url, MessageBody=canary)
    client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": f'{{"card": "{canary}"}}'}])
    came = set()
    for _ in range(20):
        answer = client.receive_message(
            QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0, WaitTimeSeconds=1
        )
        came.update(message["Body"] for message in answer.get("Messages", ()))
        if len(came) == 2:
            break
    return came


def run(aws, fresh, canary, folder, sealer_for):
    """Do it through a recorder, over plain HTTP; return what the consumer got."""
    name = fresh("orders")
    url = aws.sqs().create_queue(QueueName=name)["QueueUrl"]
    with Recorder(aws.route, folder) as recorder:
        with closing(aws.sqs(f"http://{recorder.address}")) as client:
            if sealer_for is not None:
                protect(client, sealer_for(name))
            came = send_and_receive(client, url.replace(aws.address, f"http://{recorder.address}"), canary)
        assert recorder.connections > 0
    return came


def sealer_for(name):
    policy = Policy(name="orders", destinations=[f"sqs:{name}"], keys=["main"])
    return Sealer(sender="shop", policies=[policy], keys={"main": local_keys()})


def test_a_sealed_body_is_in_the_consumer_and_nowhere_else(aws, fresh, canary, tmp_path):
    """A1, A2: not in the emulator's memory, not in its files, not in plain traffic of either direction."""
    came = run(aws, fresh, canary, tmp_path / "wire", sealer_for)
    assert came == {canary, f'{{"card": "{canary}"}}'}
    assert scan(canary.encode(), tmp_path / "wire") == []
    assert _in_memory(aws, canary) == []
    if aws._data_dir is not None:
        assert scan(canary.encode(), aws._data_dir) == []


def test_a_clear_body_is_found_by_the_same_search(aws, fresh, canary, tmp_path):
    """The control: a bare client's is on the wire, both ways, and in the emulator's memory."""
    came = run(aws, fresh, canary, tmp_path / "wire", None)
    assert canary in came
    places = {hit.place.rpartition("-")[2] for hit in scan(canary.encode(), tmp_path / "wire")}
    assert places == {"sent", "received"}
    assert _in_memory(aws, canary) != []


def _in_memory(aws, canary):
    if aws.pid is None:
        pytest.skip(
            "the emulator runs elsewhere (a container, or one that was given), so its memory cannot be read"
        )
    return scan_memory(canary.encode(), aws.pid)
