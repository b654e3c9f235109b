"""A queue, by asyncio: one message, a list, a batch; received as a list and by iteration.

SERVICEBUS_CONNECTION_STRING=... python aio_queue.py orders
"""

import asyncio
import os
import sys
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient


async def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages(ServiceBusMessage("single"))
        await sender.send_messages([ServiceBusMessage(f"list {number}") for number in range(3)])
        batch = await sender.create_message_batch()
        for number in range(3):
            try:
                batch.add_message(ServiceBusMessage(f"batch {number}"))
            except ValueError:  # the batch is full
                await sender.send_messages(batch)
                batch = await sender.create_message_batch()
                batch.add_message(ServiceBusMessage(f"batch {number}"))
        await sender.send_messages(batch)

    async with client.get_queue_receiver(queue) as receiver:
        for message in await receiver.receive_messages(max_message_count=2, max_wait_time=5):
            seen.append(str(message))
            await receiver.complete_message(message)
    async with client.get_queue_receiver(queue, max_wait_time=1) as receiver:
        async for message in receiver:
            seen.append(str(message))
            await receiver.complete_message(message)
    return sorted(seen)


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
