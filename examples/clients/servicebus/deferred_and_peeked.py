"""Messages put off and taken up by their number; messages looked at and left.

SERVICEBUS_CONNECTION_STRING=... python deferred_and_peeked.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage


def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(f"message {number}") for number in range(4)])
    with client.get_queue_receiver(queue, max_wait_time=1) as receiver:
        seen.append([str(message) for message in receiver.peek_messages(max_message_count=2)])
        seen.append([str(message) for message in receiver.peek_messages(10, sequence_number=3)])
        deferred = []
        for message in receiver:
            deferred.append(message.sequence_number)
            receiver.defer_message(message)
        for message in receiver.receive_deferred_messages(deferred):
            seen.append((message.sequence_number, str(message)))
            receiver.complete_message(message)
        seen.append(receiver.peek_messages())
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
