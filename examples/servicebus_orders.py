"""Orders through Azure Service Bus, sealed: what the application sends, what the queue holds, what the consumer gets; and forged ones.

    pip install 'postseal[servicebus]'
    SERVICEBUS_CONNECTION_STRING='Endpoint=sb://...' python examples/servicebus_orders.py

It needs the queues "orders" and "refused". The emulator of Microsoft will do, and so will the test server of this repository:
python -m integration.servers.servicebus --port 25672 prints a connection string.
"""

import logging
import os
import warnings

from azure.servicebus import ServiceBusClient, ServiceBusMessage

from postseal.core import AuditEvent, Policy, Sealer, UnsafeLocalKeys
from postseal.servicebus import protect

ORDER = '{"order": 4711, "card": "4111 1111 1111 1111"}'


def audit(event: AuditEvent) -> None:
    print(f"  audit       {event.verdict}: {event.detail} ({event.destination})")


def main() -> None:
    orders = Policy(
        name="orders",
        destinations=["servicebus:orders"],
        keys=["main"],
        bind_headers=["tenant"],
        on_refused="quarantine",
        quarantine="servicebus:refused",
    )
    # In production: a key provider of your cloud.
    keys = {"main": UnsafeLocalKeys.ephemeral()}
    sealer = Sealer(sender="shop", policies=[orders], keys=keys, on_audit=audit)

    connection_string = os.environ["SERVICEBUS_CONNECTION_STRING"]
    attacker = ServiceBusClient.from_connection_string(connection_string)
    client = protect(ServiceBusClient.from_connection_string(connection_string), sealer)  # the one line

    with attacker, client:
        print(f"sent          {ORDER}")
        with client.get_queue_sender("orders") as sender:
            sender.send_messages(ServiceBusMessage(ORDER, application_properties={"tenant": "north"}))
        with attacker.get_queue_receiver("orders") as receiver:
            [held] = receiver.peek_messages()
        envelope = b"".join(held.body)
        print(f"queue holds   {envelope[:24].hex()}... ({len(envelope)} bytes)")

        with attacker.get_queue_sender("orders") as sender:
            sender.send_messages(ServiceBusMessage(envelope, application_properties={"tenant": "south"}))
            sender.send_messages(ServiceBusMessage('{"order": 666}'))
        print("injected      the same order for another tenant, and one in clear")

        with client.get_queue_receiver("orders", max_wait_time=2) as receiver:
            for message in receiver:
                print(f"consumer gets {message}")
                receiver.complete_message(message)

        with attacker.get_queue_receiver("refused") as receiver:
            for message in receiver.peek_messages(10):
                verdict = (message.application_properties or {})[b"postseal-verdict"]
                print(f"quarantined   {verdict.decode() if isinstance(verdict, bytes) else verdict}")


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    logging.disable(logging.WARNING)
    main()
