"""Ten messages in one call, received and deleted in batches; one entry is wrong and does not cost the others.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python batches.py
"""

from typing import Any

import boto3

MOST = 10
"""Entries of one call. Source: Amazon SQS API, DeleteMessageBatch."""


def run(sqs: Any, name: str) -> list[Any]:
    url = sqs.create_queue(QueueName=name)["QueueUrl"]
    entries = [{"Id": f"line-{n}", "MessageBody": f"line {n} of the file\n"} for n in range(MOST)]
    answer = sqs.send_message_batch(QueueUrl=url, Entries=entries)
    seen: list[Any] = [sorted((e["Id"], e["MD5OfMessageBody"]) for e in answer["Successful"])]

    bodies: list[str] = []
    while len(bodies) < len(entries):
        messages = sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=MOST, WaitTimeSeconds=1).get(
            "Messages", []
        )
        bodies += [message["Body"] for message in messages]
        done = [{"Id": str(n), "ReceiptHandle": m["ReceiptHandle"]} for n, m in enumerate(messages)]
        # An entry that is wrong fails alone.
        answer = sqs.delete_message_batch(
            QueueUrl=url, Entries=[*done[: MOST - 1], {"Id": "wrong", "ReceiptHandle": "x"}]
        )
        seen.append([failed["Id"] for failed in answer.get("Failed", [])])
        if len(done) == MOST:
            sqs.delete_message_batch(QueueUrl=url, Entries=done[MOST - 1 :])
    return [seen[0], all(failed == ["wrong"] for failed in seen[1:]), sorted(bodies)]


if __name__ == "__main__":
    print(*run(boto3.client("sqs"), "example-batches"), sep="\n")
