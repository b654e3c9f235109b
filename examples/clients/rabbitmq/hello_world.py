"""Send one message to a queue, and receive it with a callback."""

import os

import pika


def run(connection, name="hello"):
    """Return what the consumer was given."""
    came = []
    channel = connection.channel()
    channel.queue_declare(queue=name)
    channel.basic_publish(exchange="", routing_key=name, body="Hello World!")

    def callback(ch, _method, _properties, body):
        came.append(body)
        ch.stop_consuming()

    channel.basic_consume(queue=name, on_message_callback=callback, auto_ack=True)
    channel.start_consuming()
    return came


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
