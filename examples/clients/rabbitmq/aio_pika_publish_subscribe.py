"""aio-pika: what is published to a fanout exchange reaches every subscriber, each with a queue of its own.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_publish_subscribe.py
"""

import asyncio
import os
from typing import Any

import aio_pika


async def run(connection: Any, name: str) -> list[Any]:
    channel = await connection.channel()
    logs = await channel.declare_exchange(name, aio_pika.ExchangeType.FANOUT)
    subscribers = [await channel.declare_queue(exclusive=True) for _ in range(2)]
    for queue in subscribers:
        await queue.bind(logs)

    for text in ("info: started", "error: disk full"):
        await logs.publish(aio_pika.Message(text.encode()), routing_key="info")
    seen = [[(await queue.get(no_ack=True)).body.decode() for _ in range(2)] for queue in subscribers]
    await logs.delete()
    return seen


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-publish-subscribe"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
