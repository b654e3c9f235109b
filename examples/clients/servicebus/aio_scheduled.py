"""Messages for later, by asyncio: scheduled, one of them cancelled before its time.

SERVICEBUS_CONNECTION_STRING=... python aio_scheduled.py orders
"""

import asyncio
import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient


async def run(client: Any, queue: str) -> list[Any]:
    async with client.get_queue_sender(queue) as sender:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        [cancelled] = await sender.schedule_messages(
            ServiceBusMessage("cancelled"), soon + timedelta(hours=1)
        )
        numbers = await sender.schedule_messages(
            [ServiceBusMessage("first"), ServiceBusMessage("second")], soon
        )
        await sender.cancel_scheduled_messages(cancelled)
    seen: list[Any] = [len(numbers)]
    async with client.get_queue_receiver(queue, max_wait_time=30) as receiver:
        async for message in receiver:
            seen.append(str(message))
            await receiver.complete_message(message)
            if len(seen) > len(numbers):
                break
    return seen


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
