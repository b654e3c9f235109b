"""What a message carries besides its body, and bodies that are no bytes.

SERVICEBUS_CONNECTION_STRING=... python properties.py orders
"""

import os
import sys
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import UUID

from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus.amqp import AmqpAnnotatedMessage, AmqpMessageProperties


def run(client: Any, queue: str) -> list[Any]:
    message = ServiceBusMessage(
        '{"order": 4711}',
        application_properties={
            "tenant": "north",
            "priority": 3,
            "express": True,
            "weight": 1.5,
            "trace": UUID(int=4711),
            "ordered": datetime(2026, 10, 1, 12, tzinfo=UTC),
        },
        content_type="application/json",
        correlation_id="c-1",
        message_id="m-1",
        subject="new",
        to="warehouse",
        reply_to="replies",
        time_to_live=timedelta(minutes=5),
    )
    annotated = [
        AmqpAnnotatedMessage(value_body={"order": 4711, "lines": ["a", 2]}),
        AmqpAnnotatedMessage(sequence_body=[["a", 1], ["b", 2]]),
        AmqpAnnotatedMessage(
            data_body=[b"one", b"two"],
            properties=AmqpMessageProperties(message_id="m-2", content_encoding="x"),
        ),
    ]
    with client.get_queue_sender(queue) as sender:
        sender.send_messages(message)
        sender.send_messages(annotated)

    seen: list[Any] = []
    with client.get_queue_receiver(queue, max_wait_time=1) as receiver:
        for came in receiver:
            body = list(came.body) if came.body_type.name != "VALUE" else came.body
            seen += [came.body_type.name, body, str(came), came.application_properties, came.content_type]
            seen += [
                came.correlation_id,
                came.subject,
                came.to,
                came.reply_to,
                came.time_to_live,
                came.message_id,
            ]
            seen += [
                came.raw_amqp_message.properties.content_encoding
                if came.raw_amqp_message.properties
                else None
            ]
            receiver.complete_message(came)
    return seen


def main() -> None:
    with ServiceBusClient.from_connection_string(os.environ["SERVICEBUS_CONNECTION_STRING"]) as client:
        print(*run(client, *sys.argv[1:]), sep="\n")


if __name__ == "__main__":
    main()
