"""Orders through SQS: ``python sqs.py send``, then ``python sqs.py receive``. What protects them is the one hook line."""

import os
import sys

import boto3

from postseal.core import Sealer
from postseal.sqs import protect

ORDERS = [f'{{"order": {number}, "card": "4111 1111 1111 1111"}}' for number in range(3)]


def main(verb: str, queue: str = "orders") -> None:
    sqs = boto3.client("sqs")
    protect(sqs, Sealer.from_file(os.environ["POSTSEAL_POLICY"]))  # the hook line
    url = sqs.create_queue(QueueName=queue)["QueueUrl"]
    tenant = {"tenant": {"DataType": "String", "StringValue": "north"}}
    if verb == "send":
        for order in ORDERS:
            sqs.send_message(QueueUrl=url, MessageBody=order, MessageAttributes=tenant)
        return
    came = []
    while len(came) < len(ORDERS):
        answer = sqs.receive_message(QueueUrl=url, MessageAttributeNames=["tenant"], WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            came.append((message["MessageAttributes"]["tenant"]["StringValue"], message["Body"]))
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    print(*sorted(came), sep="\n")


if __name__ == "__main__":
    main(*sys.argv[1:])
