"""A queue: one message, a list, a batch that is filled until it is full; received as a list and by iteration.

SERVICEBUS_CONNECTION_STRING=... python queue.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage


def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("single"))
        sender.send_messages([ServiceBusMessage(f"list {number}") for number in range(3)])
        batch = sender.create_message_batch()
        for number in range(3):
            try:
                batch.add_message(ServiceBusMessage(f"batch {number}"))
            except ValueError:  # the batch is full
                sender.send_messages(batch)
                batch = sender.create_message_batch()
                batch.add_message(ServiceBusMessage(f"batch {number}"))
        sender.send_messages(batch)

    with client.get_queue_receiver(queue) as receiver:
        for message in receiver.receive_messages(max_message_count=2, max_wait_time=5):
            seen.append(str(message))
            receiver.complete_message(message)
    with client.get_queue_receiver(queue, max_wait_time=1) as receiver:
        for message in receiver:
            seen.append(str(message))
            receiver.complete_message(message)
    return sorted(seen)


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
