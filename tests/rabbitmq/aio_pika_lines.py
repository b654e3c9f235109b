"""RabbitMQ as the contract of all adapters sees it, through aio-pika: callbacks, iterators and single messages."""

from __future__ import annotations

import asyncio
import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Coroutine, Iterator, Mapping
from contextlib import contextmanager
from typing import Any, ClassVar, TypeVar

import aio_pika
from aio_pika.exceptions import QueueEmpty

from postseal.core import KeyUnavailable, Refused, Sealer
from postseal.rabbitmq import protect
from tests.contract import Line, Raw, Receiving

__all__ = ["CallbackLine", "GetLine", "IteratorLine", "Loop", "RobustIteratorLine", "RobustLine"]

_T = TypeVar("_T")
Connect = Callable[..., Coroutine[Any, Any, Any]]


class Loop:
    """An event loop in a thread of its own, for tests that are written without one."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever)
        self._thread.start()

    def run(self, work: Coroutine[Any, Any, _T]) -> _T:
        """Run *work* there, and return what it returns."""
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(60)

    def close(self) -> None:
        self.run(self._end_all())
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _end_all(self) -> None:
        rest = asyncio.all_tasks() - {asyncio.current_task()}
        for task in rest:
            task.cancel()
        await asyncio.gather(*rest, return_exceptions=True)


class Message(aio_pika.Message):
    """Compared by what it says."""

    def _all(self) -> tuple[bytes, dict[str, Any]]:
        return self.body, dict(self.info())

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Message) and self._all() == other._all()

    __hash__ = None

    def __deepcopy__(self, memo: object) -> Message:
        return Message(self.body, headers=dict(self.headers))


class CallbackLine(Line):
    """Queues reached through the default exchange, consumed with a callback.

    Args:
        loop: Where connections live.
        url: Of the broker.
    """

    scheme: ClassVar[str] = "rabbitmq"
    ordered: ClassVar[bool] = True
    connect: ClassVar[Connect] = staticmethod(aio_pika.connect)

    def __init__(self, loop: Loop, url: str) -> None:
        self.loop = loop
        self.url = url
        self._connections: list[Any] = []
        self._protected: dict[int, tuple[Sealer, Any]] = {}
        self.bare = loop.run(self.connected(aio_pika.connect))

    async def connected(self, connect: Connect) -> Any:
        connection = await connect(self.url)
        self._connections.append(connection)
        return connection

    def close(self) -> None:
        for connection in self._connections:
            self.loop.run(connection.close())

    # -- places ----------------------------------------------------------------------------------------------------

    def place(self, **arguments: Any) -> str:
        name = f"orders-{uuid.uuid4().hex[:12]}"
        self.loop.run(self._declare(name, arguments))
        return f"/{name}"

    async def _declare(self, name: str, arguments: Mapping[str, Any]) -> None:
        async with self.bare.channel() as channel:
            await channel.declare_queue(name, durable=True, arguments=dict(arguments))

    def place_with_dead_letters(self) -> tuple[str, str]:
        dead = self.place()
        routing = {"x-dead-letter-exchange": "", "x-dead-letter-routing-key": dead[1:]}
        return self.place(**routing), dead

    # -- the adapter -----------------------------------------------------------------------------------------------

    async def protected(self, sealer: Sealer) -> Any:
        """The connection of *sealer*."""
        if id(sealer) not in self._protected:
            connection = protect(await self.connected(self.connect), sealer)
            self._protected[id(sealer)] = (sealer, connection)
        return self._protected[id(sealer)][1]

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        assert body is not None
        self.loop.run(self._send(sealer, place, [Message(body, headers=headers)]))

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        return [Message(body) for body in bodies]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        self.loop.run(self._send(sealer, place, batch))

    async def _send(self, sealer: Sealer, place: str, messages: list[Message]) -> None:
        connection = await self.protected(sealer)
        async with connection.channel() as channel:
            exchange = channel.default_exchange
            await asyncio.gather(*(exchange.publish(message, place[1:]) for message in messages))

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        connection = self.loop.run(self.protected(sealer))
        receiving = self.at_work(settles)
        self.loop.run(receiving.begin(connection, place[1:]))
        try:
            yield receiving
        finally:
            self.loop.run(receiving.end())

    def at_work(self, settles: bool) -> AioReceiving:
        return CallbackReceiving(self.loop, settles)

    # -- bare clients ----------------------------------------------------------------------------------------------

    def put(self, place: str, *messages: Raw) -> None:
        self.loop.run(self._put(place, messages))

    async def _put(self, place: str, messages: tuple[Raw, ...]) -> None:
        async with self.bare.channel() as channel:
            for raw in messages:
                message = aio_pika.Message(raw.body or b"", headers=dict(raw.headers))
                await channel.default_exchange.publish(message, place[1:])

    def held(self, place: str, count: int) -> list[Raw]:
        return self.loop.run(self._held(place[1:], count))

    async def _held(self, name: str, count: int) -> list[Raw]:
        found: list[Raw] = []
        async with asyncio.timeout(30), self.bare.channel() as channel:
            queue = await channel.get_queue(name)
            while len(found) < count:
                message = await queue.get(fail=False)
                if message is None:
                    await asyncio.sleep(0.05)
                    continue
                text = {name: value for name, value in message.headers.items() if isinstance(value, str)}
                found.append(Raw(message.body, text))
        return found

    def has_message(self, place: str) -> bool:
        return self.loop.run(self._has_message(place[1:]))

    async def _has_message(self, name: str) -> bool:
        async with self.bare.channel() as channel:
            queue = await channel.get_queue(name)
            return bool(queue.declaration_result.message_count)


class RobustLine(CallbackLine):
    """The same on a robust connection."""

    connect: ClassVar[Connect] = staticmethod(aio_pika.connect_robust)


class IteratorLine(CallbackLine):
    """Queues consumed with an iterator."""

    def at_work(self, settles: bool) -> AioReceiving:
        return IteratorReceiving(self.loop, settles)


class RobustIteratorLine(IteratorLine):
    """The same on a robust connection."""

    connect: ClassVar[Connect] = staticmethod(aio_pika.connect_robust)


class GetLine(CallbackLine):
    """Queues asked for single messages."""

    def at_work(self, settles: bool) -> AioReceiving:
        return GetReceiving(self.loop, settles)


class AioReceiving(Receiving):
    """Consumes in the loop, while the test waits."""

    def __init__(self, loop: Loop, settles: bool) -> None:
        super().__init__()
        self.loop = loop
        self.settles = settles
        self.channel: Any = None
        self.queue: Any = None

    async def begin(self, connection: Any, name: str) -> None:
        self.channel = await connection.channel()
        self.queue = await self.channel.get_queue(name)

    async def end(self) -> None:
        await self.channel.close()

    async def take_in(self, message: Any) -> None:
        try:
            if self.settles:
                await message.ack()
        finally:  # only then, as a test goes on when it sees the body: settling may take a turn of the loop
            self.got(message.body, message.headers)

    def step(self) -> None:
        time.sleep(0.02)


class CallbackReceiving(AioReceiving):
    async def begin(self, connection: Any, name: str) -> None:
        await super().begin(connection, name)
        await self.queue.consume(self.take_in)


class IteratorReceiving(AioReceiving):
    async def begin(self, connection: Any, name: str) -> None:
        await super().begin(connection, name)
        self._work = asyncio.create_task(self._iterate())

    async def _iterate(self) -> None:
        while True:
            try:
                async with self.queue.iterator() as messages:
                    async for message in messages:
                        await self.take_in(message)
            except Refused as error:
                self.refused.append(error)

    async def end(self) -> None:
        self._work.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await self._work
        await super().end()


class GetReceiving(AioReceiving):
    def step(self) -> None:
        self.loop.run(self._get())

    async def _get(self) -> None:
        try:
            await self.take_in(await self.queue.get())
        except QueueEmpty:
            await asyncio.sleep(0.02)
        except Refused as error:
            self.refused.append(error)
        except KeyUnavailable:
            await asyncio.sleep(0.02)
