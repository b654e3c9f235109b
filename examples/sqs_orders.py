"""Orders through SQS, sealed: what the application sends, what the queue holds, what the consumer gets; and a forged one.

    pip install 'postseal[sqs]' 'moto[sqs]'
    python examples/sqs_orders.py

It runs against an SQS in this process (moto), so it needs no account. Take `mock_aws` away, and it runs against yours.
"""

import logging
import os
import warnings

import boto3
from moto import mock_aws

from postseal.core import AuditEvent, Policy, Sealer, UnsafeLocalKeys
from postseal.sqs import protect

ORDER = '{"order": 4711, "card": "4111 1111 1111 1111"}'


def audit(event: AuditEvent) -> None:
    print(f"  audit       {event.verdict}: {event.detail} ({event.destination}, {dict(event.coordinates)})")


def main() -> None:
    orders = Policy(
        name="orders",
        destinations=["sqs:orders"],
        keys=["main"],
        bind_headers=["tenant"],
        on_refused="quarantine",
        quarantine="sqs:refused",
    )
    # In production: AwsKms(boto3.client("kms"), "arn:aws:kms:...").
    keys = {"main": UnsafeLocalKeys.ephemeral()}
    sealer = Sealer(sender="shop", policies=[orders], keys=keys, on_audit=audit)

    attacker = boto3.client("sqs")
    sqs = protect(boto3.client("sqs"), sealer)  # the one line
    url = sqs.create_queue(QueueName="orders")["QueueUrl"]
    refused = sqs.create_queue(QueueName="refused")["QueueUrl"]

    tenant = {"tenant": {"DataType": "String", "StringValue": "north"}}
    print(f"sent          {ORDER}")
    sqs.send_message(QueueUrl=url, MessageBody=ORDER, MessageAttributes=tenant)
    [held] = attacker.receive_message(QueueUrl=url, VisibilityTimeout=0)["Messages"]
    print(f"queue holds   {held['Body'][:60]}... ({len(held['Body'])} bytes)")

    other = {"tenant": {"DataType": "String", "StringValue": "south"}}
    attacker.send_message(QueueUrl=url, MessageBody=held["Body"], MessageAttributes=other)
    attacker.send_message(QueueUrl=url, MessageBody='{"order": 666}')
    print("injected      the same order for another tenant, and one in clear")

    answer = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10)
    for message in answer["Messages"]:
        print(f"consumer gets {message['Body']}")
        sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])

    names = ["postseal-verdict"]
    for message in attacker.receive_message(
        QueueUrl=refused, MaxNumberOfMessages=10, MessageAttributeNames=names
    )["Messages"]:
        verdict = message["MessageAttributes"]["postseal-verdict"]["StringValue"]
        print(f"quarantined   {verdict}: {message['Body'][:40]}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    os.environ.setdefault("AWS_DEFAULT_REGION", "eu-west-1")
    with mock_aws():
        main()
