"""Send each message to all who listen, through a fanout exchange and a queue of each listener's own."""

import os

import pika


def run(connection, name="logs"):
    """Return what each of two listeners got."""
    channel = connection.channel()
    channel.exchange_declare(exchange=name, exchange_type="fanout")
    came = {}
    for listener in ("one", "two"):
        queue = channel.queue_declare(queue="", exclusive=True).method.queue
        channel.queue_bind(exchange=name, queue=queue)
        came[listener] = []
        channel.basic_consume(
            queue,
            lambda _ch, method, _properties, body, into=came[listener]: into.append((method.exchange, body)),
            auto_ack=True,
        )
    channel.basic_publish(exchange=name, routing_key="", body="info: Hello World!")
    while not all(came.values()):
        connection.process_data_events(time_limit=1)
    channel.exchange_delete(name)
    return sorted(came.items())


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
