"""A topic and its subscription; a message that is abandoned comes again.

SERVICEBUS_CONNECTION_STRING=... python topic.py orders all
"""

import os
import sys
from typing import Any

from azure.servicebus import ServiceBusClient, ServiceBusMessage


def run(client: Any, topic: str, subscription: str) -> list[Any]:
    seen: list[Any] = []
    with client.get_topic_sender(topic) as sender:
        sender.send_messages(ServiceBusMessage("to all", subject="news"))
    with client.get_subscription_receiver(topic, subscription, max_wait_time=5) as receiver:
        first = next(receiver)
        seen.append((str(first), first.subject, first.delivery_count))
        receiver.abandon_message(first)
        again = next(receiver)
        seen.append((str(again), again.subject, again.delivery_count))
        receiver.complete_message(again)
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
