"""A topic and its subscription, by asyncio; a message that is abandoned comes again.

SERVICEBUS_CONNECTION_STRING=... python aio_topic.py orders all
"""

import asyncio
import os
import sys
from typing import Any

from azure.servicebus import ServiceBusMessage
from azure.servicebus.aio import ServiceBusClient


async def run(client: Any, topic: str, subscription: str) -> list[Any]:
    seen: list[Any] = []
    async with client.get_topic_sender(topic) as sender:
        await sender.send_messages(ServiceBusMessage("to all", subject="news"))
    async with client.get_subscription_receiver(topic, subscription, max_wait_time=5) as receiver:
        first = await anext(receiver)
        seen.append((str(first), first.subject, first.delivery_count))
        await receiver.abandon_message(first)
        again = await anext(receiver)
        seen.append((str(again), again.subject, again.delivery_count))
        await receiver.complete_message(again)
    return seen


async def main() -> None:
    async with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*await run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    asyncio.run(main())
