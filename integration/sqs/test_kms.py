"""SQS and KMS together: the whole way, as a program goes it."""

import pytest

from postseal.core import AwsKms, KeyRefused, Policy, Sealer, Verdict
from postseal.sqs import protect

CLEAR = "4111 1111 1111 1111"


@pytest.fixture
def calls():
    """The operations that KMS was asked for."""
    return []


@pytest.fixture
def kms_for(aws, calls):
    """Make KMS clients of their own, and note what they ask."""

    def make():
        client = aws.kms()
        client.meta.events.register(
            "before-send.kms", lambda event_name, **_: calls.append(event_name.rpartition(".")[2])
        )
        return client

    return make


@pytest.fixture
def key(kms):
    return kms.create_key()["KeyMetadata"]["Arn"]


@pytest.fixture
def queue(sqs, fresh):
    """Name and URL of a queue."""
    name = fresh("orders")
    return name, sqs.create_queue(QueueName=name)["QueueUrl"]


def sealer(name, events, **keys):
    policy = Policy(name="orders", destinations=[f"sqs:{name}"], keys=list(keys), on_refused="dead-letter")
    return Sealer(sender="shop", policies=[policy], keys=keys, on_audit=events.append)


def receive(client, url, count, **options):
    bodies = []
    for _ in range(20):
        answer = client.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1, **options)
        bodies += [message["Body"] for message in answer.get("Messages", ())]
        if len(bodies) >= count:
            break
    return sorted(bodies)


def test_fifty_messages_cost_two_calls(aws, queue, key, kms_for, calls):
    """D3, D4: one data key made, one unwrapped, however many messages."""
    name, url = queue
    producer = protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key)))
    consumer = protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key)))
    for batch in range(5):
        entries = [{"Id": str(n), "MessageBody": f"order {batch}{n}"} for n in range(10)]
        assert len(producer.send_message_batch(QueueUrl=url, Entries=entries)["Successful"]) == 10
    assert receive(consumer, url, 50) == [f"order {batch}{n}" for batch in range(5) for n in range(10)]
    assert calls == ["GenerateDataKey", "Decrypt"]


def test_either_of_two_recipients_opens_alone(aws, kms, queue, key, kms_for):
    """A5: one ciphertext, two wrapped keys; who has neither does not open it."""
    name, url = queue
    other, third = (kms.create_key()["KeyMetadata"]["Arn"] for _ in range(2))
    both = {"main": AwsKms(kms_for(), key), "second": AwsKms(kms_for(), other)}
    protect(aws.sqs(), sealer(name, [], **both)).send_message(QueueUrl=url, MessageBody=CLEAR)
    for arn in (key, other):
        consumer = protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), arn)))
        assert receive(consumer, url, 1, VisibilityTimeout=0) == [CLEAR]
    events = []
    stranger = protect(aws.sqs(), sealer(name, events, main=AwsKms(kms_for(), third)))
    assert "Messages" not in stranger.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert [event.verdict for event in events] == [Verdict.UNKNOWN_KEY]


def test_a_disabled_key_neither_seals_nor_opens_and_loses_nothing(aws, kms, queue, key, kms_for):
    """The message stays on its queue, and opens when the key is enabled again."""
    if aws.flavour == "moto":
        pytest.skip("moto cannot disable a key")
    name, url = queue
    protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key))).send_message(
        QueueUrl=url, MessageBody=CLEAR
    )
    kms.disable_key(KeyId=key)
    with pytest.raises(KeyRefused):
        protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key))).send_message(
            QueueUrl=url, MessageBody="never sent"
        )
    events = []
    consumer = protect(aws.sqs(), sealer(name, events, main=AwsKms(kms_for(), key)))
    answer = consumer.receive_message(QueueUrl=url, WaitTimeSeconds=1, VisibilityTimeout=0)
    assert "Messages" not in answer
    assert [event.verdict for event in events] == [Verdict.UNKNOWN_KEY]
    kms.enable_key(KeyId=key)
    late = protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key)))
    assert receive(late, url, 1) == [CLEAR]


def test_an_absent_kms_gives_messages_back(aws, queue, key, kms_for):
    """B14: nothing listens where KMS was; the message comes again, and opens when it does."""
    import boto3
    from botocore.config import Config

    name, url = queue
    protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key))).send_message(
        QueueUrl=url, MessageBody=CLEAR
    )
    options = {
        **aws._options("http://127.0.0.1:9"),
        "config": Config(retries={"total_max_attempts": 1}, connect_timeout=1, read_timeout=1),
    }
    events = []
    absent = sealer(name, events, main=AwsKms(boto3.client("kms", **options), key))
    consumer = protect(aws.sqs(), absent, come_again_after=0, sleep=lambda _: None)
    assert "Messages" not in consumer.receive_message(QueueUrl=url, WaitTimeSeconds=1)
    assert events == []
    late = protect(aws.sqs(), sealer(name, [], main=AwsKms(kms_for(), key)))
    assert receive(late, url, 1) == [CLEAR]
