"""Orders through RabbitMQ: ``python rabbitmq.py send``, then ``python rabbitmq.py receive``. What protects them is the one hook line."""

import os
import sys

import pika

from postseal.core import Sealer
from postseal.rabbitmq import protect

ORDERS = [f'{{"order": {number}, "card": "4111 1111 1111 1111"}}' for number in range(3)]


def main(verb: str, queue: str = "orders") -> None:
    connection = pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))
    protect(connection, Sealer.from_file(os.environ["POSTSEAL_POLICY"]))  # the hook line
    channel = connection.channel()
    channel.exchange_declare("shop", "topic", durable=True)
    channel.queue_declare(queue)
    channel.queue_bind(queue, "shop", f"orders.{queue}")
    if verb == "send":
        channel.confirm_delivery()
        for order in ORDERS:
            properties = pika.BasicProperties(headers={"tenant": "north"})
            channel.basic_publish("shop", f"orders.{queue}", order, properties)
    else:
        for method, properties, body in channel.consume(queue):
            print(properties.headers, body)
            channel.basic_ack(method.delivery_tag)
            if method.delivery_tag == len(ORDERS):
                break
    connection.close()


if __name__ == "__main__":
    main(*sys.argv[1:])
