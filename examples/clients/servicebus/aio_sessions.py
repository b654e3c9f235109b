"""Sessions, by asyncio: messages that belong together, the next session that is free, and its state.

SERVICEBUS_CONNECTION_STRING=... python aio_sessions.py orders
"""

import asyncio
import os
import sys
from typing import Any

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient


async def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    async with client.get_queue_sender(queue) as sender:
        for number in range(3):
            await sender.send_messages(ServiceBusMessage(f"step {number}", session_id="order-4711"))

    next_one = client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5)
    async with next_one as receiver:
        session = receiver.session
        seen.append((session.session_id, await session.get_state()))
        message = await anext(receiver)
        seen.append((message.session_id, str(message)))
        await session.set_state(f"done: {message}")
        await session.renew_lock()
        await receiver.complete_message(message)

    async with client.get_queue_receiver(queue, session_id="order-4711", max_wait_time=1) as receiver:
        seen.append(await receiver.session.get_state())
        async for message in receiver:
            seen.append((message.session_id, str(message)))
            await receiver.complete_message(message)
    return seen


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
