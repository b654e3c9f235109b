"""A lock that is kept while a message is worked on: by an AutoLockRenewer, by the receiver, and by hand.

SERVICEBUS_CONNECTION_STRING=... python lock_renewal.py orders
"""

import os
import sys
from typing import Any

from azure.servicebus import AutoLockRenewer, ServiceBusClient, ServiceBusMessage


def run(client: Any, queue: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_queue_sender(queue) as sender:
        sender.send_messages([ServiceBusMessage("by a renewer"), ServiceBusMessage("by hand")])
        with AutoLockRenewer(max_lock_renewal_duration=60) as renewer:
            with client.get_queue_receiver(queue, max_wait_time=5) as receiver:
                message = next(receiver)
                renewer.register(receiver, message)
                seen.append((str(message), message.auto_renew_error))
                receiver.complete_message(message)
                message = next(receiver)
                before = message.locked_until_utc
                seen.append((str(message), receiver.renew_message_lock(message) >= before))
                receiver.complete_message(message)
            sender.send_messages(ServiceBusMessage("by the receiver"))
            with client.get_queue_receiver(queue, max_wait_time=5, auto_lock_renewer=renewer) as receiver:
                message = next(receiver)
                seen.append(str(message))
                receiver.complete_message(message)
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
