"""Messages that are gone from the queue as soon as they were received.

SERVICEBUS_CONNECTION_STRING=... python receive_and_delete.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusReceiveMode


def run(client: Any, queue: str) -> list[Any]:
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage(f"message {number}") for number in range(3)])
    mode = ServiceBusReceiveMode.RECEIVE_AND_DELETE
    with client.get_queue_receiver(queue, receive_mode=mode, max_wait_time=1) as receiver:
        return [(str(message), message.lock_token) for message in receiver]


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
