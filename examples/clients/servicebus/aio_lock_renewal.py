"""A lock that is kept while a message is worked on, by asyncio; and messages that are received and deleted.

SERVICEBUS_CONNECTION_STRING=... python aio_lock_renewal.py orders
"""

import asyncio
import os
import sys
from typing import Any

from azure.servicebus import ServiceBusMessage, ServiceBusReceiveMode
from azure.servicebus.aio import AutoLockRenewer, ServiceBusClient


async def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage(f"message {number}") for number in range(3)])
    async with AutoLockRenewer() as renewer, client.get_queue_receiver(queue, max_wait_time=5) as receiver:
        message = await anext(receiver)
        renewer.register(receiver, message, max_lock_renewal_duration=60)
        seen.append((str(message), message.auto_renew_error))
        await receiver.complete_message(message)
        message = await anext(receiver)
        before = message.locked_until_utc
        seen.append((str(message), await receiver.renew_message_lock(message) >= before))
        await receiver.complete_message(message)
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    async with client.get_queue_receiver(queue, receive_mode=mode, max_wait_time=1) as receiver:
        seen += [str(message) async for message in receiver]
    return seen


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
