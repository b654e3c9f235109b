"""The resource API: a queue by its name, messages as objects, an attribute that says whom to greet.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python resource.py
"""

from typing import Any

import boto3

GUESTS = 3


def run(sqs: Any, name: str) -> list[Any]:
    sqs.create_queue(QueueName=name)
    queue = sqs.get_queue_by_name(QueueName=name)
    queue.send_message(MessageBody="boto3")
    author = {"Author": {"StringValue": "Daniel", "DataType": "String"}}
    answer = queue.send_messages(
        Entries=[
            {"Id": "1", "MessageBody": "world"},
            {"Id": "2", "MessageBody": "boto3", "MessageAttributes": author},
        ]
    )
    seen: list[Any] = [sorted(entry["Id"] for entry in answer["Successful"])]

    greetings: list[Any] = []
    while len(greetings) < GUESTS:
        for message in queue.receive_messages(
            MessageAttributeNames=["Author"], MaxNumberOfMessages=10, WaitTimeSeconds=1
        ):
            who = ""
            if message.message_attributes is not None:
                who = message.message_attributes.get("Author").get("StringValue")
            greetings.append((f"Hello, {message.body}! {who}".strip(), message.md5_of_body))
            message.delete()
    return seen + sorted(greetings)


if __name__ == "__main__":
    print(*run(boto3.resource("sqs"), "example-resource"), sep="\n")
