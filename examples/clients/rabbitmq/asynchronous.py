"""A publisher and a consumer of one asynchronous connection, each a class of callbacks that sets up one thing after the other."""

import os

import pika
from pika.exchange_type import ExchangeType

MESSAGES = 20


class Publisher:
    """Publishes with confirms, and counts them."""

    def __init__(self, connection, exchange, routing_key):
        self._exchange = exchange
        self._routing_key = routing_key
        self.acked = set()
        connection.channel(on_open_callback=self.on_channel_open)

    def on_channel_open(self, channel):
        self._channel = channel
        channel.add_on_close_callback(lambda *_: None)
        channel.confirm_delivery(self.on_delivery_confirmation)
        for number in range(MESSAGES):
            channel.basic_publish(
                self._exchange,
                self._routing_key,
                f"Nr. {number}",
                pika.BasicProperties(app_id="example-publisher", content_type="application/json"),
            )

    def on_delivery_confirmation(self, method_frame):
        tag = method_frame.method.delivery_tag
        first = 1 if method_frame.method.multiple else tag
        self.acked.update(range(first, tag + 1))


class Consumer:
    """Declares exchange, queue and binding, then consumes and acknowledges."""

    def __init__(self, connection, name, on_ready, on_done):
        self._connection = connection
        self._name = name
        self._on_ready = on_ready
        self._on_done = on_done
        self.came = []
        connection.channel(on_open_callback=self.on_channel_open)

    def on_channel_open(self, channel):
        self._channel = channel
        channel.exchange_declare(
            exchange=self._name, exchange_type=ExchangeType.topic, callback=self.on_exchange_declareok
        )

    def on_exchange_declareok(self, _):
        self._channel.queue_declare(queue=self._name, callback=self.on_queue_declareok)

    def on_queue_declareok(self, _):
        self._channel.queue_bind(self._name, self._name, routing_key="example.#", callback=self.on_bindok)

    def on_bindok(self, _):
        self._channel.basic_qos(prefetch_count=5, callback=self.on_basic_qos_ok)

    def on_basic_qos_ok(self, _):
        self._channel.basic_consume(self._name, self.on_message, callback=lambda _: self._on_ready())

    def on_message(self, channel, basic_deliver, properties, body):
        self.came.append((basic_deliver.routing_key, properties.app_id, properties.content_type, body))
        channel.basic_ack(basic_deliver.delivery_tag)
        if len(self.came) == MESSAGES:
            channel.queue_delete(self._name, callback=lambda _: self._on_done())


def run(connection, name="message"):
    """Return what the consumer got, and the delivery tags that were confirmed. *connection* is not open yet."""
    parts = []

    def on_open(_):
        parts.append(Consumer(connection, name, on_ready, connection.close))

    def on_ready():
        parts.append(Publisher(connection, name, "example.text"))

    connection.add_on_open_callback(on_open)
    connection.add_on_close_callback(lambda *_: connection.ioloop.stop())
    # pika's own loop, or that of asyncio.
    start = getattr(connection.ioloop, "start", None) or connection.ioloop.run_forever
    start()
    connection.ioloop.close()
    consumer, publisher = parts
    return [consumer.came, sorted(publisher.acked)]


def main():
    print(run(pika.SelectConnection(pika.URLParameters(os.environ["RABBITMQ_URL"]))))


if __name__ == "__main__":
    main()
