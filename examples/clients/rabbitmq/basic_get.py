"""Fetch one message at a time, and find the queue empty."""

import os

import pika


def run(connection, name="test"):
    """Return what each call gave."""
    channel = connection.channel()
    channel.queue_declare(queue=name)
    channel.confirm_delivery()
    for body in (b"", b"\x00\xff", b"x" * 200_000):
        channel.basic_publish(exchange="", routing_key=name, body=body)
    got = []
    while True:
        method_frame, header_frame, body = channel.basic_get(name)
        if method_frame is None:
            got.append((method_frame, header_frame, body))
            break
        got.append((method_frame.message_count, method_frame.redelivered, body))
        channel.basic_ack(method_frame.delivery_tag)
    channel.queue_delete(name)
    return got


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(len(run(connection)), "calls")


if __name__ == "__main__":
    main()
