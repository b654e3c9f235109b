"""Sends refused messages, as they came, to where nobody takes them for good; pika's."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from pika.spec import Basic, BasicProperties

from postseal.rabbitmq._message import least_headers

__all__ = ["Quarantine"]

_BESIDE: Final = 22
"""Bytes of a frame with properties that are none. Source: AMQP 0-9-1, 2.3.5 and 2.3.5.2."""


class _Copy(NamedTuple):
    exchange: str
    routing_key: str
    properties: BasicProperties
    body: bytes
    done: Callable[[bool], object]


class Quarantine:
    """Publishes on a channel of its own, one message at a time, and tells whether the broker confirmed it.

    The channel is opened when it is first needed, and again after the broker closed it: as it does where the exchange does not exist.

    Args:
        open_channel: ``channel`` of the connection, without our cover.
    """

    def __init__(self, open_channel: Callable[..., Any]) -> None:
        self._open_channel = open_channel
        self._channel: Any = None
        self._ready = False
        self._waiting: deque[_Copy] = deque()
        self._under_way: _Copy | None = None
        self._returned = False

    def take(
        self,
        place: tuple[str, str],
        properties: Any,
        headers: Mapping[str, Any],
        body: bytes,
        done: Callable[[bool], object],
    ) -> None:
        """Send a copy to *place*, an exchange and a routing key, and call *done* with whether it is in some queue there.

        Args:
            place: Where to.
            properties: Of the message; those that would make the copy vanish or be refused are left out.
            headers: In the place of its headers.
            body: As it came.
            done: Called once, now or later, in the connection's loop.
        """
        self._waiting.append(_Copy(*place, _copied(properties, headers), body, done))
        self._go_on()

    def _go_on(self) -> None:
        if self._under_way is not None or not self._waiting:
            return
        try:
            if self._channel is None:
                self._channel = self._open_channel(on_open_callback=self._on_open)
                self._channel.add_on_close_callback(self._on_close)
            elif self._ready:
                copy = self._under_way = self._waiting.popleft()
                self._returned = False
                _fit(copy.properties, self._channel.connection.params.frame_max - _BESIDE)
                # Mandatory: without it, the broker confirms what no queue took.
                self._channel.basic_publish(
                    copy.exchange, copy.routing_key, copy.body, copy.properties, mandatory=True
                )
        except Exception:  # noqa: BLE001 - the connection or the channel is closed: nothing is confirmed, and nothing lost
            self._fail()

    def _on_open(self, channel: Any) -> None:
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirmation, callback=self._on_confirming)

    def _on_confirming(self, _: Any) -> None:
        self._ready = True
        self._go_on()

    def _on_return(self, *_: Any) -> None:
        self._returned = True  # its confirmation comes behind

    def _on_confirmation(self, frame: Any) -> None:
        copy, self._under_way = self._under_way, None
        if copy is not None:
            copy.done(isinstance(frame.method, Basic.Ack) and not self._returned)
        self._go_on()

    def _on_close(self, *_: Any) -> None:
        self._channel, self._ready = None, False
        self._fail()

    def _fail(self) -> None:
        failed = [*([] if self._under_way is None else [self._under_way]), *self._waiting]
        self._under_way = None
        self._waiting.clear()
        for copy in failed:
            copy.done(False)  # noqa: FBT003 - a callback


def _copied(properties: Any, headers: Mapping[str, Any]) -> BasicProperties:
    """Return properties for a copy: it does not expire, is kept on disk, and names no user, because the broker takes only ours."""
    return BasicProperties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=dict(headers),
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        type=properties.type,
        app_id=properties.app_id,
    )


def _fit(properties: BasicProperties, most: int) -> None:
    """Leave of the headers only ours where *properties* cannot be written in *most* bytes."""
    try:
        fits = sum(map(len, properties.encode())) <= most
    except Exception:  # noqa: BLE001 - pika reads what it cannot write
        fits = False
    if not fits:
        properties.headers = least_headers(properties.headers or {})
