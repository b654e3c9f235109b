"""The classes that protected senders, receivers, sessions and batches of the blocking client get."""

from __future__ import annotations

import time
from collections.abc import Iterator
from datetime import datetime
from functools import cache
from typing import Any

from azure.servicebus import (
    ServiceBusMessageBatch,
    ServiceBusReceivedMessage,
    ServiceBusReceiver,
    ServiceBusSender,
    ServiceBusSession,
)

from postseal.servicebus._flow import run
from postseal.servicebus._receiving import Receiving
from postseal.servicebus._sending import Batch, Sending
from postseal.servicebus._session import State
from postseal.servicebus._twin import Twin

__all__ = ["TWIN", "sealed_batch"]

# Each class has exactly one base, that of the live object: only so can it be that object's class. mypy knows no such bases.


@cache
def sealed_batch(base: type[ServiceBusMessageBatch]) -> type[ServiceBusMessageBatch]:
    """Make the class of a batch that seals what is added to it."""

    class SealedBatch(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: Batch

        def add_message(self, message: Any) -> None:
            super().add_message(self._postseal.sealed(message))

        def _add(self, add_message: Any) -> None:  # where the client library fills it for a list
            super()._add(self._postseal.sealed(add_message))

    return SealedBatch


@cache
def _sealed_sender(base: type[ServiceBusSender]) -> type[ServiceBusSender]:
    class SealedSender(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: Sending

        def send_messages(self, message: Any, **options: Any) -> None:
            super().send_messages(run(self._postseal.prepare(message)), **options)

        def schedule_messages(self, messages: Any, schedule_time_utc: datetime, **options: Any) -> list[int]:
            prepared = run(self._postseal.prepare_scheduled(messages))
            numbers: list[int] = super().schedule_messages(prepared, schedule_time_utc, **options)
            return numbers

        def create_message_batch(self, max_size_in_bytes: int | None = None) -> ServiceBusMessageBatch:
            batch: ServiceBusMessageBatch = super().create_message_batch(max_size_in_bytes)
            return Batch(self._postseal).into(batch, sealed_batch)

    return SealedSender


@cache
def _sealed_receiver(base: type[ServiceBusReceiver]) -> type[ServiceBusReceiver]:  # noqa: C901 - methods, each of one line
    class SealedReceiver(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: Receiving

        def receive_messages(
            self, max_message_count: int | None = 1, max_wait_time: float | None = None
        ) -> list[ServiceBusReceivedMessage]:
            return run(self._postseal.receive(max_message_count, max_wait_time))

        def receive_deferred_messages(
            self, sequence_numbers: int | list[int], **options: Any
        ) -> list[ServiceBusReceivedMessage]:
            return run(self._postseal.receive_deferred(sequence_numbers, **options))

        def peek_messages(
            self, max_message_count: int = 1, *, sequence_number: int = 0, **options: Any
        ) -> list[ServiceBusReceivedMessage]:
            return run(self._postseal.peek(max_message_count, sequence_number=sequence_number, **options))

        def complete_message(self, message: ServiceBusReceivedMessage) -> None:
            run(self._postseal.complete(message))

        def __iter__(self) -> Iterator[ServiceBusReceivedMessage]:
            while (message := run(self._postseal.next())) is not None:
                yield message

        def __next__(self) -> ServiceBusReceivedMessage:
            message: ServiceBusReceivedMessage | None = run(self._postseal.next())
            if message is None:
                raise StopIteration
            return message

        next = __next__

        def _get_streaming_message_iter(
            self, max_wait_time: float | None = None
        ) -> Iterator[ServiceBusReceivedMessage]:
            inner = super()._get_streaming_message_iter(max_wait_time)

            def opened() -> Iterator[ServiceBusReceivedMessage]:
                while (message := run(self._postseal.next(lambda: next(inner), max_wait_time))) is not None:
                    yield message

            return opened()

        def close(self) -> None:
            try:
                run(self._postseal.close())
                super().close()
            finally:
                run(self._postseal.closed())

    return SealedReceiver


@cache
def _sealed_session(base: type[ServiceBusSession]) -> type[ServiceBusSession]:
    class SealedSession(base):  # type: ignore[misc, valid-type]  # as said above
        _postseal: State

        def get_state(self, **options: Any) -> bytes:
            held = super().get_state(**options)
            state: Any = run(self._postseal.opened(self.session_id, held))
            return state  # type: ignore[no-any-return]  # None, too, as the client library does

        def set_state(self, state: str | bytes | bytearray | None, **options: Any) -> None:
            return super().set_state(run(self._postseal.sealed(self.session_id, state)), **options)  # type: ignore[no-any-return]  # likewise

    return SealedSession


TWIN = Twin(
    sender=(ServiceBusSender, _sealed_sender),
    receiver=(ServiceBusReceiver, _sealed_receiver),
    session=(ServiceBusSession, _sealed_session),
    waits=False,
    sleep=time.sleep,
)
"""The blocking client's half of what `Hooks` needs."""
