"""RabbitMQ as the contract of all adapters sees it, through each of pika's ways to send and to receive."""

from __future__ import annotations

import asyncio
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar

import pika
from pika.adapters.asyncio_connection import AsyncioConnection

from postseal.core import KeyUnavailable, Refused, Sealer
from postseal.rabbitmq import protect
from tests.contract import Line, Raw, Receiving

__all__ = [
    "AsyncioLine",
    "CallbackLine",
    "GeneratorLine",
    "GetLine",
    "RabbitLine",
    "Running",
    "SelectLine",
]


class RabbitLine(Line):
    """Queues, and a bare client beside them. Half of the places are queues' own, half are topics of an exchange.

    Args:
        parameters: How to connect.
        arguments: Of each queue.
    """

    scheme: ClassVar[str] = "rabbitmq"
    ordered: ClassVar[bool] = True
    exchange: ClassVar[str] = ""

    def __init__(self, parameters: pika.ConnectionParameters, **arguments: Any) -> None:
        self.parameters = parameters
        self._arguments = {name.replace("_", "-"): value for name, value in arguments.items()}
        self._queues: dict[str, str] = {}

    # -- places ----------------------------------------------------------------------------------------------------

    def place(self, **arguments: Any) -> str:
        name = f"orders.{uuid.uuid4().hex[:12]}"
        with self.bare() as channel:
            self._declare(channel, name, arguments)
            if self.exchange:
                channel.exchange_declare(self.exchange, "topic", durable=True)
                channel.queue_bind(name, self.exchange, name)
        place = f"{self.exchange}/{name}"
        self._queues[place] = name
        return place

    def place_with_dead_letters(self) -> tuple[str, str]:
        exchange = f"dead-{uuid.uuid4().hex[:12]}"
        place = self.place(**{"x-dead-letter-exchange": exchange})
        routing_key = place.partition("/")[2]
        with self.bare() as channel:
            channel.exchange_declare(exchange, "topic", durable=True)
            self._declare(channel, exchange, {})
            channel.queue_bind(exchange, exchange, "#")
        dead = f"{exchange}/{routing_key}"
        self._queues[dead] = exchange
        return place, dead

    def _declare(self, channel: Any, name: str, arguments: Mapping[str, Any]) -> None:
        channel.queue_declare(name, durable=True, arguments={**self._arguments, **arguments})

    def queue(self, place: str) -> str:
        """Return the name of the queue at *place*."""
        return self._queues[place]

    # -- bare clients ----------------------------------------------------------------------------------------------

    @contextmanager
    def bare(self) -> Iterator[Any]:
        """Open a channel that is not protected."""
        with pika.BlockingConnection(self.parameters) as connection:
            yield connection.channel()

    def put(self, place: str, *messages: Raw) -> None:
        exchange, _, routing_key = place.partition("/")
        with self.bare() as channel:
            channel.confirm_delivery()
            for raw in messages:
                assert raw.body is not None
                properties = pika.BasicProperties(headers=dict(raw.headers), delivery_mode=2)
                channel.basic_publish(exchange, routing_key, raw.body, properties)

    def held(self, place: str, count: int) -> list[Raw]:
        end = time.monotonic() + 30
        with self.bare() as channel:
            seen: list[Raw] = []
            while len(seen) < count:
                assert time.monotonic() < end, f"{place} holds {len(seen)} of {count}"
                method, properties, body = channel.basic_get(self.queue(place))
                if method is None:
                    time.sleep(0.01)
                    continue
                headers = properties.headers or {}
                seen.append(Raw(body, {n: v for n, v in headers.items() if isinstance(v, str)}))
        return seen

    def has_message(self, place: str) -> bool:
        with self.bare() as channel:
            count: int = channel.queue_declare(self.queue(place), passive=True).method.message_count
        return count > 0

    # -- the same for all flavours of pika -------------------------------------------------------------------------

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [(body, pika.BasicProperties(content_type="text/plain", delivery_mode=2)) for body in bodies]

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        assert body is not None
        properties = None if headers is None else pika.BasicProperties(headers=headers)  # type: ignore[arg-type]
        self.send_batch(sealer, place, [(body, properties)])


class CallbackLine(RabbitLine):
    """`pika.BlockingConnection`: confirms, and consumer callbacks."""

    def connect(self, sealer: Sealer, **options: Any) -> pika.BlockingConnection:
        """Open a protected connection."""
        return protect(pika.BlockingConnection(self.parameters), sealer, **options)

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        exchange, _, routing_key = place.partition("/")
        with self.connect(sealer) as connection:
            channel = connection.channel()
            channel.confirm_delivery()
            for body, properties in batch:
                channel.basic_publish(exchange, routing_key, body, properties, mandatory=True)

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        with self.connect(sealer) as connection:
            yield self.at_work(connection, self.queue(place), settles)

    def at_work(self, connection: Any, queue: str, settles: bool) -> Receiving:
        return CallbackReceiving(connection, queue, settles)


