"""SNS fan-out: what is published to one topic arrives in two queues, raw in one, inside SNS's JSON in the other.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python fan_out.py
"""

import json
from typing import Any

import boto3

ENTRIES = 3


def run(sqs: Any, sns: Any, name: str) -> list[Any]:
    topic = sns.create_topic(Name=name)["TopicArn"]
    urls = {}
    for kind in ("raw", "wrapped"):
        urls[kind] = sqs.create_queue(QueueName=f"{name}-{kind}")["QueueUrl"]
        answer = sqs.get_queue_attributes(QueueUrl=urls[kind], AttributeNames=["QueueArn"])
        arn = answer["Attributes"]["QueueArn"]
        delivery = {"RawMessageDelivery": "true" if kind == "raw" else "false"}
        sns.subscribe(TopicArn=topic, Protocol="sqs", Endpoint=arn, Attributes=delivery)

    colour = {"colour": {"DataType": "String", "StringValue": "grün"}}
    sns.publish(TopicArn=topic, Message='an "order"', Subject="orders", MessageAttributes=colour)
    sns.publish_batch(
        TopicArn=topic,
        PublishBatchRequestEntries=[{"Id": str(n), "Message": f"entry {n}"} for n in range(ENTRIES)],
    )

    seen: dict[str, list[Any]] = {"raw": [], "wrapped": []}
    for kind, url in urls.items():
        while len(seen[kind]) < 1 + ENTRIES:
            options = {"MaxNumberOfMessages": 10, "WaitTimeSeconds": 1, "MessageAttributeNames": ["All"]}
            for message in sqs.receive_message(QueueUrl=url, **options).get("Messages", []):
                if kind == "raw":
                    seen[kind].append((message["Body"], str(message.get("MessageAttributes", {}))))
                else:
                    content = json.loads(message["Body"])
                    rest = (content.get("Subject"), str(content.get("MessageAttributes")), sorted(content))
                    seen[kind].append((content["Message"], *rest))
                sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])
    return [(kind, sorted(messages, key=str)) for kind, messages in seen.items()]


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), boto3.client("sns"), "example-fan-out"), sep="\n")
