"""What the tests of aio-pika share: an event loop for each, a protected and a bare connection, and waiting for something."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import Callable, Coroutine
from contextlib import AsyncExitStack
from typing import Any, Self

import aio_pika

from postseal.core import AuditEvent, Policy, Sealer
from postseal.rabbitmq import protect
from tests.fakes import FakeKeys
from tests.rabbitmq.broker import Broker

__all__ = ["World", "on_loop", "until"]


def on_loop(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run *test* in an event loop. The time only ends a test that would fail anyway."""

    @functools.wraps(test)
    def run(*arguments: Any, **fixtures: Any) -> None:
        asyncio.run(asyncio.wait_for(test(*arguments, **fixtures), 110))

    return run


async def until(done: Callable[[], bool]) -> None:
    """Let the loop go on until *done*."""
    while not done():  # noqa: ASYNC110 - what is waited for has no event
        await asyncio.sleep(0.01)


class World:
    """A broker, keys, a sealer, and connections that are closed with the block.

    Args:
        url: Of the broker.
        options: Of the policy.
    """

    def __init__(self, url: str, **options: Any) -> None:
        self.url = url
        self.keys = FakeKeys()
        self.events: list[AuditEvent] = []
        options = {"destinations": ["rabbitmq:*"], "keys": ["main"]} | options
        self.policy = Policy(name="orders", **options)
        self.sealer = self.new_sealer()
        self._stack = AsyncExitStack()

    @classmethod
    def at(cls, broker: Broker, **options: Any) -> World:
        """Make one at the broker in this process."""
        return cls(f"amqp://guest:guest@127.0.0.1:{broker.port}/%2F", **options)

    async def __aenter__(self) -> Self:
        await self._stack.__aenter__()
        self.bare = await self.connected(aio_pika.connect)
        self.connection = await self.protected()
        return self

    async def __aexit__(self, *error: object) -> None:
        await self._stack.__aexit__(*error)  # type: ignore[arg-type] # as it came

    def new_sealer(self) -> Sealer:
        """Make a sealer with caches of its own, as another process would have."""
        return Sealer(
            sender="shop", policies=[self.policy], keys={"main": self.keys}, on_audit=self.events.append
        )

    async def connected(self, connect: Any, **options: Any) -> Any:
        """Open a bare connection."""
        return await self._stack.enter_async_context(await connect(self.url, **options))

    async def protected(self, connect: Any = aio_pika.connect, **options: Any) -> Any:
        """Open a protected connection, with a sealer of its own."""
        return protect(await self.connected(connect), self.new_sealer(), **options)

    async def queue(self, name: str = "orders", **arguments: Any) -> str:
        """Declare a queue by the bare connection; return its name."""
        async with self.bare.channel() as channel:
            await channel.declare_queue(name, durable=True, arguments=arguments)
        return name

    async def publish(self, connection: Any, body: bytes, key: str = "orders", **properties: Any) -> Any:
        """Publish to a queue through *connection*."""
        async with connection.channel() as channel:
            return await channel.default_exchange.publish(aio_pika.Message(body, **properties), key)

    async def take(self, connection: Any, queue: str = "orders") -> Any:
        """Get a message through *connection*, and acknowledge it; None where there is none."""
        async with connection.channel() as channel:
            message = await (await channel.get_queue(queue)).get(fail=False)
            if message is not None:
                await message.ack()
            return message

    async def raw(self, queue: str = "orders") -> Any:
        """Take a message as the broker holds it."""
        async with asyncio.timeout(20):
            while (message := await self.take(self.bare, queue)) is None:  # noqa: ASYNC110 - as above
                await asyncio.sleep(0.01)
            return message
