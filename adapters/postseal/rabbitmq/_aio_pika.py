"""Hooks one connection of aio-pika: every channel that it opens is guarded, after each reconnect too.

A connection of aio-pika works with one of aiormq beneath it, its transport, and a robust one with a new one after each loss. So the
connection is given a class of its own, a subclass of what it was, in which ``transport`` is a property: whatever transport it is given is
covered before any channel can be opened on it.

Source: aio-pika 10.2, connection.py and abc.py (``UnderlayConnection``).
"""

from __future__ import annotations

from functools import cache
from typing import Any, Final

from aio_pika.connection import Connection

from postseal.core import ConfigError, Sealer
from postseal.rabbitmq._aio_channel import Guard
from postseal.rabbitmq._aio_iterators import telling_queues
from postseal.rabbitmq._aio_quarantine import Quarantine
from postseal.rabbitmq._options import Options
from postseal.rabbitmq._settling import Places

__all__ = ["Hooks", "Options", "hooks_of", "is_connection"]

_PLACE: Final = "_postseal"
"""The attribute of a connection that holds its hooks, and of a channel that holds its guard."""


def is_connection(target: object) -> bool:
    """Tell whether *target* is a connection of aio-pika."""
    return isinstance(target, Connection)


def hooks_of(connection: Any) -> Hooks | None:
    """Return the hooks of *connection*, if it is protected."""
    hooks = getattr(connection, _PLACE, None)
    return hooks if isinstance(hooks, Hooks) else None


class Hooks:
    """What covers one connection.

    Args:
        connection: Of aio-pika, robust or not, connected or not yet.
        sealer: Seals and opens.
        options: The rest.

    Raises:
        ConfigError: A policy says what RabbitMQ cannot do, or this is an aio-pika that we do not know.
    """

    def __init__(self, connection: Any, sealer: Sealer, options: Options) -> None:
        self.sealer = sealer
        self.options = options
        self.places = Places(sealer)
        self._connection = connection
        self._transport: Transport | None = None
        if "transport" not in vars(connection):
            raise ConfigError(
                "this version of aio-pika keeps its transport elsewhere, and cannot be protected"
            )

    def attach(self) -> None:
        """Guard the channels that there are, and those to come.

        Raises:
            ConfigError: One of them consumes already.
        """
        self.cover(self._connection.transport)
        setattr(self._connection, _PLACE, self)
        self._connection.__class__ = _protected(self._connection.__class__)

    def detach(self) -> None:
        """Uncover everything."""
        self._connection.__class__ = type(self._connection).__bases__[0]
        delattr(self._connection, _PLACE)
        if self._transport is not None:
            self._transport.detach()

    def cover(self, underlay: Any) -> None:
        """Cover the transport that the connection works with from now on, if it has one."""
        self._transport = None
        if underlay is not None:
            transport = Transport(underlay.connection, self)
            transport.attach()
            self._transport = transport


class Transport:
    """What covers one connection of aiormq.

    Args:
        connection: That one.
        hooks: Of the connection above.
    """

    def __init__(self, connection: Any, hooks: Hooks) -> None:
        self._connection = connection
        self._hooks = hooks
        self._bare_channel = connection.channel
        self._quarantine = Quarantine(self._bare_channel)

    def attach(self) -> None:
        """Guard the channels that there are, and those to come.

        Raises:
            ConfigError: One of them consumes already.
        """
        try:
            for channel in self._channels():
                self._guard(channel)
        except ConfigError:
            self._uncover_channels()
            raise
        self._connection.channel = self._open

    def detach(self) -> None:
        """Uncover everything."""
        del self._connection.channel
        self._uncover_channels()

    async def _open(self, *arguments: Any, **options: Any) -> Any:
        """Open a guarded channel; all else as in `aiormq.Connection.channel`."""
        channel = await self._bare_channel(*arguments, **options)
        self._guard(channel)
        return channel

    def _channels(self) -> list[Any]:
        # Number 0 is the connection's own, and none.
        return [channel for channel in self._connection.channels.values() if channel is not None]

    def _guard(self, channel: Any) -> None:
        if _PLACE in vars(channel):
            return  # it was being opened when the connection was protected
        guard = Guard(channel, self._hooks, self._quarantine)
        guard.attach()
        setattr(channel, _PLACE, guard)

    def _uncover_channels(self) -> None:
        for channel in self._channels():
            guard = vars(channel).pop(_PLACE, None)
            if guard is not None:
                guard.detach()


@cache
def _protected(kind: type[Connection]) -> type[Connection]:
    """Make the class of a protected connection of that *kind*."""

    class Protected(kind):  # type: ignore[valid-type, misc] # whatever class it is of
        @property
        def transport(self) -> Any:
            return vars(self).get("transport")

        @transport.setter
        def transport(self, underlay: Any) -> None:
            hooks = hooks_of(self)
            if hooks is not None:
                hooks.cover(underlay)
            own: Any = vars(self)
            own["transport"] = underlay

        def channel(self, *arguments: Any, **options: Any) -> Any:
            channel = super().channel(*arguments, **options)
            channel.QUEUE_CLASS = telling_queues(channel.QUEUE_CLASS)
            return channel

    Protected.__name__, Protected.__qualname__ = kind.__name__, kind.__qualname__
    Protected.__module__ = kind.__module__
    return Protected
