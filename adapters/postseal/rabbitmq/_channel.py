"""Guards one channel of pika: what it publishes is sealed, what it hands on was opened.

All adapters of pika, the blocking one too, publish and consume through `pika.channel.Channel`. So its methods are covered by ours on the
very object, and no way around them is left: a callback is given that channel, or a blocking one above it.

Source: pika 1.4, channel.py; none of what is covered here is private.
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from pika import validators

from postseal.core import ConfigError
from postseal.rabbitmq._message import Bound, check_bound, quarantine_headers
from postseal.rabbitmq._receiving import Consumer, Delivery, Getter, HandOn
from postseal.rabbitmq._settling import Settle, Turned, pause_after

if TYPE_CHECKING:
    from postseal.rabbitmq._pika import Hooks

__all__ = ["Guard"]

_log: Final = logging.getLogger("postseal.rabbitmq")

_COVERED: Final = (
    "add_on_return_callback",
    "basic_ack",
    "basic_cancel",
    "basic_consume",
    "basic_get",
    "basic_nack",
    "basic_publish",
    "basic_recover",
)


class Guard:
    """What stands before one channel.

    Args:
        channel: Of `pika.channel.Channel`.
        hooks: Of its connection.
        fail: Takes what is raised in the place of the message that a ``basic_get`` with that callback asked for; None where nobody
            waits for it.
        sees_returns: Whether returned messages are shown to the application by this channel, not by a blocking one above it.
    """

    def __init__(
        self,
        channel: Any,
        hooks: Hooks,
        *,
        fail: Callable[[HandOn, Any, Any, Exception], object] | None = None,
        sees_returns: bool = True,
    ) -> None:
        self.channel = channel
        self.hooks = hooks
        self._fail = fail
        self._consumers: dict[str, Consumer] = {}
        self._unsettled: set[int] = set()
        """Delivery tags of what the application never got and the broker has not back."""
        self._bare = {name: getattr(channel, name) for name in _COVERED}
        self._covered = [name for name in _COVERED if sees_returns or name != "add_on_return_callback"]
        self.sent = Sent()

    def attach(self) -> None:
        """Cover the channel's methods.

        Raises:
            ConfigError: It consumes already, and what it was sent is on its way to be handed on as it is.
        """
        if self.channel.consumer_tags:
            raise ConfigError(
                f"channel {self.channel.channel_number} of this connection consumes already: protect a connection before basic_consume"
            )
        for name in self._covered:
            setattr(self.channel, name, self._publisher() if name == "basic_publish" else getattr(self, name))

    def detach(self) -> None:
        """Uncover them, and hand on as it comes what consumers get from now on."""
        for name in self._covered:
            delattr(self.channel, name)
        for consumer in self._consumers.values():
            consumer.switch_off()

    # -- publishing ------------------------------------------------------------------------------------------------

    def _publisher(self) -> Callable[..., None]:
        """Make what covers ``basic_publish``: a closure, because it runs for each message."""
        publish, places, seal = self._bare["basic_publish"], self.hooks.places, self.hooks.sealer.seal
        sent = self.sent

        def basic_publish(
            exchange: str,
            routing_key: str,
            body: Any,
            properties: Any = None,
            mandatory: bool = False,  # noqa: FBT002 - as pika has it
        ) -> None:
            """Publish *body*, sealed."""
            if isinstance(body, str):
                body = body.encode()
            destination, policy = places[exchange, routing_key]
            if properties is None:
                envelope = seal(
                    body,
                    destination=destination,
                    headers=Bound(None, sent=True) if policy.bind_headers else None,
                )
            else:
                bound = None
                if policy.bind_headers:
                    check_bound(properties, policy)
                    bound = Bound(properties, sent=True)
                envelope = seal(
                    body,
                    destination=destination,
                    headers=bound,
                    content_type=properties.content_type,
                    content_encoding=properties.content_encoding,
                )
            if mandatory:
                sent.keep(envelope, body)
            publish(exchange, routing_key, envelope, properties, mandatory)

        return basic_publish

    def add_on_return_callback(self, callback: HandOn) -> None:
        """Have *callback* called with what the broker returns, as it was published."""
        sent = self.sent
        self._bare["add_on_return_callback"](
            lambda channel, method, properties, body: callback(channel, method, properties, sent.clear(body))
        )

    # -- consuming -------------------------------------------------------------------------------------------------

    def basic_consume(  # noqa: PLR0917 - as pika has it
        self,
        queue: str,
        on_message_callback: HandOn,
        auto_ack: bool = False,  # noqa: FBT002 - as pika has it
        exclusive: bool = False,  # noqa: FBT002
        consumer_tag: str | None = None,
        arguments: Any = None,
        callback: Any = None,
    ) -> Any:
        """Consume, with opened messages; all else as in pika."""
        validators.require_callback(on_message_callback)
        consumer = Consumer(self, on_message_callback, queue, auto_ack=auto_ack)
        tag = self._bare["basic_consume"](
            queue, consumer.receive, auto_ack, exclusive, consumer_tag, arguments, callback
        )
        self._consumers[tag] = consumer
        consumer.tag = tag
        return tag

    def basic_cancel(self, consumer_tag: str = "", callback: Any = None) -> Any:
        """Cancel, and requeue what still waits for its key; all else as in pika."""
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is not None:
            consumer.give_back()
        return self._bare["basic_cancel"](consumer_tag, callback)

    def basic_get(
        self,
        queue: str,
        callback: HandOn,
        auto_ack: bool = False,  # noqa: FBT002 - as pika has it
    ) -> Any:
        """Get one message, opened; all else as in pika. What is refused and settled is passed over."""
        validators.require_callback(callback)
        getter = Getter(
            self, callback, queue, auto_ack=auto_ack, fail=self._fail, ask=self._bare["basic_get"]
        )
        return getter.ask()

    # -- settling by the application -------------------------------------------------------------------------------

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> Any:  # noqa: FBT002 - as pika has it
        """Acknowledge, but never what the application did not get; all else as in pika."""
        if multiple and self._unsettled:
            self._spare(delivery_tag)
        return self._bare["basic_ack"](delivery_tag, multiple)

    def basic_nack(self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True) -> Any:  # noqa: FBT002
        """Reject, but never what the application did not get; all else as in pika."""
        if multiple and self._unsettled:
            self._spare(delivery_tag)
        return self._bare["basic_nack"](delivery_tag, multiple, requeue)

    def basic_recover(self, requeue: bool = False, callback: Any = None) -> Any:  # noqa: FBT002 - as pika has it
        """Have the broker deliver again what is not settled, what waits here too; all else as in pika."""
        self._unsettled.clear()
        for consumer in self._consumers.values():
            consumer.forget()
        return self._bare["basic_recover"](requeue, callback)

    def _spare(self, delivery_tag: int) -> None:
        """Requeue what the application never got, and would settle with all up to *delivery_tag* (0: all)."""
        for tag in sorted(self._unsettled):
            if delivery_tag == 0 or tag <= delivery_tag:
                self.give_back(tag)

    # -- what waits ------------------------------------------------------------------------------------------------

    def hold(self, consumer: Consumer, delivery: Delivery) -> None:
        """Note that *delivery* is kept from the application for now."""
        if not consumer.auto_ack:
            self._unsettled.add(delivery.tag)

    def holds(self, consumer: Consumer, delivery: Delivery) -> bool:
        """Tell whether *delivery* is still ours to hand on or to settle."""
        if not self.channel.is_open:
            return False
        if consumer.tag is not None and consumer.tag not in self.channel.consumer_tags:
            return False  # cancelled by the broker
        return consumer.auto_ack or delivery.tag in self._unsettled

    def release(self, delivery: Delivery) -> None:
        """Note that *delivery* is about to be handed on or settled."""
        self._unsettled.discard(delivery.tag)

    def give_back(self, tag: int) -> None:
        """Requeue a message, if it is still here."""
        if tag in self._unsettled:
            self._unsettled.discard(tag)
            if self.channel.is_open:
                self._bare["basic_nack"](tag, False, True)  # noqa: FBT003 - as pika has it

    # -- what is refused -------------------------------------------------------------------------------------------

    def turn(self, consumer: Consumer, delivery: Delivery, error: Exception) -> None:
        """Settle a message that is not handed on, as its policy says."""
        turned = self.hooks.places.turn(
            error, *consumer.place_of(delivery), delivery.coordinates, auto_ack=consumer.auto_ack
        )
        tag, settle = delivery.tag, turned.settle
        if settle in (Settle.RAISE, Settle.LEAVE, Settle.QUARANTINE):
            self.hold(consumer, delivery)
        if settle is Settle.RAISE:
            consumer.tell(delivery, error)
        elif settle is Settle.QUARANTINE:
            _Copy(self, consumer, delivery, turned).make()
        else:
            if settle is Settle.REJECT:
                self.channel.basic_reject(tag, False)  # noqa: FBT003 - as pika has it
            elif settle is Settle.DISCARD:
                self._bare["basic_ack"](tag, False)  # noqa: FBT003
            consumer.settled()

    def acknowledge(self, tag: int) -> None:
        """Acknowledge a message of which the quarantine has a copy, if it is still here."""
        if tag in self._unsettled:
            self._unsettled.discard(tag)
            if self.channel.is_open:
                self._bare["basic_ack"](tag, False)  # noqa: FBT003 - as pika has it


class _Copy:
    """A refused message on its way to the quarantine."""

    def __init__(self, guard: Guard, consumer: Consumer, delivery: Delivery, turned: Turned) -> None:
        self._guard = guard
        self._consumer = consumer
        self._delivery = delivery
        self._turned = turned
        self._failures = 0

    def make(self) -> None:
        """Send the copy; what becomes of it is told to `confirmed`."""
        method, properties = self._delivery.method, self._delivery.properties
        headers = quarantine_headers(
            properties.headers, self._turned.verdict, method.exchange, method.routing_key
        )
        self._guard.hooks.quarantine.take(
            self._turned.quarantine, properties, headers, self._delivery.body, self.confirmed
        )

    def confirmed(self, confirmed: bool) -> None:
        """Acknowledge the message, if the broker confirmed its copy; else try again after a while."""
        consumer, delivery = self._consumer, self._delivery
        if confirmed:
            self._guard.acknowledge(delivery.tag)
            consumer.settled()
            return
        self._failures += 1
        waited = sum(map(pause_after, range(1, self._failures)))
        if waited < consumer.patience:
            self._guard.hooks.host.later(pause_after(self._failures), self.make)
        elif consumer.auto_ack:
            _log.error("a refused message is lost: it came with auto_ack, and the quarantine did not take it")
        else:
            self._guard.give_back(delivery.tag)
            if isinstance(consumer, Getter):
                consumer.tell(delivery, self._turned.error)


class Sent:
    """Clear bodies of what was sent last with ``mandatory``, by envelope, for the case that the broker returns it.

    The broker returns a message before it confirms it, so what was sent last is enough; and to open it again, a producer would need a right
    that it often has not.
    """

    MOST = 1024
    MOST_BYTES = 16 * 1024 * 1024

    def __init__(self) -> None:
        self._bodies: OrderedDict[bytes, bytes] = OrderedDict()
        self._bytes = 0

    def keep(self, envelope: bytes, body: bytes) -> None:
        """Remember *body*, and forget the oldest where it gets too much."""
        if envelope in self._bodies:
            return
        self._bodies[envelope] = body
        self._bytes += len(envelope)
        while len(self._bodies) > self.MOST or (self._bytes > self.MOST_BYTES and len(self._bodies) > 1):
            self._bytes -= len(self._bodies.popitem(last=False)[0])

    def clear(self, envelope: bytes) -> bytes:
        """Return the body that was sealed in *envelope*; that itself, if it was forgotten."""
        body = self._bodies.pop(envelope, None)
        if body is None:
            _log.warning("a returned message is shown sealed: too many were sent since")
            return envelope
        self._bytes -= len(envelope)
        return body
