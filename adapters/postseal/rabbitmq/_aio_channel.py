"""Guards one channel of aiormq: what it publishes is sealed, what it hands on was opened.

aio-pika's exchanges, queues, iterators, transactions and patterns publish and consume through an `aiormq.Channel`, and so does who takes
``message.channel``. So its methods are covered by ours on the very object, and no way around them is left.

Source: aiormq 7.0, channel.py; none of what is covered here is private.
"""

from __future__ import annotations

import asyncio
import dataclasses
import random
from collections.abc import Callable, Iterable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any, Final

from aiormq.abc import DeliveredMessage
from aiormq.exceptions import PublishError
from pamqp.commands import Basic

from postseal.core import ConfigError
from postseal.core.replay import Receipt
from postseal.rabbitmq._aio_receiving import Consumer, Delivery, Getter
from postseal.rabbitmq._inside import without
from postseal.rabbitmq._message import Bound, check_bound
from postseal.rabbitmq._replies import answered, asks
from postseal.rabbitmq._settling import Handed, Place

if TYPE_CHECKING:
    from postseal.rabbitmq._aio_pika import Hooks
    from postseal.rabbitmq._aio_quarantine import Quarantine

__all__ = ["Guard"]

_COVERED: Final = (
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
        channel: Of `aiormq.Channel`.
        hooks: Of its connection.
        quarantine: Likewise.
    """

    def __init__(self, channel: Any, hooks: Hooks, quarantine: Quarantine) -> None:
        self.channel = channel
        self.hooks = hooks
        self.quarantine = quarantine
        self._consumers: dict[str, Consumer] = {}
        self._unsettled: set[int] = set()
        """Delivery tags of what the application never got and the broker has not back."""
        self.handed = Handed()
        self._bare = {name: getattr(channel, name) for name in _COVERED}
        self._sent: dict[bytes, tuple[bytes, Any]] = {}
        """Bodies and headers of what is being published and may be returned, by the end of their envelope."""

    def attach(self) -> None:
        """Cover the channel's methods.

        Raises:
            ConfigError: It consumes already, and what it was sent is on its way to be handed on as it is.
        """
        if self.channel.consumers:
            raise ConfigError(
                f"channel {self.channel.number} of this connection consumes already: protect a connection before it consumes"
            )
        for name in _COVERED:
            setattr(self.channel, name, self._publisher() if name == "basic_publish" else getattr(self, name))
        self.channel.on_return_callbacks = _Returns(self.channel.on_return_callbacks, self._restored)

    def detach(self) -> None:
        """Uncover them, and hand on as it comes what consumers get from now on."""
        for name in _COVERED:
            delattr(self.channel, name)
        self.channel.on_return_callbacks = set(self.channel.on_return_callbacks.all())
        for consumer in self._consumers.values():
            consumer.switch_off()

    # -- publishing ------------------------------------------------------------------------------------------------

    def _publisher(self) -> Callable[..., Any]:
        """Make what covers ``basic_publish``: a closure, because it runs for each message."""
        publish, places, seal = self._bare["basic_publish"], self.hooks.places, self._seal
        sealer = self.hooks.sealer
        line, sent, restored, in_line = asyncio.Lock(), self._sent, self._restored, 0

        async def basic_publish(
            body: bytes,
            *,
            exchange: str = "",
            routing_key: str = "",
            properties: Basic.Properties | None = None,
            mandatory: bool = False,
            timeout: float | None = None,  # noqa: ASYNC109 - as aiormq has it
            **options: Any,
        ) -> Any:
            """Publish *body*, sealed; all else as in aiormq."""
            nonlocal in_line
            if properties is None:
                properties = Basic.Properties(delivery_mode=1)
            if not properties.message_id:
                # aiormq would give it one, after it was bound.
                properties.message_id = f"{random.getrandbits(128):032x}"
            place = places[exchange, routing_key]
            envelope = None
            if not in_line and not properties.content_encoding:
                envelope = place.seal(body, properties.content_type or None)
            if envelope is None:
                # One after another, so that what waits for a key is not overtaken.
                in_line += 1
                try:
                    async with asyncio.timeout(timeout), line:
                        envelope = await seal(body, place, properties)
                finally:
                    in_line -= 1
            if properties.reply_to:
                asks(sealer, places, properties, envelope)
            headers = properties.headers
            if takes := place.policy.taken_headers:
                properties = without(properties, takes)
            options |= {"exchange": exchange, "routing_key": routing_key, "properties": properties}
            if not mandatory:
                return await publish(envelope, timeout=timeout, **options)
            sent[envelope[-_END:]] = body, headers
            try:
                return restored(await publish(envelope, mandatory=True, timeout=timeout, **options))
            except PublishError as error:
                error.message = restored(error.message)
                raise
            finally:
                sent.pop(envelope[-_END:], None)

        return basic_publish

    async def _seal(self, body: bytes, place: Place, properties: Basic.Properties) -> bytes:
        """Seal what is not sealed at hand."""
        bound = None
        if place.policy.bind_headers or place.policy.encrypt_headers:
            check_bound(properties, place.policy)
            bound = Bound(properties, sent=True)
        return await self.hooks.sealer.aseal(
            body,
            destination=place.destination,
            headers=bound,
            content_type=properties.content_type or None,
            content_encoding=properties.content_encoding or None,
            in_reply_to=answered(self.hooks.sealer, place, properties),
        )

    def _restored(self, answer: Any) -> Any:
        """Give a message that the broker returned the body that it was published with; anything else is returned as it is."""
        if not isinstance(answer, DeliveredMessage):
            return answer
        kept = self._sent.get(answer.body[-_END:])
        if kept is None:
            return answer
        body, headers = kept
        answer.header.properties.headers = headers
        return dataclasses.replace(answer, body=body)

    # -- consuming -------------------------------------------------------------------------------------------------

    async def basic_consume(
        self, queue: str, consumer_callback: Callable[..., Any], *, no_ack: bool = False, **options: Any
    ) -> Any:
        """Consume, with opened messages; all else as in aiormq."""
        consumer = Consumer(self, consumer_callback, queue, auto_ack=no_ack)
        answer = await self._bare["basic_consume"](queue, consumer.receive, no_ack=no_ack, **options)
        self._consumers[answer.consumer_tag] = consumer
        return answer

    async def basic_cancel(self, consumer_tag: str, **options: Any) -> Any:
        """Cancel, and requeue what still waits for its key; all else as in aiormq."""
        answer = await self._bare["basic_cancel"](consumer_tag, **options)
        consumer = self._consumers.pop(consumer_tag, None)
        if consumer is not None:
            # Not before: the broker would send it here again.
            await consumer.give_back()
        return answer

    async def basic_get(self, queue: str = "", no_ack: bool = False, *rest: Any, **options: Any) -> Any:  # noqa: FBT002 - as aiormq has it
        """Get one message, opened; all else as in aiormq. What is refused and settled is passed over.

        Raises:
            Refused: It is refused, and the policy says "raise". It was not settled.
            KeyUnavailable: Its key could not be had. It was requeued.
        """
        while True:
            message = await self._bare["basic_get"](queue, no_ack, *rest, **options)
            if isinstance(message.delivery, Basic.GetEmpty):
                return message
            opened = await Getter(self, queue, auto_ack=no_ack).get(message)
            if opened is not None:
                return opened

    # -- settling by the application -------------------------------------------------------------------------------

    async def basic_ack(
        self,
        delivery_tag: int,
        multiple: bool = False,  # noqa: FBT002 - as aiormq has it
        *rest: Any,
        **options: Any,
    ) -> None:
        """Acknowledge, but never what the application did not get; all else as in aiormq. The ledger is told before.

        Raises:
            LedgerUnavailable: The ledger did not answer. Nothing was acknowledged.
        """
        tags = self.handed.up_to(delivery_tag) if multiple else [delivery_tag]
        receipts, sealer = self.handed.receipts(tags), self.hooks.sealer
        if receipts:
            await sealer.asettled(*receipts)
        try:
            await self._settle("basic_ack", delivery_tag, tags, multiple, rest, options)
        except BaseException:
            if receipts:
                await sealer.aunsettled(*receipts)
            raise
        self.handed.take(tags)

    async def basic_nack(
        self,
        delivery_tag: int,
        multiple: bool = False,  # noqa: FBT002 - as aiormq has it
        *rest: Any,
        **options: Any,
    ) -> None:
        """Reject, but never what the application did not get; all else as in aiormq."""
        tags = self.handed.up_to(delivery_tag) if multiple else [delivery_tag]
        self.handed.take(tags)
        await self._settle("basic_nack", delivery_tag, tags, multiple, rest, options)

    async def basic_reject(self, delivery_tag: int, **options: Any) -> None:
        """Reject; all as in aiormq."""
        self.handed.pop(delivery_tag, None)
        await self._bare["basic_reject"](delivery_tag, **options)

    async def basic_recover(self, **options: Any) -> Any:
        """Have the broker deliver again what is not settled, what waits here too; all else as in aiormq."""
        self._unsettled.clear()
        self.handed.clear()
        for consumer in self._consumers.values():
            consumer.forget()
        return await self._bare["basic_recover"](**options)

    async def _settle(  # noqa: PLR0917 - ours alone
        self,
        verb: str,
        delivery_tag: int,
        tags: list[int],
        multiple: bool,
        rest: tuple[Any, ...],
        options: dict[str, Any],
    ) -> None:
        settle = self._bare[verb]
        if not multiple:
            await settle(delivery_tag, False, *rest, **options)  # noqa: FBT003 - as aiormq has it
            return
        if not self._unsettled:
            await settle(delivery_tag, True, *rest, **options)  # noqa: FBT003
            return
        for tag in tags:
            await settle(tag, False, *rest, **options)  # noqa: FBT003

    # -- what waits ------------------------------------------------------------------------------------------------

    def hold(self, delivery: Delivery, *, auto_ack: bool) -> None:
        """Note that *delivery* is kept from the application for now."""
        if not auto_ack:
            self._unsettled.add(delivery.tag)

    def holds(self, delivery: Delivery, *, auto_ack: bool) -> bool:
        """Tell whether *delivery* is still ours to hand on or to settle."""
        if self.channel.is_closed:
            return False
        tag = delivery.message.consumer_tag
        if tag is not None and tag not in self.channel.consumers:
            return False  # cancelled, by whom ever
        return auto_ack or delivery.tag in self._unsettled

    def hand(self, delivery: Delivery, receipt: Receipt | None, *, auto_ack: bool) -> None:
        """Note that the application is given *delivery*, to settle it."""
        if not auto_ack:
            self.handed.late(delivery.tag, receipt)

    def release(self, delivery: Delivery) -> bool:
        """Note that *delivery* is about to be handed on or settled, and tell whether it was held."""
        held = delivery.tag in self._unsettled
        self._unsettled.discard(delivery.tag)
        return held

    async def give_back(self, tag: int) -> None:
        """Requeue a message, if it is still here."""
        if tag in self._unsettled:
            self._unsettled.discard(tag)
            if not self.channel.is_closed:
                await self._bare["basic_nack"](tag, requeue=True, wait=False)

    async def reject(self, tag: int) -> None:
        """Have the broker dead-letter a message, or drop it."""
        if not self.channel.is_closed:
            await self._bare["basic_reject"](tag, requeue=False, wait=False)

    async def acknowledge(self, tag: int) -> None:
        """Have the broker forget a message."""
        if not self.channel.is_closed:
            await self._bare["basic_ack"](tag, wait=False)


_END: Final = 32
"""Bytes from the end of an envelope by which it is known: its tag is among them."""


class _Returns(set[Callable[[DeliveredMessage], Any]]):
    """Callbacks for what the broker returns: called by aiormq, each is shown a message as it was published.

    Args:
        present: Those that there are.
        restored: Gives a returned message its body back.
    """

    def __init__(
        self,
        present: Iterable[Callable[[DeliveredMessage], Any]],
        restored: Callable[[DeliveredMessage], DeliveredMessage],
    ) -> None:
        super().__init__(present)
        self._restored = restored

    def all(self) -> list[Callable[[DeliveredMessage], Any]]:
        """Return them as they were added."""
        return list(super().__iter__())

    def __iter__(self) -> Iterator[Callable[[DeliveredMessage], Any]]:
        for callback in self.all():
            yield partial(self._told, callback)

    def _told(self, callback: Callable[[DeliveredMessage], Any], message: DeliveredMessage) -> Any:
        return callback(self._restored(message))
