"""A FIFO queue: order within a group, and equal bodies once, whether by an id of one's own or by content.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python fifo.py
"""

from typing import Any

import boto3

DIFFERENT = 7
"""Bodies that are not told a second time."""


def run(sqs: Any, name: str) -> list[Any]:
    attributes = {"FifoQueue": "true", "ContentBasedDeduplication": "true"}
    url = sqs.create_queue(QueueName=f"{name}.fifo", Attributes=attributes)["QueueUrl"]
    for customer in ("north", "south"):
        for step in ("ordered", "paid", "paid", "shipped"):
            sqs.send_message(QueueUrl=url, MessageBody=f"{customer}: {step}", MessageGroupId=customer)
    own = {"MessageGroupId": "north", "MessageDeduplicationId": "id-of-our-own"}
    sqs.send_message(QueueUrl=url, MessageBody="north: sent back", **own)
    sqs.send_message(QueueUrl=url, MessageBody="north: sent back, again", **own)

    seen: dict[str, list[str]] = {"north": [], "south": []}
    while sum(map(len, seen.values())) < DIFFERENT:
        answer = sqs.receive_message(
            QueueUrl=url,
            MaxNumberOfMessages=10,
            WaitTimeSeconds=1,
            MessageSystemAttributeNames=["MessageGroupId"],
        )
        for message in answer.get("Messages", []):
            seen[message["Attributes"]["MessageGroupId"]].append(message["Body"])
            sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [*seen.items(), sqs.receive_message(QueueUrl=url).get("Messages", [])]


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), "example-fifo"), sep="\n")
