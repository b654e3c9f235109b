"""aio-pika: tasks that outlive the broker, handed to whichever worker is free; one that fails is given to another.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_work_queue.py
"""

import asyncio
import os
from typing import Any

import aio_pika
from aio_pika.abc import AbstractIncomingMessage

TASKS = [f"task {number}{'.' * number}" for number in range(6)]


async def run(connection: Any, name: str) -> list[Any]:
    done: list[str] = []
    all_done = asyncio.Event()

    async def work(message: AbstractIncomingMessage) -> None:
        async with message.process(requeue=True, ignore_processed=True):
            text = message.body.decode()
            if text == TASKS[2] and not message.redelivered:
                await message.reject(requeue=True)
                return
            done.append(text)
            if len(done) == len(TASKS):
                all_done.set()

    async with connection.channel() as channel:
        await channel.declare_queue(name, durable=True)
        for text in TASKS:
            message = aio_pika.Message(text.encode(), delivery_mode=aio_pika.DeliveryMode.PERSISTENT)
            await channel.default_exchange.publish(message, routing_key=name)

    workers = [await connection.channel() for _ in range(2)]
    for worker in workers:
        await worker.set_qos(prefetch_count=1)
        await (await worker.declare_queue(name, durable=True)).consume(work)
    await all_done.wait()
    for worker in workers:
        await worker.close()
    async with connection.channel() as channel:
        await channel.queue_delete(name)
    return sorted(done)


async def main() -> None:
    async with await aio_pika.connect_robust(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-work-queue"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
