"""Messages for later: scheduled, one of them cancelled before its time.

SERVICEBUS_CONNECTION_STRING=... python scheduled.py orders
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage


def run(client: Any, queue: str) -> list[Any]:
    with client.get_queue_sender(queue) as sender:
        soon = datetime.now(UTC) + timedelta(seconds=1)
        [cancelled] = sender.schedule_messages(ServiceBusMessage("cancelled"), soon + timedelta(hours=1))
        numbers = sender.schedule_messages([ServiceBusMessage("first"), ServiceBusMessage("second")], soon)
        sender.cancel_scheduled_messages(cancelled)
    seen: list[Any] = [len(numbers)]
    with client.get_queue_receiver(queue, max_wait_time=30) as receiver:
        for message in receiver:
            seen.append(str(message))
            receiver.complete_message(message)
            if len(seen) > len(numbers):
                break
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
