"""Consume in a loop instead of a callback, until nothing came for a while; what was not acknowledged comes again."""

import os

import pika

ENOUGH = 10


def run(connection, name="generated"):
    """Return what the loops saw, and how many were given back."""
    channel = connection.channel()
    channel.queue_declare(queue=name)
    for number in range(12):
        channel.basic_publish(exchange="", routing_key=name, body=f"message {number}")
    came = []
    for method_frame, _, body in channel.consume(name, inactivity_timeout=5):
        came.append((method_frame.delivery_tag, body))
        channel.basic_ack(method_frame.delivery_tag)
        if method_frame.delivery_tag == ENOUGH:
            break
    came.append(channel.cancel())
    for method_frame, properties, body in channel.consume(name, auto_ack=True, inactivity_timeout=0.5):
        if method_frame is None:
            came.append((method_frame, properties, body))
            break
        came.append(body)
    channel.cancel()
    channel.queue_delete(name)
    return came


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
