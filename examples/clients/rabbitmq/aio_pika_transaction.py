"""aio-pika: several messages that reach their queue together, or not at all.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_transaction.py
"""

import asyncio
import os
from typing import Any

import aio_pika


async def run(connection: Any, name: str) -> list[Any]:
    async with connection.channel(publisher_confirms=False) as channel:
        queue = await channel.declare_queue(name, durable=True)
        exchange = channel.default_exchange

        async with channel.transaction():
            for text in ("one", "two"):
                await exchange.publish(aio_pika.Message(text.encode()), routing_key=name)

        transaction = channel.transaction()
        await transaction.select()
        await exchange.publish(aio_pika.Message(b"never"), routing_key=name)
        await transaction.rollback()

        seen = []
        while (message := await queue.get(no_ack=True, fail=False)) is not None:
            seen.append(message.body.decode())
        await queue.delete(if_unused=False, if_empty=False)
        return seen


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-transaction"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
