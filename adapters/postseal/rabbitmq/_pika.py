"""Hooks one connection of pika: every channel that it opens is guarded.

`pika.BlockingConnection` works with a `pika.SelectConnection` beneath it, and its channels with that one's. So both are covered: below,
sealing and opening; above, what the application is shown when something goes wrong.

Source: pika 1.4, blocking_connection.py.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, TypeAlias

import pika.channel
import pika.connection
from pika.adapters.blocking_connection import BlockingConnection
from pika.exceptions import NackError, UnroutableError

from postseal.core import ConfigError, Sealer
from postseal.rabbitmq._channel import Guard
from postseal.rabbitmq._frames import join_frames, part_frames
from postseal.rabbitmq._options import Options
from postseal.rabbitmq._quarantine import Quarantine
from postseal.rabbitmq._receiving import HandOn
from postseal.rabbitmq._settling import Places

__all__ = ["Hooks", "Options", "hooks_of", "is_connection"]

_PLACE: Final = "_postseal"
"""The attribute of a connection that holds its hooks."""
_NEEDED: Final = ("_adapter_add_callback_threadsafe", "_adapter_call_later", "_channels")
"""What of a connection is not public and used all the same: pika has no public way to its loop that all adapters share."""


def is_connection(target: object) -> bool:
    """Tell whether *target* is a connection of pika."""
    return isinstance(target, (BlockingConnection, pika.connection.Connection))


def hooks_of(connection: Any) -> Hooks | None:
    """Return the hooks of *connection*, if it is protected."""
    hooks = getattr(connection, _PLACE, None)
    return hooks if isinstance(hooks, Hooks) else None


class Hooks:
    """What covers one connection.

    Args:
        connection: Of any of pika's adapters.
        sealer: Seals and opens.
        options: The rest.

    Raises:
        ConfigError: A policy says what RabbitMQ cannot do, or this is a pika that we do not know.
    """

    def __init__(self, connection: Any, sealer: Sealer, options: Options) -> None:
        self.sealer = sealer
        self.options = options
        self.places = Places(sealer)
        self._connection = connection
        self._blocking = isinstance(connection, BlockingConnection)
        # Private, and the only way to it.
        impl: Any = getattr(connection, "_impl", None) if self._blocking else connection
        missing = [name for name in _NEEDED if not hasattr(impl, name)]
        if missing:
            raise ConfigError(f"this version of pika has no {', '.join(missing)}, and cannot be protected")
        self._impl = impl
        self.host: LoopHost = BlockingHost(impl, connection) if self._blocking else LoopHost(impl)
        self._bare_channel = impl.channel
        self._bare_blocking_channel = connection.channel
        self.quarantine = Quarantine(self._open_hidden)
        self._guards: dict[Any, Guard] = {}
        self._shown: dict[Any, _Shown] = {}

    def attach(self) -> None:
        """Guard the channels that there are, and those to come.

        Raises:
            ConfigError: One of them consumes already.
        """
        present = list((self._impl._channels or {}).values())  # noqa: SLF001 - see _NEEDED
        try:
            for channel in present:
                self._guard(channel)
                if self._blocking and (above := channel._get_cookie()) is not None:  # noqa: SLF001 - likewise
                    self._show(above, self._guards[channel])
        except ConfigError:
            self._uncover_channels()
            raise
        join_frames(self._impl)
        self._impl.channel = self._open
        if self._blocking:
            self._connection.channel = self._open_blocking
        setattr(self._connection, _PLACE, self)

    def detach(self) -> None:
        """Uncover everything."""
        self._uncover_channels()
        part_frames(self._impl)
        del self._impl.channel
        if self._blocking:
            del self._connection.channel
        delattr(self._connection, _PLACE)

    def _uncover_channels(self) -> None:
        for shown in self._shown.values():
            shown.detach()
        for guard in self._guards.values():
            guard.detach()
        self._shown.clear()
        self._guards.clear()

    # -- channels --------------------------------------------------------------------------------------------------

    def _open(self, channel_number: int | None = None, on_open_callback: Any = None) -> Any:
        """Open a guarded channel; all else as in `pika.connection.Connection.channel`."""
        channel = self._bare_channel(channel_number, on_open_callback)
        self._guard(channel)
        return channel

    def _open_blocking(self, channel_number: int | None = None) -> Any:
        """Open a guarded channel; all else as in `pika.BlockingConnection.channel`."""
        above = self._bare_blocking_channel(channel_number)
        channel = above._impl  # noqa: SLF001 - see the top
        self._show(above, self._guards[channel])
        return above

    def _open_hidden(self, on_open_callback: Any) -> Any:
        """Open a channel of our own, which nothing covers."""
        channel = self._bare_channel(None, on_open_callback)
        if self._blocking:
            # Not `_set_cookie`: pika forgets that when the channel closes, and fails if that is while the connection closes.
            channel._get_cookie = _Nothing  # noqa: SLF001 - see the top
        return channel

    def _guard(self, channel: Any) -> None:
        fail = _fail_blocking if self._blocking else None
        guard = Guard(channel, self, fail=fail, sees_returns=not self._blocking)
        guard.attach()
        self._guards[channel] = guard
        channel.add_on_close_callback(self._forget)

    def _forget(self, channel: Any, _: Exception) -> None:
        self._guards.pop(channel, None)
        self._shown.pop(channel, None)

    def _show(self, above: Any, guard: Guard) -> None:
        shown = self._shown[guard.channel] = _Shown(above, guard)
        shown.attach()


# -- the loop beneath --------------------------------------------------------------------------------------------------

Call: TypeAlias = Callable[[], object]


class LoopHost:
    """The loop of a connection, and the way to its application; here of an asynchronous one.

    Args:
        impl: The connection.
    """

    def __init__(self, impl: Any) -> None:
        self._impl = impl

    def soon(self, call: Call) -> None:
        """Have the loop call; from any thread. What *call* raises reaches whoever runs the loop."""
        self._impl._adapter_add_callback_threadsafe(call)  # noqa: SLF001 - see _NEEDED

    def later(self, seconds: float, call: Call) -> None:
        """Have the loop call after a while. *call* must not raise: that would cost the loop other timers, its heartbeat's too."""
        self._impl._adapter_call_later(seconds, call)  # noqa: SLF001 - likewise

    def tell(self, error: Exception) -> None:
        """Raise *error* out of the loop: ``ioloop.start()`` of pika raises it, asyncio hands it to the loop's exception handler."""
        self.soon(_Raise(error))


