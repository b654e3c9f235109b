"""By asyncio: a message put aside with a reason, one put off and taken up by its number, one only looked at.

SERVICEBUS_CONNECTION_STRING=... python aio_dead_letters_and_deferred.py orders
"""

import asyncio
import os
import sys
from typing import Any

from azure.servicebus import ServiceBusMessage, ServiceBusSubQueue
from azure.servicebus.aio import ServiceBusClient


async def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    async with client.get_queue_sender(queue) as sender:
        await sender.send_messages([ServiceBusMessage("no stock"), ServiceBusMessage("later")])
    async with client.get_queue_receiver(queue, max_wait_time=5) as receiver:
        seen += [str(message) for message in await receiver.peek_messages(2)]
        await receiver.dead_letter_message(await anext(receiver), reason="stock", error_description="none")
        later = await anext(receiver)
        await receiver.defer_message(later)
        for message in await receiver.receive_deferred_messages(later.sequence_number):
            seen.append(str(message))
            await receiver.complete_message(message)
    letters = client.get_queue_receiver(queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER, max_wait_time=5)
    async with letters:
        letter = await anext(letters)
        seen.append((str(letter), letter.dead_letter_reason, letter.dead_letter_error_description))
        await letters.complete_message(letter)
    return seen


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
