"""aio-pika: publish a message, and get it.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_publish_and_get.py
"""

import asyncio
import os
from typing import Any

import aio_pika


async def run(connection: Any, name: str) -> list[Any]:
    channel = await connection.channel()
    exchange = await channel.declare_exchange(f"{name}-direct", auto_delete=True)
    queue = await channel.declare_queue(name, auto_delete=True)
    await queue.bind(exchange, "test_queue")

    await exchange.publish(
        aio_pika.Message("Hello, Wörld".encode(), content_type="text/plain", headers={"foo": "bar"}),
        routing_key="test_queue",
    )
    message = await queue.get(timeout=5)
    await message.ack()
    seen = [message.body.decode(), message.content_type, message.headers["foo"], message.routing_key]

    await queue.unbind(exchange, "test_queue")
    await queue.delete()
    return seen


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-publish-and-get"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
