"""Wait until the broker has each message, and learn of those that no queue takes."""

import os

import pika
from pika.exceptions import UnroutableError


def run(connection, name="confirmed"):
    """Return what became of each message, and the one that came back."""
    channel = connection.channel()
    channel.queue_declare(queue=name)
    channel.confirm_delivery()
    outcomes = []
    for routing_key in (name, f"{name}.nowhere"):
        try:
            channel.basic_publish(
                exchange="",
                routing_key=routing_key,
                body=b"Hello World!",
                properties=pika.BasicProperties(content_type="text/plain"),
                mandatory=True,
            )
        except UnroutableError as error:
            [returned] = error.messages
            outcomes.append((returned.method.reply_code, returned.properties.content_type, returned.body))
        else:
            outcomes.append("confirmed")
    channel.queue_delete(name)
    return outcomes


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
