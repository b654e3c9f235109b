"""RabbitMQ: a server that runs already, with pika."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final
from urllib.parse import urlsplit

import pika
from pika.exceptions import AMQPError

from postseal.core import ConfigError, Sealer
from postseal.core.cli._broker import CONTENT_TYPE, Held, Until
from postseal.core.cli._orders import Order
from postseal.rabbitmq import protect

__all__ = ["RabbitMq"]

_EXCHANGE: Final = "postseal-demo"
_PLACES: Final = ("orders", "refunds")


class RabbitMq:
    """An exchange with two queues, removed at the end.

    Args:
        url: ``amqp://user:password@host:port/vhost``. The user may declare and delete.

    Raises:
        ConfigError: It cannot be reached.
    """

    name = "RabbitMQ"
    scheme = "rabbitmq"
    settled = "in the queues *.refused"

    def __init__(self, url: str) -> None:
        at = urlsplit(url)
        self.where = f"{at.hostname}:{at.port or 5672}"  # the password is nobody's business
        self._parameters = pika.URLParameters(url)
        self._consumer: pika.BlockingConnection | None = None
        try:
            self._bare = pika.BlockingConnection(self._parameters)
        except AMQPError as error:
            raise ConfigError(f"no RabbitMQ lets us in at {self.where}: {error!r}") from error
        channel = self._bare.channel()
        self._remove(channel)
        channel.exchange_declare(_EXCHANGE, "direct")
        for place in _PLACES:
            dead = _refused(place)
            channel.queue_declare(dead)
            # What is rejected goes from the default exchange to the queue of that name.
            letters = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead}
            channel.queue_declare(_queue(place), arguments=letters)
            channel.queue_bind(_queue(place), _EXCHANGE, place)
        self._channel = channel

    # -- with the adapter: what a program looks like ---------------------------------------------------------------

    def send(self, sealer: Sealer, orders: Sequence[Order]) -> None:
        """Publish as any program does; `protect` is the one line."""
        connection = protect(pika.BlockingConnection(self._parameters), sealer)
        channel = connection.channel()
        channel.confirm_delivery()
        for order in orders:
            properties = pika.BasicProperties(content_type=CONTENT_TYPE)
            channel.basic_publish(_EXCHANGE, "orders", order.to_json(), properties, mandatory=True)
        connection.close()

    def receive(self, sealer: Sealer, handle: Callable[[bytes], None], done: Until) -> None:
        """Consume as any program does: what is refused never gets here."""
        if self._consumer is None:
            self._consumer = protect(pika.BlockingConnection(self._parameters), sealer)
            channel = self._consumer.channel()

            def on_message(channel: Any, method: Any, _: Any, body: bytes) -> None:
                self._handle(body)
                channel.basic_ack(method.delivery_tag)

            for place in _PLACES:
                channel.basic_consume(_queue(place), on_message)
        self._handle = handle
        while not done():
            self._consumer.process_data_events(time_limit=0.2)

    # -- with bare clients: what an administrator can do -----------------------------------------------------------

    def look(self, count: int) -> list[Held]:
        """Read *count* messages of the queue for ``orders``, then put them back."""
        held: list[Held] = []
        tag = 0
        while len(held) < count:
            method, properties, body = self._channel.basic_get(_queue("orders"))
            if method is None or properties is None or body is None:
                break
            tag = method.delivery_tag or 0
            held.append(Held(body, None, properties.content_type))
        self._channel.basic_nack(tag, multiple=True, requeue=True)
        return held

    def put(self, place: str, message: Held) -> None:
        """Publish *message* as it is."""
        properties = pika.BasicProperties(content_type=message.content_type)
        self._channel.basic_publish(_EXCHANGE, place, message.body, properties)

    def refused(self) -> int:
        """Count what lies in the queues of dead letters."""
        counts = [self._channel.queue_declare(_refused(place), passive=True) for place in _PLACES]
        return sum(answer.method.message_count for answer in counts)

    def envelope(self, body: bytes) -> bytes:
        """Return *body*: it is the envelope itself."""
        return body

    def body(self, envelope: bytes) -> bytes:
        """Return *envelope*, likewise."""
        return envelope

    def close(self) -> None:
        """Remove all that was made."""
        if self._consumer is not None:
            self._consumer.close()
        self._remove(self._channel)
        self._bare.close()

    @staticmethod
    def _remove(channel: Any) -> None:
        channel.exchange_delete(_EXCHANGE)
        for place in _PLACES:
            channel.queue_delete(_queue(place))
            channel.queue_delete(_refused(place))


def _queue(place: str) -> str:
    return f"postseal-demo.{place}"


def _refused(place: str) -> str:
    return f"postseal-demo.{place}.refused"
