"""A message that is worked on is hidden; given back, it comes again, and says how often it came.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python visibility.py
"""

from typing import Any

import boto3


def run(sqs: Any, name: str) -> list[Any]:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    sqs.send_message(QueueUrl=url, MessageBody="work")
    seen: list[Any] = []

    names = {"MessageSystemAttributeNames": ["ApproximateReceiveCount"]}
    [message] = sqs.receive_message(QueueUrl=url, VisibilityTimeout=60, WaitTimeSeconds=5, **names)[
        "Messages"
    ]
    seen.append((message["Body"], message["Attributes"]))
    seen.append(sqs.receive_message(QueueUrl=url).get("Messages", []))

    handle = message["ReceiptHandle"]
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=3600)
    sqs.change_message_visibility(QueueUrl=url, ReceiptHandle=handle, VisibilityTimeout=0)
    [message] = sqs.receive_message(QueueUrl=url, WaitTimeSeconds=5, **names)["Messages"]
    seen.append((message["Body"], message["Attributes"]))
    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return seen


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), "example-visibility"), sep="\n")
