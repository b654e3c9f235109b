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
from postseal.core.replay import Receipt
from postseal.rabbitmq._inside import without
from postseal.rabbitmq._message import Bound, check_bound, quarantine_headers
from postseal.rabbitmq._receiving import Consumer, Delivery, Getter, HandOn
from postseal.rabbitmq._replies import answered, asks
from postseal.rabbitmq._settling import MAX_PLACES, Handed, Place, Settle, Turned, pause_after

if TYPE_CHECKING:
    from postseal.core.sealer import SealAtHand
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
    "basic_reject",
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
        self.handed = Handed()
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

    def _publisher(self) -> Callable[..., None]:  # noqa: C901 - see below
        """Make what covers ``basic_publish``: a closure, because it runs for each message."""
        publish, places, seal, sent = self._bare["basic_publish"], self.hooks.places, self._seal, self.sent
        at_hand: dict[tuple[str, str], SealAtHand] = {}
        sealer = self.hooks.sealer

        def basic_publish(
            exchange: str,
            routing_key: str,
            body: Any,
            properties: Any = None,
            mandatory: bool = False,  # noqa: FBT002 - as pika has it
        ) -> None:
            """Publish *body*, sealed."""
            if type(body) is not bytes and isinstance(body, str):
                body = body.encode()
            try:
                quick = at_hand[exchange, routing_key]
            except KeyError:
                if len(at_hand) >= MAX_PLACES:
                    at_hand.clear()
                # It goes by what the policies say now, whenever it is called.
                quick = at_hand[exchange, routing_key] = places[exchange, routing_key].seal
            if properties is None:
                envelope = quick(body)
            elif properties.content_encoding is None:
                envelope = quick(body, properties.content_type)
            else:
                envelope = None
            shown = None
            if envelope is None:
                place = places[exchange, routing_key]
                envelope = seal(body, place, properties)
                if takes := place.policy.taken_headers:
                    shown, properties = properties, without(properties, takes)
            if properties is not None and properties.reply_to:
                asks(sealer, places, properties, envelope)
            if mandatory:
                sent.keep(envelope, body, None if shown is properties or shown is None else shown.headers)
            publish(exchange, routing_key, envelope, properties, mandatory)

        return basic_publish

    def _seal(self, body: bytes, place: Place, properties: Any) -> bytes:
        """Seal what is not sealed at hand."""
        bound = None
        if place.policy.bind_headers or place.policy.encrypt_headers:
            check_bound(properties, place.policy)
            bound = Bound(properties, sent=True)
        return self.hooks.sealer.seal(
            body,
            destination=place.destination,
            headers=bound,
            content_type=None if properties is None else properties.content_type,
            content_encoding=None if properties is None else properties.content_encoding,
            in_reply_to=answered(self.hooks.sealer, place, properties),
        )

    def add_on_return_callback(self, callback: HandOn) -> None:
        """Have *callback* called with what the broker returns, as it was published."""
        sent = self.sent
        self._bare["add_on_return_callback"](
            lambda channel, method, properties, body: callback(
                channel, method, properties, sent.clear(body, properties)
            )
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

    def basic_ack(self, delivery_tag: int = 0, multiple: bool = False) -> None:  # noqa: FBT002 - as pika has it
        """Acknowledge, but never what the application did not get; all else as in pika. The ledger is told before.

        Raises:
            LedgerUnavailable: The ledger did not answer. Nothing was acknowledged.
        """
        tags = self.handed.up_to(delivery_tag) if multiple else [delivery_tag]
        receipts = self.handed.receipts(tags)
        self.hooks.sealer.settled(*receipts)
        try:
            if not multiple:
                self._bare["basic_ack"](delivery_tag)
            else:
                for tag, all_before in self._settled(delivery_tag, tags):
                    self._bare["basic_ack"](tag, all_before)
        except BaseException:
            self.hooks.sealer.unsettled(*receipts)
            raise
        self.handed.take(tags)

    def basic_nack(self, delivery_tag: int = 0, multiple: bool = False, requeue: bool = True) -> Any:  # noqa: FBT002
        """Reject, but never what the application did not get; all else as in pika."""
        if not multiple:
            self.handed.pop(delivery_tag, None)
            return self._bare["basic_nack"](delivery_tag, multiple, requeue)
        tags = self.handed.up_to(delivery_tag)
        self.handed.take(tags)
        for tag, all_before in self._settled(delivery_tag, tags):
            self._bare["basic_nack"](tag, all_before, requeue)
        return None

    def basic_reject(self, delivery_tag: int = 0, requeue: bool = True) -> Any:  # noqa: FBT002 - as pika has it
        """Reject; all as in pika."""
        self.handed.pop(delivery_tag, None)
        return self._bare["basic_reject"](delivery_tag, requeue)

    def basic_recover(self, requeue: bool = False, callback: Any = None) -> Any:  # noqa: FBT002 - as pika has it
        """Have the broker deliver again what is not settled, what waits here too; all else as in pika."""
        self._unsettled.clear()
        self.handed.clear()
        for consumer in self._consumers.values():
            consumer.forget()
        return self._bare["basic_recover"](requeue, callback)

    def _settled(self, delivery_tag: int, tags: list[int]) -> list[tuple[int, bool]]:
        """Return what is to be settled for "all up to *delivery_tag*" (0: all): tags, each with whether it says so of all before it."""
        if not self._unsettled:
            return [(delivery_tag, True)]
        # To requeue what was not handed on would not do: the broker may send it again before it handles this, and then settles it, too.
        return [(tag, False) for tag in tags]

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

    def hand(self, consumer: Consumer, delivery: Delivery, receipt: Receipt | None) -> None:
        """Note that the application is given *delivery*, which waited, to settle it."""
        if not consumer.auto_ack:
            self.handed.late(delivery.tag, receipt)

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
                self._bare["basic_reject"](tag, False)  # noqa: FBT003 - as pika has it
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
        self._bodies: OrderedDict[bytes, tuple[bytes, Any]] = OrderedDict()
        self._bytes = 0

    def keep(self, envelope: bytes, body: bytes, headers: Any = None) -> None:
        """Remember *body*, and *headers* where some were taken out, and forget the oldest where it gets too much."""
        if envelope in self._bodies:
            return
        self._bodies[envelope] = body, headers
        self._bytes += len(envelope)
        while len(self._bodies) > self.MOST or (self._bytes > self.MOST_BYTES and len(self._bodies) > 1):
            self._bytes -= len(self._bodies.popitem(last=False)[0])

    def clear(self, envelope: bytes, properties: Any) -> bytes:
        """Return the body that was sealed in *envelope*; that itself, if it was forgotten. Give *properties* their headers again."""
        kept = self._bodies.pop(envelope, None)
        if kept is None:
            _log.warning("a returned message is shown sealed: too many were sent since")
            return envelope
        self._bytes -= len(envelope)
        body, headers = kept
        if headers is not None:
            properties.headers = dict(headers)
        return body
