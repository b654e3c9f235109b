"""aio-pika: a robust connection, a publisher, and a consumer that iterates over its queue until it is told to end.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_iterator.py
"""

import asyncio
import os
from typing import Any

import aio_pika


async def run(connection: Any, name: str) -> list[Any]:
    seen: list[Any] = []
    async with connection.channel() as channel:
        await channel.set_qos(prefetch_count=10)
        queue = await channel.declare_queue(name, auto_delete=True)
        for text in ("one", "two", "end"):
            await channel.default_exchange.publish(aio_pika.Message(text.encode()), routing_key=name)

        async with queue.iterator() as messages:
            async for message in messages:
                async with message.process():
                    seen.append(message.body.decode())
                    if seen[-1] == "end":
                        break
    return seen


async def main() -> None:
    async with await aio_pika.connect_robust(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-iterator"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
