"""Dead letters on the emulator: the queue's own redrive, and the way back."""

import json
import time

import pytest

from postseal.core import Policy, Sealer
from postseal.sqs import protect
from tests.fakes import local_keys

CLEAR = "4111 1111 1111 1111"


def until(read, seconds=20):
    """Read until something came. The time only ends a test that would fail anyway."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        if came := read():
            return came
    raise AssertionError("never came")


@pytest.mark.parametrize("suffix", ["", ".fifo"], ids=["standard", "fifo"])
def test_a_dead_letter_comes_back_sealed(aws, fresh, suffix):
    """A10: one and the same envelope there and after the way back, by StartMessageMoveTask as in the console, or by a tool.

    moto has no such task, and that of localemu loses messages of FIFO queues, sealed or not: their way back is a bare client.
    """
    bare, name, dead = aws.sqs(), fresh("orders") + suffix, fresh("orders-dlq") + suffix
    kind = {"FifoQueue": "true", "ContentBasedDeduplication": "true"} if suffix else {}
    dead_url = bare.create_queue(QueueName=dead, Attributes=kind)["QueueUrl"]
    arn = bare.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])["Attributes"]["QueueArn"]
    redrive = {"RedrivePolicy": json.dumps({"deadLetterTargetArn": arn, "maxReceiveCount": "1"})}
    url = bare.create_queue(QueueName=name, Attributes=kind | redrive)["QueueUrl"]

    policy = Policy(
        name="orders",
        destinations=[f"sqs:{name}"],
        accept_from=[f"sqs:{dead}"],
        keys=["main"],
        bind_ordering_key=True,
    )
    sealer = Sealer(
        sender="shop",
        policies=[policy],
        keys={"main": local_keys()},
        deduplication_secret=bytes(range(32)),
    )
    client = protect(aws.sqs(), sealer)
    group = {"MessageGroupId": "north"} if suffix else {}
    client.send_message(QueueUrl=url, MessageBody=CLEAR, **group)

    def read(reader, queue_url, **options):
        answer = reader.receive_message(QueueUrl=queue_url, WaitTimeSeconds=1, **options)
        return [message["Body"] for message in answer.get("Messages", ())]

    [sent] = until(lambda: read(bare, url, VisibilityTimeout=0))
    assert read(client, url) == []  # the second receive: redrive takes it
    [letter] = until(lambda: read(bare, dead_url, VisibilityTimeout=0))
    assert letter == sent != CLEAR
    assert until(lambda: read(client, dead_url, VisibilityTimeout=0)) == [CLEAR]

    if suffix or aws.flavour == "moto":
        bare.send_message(
            QueueUrl=url,
            MessageBody=letter,
            **group,
            **({"MessageDeduplicationId": "back"} if suffix else {}),
        )
    else:
        bare.start_message_move_task(SourceArn=arn)
    assert until(lambda: read(client, url)) == [CLEAR]
