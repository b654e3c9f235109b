"""The flavours of the adapter on a Service Bus: list, batch and iteration, session, topic; blocking and asyncio."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any, ClassVar, Protocol

from azure.servicebus import ServiceBusClient, ServiceBusMessage
from azure.servicebus import aio as azure_aio

from postseal.core import Refused, Sealer
from postseal.servicebus import protect
from tests.contract import Line, Raw, Receiving

__all__ = [
    "AioBatchLine",
    "AioLine",
    "AioSessionLine",
    "AioTopicLine",
    "BatchLine",
    "QueueLine",
    "Server",
    "SessionLine",
    "TopicLine",
    "body_of",
    "headers_of",
]

_DEAD = "/$deadletterqueue"
_SUBSCRIPTION = "first"
_SESSION = "s1"
_QUICK: dict[str, Any] = {"socket_timeout": 0.02}
"""Seconds that the client waits for a network that is this machine; it waits several times when it closes a receiver."""


class Server(Protocol):
    """What a line needs of a Service Bus."""

    @property
    def address(self) -> str:
        """A connection string."""
        ...

    def new_queue(self, **options: Any) -> str: ...
    def new_topic(self, *subscriptions: str, **options: Any) -> str: ...


class QueueLine(Line):
    """Queues, by `send_messages` and `receive_messages`; a list for several messages.

    Args:
        server: The Service Bus.
    """

    scheme: ClassVar[str] = "servicebus"
    ordered: ClassVar[bool] = True
    session: ClassVar[str | None] = None
    wait: ClassVar[float] = 0.5
    """Seconds after which a receiver that has nothing to iterate over ends."""

    def __init__(self, server: Server) -> None:
        self.server = server
        self._ends = ExitStack()
        self._clients: dict[Sealer | None, Any] = {}
        self.bare = self.client(None)

    def close(self) -> None:
        """Close all clients."""
        self._ends.close()

    # -- places ----------------------------------------------------------------------------------------------------

    def place(self, **options: Any) -> str:
        return self.server.new_queue(
            **({} if self.session is None else {"requires_session": True}), **options
        )

    def place_with_dead_letters(self) -> tuple[str, str]:
        # What nobody settles comes again when its lock ends. The emulator's queues are as they are.
        place = self.place(**({"lock_duration": 5} if getattr(self.server, "is_ours", True) else {}))
        return place, place + _DEAD

    # -- clients ---------------------------------------------------------------------------------------------------

    def client(self, sealer: Sealer | None) -> Any:
        """Return the client for *sealer*; the bare one for None."""
        if sealer not in self._clients:
            client = ServiceBusClient.from_connection_string(
                self.server.address, retry_total=1, retry_backoff_factor=0.05
            )
            self._ends.callback(client.close)
            self._clients[sealer] = client
            if sealer is not None:
                protect(client, sealer, retry_after=0.05)
        return self._clients[sealer]

    def sender(self, client: Any, place: str) -> Any:
        return client.get_queue_sender(place, **_QUICK)

    def receiver(self, client: Any, place: str, **options: Any) -> Any:
        if place.endswith(_DEAD):
            options["sub_queue"] = "deadletter"
            return client.get_queue_receiver(place.removesuffix(_DEAD), **_QUICK, **options)
        if self.session is not None:
            options["session_id"] = self.session
        return client.get_queue_receiver(place, **_QUICK, **options)

    def message(self, body: bytes | None, headers: Mapping[str, str] | None) -> ServiceBusMessage:
        return ServiceBusMessage(body, application_properties=headers, session_id=self.session)  # type: ignore[arg-type]

    # -- the adapter -----------------------------------------------------------------------------------------------

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        with self.sender(self.client(sealer), place) as sender:
            sender.send_messages(self.message(body, headers))

    def batch(self, place: str, bodies: list[bytes]) -> Any:
        session = {} if self.session is None else {"session_id": self.session}
        return [{"body": body, "application_properties": {"n": "x"}, **session} for body in bodies]

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        with self.sender(self.client(sealer), place) as sender:
            sender.send_messages(batch)

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        with self.receiver(self.client(sealer), place, max_wait_time=self.wait) as receiver:
            receiving = self.at_work(receiver, settles)
            yield receiving
            for message in receiving.unsettled:
                receiver.abandon_message(message)

    def at_work(self, receiver: Any, settles: bool) -> ReceiverAtWork:
        return ReceiverAtWork(receiver, settles)

    # -- bare clients ----------------------------------------------------------------------------------------------

    def put(self, place: str, *messages: Raw) -> None:
        with self.sender(self.bare, place) as sender:
            for raw in messages:
                sender.send_messages(self.message(raw.body, dict(raw.headers)))

    def held(self, place: str, count: int) -> list[Raw]:
        with self.receiver(self.bare, place) as receiver:
            for _ in range(50):
                if len(found := receiver.peek_messages(100, sequence_number=1)) >= count:
                    return [Raw(body_of(message), headers_of(message)) for message in found]
        raise AssertionError(f"{place} holds {len(found)} of {count}")

    def has_message(self, place: str) -> bool:
        with self.receiver(self.bare, place) as receiver:
            return bool(receiver.peek_messages(1, sequence_number=1))


class ReceiverAtWork(Receiving):
    def __init__(self, receiver: Any, settles: bool) -> None:
        super().__init__()
        self._receiver = receiver
        self._settles = settles
        self.unsettled: list[Any] = []

    def step(self) -> None:
        try:
            for message in self._receiver.receive_messages(10, max_wait_time=0.5):
                self.take_in(message)
        except Refused as error:
            self.refused.append(error)

    def take_in(self, message: Any) -> None:
        self.got(body_of(message), message.application_properties)
        if self._settles:
            self._receiver.complete_message(message)
        else:
            self.unsettled.append(message)


class BatchLine(QueueLine):
    """Queues, several messages by `ServiceBusMessageBatch`, received by iteration."""

    wait: ClassVar[float] = 0.1

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        with self.sender(self.client(sealer), place) as sender:
            whole = sender.create_message_batch()
            for message in batch:
                whole.add_message(message)
            sender.send_messages(whole)

    def at_work(self, receiver: Any, settles: bool) -> ReceiverAtWork:
        return IteratingAtWork(receiver, settles)


class IteratingAtWork(ReceiverAtWork):
    def step(self) -> None:
        try:
            for message in self._receiver:
                self.take_in(message)
        except Refused as error:
            self.refused.append(error)


class SessionLine(QueueLine):
    """Queues with sessions."""

    session: ClassVar[str | None] = _SESSION


class TopicLine(QueueLine):
    """A topic to send to, a subscription to receive from."""

    def place(self, **options: Any) -> str:
        return self.server.new_topic(_SUBSCRIPTION, **options)

    def sender(self, client: Any, place: str) -> Any:
        return client.get_topic_sender(place, **_QUICK)

    def receiver(self, client: Any, place: str, **options: Any) -> Any:
        if place.endswith(_DEAD):
            options["sub_queue"] = "deadletter"
        return client.get_subscription_receiver(place.removesuffix(_DEAD), _SUBSCRIPTION, **_QUICK, **options)


# -- asyncio -----------------------------------------------------------------------------------------------------------


class AioLine(QueueLine):
    """Queues, by the client of asyncio. The bare clients beside it are blocking ones."""

    def __init__(self, server: Server) -> None:
        super().__init__(server)
        self.runner = self._ends.enter_context(asyncio.Runner())

    def client(self, sealer: Sealer | None) -> Any:
        if sealer is None:
            return super().client(None)
        if sealer not in self._clients:
            client = azure_aio.ServiceBusClient.from_connection_string(
                self.server.address, retry_total=1, retry_backoff_factor=0.05
            )
            self._clients[sealer] = protect(client, sealer, retry_after=0.05)
            self._ends.callback(lambda: self.runner.run(client.close()))
        return self._clients[sealer]

    def send(
        self, sealer: Sealer, place: str, body: bytes | None, headers: Mapping[str, str] | None = None
    ) -> None:
        self._send(sealer, place, lambda sender: sender.send_messages(self.message(body, headers)))

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        self._send(sealer, place, lambda sender: sender.send_messages(batch))

    def _send(self, sealer: Sealer, place: str, call: Callable[[Any], Any]) -> None:
        async def send() -> None:
            async with self.sender(self.client(sealer), place) as sender:
                await call(sender)

        self.runner.run(send())

    @contextmanager
    def receiving(self, sealer: Sealer, place: str, *, settles: bool = True) -> Iterator[Receiving]:
        receiver = self.receiver(self.client(sealer), place, max_wait_time=self.wait)
        self.runner.run(receiver.__aenter__())
        receiving = self.aio_at_work(receiver, settles)
        yield receiving
        for message in receiving.unsettled:
            self.runner.run(receiver.abandon_message(message))
        self.runner.run(receiver.close())

    def aio_at_work(self, receiver: Any, settles: bool) -> AioAtWork:
        return AioAtWork(receiver, settles, self.runner)


class AioAtWork(ReceiverAtWork):
    def __init__(self, receiver: Any, settles: bool, runner: asyncio.Runner) -> None:
        super().__init__(receiver, settles)
        self._runner = runner

    def step(self) -> None:
        self._runner.run(self.astep())

    async def astep(self) -> None:
        try:
            for message in await self._receiver.receive_messages(10, max_wait_time=0.5):
                await self.atake_in(message)
        except Refused as error:
            self.refused.append(error)

    async def atake_in(self, message: Any) -> None:
        self.got(body_of(message), message.application_properties)
        if self._settles:
            await self._receiver.complete_message(message)
        else:
            self.unsettled.append(message)


class AioBatchLine(AioLine):
    """Queues, several messages by `ServiceBusMessageBatch`, received by iteration, by the client of asyncio."""

    wait: ClassVar[float] = 0.1

    def send_batch(self, sealer: Sealer, place: str, batch: Any) -> None:
        async def send(sender: Any) -> None:
            whole = await sender.create_message_batch()
            for message in batch:
                whole.add_message(message)
            await sender.send_messages(whole)

        self._send(sealer, place, send)

    def aio_at_work(self, receiver: Any, settles: bool) -> AioAtWork:
        return AioIteratingAtWork(receiver, settles, self.runner)


class AioIteratingAtWork(AioAtWork):
    async def astep(self) -> None:
        try:
            async for message in self._receiver:
                await self.atake_in(message)
        except Refused as error:
            self.refused.append(error)


class AioSessionLine(AioLine, SessionLine):
    """Queues with sessions, by the client of asyncio."""


class AioTopicLine(AioLine, TopicLine):
    """A topic and a subscription, by the client of asyncio."""


# -- what the broker has -----------------------------------------------------------------------------------------------


def body_of(message: Any) -> bytes | None:
    """Return the body of a message whose body is bytes, None where it has none."""
    return None if message.body is None else b"".join(message.body)


def headers_of(message: Any) -> dict[str, str]:
    """Return the application properties that are text."""
    return {
        name.decode(): value.decode()
        for name, value in (message.application_properties or {}).items()
        if isinstance(value, bytes)
    }
