"""asyncio: a task that produces and a task that consumes, on one client of aiobotocore.

AWS_ENDPOINT_URL=http://127.0.0.1:5000 python aio_tasks.py
"""

import asyncio
from typing import Any

from aiobotocore.session import get_session

COUNT = 10


async def produce(sqs: Any, url: str) -> None:
    for number in range(COUNT):
        await sqs.send_message(QueueUrl=url, MessageBody=f"this is message #{number}")
        await asyncio.sleep(0.01)


async def consume(sqs: Any, url: str, seen: list[Any]) -> None:
    while len(seen) < COUNT:
        answer = await sqs.receive_message(QueueUrl=url, MaxNumberOfMessages=10, WaitTimeSeconds=1)
        for message in answer.get("Messages", []):
            seen.append(message["Body"])
            await sqs.delete_message(QueueUrl=url, ReceiptHandle=message["ReceiptHandle"])


async def run(sqs: Any, name: str) -> list[Any]:
    url = (await sqs.create_queue(QueueName=name))["QueueUrl"]
    seen: list[Any] = []
    await asyncio.gather(produce(sqs, url), consume(sqs, url, seen))
    return sorted(seen)


async def main() -> None:
    async with get_session().create_client("sqs") as sqs:
        print(*await run(sqs, "example-aio-tasks"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
