"""postseal for RabbitMQ, with pika and aio-pika: `protect` a connection, and leave the rest of the program as it is.

A working program::

    import pika
    from postseal.core import Policy, Sealer, UnsafeLocalKeys
    from postseal.rabbitmq import protect

    orders = Policy(name="orders", destinations=["rabbitmq:/orders"], keys=["main"])
    sealer = Sealer(sender="billing-api", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    connection = protect(pika.BlockingConnection(), sealer)  # the one line
    channel = connection.channel()
    channel.queue_declare("orders")
    channel.basic_publish("", "orders", b"4111 1111 1111 1111")
    print(channel.basic_get("orders", auto_ack=True)[2])

What is sealed, what is not, and what becomes of a refused message: docs/rabbitmq.md.
"""

from __future__ import annotations

import sys
from importlib.util import find_spec
from typing import Any, TypeVar

from postseal.core import ConfigError, MissingExtraError, Sealer
from postseal.rabbitmq._message import EXCHANGE_HEADER, KEY_HEADER, VERDICT_HEADER

__all__ = ["EXCHANGE_HEADER", "KEY_HEADER", "VERDICT_HEADER", "protect", "unprotect"]

if find_spec("pika") is None and find_spec("aio_pika") is None:
    raise MissingExtraError.naming("rabbitmq", __name__, ImportError("pika"))

_T = TypeVar("_T")


def protect(connection: _T, sealer: Sealer, *, give_back_after: float = 300.0) -> _T:
    """Have *connection* seal all that it publishes and open all that it hands on, from now on.

    The destination of a message is ``rabbitmq:exchange/routing.key``; of what goes straight to a queue, ``rabbitmq:/queue``. Channels that
    are open already are protected, too.

    Args:
        connection: Of pika: a `pika.BlockingConnection`, or an asynchronous one (`SelectConnection`, `AsyncioConnection` and their kin). Of
            aio-pika: any, robust or not.
        sealer: Seals and opens.
        give_back_after: Seconds that a message waits in this process for a key that the key service does not give, before it is requeued
            for another; meanwhile it is tried again and again. Keep it below the broker's ``consumer_timeout`` (30 minutes by default).

    Returns:
        *connection*.

    Raises:
        ConfigError: *connection* cannot be protected, consumes already, or is protected with another sealer or other options; or a policy
            says what RabbitMQ cannot do.

    What publishing raises besides what it always raised, each before anything is sent:
        ConfigError: No policy speaks of the destination, or the exchange has a ``/`` in its name.
        KeyUnavailable: The key service did not answer. Retrying may help.
        KeyRefused: The key service said no.
        TooLarge: The body is over the limit of an envelope.
        Refused: A body that looks sealed does not open here.
    """
    if not isinstance(sealer, Sealer):
        raise ConfigError(f"protect takes a Sealer, not {type(sealer).__name__}")
    room = _room_of(connection)
    options = room.Options(give_back_after=give_back_after)
    present = room.hooks_of(connection)
    if present is None:
        room.Hooks(connection, sealer, options).attach()
    elif present.sealer is not sealer:
        raise ConfigError("this connection is protected with another sealer already; unprotect it first")
    elif present.options != options:
        raise ConfigError("this connection is protected with other options already; unprotect it first")
    return connection


def unprotect(connection: _T) -> _T:
    """Undo `protect`; without it, do nothing. What lies in queues stays sealed, and *connection* then hands it on as it lies.

    Returns:
        *connection*.
    """
    present = _room_of(connection).hooks_of(connection)
    if present is not None:
        present.detach()
    return connection


def _room_of(connection: object) -> Any:
    """Return the module for the client that *connection* is of. A client that was never imported has made no connection.

    Raises:
        ConfigError: There is none.
    """
    if "pika" in sys.modules:
        from postseal.rabbitmq import _pika  # noqa: PLC0415 - only where pika is installed

        if _pika.is_connection(connection):
            return _pika
    if "aio_pika" in sys.modules:
        from postseal.rabbitmq import _aio_pika  # noqa: PLC0415 - only where aio-pika is installed

        if _aio_pika.is_connection(connection):
            return _aio_pika
    raise ConfigError(f"protect takes a connection of pika or aio-pika, not {type(connection).__name__}")
