"""Quarantine queues of RabbitMQ. To look at a message is to get it; it is given back at the end, marked as redelivered."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from hashlib import sha256
from typing import Any, Final

import pika
from pika.exceptions import AMQPError, ChannelClosedByBroker, UnroutableError

from postseal.core.cli._held import Held, Quarantine, named
from postseal.core.errors import ConfigError

__all__ = ["connect"]

_OURS: Final = ("postseal-verdict", "postseal-exchange", "postseal-routing-key")


def connect(name: str, address: str | None) -> RabbitQuarantine:
    """Connect to the queue that ``rabbitmq:/queue`` names."""
    exchange, slash, queue = name.partition("/")
    if exchange or not slash:
        raise ConfigError(f"name the queue of the quarantine, as in 'rabbitmq:/refused': 'rabbitmq:{name}'")
    try:
        connection = pika.BlockingConnection(pika.URLParameters(str(address)))
    except AMQPError as error:
        raise ConfigError(f"RabbitMQ does not answer: {type(error).__name__}") from error
    return RabbitQuarantine(connection, queue)


class RabbitQuarantine(Quarantine):
    """A quarantine queue."""

    def __init__(self, connection: Any, queue: str) -> None:
        self._connection = connection
        self._queue = queue
        self._channel = connection.channel()
        self._channel.confirm_delivery()

    def each(self, *, taking: bool) -> Iterator[Held]:
        """Get as many as there are now. What is not taken out goes back when the channel closes, to its old place where that can be."""
        del taking
        try:
            count = self._channel.queue_declare(self._queue, passive=True).method.message_count
        except ChannelClosedByBroker as error:
            raise ConfigError(f"there is no queue {self._queue!r}: {error.reply_text}") from error
        for _ in range(count):
            method, properties, body = self._channel.basic_get(self._queue)
            if method is None:
                return
            yield _held(method, properties, body)

    def send_back(self, held: Held, destination: str) -> None:
        """Publish it to where it was published, and wait until a queue has it."""
        _, properties = held.native
        headers = {n: v for n, v in (properties.headers or {}).items() if n not in _OURS}
        properties.headers = headers or None
        self.move(held, held.body, destination)

    def move(self, held: Held, body: bytes, destination: str) -> None:
        """Publish it, and wait until a queue has it."""
        exchange, _, routing_key = named(destination, "rabbitmq").partition("/")
        try:
            self._channel.basic_publish(exchange, routing_key, body, held.native[1], mandatory=True)
        except UnroutableError as error:
            raise ConfigError(f"no queue takes what is sent to {destination!r}") from error

    def take_out(self, messages: Sequence[Held]) -> None:
        """Acknowledge them."""
        for held in messages:
            self._channel.basic_ack(held.native[0].delivery_tag)

    def close(self) -> None:
        """Close, and have the rest go back."""
        if self._connection.is_open:
            self._connection.close()


def _held(method: Any, properties: Any, body: bytes) -> Held:
    headers = properties.headers or {}
    exchange, key = headers.get("postseal-exchange"), headers.get("postseal-routing-key")
    verdict = headers.get("postseal-verdict")
    at = properties.timestamp
    return Held(
        # AMQP knows no ids: the beginning of a digest of what lies there.
        id=sha256(body).hexdigest()[:16],
        body=body,
        verdict=verdict if isinstance(verdict, str) else None,
        source=f"rabbitmq:{exchange}/{key}" if isinstance(exchange, str) and isinstance(key, str) else None,
        at=None if at is None else datetime.fromtimestamp(int(at), UTC),
        native=(method, properties),
    )
