"""When the ledger is told that a message is settled, and when not."""

import pytest
from botocore.exceptions import ClientError

from postseal.core import LedgerUnavailable, Verdict
from postseal.sqs import open_records, protect
from tests.contract import World
from tests.ledgers import Noting
from tests.sqs.conftest import Wire, make_client
from tests.sqs.test_records import record_of


@pytest.fixture
def ledger():
    return Noting()


@pytest.fixture
def received(line, world, ledger):
    """Send three messages and receive them; hand out the client, the queue's URL and their handles."""
    place = line.place()
    client = protect(make_client(), world.sealer(world.policy(place), ledger=ledger))
    url = line.url(place)
    for number in range(3):
        client.send_message(QueueUrl=url, MessageBody=f"order {number}")
    messages = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]
    return client, url, [message["ReceiptHandle"] for message in messages]


def test_a_deletion_settles(received, ledger):
    client, url, handles = received
    client.delete_message(QueueUrl=url, ReceiptHandle=handles[0])
    assert len(ledger.settled) == 1
    entries = [{"Id": str(at), "ReceiptHandle": handle} for at, handle in enumerate(handles[1:])]
    client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert len(ledger.settled) == 3


def test_other_visibility_does_not(received, ledger):
    client, url, handles = received
    client.change_message_visibility(QueueUrl=url, ReceiptHandle=handles[0], VisibilityTimeout=0)
    assert ledger.settled == set()


def test_what_sqs_does_not_delete_is_taken_back(received, ledger):
    client, url, handles = received
    Wire(
        client,
        (400, {"__type": "com.amazonaws.sqs#ReceiptHandleIsInvalid", "message": "no"}),
        (200, {"Successful": [{"Id": "a"}], "Failed": [{"Id": "b", "Code": "X", "SenderFault": True}]}),
    )
    with pytest.raises(ClientError):
        client.delete_message(QueueUrl=url, ReceiptHandle=handles[0])
    assert ledger.settled == set()
    entries = [{"Id": "a", "ReceiptHandle": handles[0]}, {"Id": "b", "ReceiptHandle": handles[1]}]
    client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert len(ledger.settled) == 1
    client.delete_message(QueueUrl=url, ReceiptHandle=handles[1])
    assert len(ledger.settled) == 2


def test_what_the_ledger_does_not_take_is_not_deleted(received, ledger, line):
    client, url, handles = received
    ledger.away = True
    wire = Wire(client)
    with pytest.raises(LedgerUnavailable):
        client.delete_message(QueueUrl=url, ReceiptHandle=handles[0])
    assert wire.requests == []


def test_handles_of_others_are_no_concern_of_ours(received, ledger):
    client, url, _ = received
    entries = [{"Id": "a", "ReceiptHandle": "of another client"}]
    wire = Wire(client, (200, {"Successful": [{"Id": "a"}]}))
    client.delete_message_batch(QueueUrl=url, Entries=entries)
    assert len(wire.requests) == 1
    assert ledger.settled == set()


def test_a_lambda_function_settles_what_it_does_not_fail(line):
    """What is deleted once it has returned."""
    world, ledger = World(line), Noting()
    place = line.place()
    sealer = world.sealer(world.policy(place), ledger=ledger)
    line.send(sealer, place, b"one")
    line.send(sealer, place, b"two")
    records = [record_of(raw.body.decode(), at=at, queue=place) for at, raw in enumerate(line.held(place, 2))]
    batch = open_records({"Records": records}, sealer, reports_failures=True)
    assert ledger.settled == set()
    batch.fail(batch[1])
    batch.answer()
    assert len(ledger.settled) == 1
    open_records({"Records": records}, sealer, reports_failures=True)
    assert world.verdicts() == [Verdict.DUPLICATE]
