"""Orders through Service Bus: ``python servicebus.py send``, then ``... receive``. What protects them is the one hook line."""

import os
import sys

from azure.servicebus import ServiceBusClient, ServiceBusMessage

from postseal.core import Sealer
from postseal.servicebus import protect

ORDERS = [f'{{"order": {number}, "card": "4111 1111 1111 1111"}}' for number in range(3)]


def main(verb: str, queue: str = "orders") -> None:
    client = ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"])
    protect(client, Sealer.from_file(os.environ["POSTSEAL_POLICY"]))  # the hook line
    with client:
        if verb == "send":
            with client.get_queue_sender(queue) as sender:
                for order in ORDERS:
                    sender.send_messages(ServiceBusMessage(order, application_properties={"tenant": "north"}))
            return
        came = 0
        with client.get_queue_receiver(queue) as receiver:
            while came < len(ORDERS):
                for message in receiver.receive_messages(len(ORDERS), max_wait_time=5):
                    print(message.application_properties, b"".join(message.body))
                    receiver.complete_message(message)
                    came += 1


if __name__ == "__main__":
    main(*sys.argv[1:])
