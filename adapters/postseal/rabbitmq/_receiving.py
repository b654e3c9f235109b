"""Opens what one consumer receives, in its order; pika's.

pika calls a consumer from its event loop, and a key service may take seconds to answer. So what needs no key service is opened where it
comes, and anything else waits in line, with all that comes behind it, while another thread opens it: heartbeats go on, and prefetch holds
the broker back. If the key service does not answer, it is asked again after a pause that grows.

What waits is not requeued at once. A queue that counts deliveries (quorum queues do, up to 20 by default) would drop or dead-letter it
soon, and a message in hand comes no sooner by another round through the broker.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

from postseal.core import KeyUnavailable, Opened, Verdict
from postseal.rabbitmq._inside import put_back
from postseal.rabbitmq._message import Bound, lies_at
from postseal.rabbitmq._replies import demanded, hears
from postseal.rabbitmq._settling import MAX_PLACES, Place, pause_after

if TYPE_CHECKING:
    from postseal.core.opened import Parts
    from postseal.rabbitmq._channel import Guard

__all__ = ["Consumer", "Delivery", "Getter", "HandOn"]

_log: Final = logging.getLogger("postseal.rabbitmq")

HandOn = Callable[[Any, Any, Any, Any], object]
"""A callback as pika calls it: channel, method, properties, body."""


class Delivery:
    """A message that came and was not handed on yet."""

    __slots__ = ("body", "coordinates", "method", "properties", "since")

    def __init__(self, method: Any, properties: Any, body: bytes, coordinates: dict[str, str | int]) -> None:
        self.method = method
        self.properties = properties
        self.body = body
        self.coordinates = coordinates
        self.since = time.monotonic()

    @property
    def tag(self) -> int:
        """What settles it on its channel."""
        tag: int = self.method.delivery_tag
        return tag

    def __repr__(self) -> str:
        return f"<delivery {self.tag}>"  # pika logs what its loop calls


class Consumer:
    """The messages of one consumer.

    Args:
        guard: Of its channel.
        hand_on: Takes opened messages: the application's callback, or that of pika's blocking channel.
        queue: From which they come.
        auto_ack: Whether the broker holds them as acknowledged when it sends them.
    """

    def __init__(self, guard: Guard, hand_on: HandOn, queue: str, *, auto_ack: bool) -> None:
        self._guard = guard
        self._hand_on = hand_on
        self._queue = queue
        self.auto_ack = auto_ack
        self.tag: str | None = None
        """The consumer tag; None for a single message."""
        self._waiting: deque[Delivery] = deque()
        self._failures = 0
        self._era = 0
        """Counts how often all that waited was given back."""
        self._places = guard.hooks.places.of_queue(queue)
        self._handed = guard.handed
        self._sealer = guard.hooks.sealer
        # What comes acknowledged is settled as soon as it was opened: the ledger is told before it is handed on.
        self._settles = self._sealer.ledger is not None and auto_ack
        self._at_hand: dict[tuple[str, str], Callable[[bytes], Parts | None]] = {}
        """What opens the common case, by exchange and routing key as a delivery says them."""
        self._off = False

    def __repr__(self) -> str:
        return f"<postseal.rabbitmq consumer of {self._queue}>"

    def receive(self, channel: Any, method: Any, properties: Any, body: bytes) -> None:
        """Open a message and hand it on; pika calls this for each."""
        if (
            # The common case.
            not self._waiting
            and not self._off
            and properties.content_encoding is None
            and (not properties.reply_to or not self._sealer.binds_replies)
            and (unseal := self._at_hand.get((method.exchange, method.routing_key))) is not None
            and (parts := unseal(body)) is not None
        ):
            body, properties.content_type, receipt = parts
            if not self.auto_ack:
                self._handed[method.delivery_tag] = receipt
            self._hand_on(channel, method, properties, body)
            return
        if self._off:
            self._hand_on(channel, method, properties, body)
            return
        coordinates: dict[str, str | int] = {
            "queue": self._queue,
            "exchange": method.exchange,
            "routing_key": method.routing_key,
            "delivery_tag": method.delivery_tag,
            "redelivered": method.redelivered,
        }
        if not self._waiting:
            try:
                place = self._place(method)
                opened = self._sealer.open_cached(
                    body,
                    destination=place.destination,
                    headers=Bound(properties, sent=False),
                    content_encoding=properties.content_encoding,
                    coordinates=coordinates,
                    reader=place.reader,
                    in_reply_to=demanded(self._sealer, place, properties),
                )
                self._note(opened)
            except KeyUnavailable:
                opened = None  # the ledger's; it waits like one whose key is not there
            except Exception as error:  # noqa: BLE001 - whatever is raised here would end the connection
                self._guard.turn(self, Delivery(method, properties, body, coordinates), error)
                return
            if opened is not None:
                self._restore(properties, opened)
                if not self.auto_ack:
                    self._handed[method.delivery_tag] = opened.receipt
                self._hand_on(channel, method, properties, opened.body)
                return
        self._line_up(Delivery(method, properties, body, coordinates))

    def _place(self, method: Any) -> Place:
        """Look up where a message lies, and have what comes from there opened at hand.

        Raises:
            ConfigError: No policy speaks of it.
        """
        place = self._places[lies_at(method.exchange, method.routing_key, self._queue)]
        if not self._settles:
            if len(self._at_hand) >= MAX_PLACES:
                self._at_hand.clear()
            # It goes by what the policies say now, whenever it is called.
            self._at_hand[method.exchange, method.routing_key] = place.open
        return place

    def _restore(self, properties: Any, opened: Opened) -> None:
        """Let *properties* be those that were sealed, and note a request."""
        restore(properties, opened)
        if properties.reply_to:
            hears(self._sealer, self._places, properties, opened)

    # -- waiting in line -------------------------------------------------------------------------------------------
    # While anything waits, one of three goes on with it: another thread, a timer, or the loop.

    def _line_up(self, delivery: Delivery) -> None:
        self._waiting.append(delivery)
        self._guard.hold(self, delivery)
        if len(self._waiting) == 1:
            self._fetch()

    def _fetch(self) -> None:
        """Have another thread open the first in line; the loop goes on with `came`."""
        thread = threading.Thread(
            target=self._open, args=(self._waiting[0],), name="postseal.rabbitmq", daemon=True
        )
        thread.start()

    def _open(self, delivery: Delivery) -> None:
        result = self._opened(delivery, self._sealer.open)
        try:
            self._guard.hooks.host.soon(_Came(self, delivery, result))
        except Exception as error:  # noqa: BLE001 - the connection is closed: the broker gives the message to another
            _log.debug("a message came too late for its connection: %s", type(error).__name__)

    def _opened(self, delivery: Delivery, unseal: Callable[..., Opened | None]) -> Opened | Exception | None:
        properties = delivery.properties
        try:
            place = self._places[self.place_of(delivery)]
            opened = unseal(
                delivery.body,
                destination=place.destination,
                headers=Bound(properties, sent=False),
                content_encoding=properties.content_encoding,
                coordinates=delivery.coordinates,
                reader=place.reader,
                in_reply_to=demanded(self._sealer, place, properties),
            )
            self._note(opened)
            return opened  # noqa: TRY300 - the story goes on where it is returned
        except Exception as error:  # noqa: BLE001 - it is dealt with where the message is settled
            return error

    def _cached(self, delivery: Delivery) -> Opened | Exception | None:
        """Open what needs not be waited for; None for what does."""
        result = self._opened(delivery, self._sealer.open_cached)
        return None if isinstance(result, KeyUnavailable) else result

    def _note(self, opened: Opened | None) -> None:
        """Tell the ledger of a message that the broker holds as acknowledged."""
        if self._settles and opened is not None:
            self._sealer.settled(opened)

    def came(self, delivery: Delivery, result: Opened | Exception | None) -> None:
        """Go on with *delivery*, of which is known now what it is."""
        if not self._waiting or self._waiting[0] is not delivery:
            return  # given back meanwhile
        if isinstance(result, KeyUnavailable):
            self._fail(delivery, result)
            return
        self._failures = 0
        self._hand_on_from(result)

    def go_on(self, era: int) -> None:
        """Go on with the first in line, if it is still that of this *era*."""
        if era == self._era and self._waiting:
            self._hand_on_from(self._cached(self._waiting[0]))

    def try_again(self, era: int) -> None:
        """Ask the key service again, if the line is still that of this *era*; requeue it, if it waited for too long."""
        if era != self._era or not self._waiting:
            return
        if not self._guard.holds(self, self._waiting[0]):
            self.give_back()
        elif self.auto_ack or time.monotonic() - self._waiting[0].since < self.patience:
            self._fetch()
        else:
            self.give_back()

    def _hand_on_from(self, result: Opened | Exception | None) -> None:
        """Hand on the first in line, which is *result*, and all behind it that need no key service."""
        era = self._era
        try:
            while result is not None:
                if not self._guard.holds(self, self._waiting[0]):
                    self.give_back()
                    return
                self._take_first(result)
                if not self._waiting:
                    return
                result = self._cached(self._waiting[0])
        except BaseException:
            # The application raised. What is behind that message must not wait for ever.
            if self._waiting and era == self._era:
                self._guard.hooks.host.soon(_Later(self.go_on, era))
            raise
        self._fetch()

    def _take_first(self, result: Opened | Exception) -> None:
        delivery = self._waiting.popleft()
        self._guard.release(delivery)
        if isinstance(result, Exception):
            self._guard.turn(self, delivery, result)
            return
        self._restore(delivery.properties, result)
        self._guard.hand(self, delivery, result.receipt)
        self._hand_on(self._guard.channel, delivery.method, delivery.properties, result.body)

    def _fail(self, delivery: Delivery, error: KeyUnavailable) -> None:
        self._failures += 1
        _log.warning(
            "%d of queue %s wait for the key service (failure %d)",
            len(self._waiting),
            self._queue,
            self._failures,
        )
        self._pause(delivery, error)

    def _pause(self, delivery: Delivery, error: KeyUnavailable) -> None:
        """Go on after a while, at any rate: also what is requeued comes back at once."""
        del delivery, error
        self._guard.hooks.host.later(pause_after(self._failures), _Later(self.try_again, self._era))

    def give_back(self) -> None:
        """Requeue all that wait."""
        waiting = self.forget()
        for delivery in waiting:
            self._guard.give_back(delivery.tag)
        if waiting and self.auto_ack:
            # The broker has nothing to take back, and in clear they are handed on to nobody.
            _log.error("%d of queue %s are lost: they came with auto_ack", len(waiting), self._queue)

    def forget(self) -> deque[Delivery]:
        """Forget all that wait, and return them."""
        waiting, self._waiting = self._waiting, deque()
        self._era += 1
        return waiting

    def switch_off(self) -> None:
        """Hand on as it comes what comes from now on."""
        self.give_back()
        self._off = True

    def place_of(self, delivery: Delivery) -> tuple[str, str]:
        """Return the exchange and the routing key that *delivery* is opened under."""
        return lies_at(delivery.method.exchange, delivery.method.routing_key, self._queue)

    # -- what differs between consumers and single messages --------------------------------------------------------

    @property
    def patience(self) -> float:
        """Seconds that a message waits here for its key before it is requeued."""
        return self._guard.hooks.options.give_back_after

    def tell(self, delivery: Delivery, error: Exception) -> None:
        """Raise *error* in the application."""
        del delivery
        self._guard.hooks.host.tell(error)

    def settled(self) -> None:
        """Go on behind a message that was refused and settled."""


class Getter(Consumer):
    """The message that one ``basic_get`` asked for.

    Args:
        guard: Of its channel.
        hand_on: Takes the opened message.
        queue: As in `Consumer`.
        auto_ack: As in `Consumer`.
        fail: Takes what is raised in the place of a message, with *hand_on*; None where nobody waits for it.
        ask: pika's ``basic_get``.
    """

    def __init__(
        self,
        guard: Guard,
        hand_on: HandOn,
        queue: str,
        *,
        auto_ack: bool,
        fail: Callable[[HandOn, Any, Any, Exception], object] | None,
        ask: Callable[..., Any],
    ) -> None:
        super().__init__(guard, hand_on, queue, auto_ack=auto_ack)
        self._fail_with = fail
        self._ask = ask

    def ask(self) -> Any:
        """Ask the broker for a message."""
        return self._ask(self._queue, self.receive, self.auto_ack)

    @property
    def patience(self) -> float:
        """None at all: whoever asked waits."""
        return 0.0

    def tell(self, delivery: Delivery, error: Exception) -> None:
        """Raise *error* in the application: out of ``basic_get``, where that blocks."""
        if self._fail_with is None:
            self._guard.hooks.host.tell(error)
        else:
            self._fail_with(self._hand_on, delivery.method, delivery.properties, error)

    def settled(self) -> None:
        """Ask for the next message."""
        if self._guard.channel.is_open:
            self.ask()

    def _pause(self, delivery: Delivery, error: KeyUnavailable) -> None:
        if self.auto_ack:
            super()._pause(delivery, error)
        else:
            self.give_back()
            self.tell(delivery, error)


class _Came:
    """What the loop calls when another thread has opened a message. pika logs its `repr`."""

    __slots__ = ("_consumer", "_delivery", "_result")

    def __init__(self, consumer: Consumer, delivery: Delivery, result: Opened | Exception | None) -> None:
        self._consumer = consumer
        self._delivery = delivery
        self._result = result

    def __call__(self) -> None:
        self._consumer.came(self._delivery, self._result)


class _Later:
    """What the loop calls later on."""

    __slots__ = ("_call", "_era")

    def __init__(self, call: Callable[[int], None], era: int) -> None:
        self._call = call
        self._era = era

    def __call__(self) -> None:
        self._call(self._era)


def restore(properties: Any, opened: Opened, *, aware: bool = False) -> None:
    """Let *properties* have the content type, and the headers, that the sender sealed.

    Args:
        properties: As received.
        opened: The message.
        aware: As in `put_back`.
    """
    if opened.verdict is not Verdict.CLEAR:
        properties.content_type = opened.content_type
        put_back(properties, opened, aware=aware)
