"""Exchanges and queues of the in-memory broker: routing, order, dead letters. No sockets."""

from __future__ import annotations

import itertools
import time
from bisect import insort
from dataclasses import dataclass, field
from typing import Any, Protocol

from pika import spec

__all__ = ["Bindings", "Exchange", "Message", "Queue", "Taker", "Vhost", "matches", "properties_of"]


@dataclass(order=True)
class Message:
    """A message in a queue. *raw* are its properties as they travelled: decoding them would cut floats."""

    position: int
    exchange: str = field(compare=False)
    routing_key: str = field(compare=False)
    raw: bytes = field(compare=False)
    body: bytes = field(compare=False)
    deliveries: int = field(default=0, compare=False)

    @property
    def properties(self) -> spec.BasicProperties:
        return properties_of(self.raw)


def properties_of(raw: bytes) -> spec.BasicProperties:
    properties = spec.BasicProperties()
    properties.decode(raw)
    return properties


class Taker(Protocol):
    """A consumer, as its queue sees it."""

    def ready(self) -> bool: ...

    def take(self, queue: Queue, message: Message) -> None: ...


class Queue:
    """Keeps messages in order, also those that come back, and hands them to its consumers in turn."""

    def __init__(
        self, name: str, vhost: Vhost, arguments: dict[str, Any], *, exclusive: object = None
    ) -> None:
        self.name = name
        self.arguments = arguments
        self.exclusive = exclusive
        self.messages: list[Message] = []
        self.takers: list[Taker] = []
        self._vhost = vhost
        self._positions = itertools.count()

    @property
    def full(self) -> bool:
        return len(self.messages) >= self.arguments.get("x-max-length", 2**31)

    def put(self, exchange: str, routing_key: str, raw: bytes, body: bytes) -> None:
        self.messages.append(Message(next(self._positions), exchange, routing_key, raw, body))
        self.deliver()

    def deliver(self) -> None:
        while self.messages:
            taker = next((taker for taker in self.takers if taker.ready()), None)
            if taker is None:
                return
            self.takers.remove(taker)
            self.takers.append(taker)
            taker.take(self, self.pop())

    def pop(self) -> Message:
        message = self.messages.pop(0)
        message.deliveries += 1
        return message

    def give_back(self, message: Message) -> None:
        """Requeue at its old place; a queue with a limit gives up on it."""
        if message.deliveries > self.arguments.get("x-delivery-limit", 2**31):
            self.dead_letter(message, "delivery_limit")
            return
        insort(self.messages, message)
        self.deliver()

    def dead_letter(self, message: Message, reason: str) -> None:
        exchange = self.arguments.get("x-dead-letter-exchange")
        if exchange is None:
            return
        properties = message.properties
        headers = dict(properties.headers or {})
        death = {
            "count": 1,
            "reason": reason,
            "queue": self.name,
            "time": int(time.time()),
            "exchange": message.exchange,
            "routing-keys": [message.routing_key],
        }
        headers["x-death"] = [death, *headers.get("x-death", ())]
        headers.setdefault("x-first-death-exchange", message.exchange)
        headers.setdefault("x-first-death-queue", self.name)
        headers.setdefault("x-first-death-reason", reason)
        headers.pop("CC", None)
        properties.headers, properties.expiration = headers, None
        routing_key = self.arguments.get("x-dead-letter-routing-key", message.routing_key)
        self._vhost.publish(exchange, routing_key, b"".join(properties.encode()), message.body)


Bindings = list[tuple[str, str]]
"""Queue and key."""


@dataclass
class Exchange:
    kind: str
    bindings: Bindings = field(default_factory=list)

    def queues(self, routing_key: str) -> list[str]:
        if self.kind == "fanout":
            return [queue for queue, _ in self.bindings]
        if self.kind == "topic":
            return [queue for queue, key in self.bindings if matches(key.split("."), routing_key.split("."))]
        return [queue for queue, key in self.bindings if key == routing_key]


def matches(pattern: list[str], words: list[str]) -> bool:
    """Source: AMQP 0-9-1, topic exchange: ``*`` is one word, ``#`` none or more."""
    if not pattern:
        return not words
    if pattern[0] == "#":
        return any(matches(pattern[1:], words[at:]) for at in range(len(words) + 1))
    return bool(words) and pattern[0] in ("*", words[0]) and matches(pattern[1:], words[1:])


class Vhost:
    """Everything that is declared."""

    def __init__(self) -> None:
        self.exchanges: dict[str, Exchange] = {
            "amq.direct": Exchange("direct"),
            "amq.fanout": Exchange("fanout"),
            "amq.topic": Exchange("topic"),
        }
        self.queues: dict[str, Queue] = {}

    def route(self, exchange: str, routing_key: str, raw: bytes) -> list[Queue]:
        """Find the queues of a message, each once.

        Raises:
            KeyError: There is no such exchange.
        """
        headers = properties_of(raw).headers or {}
        found: dict[str, None] = {}
        for key in (routing_key, *headers.get("CC", ()), *headers.get("BCC", ())):
            names = [key] if exchange == "" else self.exchanges[exchange].queues(key)
            found.update(dict.fromkeys(names))
        return [self.queues[name] for name in found if name in self.queues]

    def publish(self, exchange: str, routing_key: str, raw: bytes, body: bytes) -> list[Queue]:
        """Put a message into its queues and return them; the broker itself drops what has none."""
        if exchange and exchange not in self.exchanges:
            return []
        queues = self.route(exchange, routing_key, raw)
        for queue in queues:
            queue.put(exchange, routing_key, raw, body)
        return queues

    def delete(self, queue: Queue) -> None:
        self.queues.pop(queue.name, None)
        for exchange in self.exchanges.values():
            exchange.bindings[:] = [binding for binding in exchange.bindings if binding[0] != queue.name]
