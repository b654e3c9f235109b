"""One message: sent, received by long polling, deleted.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python messages.py
"""

from typing import Any

import boto3


def run(sqs: Any, name: str) -> list[Any]:
    url = sqs.create_queue(QueueName=name, Attributes={"DelaySeconds": "0"})["QueueUrl"]
    seen: list[Any] = []

    answer = sqs.send_message(
        QueueUrl=url,
        MessageBody="Information about the current bestseller: Zoë, 漢字",
        MessageAttributes={
            "Title": {"DataType": "String", "StringValue": "The Whistler"},
            "WeeksOn": {"DataType": "Number", "StringValue": "6"},
        },
    )
    seen.append(("digest of what was sent", answer["MD5OfMessageBody"]))

    answer = sqs.receive_message(
        QueueUrl=url, MaxNumberOfMessages=1, MessageAttributeNames=["All"], WaitTimeSeconds=5
    )
    [message] = answer["Messages"]
    seen += [message["Body"], message["MD5OfBody"], message["MessageAttributes"], sorted(message)]

    sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    seen.append(sqs.receive_message(QueueUrl=url).get("Messages", []))
    return seen


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), "example-messages"), sep="\n")
