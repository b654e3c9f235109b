"""Dead letters: a message that cannot be processed is put aside with a reason, found there, and sent again.

SERVICEBUS_CONNECTION_STRING=... python dead_letters.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage, ServiceBusSubQueue


def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(ServiceBusMessage("no stock", content_type="text/plain"))
        with client.get_queue_receiver(queue, max_wait_time=5) as receiver:
            message = next(receiver)
            receiver.dead_letter_message(message, reason="stock", error_description="there is none")
        with client.get_queue_receiver(
            queue, sub_queue=ServiceBusSubQueue.DEAD_LETTER, max_wait_time=5
        ) as letters:
            letter = next(letters)
            seen.append((str(letter), letter.dead_letter_reason, letter.dead_letter_error_description))
            sender.send_messages(ServiceBusMessage(b"".join(letter.body), content_type=letter.content_type))
            letters.complete_message(letter)
    with client.get_queue_receiver(queue, max_wait_time=5) as receiver:
        message = next(receiver)
        seen.append((str(message), message.content_type, message.dead_letter_reason))
        receiver.complete_message(message)
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
