"""aio-pika: subscribers that choose by patterns of a topic exchange.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_topics.py
"""

import asyncio
import os
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

PATTERNS = {"all": "#", "kernel": "kern.*", "critical": "*.critical"}
KEYS = ["kern.critical", "kern.info", "auth.critical", "auth.info"]
EXPECTED = 8


async def run(connection: Any, name: str) -> list[Any]:
    seen: dict[str, list[str]] = {subscriber: [] for subscriber in PATTERNS}
    all_seen = asyncio.Event()
    channel = await connection.channel()
    topics = await channel.declare_exchange(name, aio_pika.ExchangeType.TOPIC)

    for subscriber, pattern in PATTERNS.items():

        async def note(message: AbstractIncomingMessage, subscriber: str = subscriber) -> None:
            async with message.process():
                seen[subscriber].append(f"{message.routing_key}: {message.body.decode()}")
                if sum(map(len, seen.values())) == EXPECTED:
                    all_seen.set()

        queue = await channel.declare_queue(exclusive=True)
        await queue.bind(topics, pattern)
        await queue.consume(note)

    for key in KEYS:
        await topics.publish(aio_pika.Message(f"a message about {key}".encode()), routing_key=key)
    await all_seen.wait()
    await topics.delete()
    return sorted(seen.items())


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-topics"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
