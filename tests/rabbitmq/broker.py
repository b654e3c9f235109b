"""A small RabbitMQ in this process: AMQP 0-9-1 on a loopback socket, so that true clients run unmodified.

Frames and methods are those of pika, so nothing of the wire is written twice. Left out is what no test needs: transactions, users, TLS,
header exchanges, message TTL, persistence. `integration/` has the true broker.

Source: AMQP 0-9-1; RabbitMQ, protocol extensions (confirms, nack, consumer cancel notification, dead lettering).
"""

from __future__ import annotations

import itertools
import socket
import struct
import threading
import uuid
from collections.abc import Callable
from contextlib import suppress
from queue import SimpleQueue
from typing import Any, Final, Self

from pika import frame, spec

from tests.rabbitmq.queues import Exchange, Message, Queue, Vhost

__all__ = ["Broker"]

_HEADER: Final = struct.Struct(">BHL")
_FRAME_MAX: Final = 131_072
_CAPABILITIES: Final = dict.fromkeys(
    ("publisher_confirms", "exchange_exchange_bindings", "basic.nack", "consumer_cancel_notify"), True
) | {"authentication_failure_close": True, "connection.blocked": True, "per_consumer_qos": True}


class Broker:
    """The broker. ``with Broker() as broker: pika.BlockingConnection(pika.ConnectionParameters(port=broker.port))``.

    Attributes:
        vhost: What is declared; look at it under *lock*.
        faults: Consulted for each method that arrives, by its name (``"Basic.Publish"``): ``"cut"`` drops the connection there, ``"close"``
            closes it with an error, ``"channel"`` closes the channel. Each is used once.
        seen: Names of all methods that arrived.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.vhost = Vhost()
        self.faults: dict[str, str] = {}
        self.seen: list[str] = []
        self._connections: list[_Connection] = []
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, name="broker", daemon=True).start()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                connection = _Connection(self, client)
                with self.lock:
                    self._connections.append(connection)
                connection.start()

    def cut(self) -> None:
        """Drop all connections, as a broker does that is killed."""
        with self.lock:
            connections = list(self._connections)
        for connection in connections:
            connection.cut()

    def gone(self, connection: _Connection) -> None:
        """Forget a connection."""
        with self.lock:
            if connection in self._connections:
                self._connections.remove(connection)
            connection.give_all_back()


class _Connection:
    def __init__(self, broker: Broker, client: socket.socket) -> None:
        self.broker = broker
        self._socket = client
        self._channels: dict[int, _Channel] = {}
        self._out: SimpleQueue[bytes | None] = SimpleQueue()

    def start(self) -> None:
        threading.Thread(target=self._read, name="broker-read", daemon=True).start()
        threading.Thread(target=self._write, name="broker-write", daemon=True).start()

    def cut(self) -> None:
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._out.put(None)

    def give_all_back(self) -> None:
        for channel in list(self._channels.values()):
            channel.over()
        self._channels.clear()
        for held in [q for q in self.broker.vhost.queues.values() if q.exclusive is self]:
            self.broker.vhost.delete(held)

    # -- frames ----------------------------------------------------------------------------------------------------

    def _write(self) -> None:
        with suppress(OSError):
            while (data := self._out.get()) is not None:
                self._socket.sendall(data)
        with suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def send(self, data: bytes) -> None:
        self._out.put(data)

    def method(self, channel: int, method: Any) -> None:
        self.send(frame.Method(channel, method).marshal())

    def _read(self) -> None:
        stream = self._socket.makefile("rb")
        try:
            if stream.read(8)[:4] != b"AMQP":
                return
            properties = {"product": "test broker", "version": "3.10.0", "capabilities": _CAPABILITIES}
            self.method(0, spec.Connection.Start(0, 9, properties, "PLAIN", "en_US"))
            while len(head := stream.read(7)) == 7:
                kind, number, size = _HEADER.unpack(head)
                if size + 8 > _FRAME_MAX:
                    return  # as RabbitMQ closes the connection of who sends one
                payload = stream.read(size + 1)
                with self.broker.lock:
                    self._frame(kind, number, head + payload, payload[:-1])
        except (OSError, _Over):
            pass
        finally:
            self.broker.gone(self)
            self.cut()
            stream.close()
            self._socket.close()

    def _frame(self, kind: int, number: int, whole: bytes, payload: bytes) -> None:
        if kind == spec.FRAME_HEARTBEAT:
            self.send(frame.Heartbeat().marshal())
        elif kind == spec.FRAME_METHOD:
            _, decoded = frame.decode_frame(whole)
            method = decoded.method  # type: ignore[union-attr]  # a frame of that kind has one
            self._arrived(number, method)
        elif number in self._channels:
            self._channels[number].content(kind, payload)

    def _arrived(self, number: int, method: Any) -> None:
        self.broker.seen.append(method.NAME)
        match self.broker.faults.pop(method.NAME, None):
            case "cut":
                raise _Over
            case "close":
                self.method(0, spec.Connection.Close(541, "INTERNAL_ERROR - as ordered", 0, 0))
                return
            case "channel":
                self._channels[number].fail(541, "as ordered", method)
                return
        if number == 0:
            self._on_connection(method)
        elif isinstance(method, spec.Channel.Open):
            self._channels[number] = _Channel(self, number)
            self.method(number, spec.Channel.OpenOk())
        elif isinstance(method, (spec.Channel.Close, spec.Channel.CloseOk)):
            channel = self._channels.pop(number, None)
            if channel is not None:
                channel.over()
            if isinstance(method, spec.Channel.Close):
                self.method(number, spec.Channel.CloseOk())
        elif number in self._channels:
            self._channels[number].method(method)

    def _on_connection(self, method: Any) -> None:
        match method:
            case spec.Connection.StartOk():
                self.method(0, spec.Connection.Tune(2047, _FRAME_MAX, 60))
            case spec.Connection.Open():
                self.method(0, spec.Connection.OpenOk())
            case spec.Connection.Close():
                self.give_all_back()  # before it hears that all is done, as RabbitMQ does
                self.method(0, spec.Connection.CloseOk())
                self._out.put(None)
            case spec.Connection.CloseOk():
                raise _Over


class _Over(Exception):
    """The connection ends here."""


class _Consumer:
    def __init__(self, channel: _Channel, tag: str, *, no_ack: bool, limit: int) -> None:
        self.tag = tag
        self.no_ack = no_ack
        self.unsettled = 0
        self._channel = channel
        self._limit = limit

    def ready(self) -> bool:
        return self._limit == 0 or self.no_ack or self.unsettled < self._limit

    def take(self, queue: Queue, message: Message) -> None:
        redelivered = message.deliveries > 1
        tag = self._channel.lend(queue, message, None if self.no_ack else self)
        method = spec.Basic.Deliver(self.tag, tag, redelivered, message.exchange, message.routing_key)
        self._channel.content_out(method, self._channel.raw_of(queue, message), message.body)


class _Channel:
    def __init__(self, connection: _Connection, number: int) -> None:
        self._connection = connection
        self._vhost = connection.broker.vhost
        self._number = number
        self._consumers: dict[str, tuple[Queue, _Consumer]] = {}
        self._lent: dict[int, tuple[Queue, Message, _Consumer | None]] = {}
        self._tags = itertools.count(1)
        self._published: itertools.count[int] | None = None
        self._prefetch = 0
        self._publishing: spec.Basic.Publish | None = None
        self._raw, self._size, self._body = b"", 0, b""
        self._failed = False
        self._last_queue = ""
        handlers = (getattr(self, name) for name in dir(self) if name.startswith("_on_"))
        self._handlers: dict[str, Callable[[Any], Any]] = {h.__name__: h for h in handlers}

    # -- what goes out ---------------------------------------------------------------------------------------------

    def reply(self, method: Any) -> None:
        self._connection.method(self._number, method)

    def content_out(self, method: Any, raw: bytes, body: bytes) -> None:
        out = [frame.Method(self._number, method).marshal()]
        header = struct.pack(">HHQ", spec.Basic.INDEX, 0, len(body)) + raw
        out.append(_HEADER.pack(spec.FRAME_HEADER, self._number, len(header)) + header + b"\xce")
        pieces = (body[at : at + _FRAME_MAX - 8] for at in range(0, len(body), _FRAME_MAX - 8))
        out += (frame.Body(self._number, piece).marshal() for piece in pieces)
        self._connection.send(b"".join(out))

    @staticmethod
    def raw_of(queue: Queue, message: Message) -> bytes:
        if queue.arguments.get("x-queue-type") != "quorum" or message.deliveries < 2:
            return message.raw
        properties = message.properties
        properties.headers = {**(properties.headers or {}), "x-delivery-count": message.deliveries - 1}
        return b"".join(properties.encode())

    def fail(self, code: int, text: str, method: Any) -> None:
        self._failed = True
        self.reply(spec.Channel.Close(code, text, method.INDEX >> 16, method.INDEX & 0xFFFF))

    def over(self) -> None:
        for queue, consumer in self._consumers.values():
            queue.takers.remove(consumer)
        self._consumers.clear()
        self._settle(list(self._lent), lambda queue, message: queue.give_back(message))

    def lend(self, queue: Queue, message: Message, consumer: _Consumer | None, *, get: bool = False) -> int:
        tag = next(self._tags)
        if consumer is not None or get:
            self._lent[tag] = (queue, message, consumer)
        if consumer is not None:
            consumer.unsettled += 1
        return tag

    # -- what comes in ---------------------------------------------------------------------------------------------

    def method(self, method: Any) -> None:
        if self._failed:
            return  # until its Close is acknowledged. Source: AMQP 0-9-1, channel.close
        name = "_on_" + method.NAME.replace(".", "_").lower()
        try:
            reply = self._handlers[name](method)
        except _Missing as missing:
            self.fail(404, f"NOT_FOUND - no {missing}", method)
            return
        if reply is not None and not getattr(method, "nowait", False):
            self.reply(reply)

    def content(self, kind: int, payload: bytes) -> None:
        if self._publishing is None or self._failed:
            return
        if kind == spec.FRAME_HEADER:
            (self._size,) = struct.unpack_from(">Q", payload, 4)
            self._raw, self._body = payload[12:], b""
        else:
            self._body += payload
        if len(self._body) == self._size:
            publish, self._publishing = self._publishing, None
            self._publish(publish)

    def _publish(self, publish: spec.Basic.Publish) -> None:
        exchange, routing_key = publish.exchange, publish.routing_key
        try:
            queues = self._vhost.route(exchange, routing_key, self._raw)
        except KeyError:
            self.fail(404, f"NOT_FOUND - no exchange '{exchange}' in vhost '/'", publish)
            return
        full = any(q.full and q.arguments.get("x-overflow") == "reject-publish" for q in queues)
        if publish.mandatory and not queues:
            returned = spec.Basic.Return(312, "NO_ROUTE", exchange, routing_key)
            self.content_out(returned, self._raw, self._body)
        elif not full:
            self._vhost.publish(exchange, routing_key, self._raw, self._body)
        if self._published is not None:
            tag = next(self._published)
            self.reply(spec.Basic.Nack(tag) if full else spec.Basic.Ack(tag))

    def _queue(self, name: str) -> Queue:
        try:
            return self._vhost.queues[name or self._last_queue]
        except KeyError:
            raise _Missing(f"queue '{name}' in vhost '/'") from None

    # -- methods ---------------------------------------------------------------------------------------------------

    def _on_channel_flow(self, method: Any) -> Any:
        return spec.Channel.FlowOk(method.active)

    def _on_confirm_select(self, _: Any) -> Any:
        self._published = self._published or itertools.count(1)
        return spec.Confirm.SelectOk()

    def _on_exchange_declare(self, method: Any) -> Any:
        if method.exchange not in self._vhost.exchanges and method.exchange:
            if method.passive:
                raise _Missing(f"exchange '{method.exchange}' in vhost '/'")
            self._vhost.exchanges[method.exchange] = Exchange(method.type)
        return spec.Exchange.DeclareOk()

    def _on_exchange_delete(self, method: Any) -> Any:
        self._vhost.exchanges.pop(method.exchange, None)
        return spec.Exchange.DeleteOk()

    def _on_queue_declare(self, method: Any) -> Any:
        name = method.queue or f"amq.gen-{uuid.uuid4().hex}"
        if name not in self._vhost.queues:
            if method.passive:
                raise _Missing(f"queue '{name}' in vhost '/'")
            owner = self._connection if method.exclusive else None
            self._vhost.queues[name] = Queue(name, self._vhost, method.arguments or {}, exclusive=owner)
        self._last_queue = name
        found = self._vhost.queues[name]
        return spec.Queue.DeclareOk(name, len(found.messages), len(found.takers))

    def _on_queue_bind(self, method: Any) -> Any:
        if method.exchange not in self._vhost.exchanges:
            raise _Missing(f"exchange '{method.exchange}' in vhost '/'")
        binding = (self._queue(method.queue).name, method.routing_key)
        if binding not in self._vhost.exchanges[method.exchange].bindings:
            self._vhost.exchanges[method.exchange].bindings.append(binding)
        return spec.Queue.BindOk()

    def _on_queue_unbind(self, method: Any) -> Any:
        binding = (self._queue(method.queue).name, method.routing_key)
        self._vhost.exchanges[method.exchange].bindings.remove(binding)
        return spec.Queue.UnbindOk()

    def _on_queue_purge(self, method: Any) -> Any:
        messages = self._queue(method.queue).messages
        count = len(messages)
        messages.clear()
        return spec.Queue.PurgeOk(count)

    def _on_queue_delete(self, method: Any) -> Any:
        queue = self._queue(method.queue)
        self._vhost.delete(queue)
        for taker in list(queue.takers):
            taker._channel.cancelled(taker.tag)  # type: ignore[attr-defined]  # all are _Consumer
        return spec.Queue.DeleteOk(len(queue.messages))

    def cancelled(self, tag: str) -> None:
        """Tell the client that its consumer is no more."""
        queue, consumer = self._consumers.pop(tag)
        queue.takers.remove(consumer)
        self.reply(spec.Basic.Cancel(tag))

    def _on_basic_qos(self, method: Any) -> Any:
        self._prefetch = method.prefetch_count
        return spec.Basic.QosOk()

    def _on_basic_consume(self, method: Any) -> None:
        queue = self._queue(method.queue)
        tag = method.consumer_tag or f"amq.ctag-{uuid.uuid4().hex}"
        consumer = _Consumer(self, tag, no_ack=method.no_ack, limit=self._prefetch)
        self._consumers[tag] = (queue, consumer)
        if not method.nowait:
            self.reply(spec.Basic.ConsumeOk(tag))
        queue.takers.append(consumer)
        queue.deliver()

    def _on_basic_cancel(self, method: Any) -> Any:
        if method.consumer_tag in self._consumers:
            queue, consumer = self._consumers.pop(method.consumer_tag)
            queue.takers.remove(consumer)
        return spec.Basic.CancelOk(method.consumer_tag)

    def _on_basic_cancelok(self, _: Any) -> None:
        """Nothing is to be done."""

    def _on_basic_publish(self, method: Any) -> None:
        self._publishing = method

    def _on_basic_get(self, method: Any) -> None:
        queue = self._queue(method.queue)
        if not queue.messages:
            self.reply(spec.Basic.GetEmpty())
            return
        message = queue.pop()
        tag = self.lend(queue, message, None, get=not method.no_ack)
        got = spec.Basic.GetOk(
            tag, message.deliveries > 1, message.exchange, message.routing_key, len(queue.messages)
        )
        self.content_out(got, self.raw_of(queue, message), message.body)

    def _on_basic_ack(self, method: Any) -> None:
        self._settle(self._tags_of(method), lambda *_: None)

    def _on_basic_nack(self, method: Any) -> None:
        self._settle(self._tags_of(method), _turning(requeue=method.requeue))

    def _on_basic_reject(self, method: Any) -> None:
        self._settle(self._tags_of(method), _turning(requeue=method.requeue))

    def _on_basic_recover(self, _: Any) -> Any:
        self._settle(list(self._lent), _turning(requeue=True))
        return spec.Basic.RecoverOk()

    def _tags_of(self, method: Any) -> list[int]:
        tag = method.delivery_tag
        if getattr(method, "multiple", False):
            return [t for t in self._lent if tag in (0, t) or t < tag]
        if tag not in self._lent:
            self.fail(406, f"PRECONDITION_FAILED - unknown delivery tag {tag}", method)
            return []
        return [tag]

    def _settle(self, tags: list[int], settle: Callable[[Queue, Message], None]) -> None:
        settled = [self._lent.pop(tag) for tag in tags]
        for _, _, consumer in settled:
            if consumer is not None:
                consumer.unsettled -= 1
        for queue, message, _ in reversed(settled):  # so that what comes back first is what comes first
            settle(queue, message)
        for queue in {id(queue): queue for queue, _, _ in settled}.values():
            queue.deliver()


class _Missing(Exception):
    """There is no such queue or exchange."""


def _turning(*, requeue: bool) -> Callable[[Queue, Message], None]:
    def turn(queue: Queue, message: Message) -> None:
        if requeue:
            queue.give_back(message)
        else:
            queue.dead_letter(message, "rejected")

    return turn
