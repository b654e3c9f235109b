"""Receive only some severities, through a direct exchange."""

import os

import pika

WANTED = ("warning", "error")


def run(connection, name="direct_logs"):
    """Return what came, with its routing key."""
    channel = connection.channel()
    channel.exchange_declare(exchange=name, exchange_type="direct")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for severity in WANTED:
        channel.queue_bind(exchange=name, queue=queue, routing_key=severity)
    came = []
    channel.basic_consume(
        queue,
        lambda _ch, method, properties, body: came.append((method.routing_key, body, properties.headers)),
        auto_ack=True,
    )
    for severity in ("info", "warning", "error"):
        channel.basic_publish(
            exchange=name,
            routing_key=severity,
            body=f"a {severity}",
            properties=pika.BasicProperties(headers={"line": 7, "where": ["a.py", None], "fatal": False}),
        )
    while len(came) < len(WANTED):
        connection.process_data_events(time_limit=1)
    channel.exchange_delete(name)
    return came


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
