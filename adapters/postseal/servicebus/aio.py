"""The same for asyncio: `SealedServiceBusClient` as of ``azure.servicebus.aio``. `protect` is that of `postseal.servicebus`.

A working program::

    async with SealedServiceBusClient.from_connection_string(CONNECTION_STRING, sealer=sealer) as client:
        async with client.get_queue_sender("orders") as sender:
            await sender.send_messages(ServiceBusMessage("4111 1111 1111 1111"))
        async with client.get_queue_receiver("orders", max_wait_time=5) as receiver:
            async for message in receiver:
                print(message)
                await receiver.complete_message(message)
"""

from __future__ import annotations

from azure.servicebus.aio import ServiceBusClient

from postseal.servicebus import protect, unprotect
from postseal.servicebus._hooks import SealedClient

__all__ = ["SealedServiceBusClient", "protect", "unprotect"]


class SealedServiceBusClient(SealedClient, ServiceBusClient):
    """A `ServiceBusClient` of asyncio that is protected from the start; see `postseal.servicebus.SealedServiceBusClient`."""