class BlockingHost(LoopHost):
    """The loop beneath a blocking connection.

    Args:
        impl: The connection beneath.
        connection: The blocking one.
    """

    def __init__(self, impl: Any, connection: BlockingConnection) -> None:
        super().__init__(impl)
        self._connection = connection

    def tell(self, error: Exception) -> None:
        """Raise *error* out of ``process_data_events``, and so out of ``start_consuming`` and ``consume``."""
        # Not in the loop beneath: what is raised there leaves the connection in no good state.
        self._connection.call_later(0, _Raise(error))


class _Raise:
    __slots__ = ("_error",)

    def __init__(self, error: Exception) -> None:
        self._error = error

    def __call__(self) -> None:
        raise self._error


# -- what a blocking channel shows -------------------------------------------------------------------------------------


class _Failure:
    """Comes out of the blocking ``basic_get`` in the place of a body, on its way to be raised."""

    __slots__ = ("error",)

    def __init__(self, error: Exception) -> None:
        self.error = error


def _fail_blocking(callback: HandOn, method: Any, properties: Any, error: Exception) -> None:
    callback(None, method, properties, _Failure(error))


class _Nothing:
    """What a blocking connection finds above a channel of ours when it closes: nothing that it need close."""

    is_open = False


class _Shown:
    """Covers those methods of a blocking channel that show what the broker sent back.

    Args:
        channel: The blocking one.
        guard: Of the one beneath.
    """

    def __init__(self, channel: Any, guard: Guard) -> None:
        self._channel = channel
        self._sent = guard.sent
        self._bare = {
            name: getattr(channel, name) for name in ("add_on_return_callback", "basic_get", "basic_publish")
        }

    def attach(self) -> None:
        """Cover them."""
        for name in self._bare:
            setattr(
                self._channel, name, self._publisher() if name == "basic_publish" else getattr(self, name)
            )

    def detach(self) -> None:
        """Uncover them."""
        for name in self._bare:
            delattr(self._channel, name)

    def basic_get(self, queue: str, auto_ack: bool = False) -> Any:  # noqa: FBT002 - as pika has it
        """Get one message, opened; all else as in pika.

        Raises:
            Refused: It is refused, and the policy says "raise". It was not settled.
            KeyUnavailable: Its key could not be had. It was requeued.
        """
        method, properties, body = self._bare["basic_get"](queue, auto_ack)
        if isinstance(body, _Failure):
            raise body.error
        return method, properties, body

    def _publisher(self) -> Callable[..., None]:
        """Make what covers ``basic_publish``: a closure, because it runs for each message."""
        publish, sent = self._bare["basic_publish"], self._sent

        def basic_publish(
            exchange: str,
            routing_key: str,
            body: Any,
            properties: Any = None,
            mandatory: bool = False,  # noqa: FBT002 - as pika has it
        ) -> None:
            """Publish *body*, sealed; all else as in pika. What is raised shows a returned message as it was published."""
            try:
                publish(exchange, routing_key, body, properties, mandatory)
            except (UnroutableError, NackError) as error:
                # Only here, because pika logs the beginning of a returned body.
                for returned in error.messages:
                    returned.body = sent.clear(returned.body, returned.properties)
                raise

        return basic_publish

    def add_on_return_callback(self, callback: HandOn) -> None:
        """Have *callback* called with what the broker returns, as it was published."""
        sent = self._sent
        self._bare["add_on_return_callback"](
            lambda channel, method, properties, body: callback(
                channel, method, properties, sent.clear(body, properties)
            )
        )
