"""SNS to SQS on the emulator, by both deliveries, with boto3 and with aiobotocore."""

import asyncio
import json

import pytest

from postseal.core import AwsKms, Policy, Sealer, Verdict
from postseal.sqs import protect
from tests.fakes import FakeKeys, local_keys

CLEAR = 'order 4711: 4111 1111 1111 1111, "Zoë"\n'
ATTRIBUTES = {
    "tenant": {"DataType": "String", "StringValue": "grün"},
    "count": {"DataType": "Number", "StringValue": "1.50"},
    "picture": {"DataType": "Binary", "BinaryValue": b"\x00\xff"},
}


class Subscribed:
    """A topic, and a queue that gets what is published there."""

    def __init__(self, aws, fresh, *, raw, suffix=""):
        self.sqs, self.sns = aws.sqs(), aws.sns()
        self.queue, self.topic = fresh("orders") + suffix, fresh("shop") + suffix
        queue_kind = {"FifoQueue": "true"} if suffix else {}
        topic_kind = {"FifoTopic": "true", "ContentBasedDeduplication": "true"} if suffix else {}
        self.url = self.sqs.create_queue(QueueName=self.queue, Attributes=queue_kind)["QueueUrl"]
        self.arn = self.sns.create_topic(Name=self.topic, Attributes=topic_kind)["TopicArn"]
        answer = self.sqs.get_queue_attributes(QueueUrl=self.url, AttributeNames=["QueueArn"])
        self.sns.subscribe(
            TopicArn=self.arn,
            Protocol="sqs",
            Endpoint=answer["Attributes"]["QueueArn"],
            Attributes={"RawMessageDelivery": "true" if raw else "false"},
        )

    def sealer(self, keys=None, events=None, **options):
        policy = Policy(
            name="shop",
            destinations=[f"sns:{self.topic}"],
            accept_from=[f"sqs:{self.queue}"],
            keys=["main"],
            **options,
        )
        return Sealer(
            sender="shop",
            policies=[policy],
            keys={"main": keys or local_keys()},
            deduplication_secret=bytes(range(32)),
            on_audit=None if events is None else events.append,
        )


@pytest.fixture(params=[True, False], ids=["raw", "wrapped"])
def subscribed(request, aws, fresh):
    return Subscribed(aws, fresh, raw=request.param)


def texts_in(answer):
    """Return what a program reads from messages of either delivery."""
    bodies = [message["Body"] for message in answer.get("Messages", ())]
    return [json.loads(body)["Message"] if body.startswith("{") else body for body in bodies]


def receive(aws, sealer, url, count, **options):
    client = protect(aws.sqs(), sealer, come_again_after=0, sleep=lambda _: None)
    came = []
    for _ in range(20):
        answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, **options)
        came += texts_in(answer)
        if len(came) >= count:
            break
    return sorted(came)


def test_what_is_published_arrives_with_all_that_is_bound(aws, subscribed):
    """A1, A9: attributes of each kind, by either delivery; the queue holds no clear text."""
    sealer = subscribed.sealer(bind_headers=["count", "picture", "tenant"])
    sns = protect(aws.sns(), sealer)
    sns.publish(TopicArn=subscribed.arn, Message=CLEAR, Subject="an order", MessageAttributes=ATTRIBUTES)
    held = subscribed.sqs.receive_message(QueueUrl=subscribed.url, VisibilityTimeout=0, WaitTimeSeconds=5)
    assert "4111" not in held["Messages"][0]["Body"]
    assert receive(aws, sealer, subscribed.url, 1) == [CLEAR]


