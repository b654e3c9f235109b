"""Sessions: messages that belong together, the next session that is free, and a state that outlives the receiver.

SERVICEBUS_CONNECTION_STRING=... python sessions.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import NEXT_AVAILABLE_SESSION, ServiceBusClient, ServiceBusMessage


def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_queue_sender(queue) as sender:
        for number in range(3):
            sender.send_messages(ServiceBusMessage(f"step {number}", session_id="order-4711"))

    with client.get_queue_receiver(queue, session_id=NEXT_AVAILABLE_SESSION, max_wait_time=5) as receiver:
        session = receiver.session
        seen.append((session.session_id, session.get_state()))
        message = next(receiver)
        seen.append((message.session_id, str(message)))
        session.set_state(f"done: {message}")
        session.renew_lock()
        receiver.complete_message(message)

    with client.get_queue_receiver(queue, session_id="order-4711", max_wait_time=1) as receiver:
        seen.append(receiver.session.get_state())
        for message in receiver:
            seen.append((message.session_id, str(message)))
            receiver.complete_message(message)
        receiver.session.set_state(None)
        seen.append(receiver.session.get_state())
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
