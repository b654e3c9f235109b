"""Opens what one consumer receives, in its order; aio-pika's.

aiormq starts a task for each message. What needs no key service is opened at once, without yielding; anything else waits in line for its
key, with all that comes behind it, while the loop goes on. If the key service does not answer, it is asked again after a pause that grows.

What waits is not requeued at once. A queue that counts deliveries (quorum queues do, up to 20 by default) would drop or dead-letter it
soon, and a message in hand comes no sooner by another round through the broker.
"""

from __future__ import annotations

import asyncio
import inspect
import logging
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, Final

from aiormq.abc import DeliveredMessage

from postseal.core import KeyUnavailable, Opened
from postseal.rabbitmq._aio_iterators import tell_iterator
from postseal.rabbitmq._message import Bound, lies_at
from postseal.rabbitmq._receiving import restore
from postseal.rabbitmq._replies import demanded, hears
from postseal.rabbitmq._settling import Place, Settle, Turned, pause_after

if TYPE_CHECKING:
    from postseal.core.opened import Parts
    from postseal.rabbitmq._aio_channel import Guard

__all__ = ["Consumer", "Delivery", "Getter"]

_log: Final = logging.getLogger("postseal.rabbitmq")


class Delivery:
    """A message that came and was not handed on yet.

    Args:
        message: As aiormq has it.
        queue: From which it came.
    """

    __slots__ = ("coordinates", "exchange", "message", "routing_key", "since", "tag")

    def __init__(self, message: DeliveredMessage, queue: str) -> None:
        frame: Any = message.delivery
        self.message = message
        self.exchange, self.routing_key = lies_at(frame.exchange, frame.routing_key, queue)
        self.tag: int = frame.delivery_tag
        self.coordinates: dict[str, str | int] = {
            "queue": queue,
            "exchange": frame.exchange,
            "routing_key": frame.routing_key,
            "delivery_tag": frame.delivery_tag,
            "redelivered": frame.redelivered,
        }
        self.since = 0.0

    def __repr__(self) -> str:
        return f"<delivery {self.tag}>"


def with_opened(message: DeliveredMessage, opened: Opened) -> DeliveredMessage:
    """Return *message* with the body, the content type and the headers that were sealed."""
    restore(message.header.properties, opened, aware=True)
    return _with_body(message, opened.body)


def _with_body(message: DeliveredMessage, body: bytes) -> DeliveredMessage:
    header = message.header
    header.body_size = len(body)
    return DeliveredMessage(message.delivery, header, body, message.channel)


