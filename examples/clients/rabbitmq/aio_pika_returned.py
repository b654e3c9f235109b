"""aio-pika: a message that reaches no queue comes back; one that a full queue does not take is refused.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_returned.py
"""

import asyncio
import os
from typing import Any

import aio_pika
from aio_pika.exceptions import DeliveryError


async def run(connection: Any, name: str) -> list[Any]:
    seen: list[Any] = []
    channel = await connection.channel()
    channel.return_callbacks.add(lambda _, message: seen.append(f"came back: {message.body.decode()}"))
    answer = await channel.default_exchange.publish(
        aio_pika.Message(b"to nobody"), routing_key=f"{name}-missing"
    )
    seen.append(answer.body.decode())

    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    queue = await channel.declare_queue(name, auto_delete=True, arguments=arguments)
    for text in ("first", "second", "third"):
        try:
            await channel.default_exchange.publish(aio_pika.Message(text.encode()), routing_key=name)
            seen.append(f"taken: {text}")
        except DeliveryError:
            seen.append(f"refused: {text}")
    seen.append((await queue.get(no_ack=True)).body.decode())
    await queue.delete()
    return seen


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-returned"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
