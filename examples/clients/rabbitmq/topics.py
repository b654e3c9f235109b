"""Receive by patterns of routing keys, through a topic exchange."""

import os

import pika

MATCHING = 4


def run(connection, name="topic_logs"):
    """Return what came, with its routing key."""
    channel = connection.channel()
    channel.exchange_declare(exchange=name, exchange_type="topic")
    queue = channel.queue_declare(queue="", exclusive=True).method.queue
    for pattern in ("*.critical", "kern.#"):
        channel.queue_bind(exchange=name, queue=queue, routing_key=pattern)
    came = []
    channel.basic_consume(
        queue, lambda _ch, method, _properties, body: came.append((method.routing_key, body)), auto_ack=True
    )
    for routing_key in ("anonymous.info", "kern", "kern.critical", "cron.critical", "kern.disk.full"):
        channel.basic_publish(exchange=name, routing_key=routing_key, body=f"about {routing_key}")
    while len(came) < MATCHING:
        connection.process_data_events(time_limit=1)
    channel.exchange_delete(name)
    return came


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
