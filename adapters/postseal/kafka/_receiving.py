"""`poll` and `consume` that open, and what the user does with partitions beside them."""

from __future__ import annotations

import time
import weakref
from collections.abc import Callable, Iterable
from typing import Any

from confluent_kafka import Message, TopicPartition

from postseal.kafka._opening import Opening
from postseal.kafka._partitions import Partition, Trouble

__all__ = ["Receiving"]


class Receiving(Opening):
    """What our consumers share: the client's own verbs, with opening inside."""

    _client_poll: Any
    """The client's `poll`, looked up once."""

    # -- receiving -------------------------------------------------------------------------------------------------

    def poll(self, timeout: float = -1) -> Message | None:
        """Return the next message, opened; all else as in `confluent_kafka.Consumer.poll`.

        A message whose key the key service does not give just now is kept at the broker: its partition waits, the others go on. What is
        refused is discarded or sent to the quarantine, where the policy says so, and the next message is looked for, within *timeout*.

        Args:
            timeout: Seconds; without end by default.

        Raises:
            RefusedMessage: A message is refused, and the policy says "raise". It was not settled; the next call goes on behind it.
            ConfigError: No policy speaks of its topic. The next call meets it again.
        """
        if not self._troubles and not self._raising:
            begun = time.monotonic()
            message: Message | None = self._client_poll(0) if begun < self._store_by else None
            if message is None:  # whoever waits has stored what there is
                if self._unstored:
                    self._store_noted()
                message = self._client_poll(timeout)
            if message is None or message.error() is not None or self._accept(message, begun):
                return message
            if timeout >= 0:
                timeout = max(0.0, begun + timeout - time.monotonic())
        return self._poll_on(timeout)

    def consume(self, num_messages: int = 1, timeout: float = -1) -> list[Message]:
        """Return up to *num_messages*, opened; all else as in `confluent_kafka.Consumer.consume`.

        As in `poll`. A refused message never costs the others: those before it, and those of other partitions, are returned; where the
        policy says "raise", the next call raises, and the one after that goes on behind it.

        Raises:
            RefusedMessage: As in `poll`.
            ConfigError: As in `poll`; no message of this call is lost by it.
        """
        end = time.monotonic() + timeout if timeout >= 0 else None
        self._store_noted()
        while True:
            self._raise_held()
            self._go_on_where_due()
            handed_on = self._accept_all(super().consume(num_messages, self._slice(end)))
            if handed_on:
                return handed_on
            self._raise_held()
            if end is not None and time.monotonic() >= end:
                return handed_on

    def _poll_on(self, timeout: float) -> Message | None:
        """Poll while partitions wait: wake up whenever one is due."""
        end = time.monotonic() + timeout if timeout >= 0 else None
        while True:
            self._store_noted()
            self._raise_held()
            self._go_on_where_due()
            message = super().poll(self._slice(end))
            if message is not None and (
                message.error() is not None or self._accept(message, time.monotonic())
            ):
                return message
            if end is not None and time.monotonic() >= end:
                return None

    def _slice(self, end: float | None) -> float:
        """Return the seconds for which the client may be asked to wait."""
        due = self._troubles.until_due()
        if end is None:
            return -1 if due is None else due
        left = max(0.0, end - time.monotonic())
        return left if due is None else min(left, due)

    # -- what the user does with partitions ------------------------------------------------------------------------

    def subscribe(
        self,
        topics: list[str],
        on_assign: Any = None,
        on_revoke: Any = None,
        on_lost: Any = None,
    ) -> None:
        """Subscribe; all as in `confluent_kafka.Consumer.subscribe`.

        Raises:
            ConfigError: No policy speaks of one of *topics*. Those that are patterns are only known as their messages come.
        """
        if isinstance(topics, list):  # else the client says what is wrong
            self._check(topic for topic in map(str, topics) if not topic.startswith("^"))
        callbacks = {
            "on_assign": on_assign,
            # Ours runs also without one of the user's; the client treats it the same: what it does not unassign, the client does.
            "on_revoke": on_revoke
            if on_revoke is not None and not callable(on_revoke)
            else self._forgetting(on_revoke),
            "on_lost": self._forgetting(on_lost) if callable(on_lost) else on_lost,
        }
        super().subscribe(topics, **{name: each for name, each in callbacks.items() if each is not None})

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Assign *partitions*; all as in `confluent_kafka.Consumer.assign`.

        Raises:
            ConfigError: No policy speaks of one of their topics.
        """
        self._check(partition.topic for partition in partitions)
        self._store_noted()
        self._forget_all()
        super().assign(partitions)

    def incremental_assign(self, partitions: list[TopicPartition]) -> None:
        """Assign *partitions* too; all as in `confluent_kafka.Consumer.incremental_assign`.

        Raises:
            ConfigError: No policy speaks of one of their topics.
        """
        self._check(partition.topic for partition in partitions)
        self._forget(partitions)
        super().incremental_assign(partitions)

    def unsubscribe(self) -> None:
        """Unsubscribe; all as in `confluent_kafka.Consumer.unsubscribe`."""
        self._store_noted()
        super().unsubscribe()

    def unassign(self) -> None:
        """Give all partitions back."""
        self._store_noted()
        self._forget_all()
        super().unassign()

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """Give *partitions* back."""
        self._store_noted()
        self._forget(partitions)
        super().incremental_unassign(partitions)

    def pause(self, partitions: list[TopicPartition]) -> None:
        """Hand on nothing of *partitions* until they are resumed."""
        super().pause(partitions)
        self._paused_by_user.update((each.topic, each.partition) for each in partitions)

    def resume(self, partitions: list[TopicPartition]) -> None:
        """Go on with *partitions*; with those that wait for the key service, when their wait ends."""
        named = {(each.topic, each.partition): each for each in partitions}
        self._paused_by_user.difference_update(named)
        super().resume([each for partition, each in named.items() if not self._waits(partition)])

    def seek(self, partition: TopicPartition) -> None:
        """Go on from the offset of *partition*; whatever it waited for is over."""
        self._store_noted()
        self._forget([partition])
        super().seek(partition)

    def store_offsets(self, *args: Any, **kwargs: Any) -> None:
        """Store offsets; all as in `confluent_kafka.Consumer.store_offsets`. They replace those that are stored for what was handed on."""
        self._store_noted()
        super().store_offsets(*args, **kwargs)

    def commit(self, *args: Any, **kwargs: Any) -> Any:
        """Commit; all as in `confluent_kafka.Consumer.commit`. The ledger is told what the broker has confirmed."""
        self._store_noted()
        committed = super().commit(*args, **kwargs)
        if committed is not None:  # else ``on_commit`` is called
            self._committed(committed)
        return committed

    def note_committed(self, partitions: list[TopicPartition]) -> None:
        """Tell the ledger that all before these offsets is settled: after a producer's transaction has committed them.

        Commits of the consumer's own need no telling. Without a ledger, this does nothing.
        """
        self._committed(partitions)

    def close(self) -> None:
        """Close; all as in `confluent_kafka.Consumer.close`."""
        try:
            self._store_noted()
        finally:
            super().close()
        if self._uncommitted is not None:
            self._uncommitted.close()

    def position(self, partitions: list[TopicPartition]) -> list[TopicPartition]:
        """Return from where *partitions* go on: behind the last message that was handed on, as the client says it without us.

        So `Producer.send_offsets_to_transaction` takes exactly what was handed on.
        """
        positions = super().position(partitions)
        if self._troubles:
            for each in positions:
                trouble = self._troubles.get((each.topic, each.partition))
                if trouble is not None:
                    each.offset = trouble.offset
        return positions

    def _forgetting(self, callback: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], None]:
        """Make a rebalance callback that forgets what was with the partitions, then calls the user's."""
        # The client keeps the callback: without a circle, a consumer ends when nobody has it any more.
        known = weakref.ref(self)

        def forget(consumer: Any, partitions: list[TopicPartition]) -> None:
            receiving = known()
            if receiving is not None:
                receiving._store_noted()  # noqa: SLF001 - a part of that class
                receiving._forget(partitions)  # noqa: SLF001 - likewise
            if callback is not None:
                callback(consumer, partitions)

        return forget

    def _waits(self, partition: Partition) -> bool:
        trouble: Trouble | None = self._troubles.get(partition)
        return trouble is not None and trouble.waits

    def _check(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._topics[topic]
