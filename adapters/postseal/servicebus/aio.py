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

from typing import Any

from azure.servicebus.aio import ServiceBusClient

from postseal.core import Sealer
from postseal.servicebus import protect, unprotect
from postseal.servicebus._hooks import Hooks
from postseal.servicebus._receiving import Waiting

__all__ = ["SealedServiceBusClient", "protect", "unprotect"]


class SealedServiceBusClient(ServiceBusClient):
    """A `ServiceBusClient` of asyncio that is protected from the start; constructors and methods are the same.

    Args:
        fully_qualified_namespace: As of `ServiceBusClient`.
        credential: Likewise.
        sealer: Seals and opens.
        retry_after: As of `protect`.
        hold: As of `protect`.
        options: As of `ServiceBusClient`.

    Raises:
        ConfigError: As `protect` does.
    """

    def __init__(
        self,
        fully_qualified_namespace: str,
        credential: Any,
        *,
        sealer: Sealer,
        retry_after: float = 1.0,
        hold: float = 300.0,
        **options: Any,
    ) -> None:
        super().__init__(fully_qualified_namespace, credential, **options)
        Hooks(self, sealer, Waiting(retry_after=retry_after, hold=hold)).attach()

    @classmethod
    def from_connection_string(
        cls, conn_str: str, *, sealer: Sealer, **options: Any
    ) -> SealedServiceBusClient:  # type: ignore[override]
        """Make one from a connection string. The options are those of the class and of `ServiceBusClient`."""
        client = super().from_connection_string(conn_str, sealer=sealer, **options)
        assert isinstance(client, cls)  # noqa: S101 - for the type checker
        return client
