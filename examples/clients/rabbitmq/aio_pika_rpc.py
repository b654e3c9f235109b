"""aio-pika: a client that calls, a server that answers to the queue that the caller names.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_rpc.py
"""

import asyncio
import os
import uuid
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage


def fibonacci(n: int) -> int:
    return n if n in (0, 1) else fibonacci(n - 1) + fibonacci(n - 2)


class Client:
    def __init__(self) -> None:
        self._calls: dict[str | None, asyncio.Future[bytes]] = {}

    async def connect(self, connection: Any) -> None:
        self._channel = await connection.channel()
        self._answers = await self._channel.declare_queue(exclusive=True)
        await self._answers.consume(self._on_answer, no_ack=True)

    async def _on_answer(self, message: AbstractIncomingMessage) -> None:
        self._calls.pop(message.correlation_id).set_result(message.body)

    async def call(self, queue: str, number: int) -> int:
        correlation_id = str(uuid.uuid4())
        answer = self._calls[correlation_id] = asyncio.get_running_loop().create_future()
        message = aio_pika.Message(
            str(number).encode(),
            content_type="text/plain",
            correlation_id=correlation_id,
            reply_to=self._answers.name,
        )
        await self._channel.default_exchange.publish(message, routing_key=queue)
        return int(await answer)


async def run(connection: Any, name: str) -> list[Any]:
    channel = await connection.channel()
    calls = await channel.declare_queue(name, auto_delete=True)

    async def answer(message: AbstractIncomingMessage) -> None:
        async with message.process(requeue=False):
            result = str(fibonacci(int(message.body))).encode()
            reply = aio_pika.Message(result, correlation_id=message.correlation_id)
            await channel.default_exchange.publish(reply, routing_key=message.reply_to or "")

    await calls.consume(answer)
    client = Client()
    await client.connect(connection)
    return list(await asyncio.gather(*(client.call(name, number) for number in range(10))))


async def main() -> None:
    async with await aio_pika.connect(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-rpc"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
