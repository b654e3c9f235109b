"""Both clients behind one face, so that a test is written once: that of asyncio answers as the blocking one does."""

from __future__ import annotations

import asyncio
import inspect
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any, Self

from azure.servicebus import AutoLockRenewer, ServiceBusClient
from azure.servicebus import aio as azure_aio

from postseal.core import AuditEvent, Policy, Sealer, Verdict
from postseal.servicebus import protect
from tests.fakes import FakeKeys

__all__ = ["Blocking", "Ends"]

_ASYNCIO = (
    azure_aio.ServiceBusClient,
    azure_aio.ServiceBusSender,
    azure_aio.ServiceBusReceiver,
    azure_aio.ServiceBusSession,
    azure_aio.AutoLockRenewer,
)
_QUICK = {"retry_total": 1, "retry_backoff_factor": 0.05}


class Blocking:
    """An object of the asyncio client; each of its calls is run to its end.

    Attributes:
        inner: The object itself.
    """

    def __init__(self, inner: Any, runner: asyncio.Runner) -> None:
        self.inner = inner
        self._runner = runner

    def __getattr__(self, name: str) -> Any:
        value = getattr(self.inner, name)
        return self._called(value) if callable(value) else self._faced(value)

    def __enter__(self) -> Self:
        self._run(self.inner.__aenter__())
        return self

    def __exit__(self, *_: object) -> None:
        self._run(self.inner.__aexit__(None, None, None))

    def __iter__(self) -> Iterator[Any]:
        messages = aiter(self.inner)
        while True:
            try:
                yield self._run(anext(messages))
            except StopAsyncIteration:
                return

    def __next__(self) -> Any:
        try:
            return self._run(self.inner.__anext__())
        except StopAsyncIteration:
            raise StopIteration from None

    def _called(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*args: Any, **options: Any) -> Any:
            async def made() -> Any:  # in the loop, where the client makes its own objects
                result = method(*(getattr(arg, "inner", arg) for arg in args), **options)
                return await result if inspect.isawaitable(result) else result

            return self._faced(self._runner.run(made()))

        return call

    def _run(self, awaitable: Any) -> Any:
        async def wait() -> Any:
            return await awaitable

        return self._runner.run(wait())

    def _faced(self, value: Any) -> Any:
        return Blocking(value, self._runner) if isinstance(value, _ASYNCIO) else value


class Ends:
    """Clients of one kind, and what they have in common: keys and audit events.

    Args:
        server: A Service Bus.
        kind: ``"blocking"`` or ``"asyncio"``.
    """

    def __init__(self, server: Any, kind: str) -> None:
        self.server = server
        self.is_asyncio = kind == "asyncio"
        self.keys = FakeKeys()
        self.events: list[AuditEvent] = []
        self._open = ExitStack()
        self._runner = self._open.enter_context(asyncio.Runner()) if self.is_asyncio else None
        self.bare = self.client()

    def close(self) -> None:
        """Close all clients."""
        self._open.close()

    def policy(self, name: str, **options: Any) -> Policy:
        """Make the policy "orders" of the queue or topic *name*."""
        options = {"keys": ["main"]} | options
        return Policy(name="orders", destinations=[f"servicebus:{name}"], **options)

    def sealer(self, *policies: Policy, **options: Any) -> Sealer:
        """Make a sealer with caches of its own."""
        options = {"sender": "shop", "keys": {"main": self.keys}, "on_audit": self.events.append} | options
        return Sealer(policies=policies, **options)

    def client(self, sealer: Sealer | None = None, **options: Any) -> Any:
        """Make a client, protected where there is a *sealer*."""
        kind: Any = azure_aio.ServiceBusClient if self.is_asyncio else ServiceBusClient
        client = kind.from_connection_string(self.server.address, **_QUICK)
        if sealer is not None:
            protect(client, sealer, **({"retry_after": 0.05} | options))
        return self.kept(client)

    def kept(self, client: Any) -> Any:
        """Put the one face on *client*, and close it in the end."""
        if self._runner is not None:
            client = Blocking(client, self._runner)
        self._open.callback(client.close)
        return client

    def renewer(self, **options: Any) -> Any:
        """Make an `AutoLockRenewer`."""
        if self._runner is None:
            return AutoLockRenewer(**options)

        async def made() -> Any:
            return azure_aio.AutoLockRenewer(**options)

        return Blocking(self._runner.run(made()), self._runner)

    def nap(self, seconds: float) -> None:
        """Let time pass, in the loop where there is one."""
        if self._runner is not None:
            self._runner.run(asyncio.sleep(seconds))
        else:
            time.sleep(seconds)

    def verdicts(self) -> list[Verdict]:
        """Return the verdict of each audit event, in order."""
        return [event.verdict for event in self.events]
