"""Ask a server and wait for its answer: a reply queue, and a correlation id."""

import os
import uuid

import pika


def fib(n):
    a, b = 0, 1
    for _ in range(n):
        a, b = b, a + b
    return a


def serve(connection, name):
    """Answer what comes to the queue *name*, from inside the callback."""
    channel = connection.channel()
    channel.queue_declare(queue=name)

    def on_request(ch, method, props, body):
        ch.basic_publish(
            exchange="",
            routing_key=props.reply_to,
            properties=pika.BasicProperties(correlation_id=props.correlation_id),
            body=str(fib(int(body))),
        )
        ch.basic_ack(delivery_tag=method.delivery_tag)

    channel.basic_qos(prefetch_count=1)
    channel.basic_consume(queue=name, on_message_callback=on_request)


class FibonacciClient:
    def __init__(self, connection, name):
        self.connection = connection
        self.name = name
        self.channel = connection.channel()
        self.callback_queue = self.channel.queue_declare(queue="", exclusive=True).method.queue
        self.channel.basic_consume(
            queue=self.callback_queue, on_message_callback=self.on_response, auto_ack=True
        )
        self.responses = {}

    def on_response(self, _ch, _method, props, body):
        self.responses[props.correlation_id] = int(body)

    def call(self, n):
        correlation_id = str(uuid.uuid4())
        self.channel.basic_publish(
            exchange="",
            routing_key=self.name,
            properties=pika.BasicProperties(reply_to=self.callback_queue, correlation_id=correlation_id),
            body=str(n),
        )
        while correlation_id not in self.responses:
            self.connection.process_data_events(time_limit=1)
        return self.responses[correlation_id]


def run(connection, name="rpc_queue"):
    """Return some answers."""
    serve(connection, name)
    client = FibonacciClient(connection, name)
    answers = [client.call(n) for n in (1, 10, 15)]
    client.channel.queue_delete(name)
    return answers


def main():
    with pika.BlockingConnection(pika.URLParameters(os.environ["RABBITMQ_URL"])) as connection:
        print(run(connection))


if __name__ == "__main__":
    main()