@pytest.mark.parametrize("bad", range(4))
def test_one_bad_message_never_costs_the_others(aws, subscribed, bad):
    """A9, E5: who can publish to the topic cannot inject."""
    events = []
    sealer = subscribed.sealer(events=events, on_refused="discard")
    sns = protect(aws.sns(), sealer)
    for at in range(4):
        client, text = (subscribed.sns, "injected") if at == bad else (sns, f"order {at}")
        client.publish(TopicArn=subscribed.arn, Message=text)
    client = protect(aws.sqs(), sealer, sleep=lambda _: None)
    came = []
    for _ in range(20):
        answer = client.receive_message(QueueUrl=subscribed.url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        came += texts_in(answer)
        if len(came) == 3 and events:
            break
    assert sorted(came) == [f"order {at}" for at in range(4) if at != bad]
    assert [event.verdict for event in events] == [Verdict.UNPROTECTED]


def test_a_batch_arrives_whole(aws, subscribed):
    sealer = subscribed.sealer()
    entries = [{"Id": str(at), "Message": f"order {at}"} for at in range(10)]
    answer = protect(aws.sns(), sealer).publish_batch(
        TopicArn=subscribed.arn, PublishBatchRequestEntries=entries
    )
    assert len(answer["Successful"]) == 10
    assert receive(aws, sealer, subscribed.url, 10) == [f"order {at}" for at in range(10)]


def test_an_absent_key_service_loses_nothing(aws, subscribed):
    """B14."""
    keys = FakeKeys()
    sealer = subscribed.sealer(keys)
    protect(aws.sns(), sealer).publish(TopicArn=subscribed.arn, Message=CLEAR)
    late = subscribed.sealer(keys)
    keys.unavailable.set()
    client = protect(aws.sqs(), late, come_again_after=0, sleep=lambda _: None)
    assert texts_in(client.receive_message(QueueUrl=subscribed.url, WaitTimeSeconds=5)) == []
    keys.unavailable.clear()
    assert receive(aws, late, subscribed.url, 1) == [CLEAR]


def test_a_data_key_of_the_topic_opens_at_its_queue(aws, kms, subscribed):
    """D3: the key service's context names the topic; a consumer of the queue asks for just that."""
    key = kms.create_key()["KeyMetadata"]["Arn"]
    protect(aws.sns(), subscribed.sealer(AwsKms(aws.kms(), key))).publish(
        TopicArn=subscribed.arn, Message=CLEAR
    )
    assert receive(aws, subscribed.sealer(AwsKms(aws.kms(), key)), subscribed.url, 1) == [CLEAR]


def test_a_fifo_topic_keeps_order_and_deduplicates(aws, fresh):
    subscribed = Subscribed(aws, fresh, raw=True, suffix=".fifo")
    sealer = subscribed.sealer(bind_ordering_key=True)
    sns = protect(aws.sns(), sealer)
    for text in ("ordered", "paid", "paid", "shipped"):
        sns.publish(TopicArn=subscribed.arn, Message=text, MessageGroupId="north")
    client = protect(aws.sqs(), sealer, sleep=lambda _: None)
    came = []
    for _ in range(20):
        answer = client.receive_message(QueueUrl=subscribed.url, WaitTimeSeconds=1)
        for message in answer.get("Messages", ()):
            came.append(message["Body"])
            client.delete_message(QueueUrl=subscribed.url, ReceiptHandle=message["ReceiptHandle"])
        if len(came) >= 3:
            break
    assert came == ["ordered", "paid", "shipped"]


def test_with_aiobotocore_too(aws, aio, subscribed):
    sealer = subscribed.sealer()
    sns, sqs = protect(aio.client("sns"), sealer), protect(aio.client("sqs"), sealer, sleep=asyncio.sleep)

    async def use():
        await asyncio.gather(
            *(sns.publish(TopicArn=subscribed.arn, Message=f"order {at}") for at in range(3)),
            sns.publish_batch(
                TopicArn=subscribed.arn, PublishBatchRequestEntries=[{"Id": "1", "Message": "order 3"}]
            ),
        )
        came = []
        for _ in range(20):
            answer = await sqs.receive_message(
                QueueUrl=subscribed.url, MaxNumberOfMessages=10, WaitTimeSeconds=1
            )
            came += texts_in(answer)
            if len(came) >= 4:
                break
        return sorted(came)

    assert aio.run(use()) == [f"order {at}" for at in range(4)]
