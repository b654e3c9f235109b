"""What botocore and boto3 write at DEBUG: nothing below the hooks shows a body; what shows one above them is named in docs/sqs.md."""

import logging

import pytest
from botocore.history import get_global_history_recorder

from postseal.core import KeyUnavailable, Refused, TooLarge
from postseal.sqs import MAX_BYTES, protect
from tests.contract import Raw
from tests.sqs.conftest import make_client, make_resource

CANARY = "canary 4111 1111 1111 1111"
ABOVE = {"boto3.resources.action"}
"""Loggers that see what the caller gives and gets, before and after the hooks: docs/sqs.md names them."""


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def records(caplog):
    """All that is logged, at DEBUG."""
    caplog.set_level(logging.DEBUG)
    return caplog


def showing(caplog, word=CANARY):
    """Return the names of the loggers that show *word*, written as a formatter would."""
    names = {record.name for record in caplog.records}
    assert {"botocore.endpoint", "botocore.parsers", "botocore.hooks"} <= names, "DEBUG was off"
    formatter = logging.Formatter()
    return {record.name for record in caplog.records if word in formatter.format(record)}


def test_sending_and_receiving_show_no_body(world, line, place, records):
    client = protect(make_client(), world.sealer(world.policy(place)))
    url = line.url(place)
    client.send_message(QueueUrl=url, MessageBody=CANARY)
    client.send_message_batch(QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CANARY}])
    assert [m["Body"] for m in client.receive_message(QueueUrl=url, MaxNumberOfMessages=10)["Messages"]] == [
        CANARY,
        CANARY,
    ]
    assert showing(records) == set()


def test_a_bare_client_does(line, place, records):
    """The control: the logs of botocore are where a body would be found."""
    client = make_client()
    client.send_message(QueueUrl=line.url(place), MessageBody=CANARY)
    assert "botocore.endpoint" in showing(records)


def test_resources_show_it_above_the_hooks(world, line, place, records):
    queue = protect(make_resource(), world.sealer(world.policy(place))).Queue(line.url(place))
    queue.send_message(MessageBody=CANARY)
    queue.receive_messages()
    assert showing(records) == ABOVE


def test_history_shows_it_above_the_hooks(world, line, place):
    """botocore.history is off unless a program turns it on."""

    class Notes:
        def __init__(self):
            self.seen = []

        def emit(self, event_type, payload, source):
            self.seen.append((event_type, str(payload)))

    recorder, notes = get_global_history_recorder(), Notes()
    client = protect(make_client(), world.sealer(world.policy(place)))
    recorder.add_handler(notes)
    recorder.enable()
    try:
        client.send_message(QueueUrl=line.url(place), MessageBody=CANARY)
    finally:
        recorder.disable()
        recorder._handlers.remove(notes)
    assert {event for event, payload in notes.seen if CANARY in payload} == {"API_CALL"}


def test_errors_show_no_body(world, line, place, records):
    client, url = protect(make_client(), world.sealer(world.policy(place))), line.url(place)
    client.list_queues()
    with pytest.raises(TooLarge) as error:
        client.send_message(QueueUrl=url, MessageBody=CANARY * (MAX_BYTES // 20))
    assert "canary" not in str(error.value)
    world.keys.unavailable.set()
    client = protect(make_client(), world.sealer(world.policy(place)))
    with pytest.raises(KeyUnavailable) as unavailable:
        client.send_message(QueueUrl=url, MessageBody=CANARY)
    assert "canary" not in str(unavailable.value)
    assert showing(records) == set()


def test_refused_messages_show_no_body_in_our_own_logs(world, line, place, records):
    """What a bare client sent in clear, botocore of course shows."""
    line.put(place, Raw(CANARY.encode(), {"tenant": "canary tenant"}))
    with pytest.raises(Refused) as error:
        protect(make_client(), world.sealer(world.policy(place))).receive_message(QueueUrl=line.url(place))
    assert "canary" not in str(error.value)
    assert not {name for name in showing(records, "canary") if name.startswith("postseal")}


def test_md5_of_a_clear_body_is_not_logged(world, line, place, records):
    """Who knows the MD5 of a card number knows the card number."""
    client = protect(make_client(), world.sealer(world.policy(place)))
    answer = client.send_message(QueueUrl=line.url(place), MessageBody=CANARY)
    assert showing(records, answer["MD5OfMessageBody"]) == set()