class CallbackReceiving(Receiving):
    def __init__(self, connection: Any, queue: str, settles: bool) -> None:
        super().__init__()
        self._connection = connection
        self._settles = settles
        connection.channel().basic_consume(queue, self._on_message)

    def _on_message(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        if method.redelivered:
            self.redelivered.add(body)
        self.got(body, properties.headers)
        if self._settles:
            channel.basic_ack(method.delivery_tag)

    def step(self) -> None:
        try:
            self._connection.process_data_events(0.1)
        except Refused as error:
            self.refused.append(error)


class GeneratorLine(CallbackLine):
    """`pika.BlockingConnection`: the ``consume`` generator, of an exchange's topics."""

    exchange: ClassVar[str] = "shop"

    def at_work(self, connection: Any, queue: str, settles: bool) -> Receiving:
        return GeneratorReceiving(connection, queue, settles)


class GeneratorReceiving(Receiving):
    def __init__(self, connection: Any, queue: str, settles: bool) -> None:
        super().__init__()
        self._channel = connection.channel()
        self._channel.basic_qos(prefetch_count=50)
        self._queue = queue
        self._settles = settles

    def step(self) -> None:
        try:
            for method, properties, body in self._channel.consume(self._queue, inactivity_timeout=0.1):
                if method is None:
                    return
                self.got(body, properties.headers)
                if self._settles:
                    self._channel.basic_ack(method.delivery_tag)
                if self._channel.get_waiting_message_count() == 0:
                    return
        except Refused as error:
            self.refused.append(error)


class GetLine(CallbackLine):
    """`pika.BlockingConnection`: ``basic_get``."""

    def at_work(self, connection: Any, queue: str, settles: bool) -> Receiving:
        return GetReceiving(connection, queue, settles)


class GetReceiving(Receiving):
    def __init__(self, connection: Any, queue: str, settles: bool) -> None:
        super().__init__()
        self._channel = connection.channel()
        self._queue = queue
        self._settles = settles

    def step(self) -> None:
        try:
            method, properties, body = self._channel.basic_get(self._queue)
        except KeyUnavailable:
            return  # it was requeued
        except Refused as error:
            self.refused.append(error)
            return
        if method is None:
            time.sleep(0.01)
            return
        self.got(body, properties.headers)
        if self._settles:
            self._channel.basic_ack(method.delivery_tag)


class Running(Receiving):
    """An asynchronous connection of pika, with a channel, and its loop as long as somebody waits for something.

    Args:
        parameters: How to connect.
        sealer: Protects the connection; None leaves it bare.
        options: For `protect`.
    """

    connection_class: ClassVar[Any] = pika.SelectConnection

    def __init__(self, parameters: pika.ConnectionParameters, sealer: Sealer | None, **options: Any) -> None:
        super().__init__()
        self.channel: Any = None
        self.closed: Exception | None = None
        self.connection: Any = self.connection_class(
            parameters,
            on_open_callback=lambda connection: connection.channel(on_open_callback=self._on_channel),
            on_open_error_callback=self._on_closed,
            on_close_callback=self._on_closed,
            **self.more(),
        )
        if sealer is not None:
            protect(self.connection, sealer, **options)
        self.until(lambda: self.channel is not None or self.closed is not None)

    def more(self) -> dict[str, Any]:
        """Return more arguments of the connection."""
        return {}

    def _on_channel(self, channel: Any) -> None:
        self.channel = channel

    def _on_closed(self, _: Any, reason: Any) -> None:
        self.closed = reason

    def step(self) -> None:
        loop = self.connection.ioloop
        loop.call_later(0.02, loop.stop)
        try:
            loop.start()
        except Refused as error:
            self.refused.append(error)

    def consume(self, queue: str, *, settles: bool) -> None:
        """Begin to consume."""

        def on_message(channel: Any, method: Any, properties: Any, body: bytes) -> None:
            self.got(body, properties.headers)
            if settles:
                channel.basic_ack(method.delivery_tag)

        self.channel.basic_consume(queue, on_message)

    def close(self) -> None:
        """Close the connection, and run its loop to the end of that."""
        if self.closed is None:
            self.connection.close()
            self.until(lambda: self.closed is not None)
        self.connection.ioloop.close()


class RunningAsyncio(Running):
    connection_class: ClassVar[Any] = AsyncioConnection

    def more(self) -> dict[str, Any]:
        self._loop = asyncio.new_event_loop()
        self._loop.set_exception_handler(self._on_error)
        return {"custom_ioloop": self._loop}

    def _on_error(self, loop: asyncio.AbstractEventLoop, context: dict[str, Any]) -> None:
        error = context.get("exception")
        if isinstance(error, Refused):
            self.refused.append(error)
        else:
            loop.default_exception_handler(context)

    def step(self) -> None:
        self._loop.run_until_complete(asyncio.sleep(0.02))


class SelectLine(RabbitLine):
    """`pika.SelectConnection`, of an exchange's topics."""

    exchange: ClassVar[str] = "shop"
    running: ClassVar[Callable[..., Running]] = Running

    @contextmanager
    def connected(self, sealer: Sealer, **options: Any) -> Iterator[Running]:
        """Open a protected connection."""
        running = type(self).running(self.parameters, sealer, **options)
        try:
            yield running
        finally:
            running.close()

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        exchange, _, routing_key = place.partition("/")
        with self.connected(sealer) as running:
            confirmed: list[int] = []

            def on_confirmed(frame: Any) -> None:
                first = (
                    confirmed[-1] + 1 if frame.method.multiple and confirmed else frame.method.delivery_tag
                )
                confirmed.extend(range(first, frame.method.delivery_tag + 1))

            running.channel.confirm_delivery(on_confirmed)
            for body, properties in batch:
                running.channel.basic_publish(exchange, routing_key, body, properties)
            running.until(lambda: bool(confirmed) and confirmed[-1] == len(batch))

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        with self.connected(sealer) as running:
            running.consume(self.queue(place), settles=settles)
            yield running


class AsyncioLine(SelectLine):
    """`AsyncioConnection`."""

    running: ClassVar[Callable[..., Running]] = RunningAsyncio
