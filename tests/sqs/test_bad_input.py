"""What may go wrong around a message: each is a clear error, and nothing is lost or handed on."""

import pytest
from botocore.exceptions import ConnectionClosedError

from postseal.core import Verdict
from postseal.sqs import protect
from tests.contract import Raw
from tests.sqs.conftest import make_client
from tests.sqs.line import attributes

CLEAR = "4111 1111 1111 1111"
URL = "https://sqs.eu-west-1.amazonaws.com/123456789012/no-such-queue"


@pytest.fixture
def place(line):
    return line.place()


@pytest.fixture
def url(line, place):
    return line.url(place)


def protected(world, policy):
    return protect(make_client(), world.sealer(policy), come_again_after=0, sleep=lambda _: None)


def hang_up(client, operation):
    """Have the connection closed in each call of *operation*."""

    def close(**_):
        raise ConnectionClosedError(endpoint_url=URL)

    client.meta.events.register_first(f"before-send.sqs.{operation}", close)
    return client


def receive(client, url):
    answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, VisibilityTimeout=0)
    return sorted(message["Body"] for message in answer.get("Messages", ()))


# -- a connection that is closed in each call


@pytest.mark.parametrize("operation", ["SendMessage", "SendMessageBatch"])
def test_a_connection_closed_while_sending_is_an_error_and_a_retry_sends(world, line, place, url, operation):
    policy = world.policy(place)
    calls = {
        "SendMessage": lambda client: client.send_message(QueueUrl=url, MessageBody=CLEAR),
        "SendMessageBatch": lambda client: client.send_message_batch(
            QueueUrl=url, Entries=[{"Id": "1", "MessageBody": CLEAR}]
        ),
    }
    with pytest.raises(ConnectionClosedError):
        calls[operation](hang_up(protected(world, policy), operation))
    assert not line.has_message(place)
    client = protected(world, policy)
    calls[operation](client)
    assert receive(client, url) == [CLEAR]


def test_a_connection_closed_while_receiving_is_an_error_and_loses_nothing(world, line, place, url):
    policy = world.policy(place)
    client = protected(world, policy)
    client.send_message(QueueUrl=url, MessageBody=CLEAR)
    with pytest.raises(ConnectionClosedError):
        receive(hang_up(protected(world, policy), "ReceiveMessage"), url)
    assert receive(client, url) == [CLEAR]


@pytest.mark.parametrize("operation", ["GetQueueUrl", "SendMessage", "DeleteMessageBatch"])
def test_a_connection_closed_while_settling_costs_no_message(world, line, place, url, operation):
    """The refused one stays, the good one is handed on."""
    refused = line.place()
    policy = world.policy(place, on_refused="quarantine", quarantine=f"sqs:{refused}")
    protected(world, policy).send_message(QueueUrl=url, MessageBody=CLEAR)
    line.put(place, Raw(b"injected"))
    assert receive(hang_up(protected(world, policy), operation), url) == [CLEAR]
    assert {raw.body for raw in line.held(place, 2)} >= {b"injected"}


def test_a_connection_closed_while_giving_back_costs_no_message(world, line, place, url):
    """B14: then they come again after their visibility timeout."""
    policy = world.policy(place)
    protected(world, policy).send_message(QueueUrl=url, MessageBody=CLEAR)
    world.keys.unavailable.set()
    client = protected(world, policy)
    assert receive(hang_up(client, "ChangeMessageVisibilityBatch"), url) == []
    world.keys.unavailable.clear()
    assert receive(client, url) == [CLEAR]


# -- a queue that does not exist


def test_a_queue_that_does_not_exist_is_what_sqs_says(world, aws):
    client = protected(world, world.policy("no-such-queue"))
    with pytest.raises(client.exceptions.QueueDoesNotExist):
        client.send_message_batch(QueueUrl=URL, Entries=[{"Id": "1", "MessageBody": CLEAR}])
    with pytest.raises(client.exceptions.QueueDoesNotExist):
        client.receive_message(QueueUrl=URL)


def test_a_quarantine_that_does_not_exist_leaves_messages_where_they_are(world, line, place, url):
    policy = world.policy(place, on_refused="quarantine", quarantine="sqs:no-such-queue")
    line.put(place, Raw(b"injected"))
    assert receive(protected(world, policy), url) == []
    assert [raw.body for raw in line.held(place, 1)] == [b"injected"]


# -- attributes of another type


@pytest.mark.parametrize(
    "attribute",
    [
        {"DataType": "Binary", "BinaryValue": b"north"},
        {"DataType": "String", "StringValue": "North"},
    ],
    ids=["bytes", "letter"],
)
def test_a_bound_attribute_of_another_type_is_refused(world, line, place, url, attribute):
    """A9: text and bytes are two things, even where they read alike."""
    home = line.place()
    policy = world.policy(
        home, accept_from=[f"sqs:{place}"], bind_headers=["tenant"], on_refused="dead-letter"
    )
    client = protected(world, policy)
    client.send_message(
        QueueUrl=line.url(home), MessageBody=CLEAR, MessageAttributes=attributes({"tenant": "north"})
    )
    [raw] = line.held(home, 1)
    for bound in (attribute, attributes({"tenant": "north"})["tenant"]):
        line.bare.send_message(
            QueueUrl=url, MessageBody=raw.body.decode(), MessageAttributes={"tenant": bound}
        )
    assert receive(client, url) == [CLEAR]
    assert world.verdicts() == [Verdict.FORGED]
