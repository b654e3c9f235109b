"""The classes that protected senders, receivers and sessions of the asyncio client get."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from datetime import datetime
from functools import cache
from typing import Any

from azure.servicebus import ServiceBusMessageBatch, ServiceBusReceivedMessage
from azure.servicebus.aio import ServiceBusReceiver, ServiceBusSender, ServiceBusSession

from postseal.servicebus._flow import arun
from postseal.servicebus._receiving import Receiving
from postseal.servicebus._sending import Batch, Sending
from postseal.servicebus._session import State
from postseal.servicebus._sync import sealed_batch
from postseal.servicebus._twin import Twin

__all__ = ["TWIN"]

# Each class has exactly one base, that of the live object: only so can it be that object's class. mypy knows no such bases.


@cache
def _sealed_sender(base: type[ServiceBusSender]) -> type[ServiceBusSender]:
    class SealedSender(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: Sending

        async def send_messages(self, message: Any, **options: Any) -> None:
            await super().send_messages(await arun(self._postseal.prepare(message)), **options)

        async def schedule_messages(
            self, messages: Any, schedule_time_utc: datetime, **options: Any
        ) -> list[int]:
            prepared = await arun(self._postseal.prepare_scheduled(messages))
            numbers: list[int] = await super().schedule_messages(prepared, schedule_time_utc, **options)
            return numbers

        async def create_message_batch(self, max_size_in_bytes: int | None = None) -> ServiceBusMessageBatch:
            await arun(self._postseal.warm_up())
            batch: ServiceBusMessageBatch = await super().create_message_batch(max_size_in_bytes)
            return Batch(self._postseal).into(batch, sealed_batch)

    return SealedSender


@cache
def _sealed_receiver(base: type[ServiceBusReceiver]) -> type[ServiceBusReceiver]:  # noqa: C901 - methods, each of one line
    class SealedReceiver(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: Receiving

        async def receive_messages(
            self, max_message_count: int | None = 1, max_wait_time: float | None = None
        ) -> list[ServiceBusReceivedMessage]:
            return await arun(self._postseal.receive(max_message_count, max_wait_time))

        async def receive_deferred_messages(
            self, sequence_numbers: int | list[int], **options: Any
        ) -> list[ServiceBusReceivedMessage]:
            return await arun(self._postseal.receive_deferred(sequence_numbers, **options))

        async def peek_messages(
            self, max_message_count: int = 1, *, sequence_number: int = 0, **options: Any
        ) -> list[ServiceBusReceivedMessage]:
            return await arun(
                self._postseal.peek(max_message_count, sequence_number=sequence_number, **options)
            )

        async def complete_message(self, message: ServiceBusReceivedMessage) -> None:
            await arun(self._postseal.complete(message))

        async def __aiter__(self) -> AsyncIterator[ServiceBusReceivedMessage]:
            while (message := await arun(self._postseal.next())) is not None:
                yield message

        async def __anext__(self) -> ServiceBusReceivedMessage:
            message: ServiceBusReceivedMessage | None = await arun(self._postseal.next())
            if message is None:
                raise StopAsyncIteration
            return message

        def _get_streaming_message_iter(
            self, max_wait_time: float | None = None
        ) -> AsyncIterator[ServiceBusReceivedMessage]:
            inner = super()._get_streaming_message_iter(max_wait_time)

            async def opened() -> AsyncIterator[ServiceBusReceivedMessage]:
                while (
                    message := await arun(self._postseal.next(inner.__anext__, max_wait_time))
                ) is not None:
                    yield message

            return opened()

        async def close(self) -> None:
            try:
                await arun(self._postseal.close())
                await super().close()
            finally:
                await arun(self._postseal.closed())

    return SealedReceiver


@cache
def _sealed_session(base: type[ServiceBusSession]) -> type[ServiceBusSession]:
    class SealedSession(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: State

        async def get_state(self, **options: Any) -> bytes:
            held = await super().get_state(**options)
            state: Any = await arun(self._postseal.opened(self.session_id, held))
            return state  # type: ignore[no-any-return]  # None, too, as the client library does

        async def set_state(self, state: str | bytes | bytearray | None, **options: Any) -> None:
            sealed = await arun(self._postseal.sealed(self.session_id, state))
            return await super().set_state(sealed, **options)  # type: ignore[no-any-return]  # likewise

    return SealedSession


TWIN = Twin(
    sender=(ServiceBusSender, _sealed_sender),
    receiver=(ServiceBusReceiver, _sealed_receiver),
    session=(ServiceBusSession, _sealed_session),
    waits=True,
    sleep=asyncio.sleep,
)
"""The asyncio client's half of what `Hooks` needs."""
