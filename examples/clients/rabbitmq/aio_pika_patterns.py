"""aio-pika: its own patterns, remote procedures and a master with workers.

AMQP_URL=amqp://guest:guest@127.0.0.1/ python aio_pika_patterns.py
"""

import asyncio
import os
from typing import Any

import aio_pika
from aio_pika.patterns import RPC, Master


async def multiply(*, x: int, y: int) -> int:
    return x * y


async def run(connection: Any, name: str) -> list[Any]:
    seen: list[Any] = []
    async with connection.channel() as channel:
        rpc = await RPC.create(channel)
        await rpc.register(f"{name}-multiply", multiply, auto_delete=True)
        seen += [await rpc.call(f"{name}-multiply", {"x": 100, "y": number}) for number in range(3)]
        await rpc.close()

    tasks: asyncio.Queue[int] = asyncio.Queue()

    async def work(*, task_id: int) -> None:
        await tasks.put(task_id)

    async with connection.channel() as channel:
        master = Master(channel)
        worker = await master.create_worker(f"{name}-tasks", work, auto_delete=True)
        for task_id in range(3):
            await master.create_task(f"{name}-tasks", {"task_id": task_id})
        seen.append([await tasks.get() for _ in range(3)])
        await worker.close()
    return seen


async def main() -> None:
    async with await aio_pika.connect_robust(
        os.environ.get("AMQP_URL", "amqp://guest:guest@127.0.0.1/")
    ) as connection:
        print(*await run(connection, "example-patterns"), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
