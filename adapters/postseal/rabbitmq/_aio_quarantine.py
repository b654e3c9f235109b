"""Sends refused messages, as they came, to where nobody takes them for good; aio-pika's."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable
from typing import Any, Final

from aiormq.abc import DeliveredMessage
from pamqp.commands import Basic
from pamqp.header import ContentHeader

from postseal.rabbitmq._message import least_headers, quarantine_headers
from postseal.rabbitmq._settling import Turned

__all__ = ["Quarantine"]

_log: Final = logging.getLogger("postseal.rabbitmq")

_PATIENCE: Final = 30.0
"""Seconds for the broker to confirm a copy."""


class Quarantine:
    """Publishes on a channel of its own, and tells whether the broker confirmed it.

    The channel is opened when it is first needed, and again after the broker closed it: as it does where the exchange does not exist.

    Args:
        open_channel: ``channel`` of the connection, without our cover.
    """

    def __init__(self, open_channel: Callable[..., Awaitable[Any]]) -> None:
        self._open_channel = open_channel
        self._channel: Any = None
        self._opening = asyncio.Lock()

    async def take(self, turned: Turned, message: DeliveredMessage) -> bool:
        """Send a copy of *message* to where it is *turned*, and tell whether it is in some queue there."""
        properties = message.header.properties
        headers = quarantine_headers(
            properties.headers, turned.verdict, message.exchange or "", message.routing_key or ""
        )
        exchange, routing_key = turned.quarantine
        try:
            async with asyncio.timeout(_PATIENCE):
                channel = await self._ready()
                # Mandatory: without it, the broker confirms what no queue took.
                answer = await channel.basic_publish(
                    message.body,
                    exchange=exchange,
                    routing_key=routing_key,
                    properties=_fitting(_copied(properties, headers), channel.max_content_size),
                    mandatory=True,
                )
        except Exception as error:  # noqa: BLE001 - whatever it is: nothing is confirmed, and nothing lost
            _log.warning("quarantining failed: %s", type(error).__name__)
            return False
        return isinstance(answer, Basic.Ack)

    async def _ready(self) -> Any:
        async with self._opening:
            if self._channel is None or self._channel.is_closed:
                self._channel = await self._open_channel(publisher_confirms=True, on_return_raises=True)
            return self._channel


def _copied(properties: Any, headers: dict[str, Any]) -> Basic.Properties:
    """Return properties for a copy: it does not expire, is kept on disk, and names no user, because the broker takes only ours."""
    return Basic.Properties(
        content_type=properties.content_type,
        content_encoding=properties.content_encoding,
        headers=headers,
        delivery_mode=2,
        priority=properties.priority,
        correlation_id=properties.correlation_id,
        reply_to=properties.reply_to,
        message_id=properties.message_id,
        timestamp=properties.timestamp,
        message_type=properties.message_type,
        app_id=properties.app_id,
    )


def _fitting(properties: Basic.Properties, most: int) -> Basic.Properties:
    """Return *properties*; with no headers but ours where they cannot be written in *most* bytes."""
    try:
        fits = len(ContentHeader(properties=properties).marshal()) <= most
    except Exception:  # noqa: BLE001 - aiormq reads what it cannot write
        fits = False
    if not fits:
        properties.headers = least_headers(properties.headers or {})
    return properties