class Consumer:
    """The messages of one consumer.

    Args:
        guard: Of its channel.
        hand_on: Takes opened messages; awaited where it gives something to await.
        queue: From which they come.
        auto_ack: Whether the broker holds them as acknowledged when it sends them.
    """

    def __init__(
        self, guard: Guard, hand_on: Callable[[DeliveredMessage], Any], queue: str, *, auto_ack: bool
    ) -> None:
        self._guard = guard
        self._hand_on = hand_on
        self._queue = queue
        self.auto_ack = auto_ack
        self._places = guard.hooks.places.of_queue(queue)
        self._handed = guard.handed
        self._sealer = guard.hooks.sealer
        # What comes acknowledged is settled as soon as it was opened: the ledger is told, and waited for, before it is handed on.
        self._settles = self._sealer.ledger is not None and auto_ack
        self._quick_places: Mapping[tuple[str, str], Place] = {} if self._settles else self._places
        self._line = asyncio.Lock()
        self._waiting: dict[int, Delivery] = {}
        """What stands in line, by delivery tag."""
        self._failures = 0
        self._off = False

    def __repr__(self) -> str:
        return f"<postseal.rabbitmq consumer of {self._queue}>"

    async def receive(self, message: DeliveredMessage) -> Any:
        """Open a message and hand it on; aiormq runs this as a task for each."""
        parts = self._at_hand(message)
        if parts is not None:
            body, message.header.properties.content_type, receipt = parts
            if not self.auto_ack:
                frame: Any = message.delivery
                self._handed[frame.delivery_tag] = receipt
            message = _with_body(message, body)
        elif not self._off:
            delivery = Delivery(message, self._queue)
            result: Any = self._at_once(delivery)
            if result is None:
                result = await self._in_line(delivery)
            if isinstance(result, Exception):
                await self._turn(delivery, result)
                return None
            if result is None:
                return None
            receipt = None
            if isinstance(result, Opened):
                message, receipt = self._with_opened(message, result), result.receipt
            self._guard.hand(delivery, receipt, auto_ack=self.auto_ack)
        answer = self._hand_on(message)
        return await answer if inspect.isawaitable(answer) else answer

    def _with_opened(self, message: DeliveredMessage, opened: Opened) -> DeliveredMessage:
        """Return *message* as it was sealed, and note a request."""
        message = with_opened(message, opened)
        properties = message.header.properties
        if properties.reply_to:
            hears(self._sealer, self._places, properties, opened)
        return message

    def _at_hand(self, message: DeliveredMessage) -> Parts | None:
        """Open a message in the common case, in which nothing has to be known of it but its body."""
        frame: Any = message.delivery
        properties = message.header.properties
        if (
            self._waiting
            or self._off
            or properties.content_encoding is not None
            or (properties.reply_to and self._sealer.binds_replies)
            or (place := self._quick_places.get(lies_at(frame.exchange, frame.routing_key, self._queue)))
            is None
        ):
            return None
        return place.open(message.body)

    def _at_once(self, delivery: Delivery) -> Opened | Exception | None:
        """Open a message that needs no key service, if none waits before it; else return None."""
        if self._waiting or self._settles:
            return None
        try:
            return self._sealer.open_cached(**self._to_open(delivery))
        except KeyUnavailable:
            return None  # the ledger's; it waits like one whose key is not there
        except Exception as error:  # noqa: BLE001 - settled where the message is
            return error

    def _to_open(self, delivery: Delivery) -> dict[str, Any]:
        properties = delivery.message.header.properties
        place = self._places[delivery.exchange, delivery.routing_key]
        return {
            "envelope": delivery.message.body,
            "destination": place.destination,
            "reader": place.reader,
            "headers": Bound(properties, sent=False),
            "content_encoding": properties.content_encoding,
            "coordinates": delivery.coordinates,
            "in_reply_to": demanded(self._sealer, place, properties),
        }

    # -- waiting in line -------------------------------------------------------------------------------------------

    async def _in_line(self, delivery: Delivery) -> Opened | DeliveredMessage | Exception | None:
        """Wait for all before it, then for its key; return None where it was given back meanwhile."""
        delivery.since = asyncio.get_running_loop().time()
        self._waiting[delivery.tag] = delivery
        self._guard.hold(delivery, auto_ack=self.auto_ack)
        try:
            async with self._line:
                result = await self._fetch(delivery)
        finally:
            # In one stroke with the handing on: what comes next is started after it.
            still_here = self._waiting.pop(delivery.tag, None) is not None
        if not still_here:
            return None
        self._guard.release(delivery)
        return delivery.message if self._off else result

    async def _fetch(self, delivery: Delivery) -> Opened | Exception | None:
        """Open a message, however often the key service must be asked; return None where it is no longer ours."""
        while self._holds(delivery):
            try:
                opened = await self._sealer.aopen(**self._to_open(delivery))
                if self._settles:
                    await self._sealer.asettled(opened)
            except KeyUnavailable as error:
                await self._pause(delivery, error)
                continue
            except Exception as error:  # noqa: BLE001 - settled where the message is
                self._failures = 0
                if self._holds(delivery):
                    return error
                break
            self._failures = 0
            if self._holds(delivery):
                return opened
        if delivery.tag in self._waiting and not self._off:
            await self.give_back()  # cancelled meanwhile, by the application or the broker
        return None

    def _holds(self, delivery: Delivery) -> bool:
        return (
            not self._off
            and delivery.tag in self._waiting
            and self._guard.holds(delivery, auto_ack=self.auto_ack)
        )

    async def _pause(self, delivery: Delivery, error: KeyUnavailable) -> None:
        self._failures += 1
        _log.warning(
            "%d of queue %s wait for the key service (failure %d)",
            len(self._waiting),
            self._queue,
            self._failures,
        )
        # Before anything is given back, too: it comes again at once.
        await asyncio.sleep(pause_after(self._failures))
        waited = asyncio.get_running_loop().time() - delivery.since
        if not self.auto_ack and waited >= self.patience() and self._holds(delivery):
            await self.give_back()
            self.gave_back(error)

    async def give_back(self) -> None:
        """Requeue all that wait."""
        waiting = self.forget()
        for delivery in waiting:
            await self._guard.give_back(delivery.tag)
        if waiting and self.auto_ack:
            # The broker has nothing to take back, and in clear they are handed on to nobody.
            _log.error("%d of queue %s are lost: they came with no_ack", len(waiting), self._queue)

    def forget(self) -> list[Delivery]:
        """Forget all that wait, and return them."""
        waiting = list(self._waiting.values())
        self._waiting.clear()
        return waiting

    def switch_off(self) -> None:
        """Hand on as it comes what comes from now on, and what waits."""
        self._off = True

    # -- what is refused -------------------------------------------------------------------------------------------

    async def _turn(self, delivery: Delivery, error: Exception) -> None:
        """Settle a message that is not handed on, as its policy says."""
        turned = self._places.turn(
            error, delivery.exchange, delivery.routing_key, delivery.coordinates, auto_ack=self.auto_ack
        )
        settle = turned.settle
        if settle in (Settle.RAISE, Settle.LEAVE, Settle.QUARANTINE):
            self._guard.hold(delivery, auto_ack=self.auto_ack)
        if settle is Settle.RAISE:
            await self.tell(error)
        elif settle is Settle.QUARANTINE:
            await self._quarantine(delivery, turned)
        elif settle is Settle.REJECT:
            await self._guard.reject(delivery.tag)
        elif settle is Settle.DISCARD:
            await self._guard.acknowledge(delivery.tag)

    async def _quarantine(self, delivery: Delivery, turned: Turned) -> None:
        """Copy a refused message to the quarantine; settle it when the broker has confirmed the copy, else requeue it in the end."""
        began = asyncio.get_running_loop().time()
        failures = 0
        while not await self._guard.quarantine.take(turned, delivery.message):
            failures += 1
            waited = asyncio.get_running_loop().time() - began
            if waited >= self.patience() and not self.auto_ack:
                await self._guard.give_back(delivery.tag)
                self.gave_back(turned.error)
                return
            await asyncio.sleep(pause_after(failures))
        if self._guard.release(delivery):
            await self._guard.acknowledge(delivery.tag)

    # -- what differs between consumers and single messages --------------------------------------------------------

    def patience(self) -> float:
        """Seconds that a message waits here before it is requeued."""
        return self._guard.hooks.options.give_back_after

    async def tell(self, error: Exception) -> None:
        """Raise *error* in the application: out of its iterator, or, where it has a callback, in the callback's place."""
        if not await tell_iterator(self._hand_on, error):
            raise error

    def gave_back(self, error: Exception) -> None:
        """Go on after a message was requeued because it could not be opened or copied."""


class Getter(Consumer):
    """The one message that ``basic_get`` asked for."""

    def __init__(self, guard: Guard, queue: str, *, auto_ack: bool) -> None:
        super().__init__(guard, self._take, queue, auto_ack=auto_ack)
        self._taken: DeliveredMessage | None = None

    async def get(self, message: DeliveredMessage) -> DeliveredMessage | None:
        """Open *message*; return None where it was refused and settled.

        Raises:
            Refused: It is refused, and the policy says "raise". It was not settled.
            KeyUnavailable: Its key could not be had. It was requeued.
        """
        frame: Any = message.delivery
        try:
            await self.receive(message)
        except asyncio.CancelledError:
            await self._guard.give_back(frame.delivery_tag)  # nobody waits for it any more
            raise
        return self._taken

    def _take(self, message: DeliveredMessage) -> None:
        self._taken = message

    def patience(self) -> float:
        """None: who asks for one message is told at once."""
        return 0.0

    async def tell(self, error: Exception) -> None:
        """Raise *error* out of ``get``."""
        raise error

    def gave_back(self, error: Exception) -> None:
        """Say so."""
        raise error
