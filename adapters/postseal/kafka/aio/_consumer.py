"""The asyncio consumer that opens what it hands on."""

from __future__ import annotations

import asyncio
import weakref
from collections.abc import Callable
from typing import Any

from confluent_kafka import Message, TopicPartition
from confluent_kafka import aio as client

from postseal.core import Sealer
from postseal.kafka._opening import take_over_storing
from postseal.kafka.aio._worker import Handing, Worker

__all__ = ["AIOConsumer"]


class AIOConsumer(client.AIOConsumer):
    """`confluent_kafka.aio.AIOConsumer` that opens what it hands on: swap the import, name the sealer.

    A working program::

        async with AIOConsumer({"bootstrap.servers": "localhost:9092", "group.id": "billing"}, sealer=sealer) as consumer:
            await consumer.subscribe(["orders"])
            message = await consumer.poll(10)
            print(message.value())

    All that `postseal.kafka.Consumer` promises holds here. The offset of a message is stored by the next call, whichever it is, once the
    message has arrived; so a cancelled call loses nothing: what it fetched comes again. Tasks that poll at once take turns.

    Args:
        consumer_conf: As for `confluent_kafka.aio.AIOConsumer`; it is not changed.
        args: Likewise.
        sealer: Opens, in the client's threads; its policies say what is demanded, and what becomes of a refused message.
        quarantine: A plain, sync `confluent_kafka.Producer`, outside of transactions, for the refused messages that a policy sends to a
            topic. It is used in those threads, too.
        options: As for `confluent_kafka.aio.AIOConsumer`.

    Raises:
        ConfigError: *sealer* is none, or a policy needs a *quarantine* and there is none.
        KafkaException: The client's configuration is wrong.
    """

    def __init__(
        self,
        consumer_conf: dict[str, Any],
        *args: Any,
        sealer: Sealer,
        quarantine: Any = None,
        **options: Any,
    ) -> None:
        is_known = isinstance(consumer_conf, dict)  # else the client says what is wrong
        worker = Worker(sealer, quarantine, str(consumer_conf.get("group.id", "")) if is_known else "")
        if is_known:
            consumer_conf, worker._stores = take_over_storing(consumer_conf, {})  # noqa: SLF001 - of this package
            if sealer.ledger is not None:
                consumer_conf["on_commit"] = _telling(worker, consumer_conf.get("on_commit"))
        super().__init__(consumer_conf, *args, **options)
        # Every method of the client's ends in one of its consumer of the same name.
        worker.bare = self._consumer
        self._consumer: Any = worker
        self._turn = asyncio.Lock()

    async def poll(self, *args: Any, **kwargs: Any) -> Message | None:
        """Return the next message, opened; all else as in `confluent_kafka.aio.AIOConsumer.poll` and `postseal.kafka.Consumer.poll`.

        Raises:
            RefusedMessage: A message is refused, and the policy says "raise". It was not settled; the next call goes on behind it.
            ConfigError: No policy speaks of its topic. The next call meets it again.
        """
        message: Message | None = await self._receive("poll", args, kwargs)
        return message

    async def consume(self, *args: Any, **kwargs: Any) -> list[Message]:
        """Return messages, opened; all else as in `confluent_kafka.aio.AIOConsumer.consume` and `postseal.kafka.Consumer.consume`.

        Raises:
            RefusedMessage: As in `poll`.
            ConfigError: As in `poll`; no message of this call is lost by it.
        """
        messages: list[Message] = await self._receive("consume", args, kwargs)
        return messages

    async def note_committed(self, partitions: list[TopicPartition]) -> None:
        """Do what `postseal.kafka.Consumer.note_committed` does."""
        await self._call(self._consumer.note_committed, partitions)

    async def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close, once a call that fetches has come to its end; one that was cancelled does so soon."""
        async with self._turn:
            return await super().close(*args, **kwargs)

    async def _receive(self, verb: str, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Have the worker fetch, and tell it whether what it fetched arrived."""
        await self._turn.acquire()
        handing = Handing()
        call = asyncio.ensure_future(self._call(self._consumer.receive, handing, verb, args, kwargs))
        arrived = True
        try:
            return await asyncio.shield(call)
        except asyncio.CancelledError:
            arrived = False
            raise
        finally:
            handing.arrived = arrived
            if call.done():
                self._turn.release()
            else:
                call.add_done_callback(lambda _: self._turn.release())

    async def _call(self, blocking_task: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        return await super()._call(self._consumer.settled, blocking_task, *args, **kwargs)


def _telling(worker: Worker, user: Callable[..., Any] | None) -> Callable[..., Any]:
    """Make an ``on_commit`` that tells the ledger, in a thread, and then awaits the user's."""
    known = weakref.ref(worker)

    async def on_commit(error: Any, partitions: Any) -> None:
        if error is None and (told := known()) is not None:
            await asyncio.to_thread(told.note_committed, partitions)
        if user is not None:
            await user(error, partitions)

    return on_commit
