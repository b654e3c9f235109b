"""aiobotocore on the emulator: KMS by itself, KMS away, redrive, and a task that is cancelled."""

import asyncio
import json

import pytest

from postseal.core import AwsKms, Policy, Sealer
from postseal.sqs import protect
from tests.fakes import FakeKeys, local_keys

CLEAR = "4111 1111 1111 1111"


def sealer_for(name, keys, **options):
    policy = Policy(name="orders", destinations=[f"sqs:{name}"], keys=["main"], **options)
    return Sealer(sender="shop", policies=[policy], keys={"main": keys})


@pytest.fixture
def queue(sqs, fresh):
    """Name and URL of a queue."""
    name = fresh("orders")
    return name, sqs.create_queue(QueueName=name)["QueueUrl"]


async def receive(client, url, **options):
    """Receive until something came. The count only ends a test that would fail anyway."""
    for _ in range(20):
        answer = await client.receive_message(QueueUrl=url, WaitTimeSeconds=1, **options)
        if "Messages" in answer:
            return [message["Body"] for message in answer["Messages"]]
    raise AssertionError("never came")


def test_messages_go_the_whole_way_with_kms(aws, aio, kms, queue):
    """A1, D3: a client of aiobotocore here, one of boto3 there, each with a data key from KMS."""
    name, url = queue
    key = kms.create_key()["KeyMetadata"]["Arn"]
    client = protect(aio.client(), sealer_for(name, AwsKms(aws.kms(), key)))
    aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    other = protect(aws.sqs(), sealer_for(name, AwsKms(aws.kms(), key)))
    answer = other.receive_message(QueueUrl=url, WaitTimeSeconds=5, VisibilityTimeout=0)
    assert answer["Messages"][0]["Body"] == CLEAR
    late = protect(aio.client(), sealer_for(name, AwsKms(aws.kms(), key)))
    assert aio.run(receive(late, url)) == [CLEAR]


def test_an_absent_kms_gives_messages_back(aws, aio, kms, queue):
    """B14: nothing listens where KMS was."""
    import boto3
    from botocore.config import Config

    name, url = queue
    key = kms.create_key()["KeyMetadata"]["Arn"]
    client = protect(aio.client(), sealer_for(name, AwsKms(aws.kms(), key)))
    aio.run(client.send_message(QueueUrl=url, MessageBody=CLEAR))
    options = {
        **aws._options("http://127.0.0.1:9"),
        "config": Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=1),
    }
    absent = sealer_for(name, AwsKms(boto3.client("kms", **options), key))
    waiting = protect(aio.client(), absent, come_again_after=0, sleep=lambda _: None)
    assert "Messages" not in aio.run(waiting.receive_message(QueueUrl=url, WaitTimeSeconds=1))
    late = protect(aio.client(), sealer_for(name, AwsKms(aws.kms(), key)))
    assert aio.run(receive(late, url)) == [CLEAR]


def test_a_cancelled_receive_loses_nothing(aio, queue):
    """B14: it comes again after its visibility timeout."""
    name, url = queue
    keys = FakeKeys()
    aio.run(protect(aio.client(), sealer_for(name, keys)).send_message(QueueUrl=url, MessageBody=CLEAR))
    client = protect(aio.client(), sealer_for(name, keys))
    keys.slow.set()

    async def use():
        receiving = asyncio.create_task(
            client.receive_message(QueueUrl=url, WaitTimeSeconds=5, VisibilityTimeout=1)
        )
        while not keys.waiting.is_set():  # noqa: ASYNC110 - it is set in another thread, which knows no loop
            await asyncio.sleep(0.005)
        receiving.cancel()
        with pytest.raises(asyncio.CancelledError):
            await receiving
        keys.unblock()
        return await receive(client, url)

    assert aio.run(use()) == [CLEAR]


def test_a_dead_letter_comes_back_sealed(sqs, aio, fresh):
    """A10: by the queue's own redrive; once sealed, there and after the way back."""
    name, dead = fresh("orders"), fresh("orders-dlq")
    dead_url = sqs.create_queue(QueueName=dead)["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=dead_url, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": answer["Attributes"]["QueueArn"], "maxReceiveCount": "1"}
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]
    sealer = sealer_for(name, local_keys(), accept_from=[f"sqs:{dead}"])
    client = protect(aio.client(), sealer)

    async def use():
        await client.send_message(QueueUrl=url, MessageBody=CLEAR)
        first = await receive(client, url, VisibilityTimeout=0)
        again = await client.receive_message(QueueUrl=url, WaitTimeSeconds=1)  # redrive takes it
        return first, again.get("Messages", []), await receive(client, dead_url, VisibilityTimeout=0)

    assert aio.run(use()) == ([CLEAR], [], [CLEAR])
    [letter] = sqs.receive_message(QueueUrl=dead_url, WaitTimeSeconds=5)["Messages"]
    assert letter["Body"] != CLEAR
    sqs.send_message(QueueUrl=url, MessageBody=letter["Body"])
    assert aio.run(receive(client, url)) == [CLEAR]
