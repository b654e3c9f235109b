"""A message that fails goes to the dead-letter queue, is looked at there, and sent back.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python dead_letters.py
"""

import json
from typing import Any

import boto3


def run(sqs: Any, name: str) -> list[Any]:
    dead = sqs.create_queue(QueueName=f"{name}-dlq")["QueueUrl"]
    answer = sqs.get_queue_attributes(QueueUrl=dead, AttributeNames=["QueueArn"])
    redrive = {"deadLetterTargetArn": answer["Attributes"]["QueueArn"], "maxReceiveCount": "2"}
    url = sqs.create_queue(QueueName=name, Attributes={"RedrivePolicy": json.dumps(redrive)})["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="poison")
    seen: list[Any] = []

    def receive(queue: str, **options: int) -> list[str]:
        messages = sqs.receive_message(QueueUrl=queue, WaitTimeSeconds=1, **options).get("Messages", [])
        seen.extend((queue.rpartition("/")[2].removeprefix(name), message["Body"]) for message in messages)
        return [message["ReceiptHandle"] for message in messages]

    for _ in range(3):  # fails twice, and is gone the third time
        receive(url, VisibilityTimeout=0)
    handles: list[str] = []
    while not handles:
        handles = receive(dead)
    # Mended: back it goes.
    sqs.send_message(QueueUrl=url, MessageBody=seen[-1][1])
    sqs.delete_message(QueueUrl=dead, ReceiptHandle=handles[0])
    receive(url)
    return seen


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), "example-dead-letters"), sep="\n")
