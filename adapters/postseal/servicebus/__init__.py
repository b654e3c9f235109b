"""postseal for Azure Service Bus: `protect` a client of azure-servicebus, and leave the rest of the program as it is.

A working program::

    from azure.servicebus import ServiceBusClient, ServiceBusMessage
    from postseal.core import Policy, Sealer, UnsafeLocalKeys
    from postseal.servicebus import protect

    orders = Policy(name="orders", destinations=["servicebus:orders"], keys=["main"])
    sealer = Sealer(sender="billing-api", policies=[orders], keys={"main": UnsafeLocalKeys.ephemeral()})

    client = protect(ServiceBusClient.from_connection_string(CONNECTION_STRING), sealer)  # the one line
    with client, client.get_queue_sender("orders") as sender, client.get_queue_receiver("orders") as receiver:
        sender.send_messages(ServiceBusMessage("4111 1111 1111 1111"))
        for message in receiver.receive_messages():
            print(message)
            receiver.complete_message(message)

The client of ``azure.servicebus.aio`` is protected by the same `protect`; `SealedServiceBusClient` is the same as a class, for asyncio in
`postseal.servicebus.aio`. What is sealed, what is not, and what becomes of a refused message: docs/servicebus.md.
"""

from __future__ import annotations

from typing import TypeVar

from postseal.core import MissingExtraError, Sealer

try:
    from azure.servicebus import ServiceBusClient
except ImportError as _error:
    raise MissingExtraError.naming("servicebus", __name__, _error) from _error

from postseal.servicebus._copies import VERDICT_PROPERTY
from postseal.servicebus._hooks import SealedClient, protect_client, unprotect_client
from postseal.servicebus._receiving import Waiting

__all__ = ["VERDICT_PROPERTY", "SealedServiceBusClient", "protect", "unprotect"]

_T = TypeVar("_T")


def protect(target: _T, sealer: Sealer, *, retry_after: float = 1.0, give_back_after: float = 300.0) -> _T:
    """Have *target* seal all that it sends and open all that it receives, from now on.

    That is what its senders and receivers do, those that it made before too: messages, lists, batches, scheduled ones; received,
    iterated, deferred, peeked ones; and the state of sessions. The destination of a queue or topic is ``servicebus:`` and its name; a
    subscription and a dead-letter sub-queue have that of their topic or queue.

    Args:
        target: A `ServiceBusClient` of ``azure.servicebus`` or ``azure.servicebus.aio``.
        sealer: Seals and opens.
        retry_after: Seconds until the key service is asked again, where it did not answer; doubled each time, up to 5.
        give_back_after: Seconds for which a message waits for the key service in its receiver, its lock renewed, before it is abandoned.

    Returns:
        *target*.

    Raises:
        ConfigError: *target* cannot be protected, or is with another sealer or other options; or one of its senders or receivers belongs
            to a queue of which no policy speaks. Nothing was protected then.

    What senders and receivers raise besides what they always raised:
        ConfigError: No policy speaks of the queue or topic (when they are made); a batch of an unprotected sender is to be sent.
        KeyUnavailable: The key service did not answer; nothing was sent. Retrying may help.
        KeyRefused: The key service said no.
        Refused: A body that looks sealed does not open here; nothing but refused messages came, and the policy says to raise; the state of
            a session is not what was set.
    """
    protect_client(target, sealer, Waiting(retry_after=retry_after, give_back_after=give_back_after))
    return target


def unprotect(target: _T) -> _T:
    """Undo `protect`; without it, do nothing. What lies in queues stays sealed, and *target* then hands it out as it lies.

    Returns:
        *target*.

    Raises:
        ConfigError: A receiver in receive-and-delete mode has messages that wait for the key service; close it first.
    """
    unprotect_client(target)
    return target


class SealedServiceBusClient(SealedClient, ServiceBusClient):
    """A `ServiceBusClient` that is protected from the start.

    Constructor and `from_connection_string` take the same, and besides, by name:

    Args:
        sealer: Seals and opens.
        retry_after: As of `protect`.
        give_back_after: As of `protect`.

    Raises:
        ConfigError: As `protect` does.
    """
