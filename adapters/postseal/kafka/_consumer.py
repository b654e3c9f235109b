"""Consumers that open what they hand on.

librdkafka stores the offset of a message for the next commit when it hands it over: before we could know whether it opens. So that is
switched off here and done by us, once a message was opened; and where opening has to wait, the partition is set back and paused.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable, Iterable
from typing import Any, Final, TypeVar

import confluent_kafka
from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from postseal.core import KeyUnavailable, Opened, Refused, Sealer, Verdict
from postseal.kafka._errors import RefusedMessage
from postseal.kafka._message import Topics
from postseal.kafka._partitions import Partition, Trouble, Troubles
from postseal.kafka._quarantine import NotConfirmed, Quarantine, check_quarantine, headers_of

__all__ = ["Consumer", "DeserializingConsumer", "OpeningConsumer"]

K = TypeVar("K")
V = TypeVar("V")

_STORE: Final = "enable.auto.offset.store"
_YES: Final = frozenset(("true", "t", "1"))
_NO: Final = frozenset(("false", "f", "0"))
"""How librdkafka reads booleans."""
_log: Final = logging.getLogger("postseal.kafka")


class OpeningConsumer(confluent_kafka.Consumer):
    """What our consumers share: `poll` and `consume` that open. Made ready by `_open_with` before the client itself is."""

    _unseal: Callable[..., Opened]
    _topics: Topics
    _quarantine: Quarantine | None
    _stores: bool
    _troubles: Troubles
    _raising: deque[RefusedMessage]
    _paused_by_user: set[Partition]

    def _open_with(
        self, sealer: Sealer, quarantine: Any, args: tuple[Any, ...], config: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Take over the storing of offsets; return the client's arguments, and take what is ours out of *config*."""
        self._topics = Topics(sealer)
        self._unseal = sealer.open
        check_quarantine(sealer, quarantine)
        self._quarantine = None if quarantine is None else Quarantine(quarantine)
        self._troubles = Troubles()
        self._raising = deque()
        self._paused_by_user = set()
        conf, *rest = args or ({},)
        if not isinstance(conf, dict):
            return args  # the client says what is wrong
        wanted = str(config.pop(_STORE, conf.get(_STORE, True))).lower()
        self._stores = wanted not in _NO
        # What is no boolean at all is for the client to refuse.
        return ({**conf, _STORE: False if wanted in _YES else wanted}, *rest)

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
            message = super().poll(timeout)
            if message is None or message.error() is not None or self._accept(message):
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
            self._raise_held()
            self._go_on_where_due()
            message = super().poll(self._slice(end))
            if message is not None and (message.error() is not None or self._accept(message)):
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

    def _accept(self, message: Message) -> bool:
        """Open *message* in place and store its offset; tell whether it is to be handed on."""
        try:
            handed_on = self._open(message)
        except (KeyUnavailable, NotConfirmed) as error:
            self._wait(message, error)
            return False
        except RefusedMessage:
            if self._troubles:
                self._troubles.over(_partition(message))
            raise
        except BaseException:
            self._set_back([message])
            raise
        if self._troubles:
            self._troubles.over(_partition(message))
        if self._stores:
            self._store(message)
        return handed_on

    def _accept_all(self, messages: list[Message]) -> list[Message]:
        """Open *messages* in place and store their offsets; return those to be handed on."""
        try:
            handed_on, last, stopped = self._open_all(messages)
        except BaseException:
            self._set_back(messages)
            raise
        for partition, message in last.items():
            if self._troubles and partition not in stopped:
                self._troubles.over(partition)
            if self._stores:
                self._store(message)
        return handed_on

    def _open_all(
        self, messages: list[Message]
    ) -> tuple[list[Message], dict[Partition, Message], set[Partition]]:
        """Return what is to be handed on, the last message of each partition that was dealt with, and the partitions that were set back."""
        handed_on: list[Message] = []
        last: dict[Partition, Message] = {}
        stopped: set[Partition] = set()
        for message in messages:
            if message.error() is not None:
                handed_on.append(message)
                continue
            partition = _partition(message)
            if partition in stopped:
                continue  # it comes again
            try:
                if self._open(message):
                    handed_on.append(message)
                last[partition] = message
            except (KeyUnavailable, NotConfirmed) as error:
                self._wait(message, error)
                stopped.add(partition)
            except RefusedMessage as refused:
                self._raise_later(refused, message)
                stopped.add(partition)
        return handed_on, last, stopped

    # -- one message -----------------------------------------------------------------------------------------------

    def _open(self, message: Message) -> bool:
        """Open *message* in place; tell whether it is to be handed on. False means that it was refused and settled.

        Raises:
            RefusedMessage: It is refused, and whoever polls shall know.
            KeyUnavailable: It has to wait.
            NotConfirmed: It is refused, and the quarantine did not take it.
        """
        value = message.value()
        if value is None:
            return True
        name: str = message.topic()  # type: ignore[assignment]  # only errors have none
        topic = self._topics[name]
        if self._troubles and (verdict := self._known_verdict(message)) is not None:
            # Opened, refused and audited before; the quarantine did not take it then.
            return self._settle(message, Refused(verdict, destination=topic.destination))
        try:
            opened = self._unseal(
                value,
                destination=topic.destination,
                # All headers: the sender may have bound more than the policy demands here.
                headers=headers_of(message),
                ordering_key=message.key() if topic.binds_key else None,
                coordinates={"topic": name, "partition": message.partition(), "offset": message.offset()},  # type: ignore[dict-item]  # likewise
            )
        except Refused as refused:
            return self._settle(message, refused)
        message.set_value(opened.body)
        return True

    def _settle(self, message: Message, refused: Refused) -> bool:
        """Do with a refused *message* what its policy says."""
        topic = self._topics[message.topic() or ""]
        if topic.policy.on_refused == "discard":
            return False
        target = topic.quarantine
        if target is None or self._quarantine is None:
            raise RefusedMessage(refused, message) from refused
        self._quarantine.take(message, refused.verdict, target)
        return False

    def _known_verdict(self, message: Message) -> Verdict | None:
        return self._troubles.known_verdict(_partition(message), message.offset() or 0)

    def _store(self, message: Message) -> None:
        try:
            super().store_offsets(message=message)
        except KafkaException as error:
            # The partition was taken from us meanwhile: whoever has it now begins at what was committed.
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - the client's name for a local error
                raise

    # -- going back ------------------------------------------------------------------------------------------------

    def _wait(self, message: Message, error: Exception) -> None:
        """Set the partition back to *message* and fetch nothing from it for a while."""
        partition, offset = _partition(message), message.offset() or 0
        verdict = error.verdict if isinstance(error, NotConfirmed) else None
        trouble = self._troubles.wait(partition, offset, verdict)
        _log.warning(
            "%s [%d] waits at offset %d (failure %d): %s", *partition, offset, trouble.failures, error
        )
        at = TopicPartition(*partition, offset)
        try:
            super().pause([at])
            super().seek(at)
        except KafkaException:
            self._forget([at])  # no longer ours

    def _raise_later(self, refused: RefusedMessage, message: Message) -> None:
        """Have the next call raise *refused*, and go on behind its message after that."""
        partition, offset = _partition(message), message.offset() or 0
        # Until it was raised, the position is before it: a transaction must not pass it over.
        self._troubles.set_back(partition, offset)
        self._raising.append(refused)
        self._seek(partition, offset + 1)

    def _raise_held(self) -> None:
        if self._raising:
            refused = self._raising.popleft()
            partition = _partition(refused.kafka_message)
            if self._troubles.get(partition) is not None:
                self._troubles.set_back(partition, (refused.kafka_message.offset() or 0) + 1)
            raise refused

    def _set_back(self, messages: Iterable[Message]) -> None:
        """Set partitions back to the first of *messages*, none of which was handed on."""
        first: dict[Partition, int] = {}
        for message in messages:
            if message.error() is None:
                first.setdefault(_partition(message), message.offset() or 0)
        for partition, offset in first.items():
            self._troubles.set_back(partition, offset)
            self._seek(partition, offset)

    def _seek(self, partition: Partition, offset: int) -> None:
        at = TopicPartition(*partition, offset)
        try:
            super().seek(at)
        except KafkaException:
            self._forget([at])

    def _go_on_where_due(self) -> None:
        if self._troubles:
            due = [p for p in self._troubles.due() if p not in self._paused_by_user]
            if due:
                super().resume([TopicPartition(*partition) for partition in due])

    def _forget(self, partitions: Iterable[TopicPartition]) -> None:
        """Forget what there was with *partitions*: they are no longer ours, or begin anew."""
        for each in partitions:
            partition = (each.topic, each.partition)
            trouble = self._troubles.over(partition)
            # librdkafka keeps a partition paused even if it goes away and comes back.
            if trouble is not None and trouble.waits and partition not in self._paused_by_user:
                super().resume([TopicPartition(*partition)])
            for refused in [r for r in self._raising if _partition(r.kafka_message) == partition]:
                self._raising.remove(refused)

    def _forget_all(self) -> None:
        self._forget([TopicPartition(*partition) for partition in self._troubles])

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
            else _forgetting(on_revoke),
            "on_lost": _forgetting(on_lost) if callable(on_lost) else on_lost,
        }
        super().subscribe(topics, **{name: each for name, each in callbacks.items() if each is not None})

    def assign(self, partitions: list[TopicPartition]) -> None:
        """Assign *partitions*; all as in `confluent_kafka.Consumer.assign`.

        Raises:
            ConfigError: No policy speaks of one of their topics.
        """
        self._check(partition.topic for partition in partitions)
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

    def unassign(self) -> None:
        """Give all partitions back."""
        self._forget_all()
        super().unassign()

    def incremental_unassign(self, partitions: list[TopicPartition]) -> None:
        """Give *partitions* back."""
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
        self._forget([partition])
        super().seek(partition)

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

    def _waits(self, partition: Partition) -> bool:
        trouble: Trouble | None = self._troubles.get(partition)
        return trouble is not None and trouble.waits

    def _check(self, topics: Iterable[str]) -> None:
        for topic in topics:
            self._topics[topic]


class Consumer(OpeningConsumer):
    """`confluent_kafka.Consumer` that opens what it hands on: swap the import, name the sealer.

    A working program::

        consumer = Consumer({"bootstrap.servers": "localhost:9092", "group.id": "billing"}, sealer=sealer)
        consumer.subscribe(["orders"])
        message = consumer.poll(10)
        print(message.value())

    Offsets are stored when a message was opened, not when it was fetched. With ``"enable.auto.offset.store": False`` storing is left to the
    caller, as ever, also that of messages which were discarded or sent to the quarantine.

    Args:
        args: The client's configuration, as for `confluent_kafka.Consumer`.
        sealer: Opens; its policies say what is demanded, and what becomes of a refused message.
        quarantine: A plain `confluent_kafka.Producer`, outside of transactions, for the refused messages that a policy sends to a topic.
        config: As for `confluent_kafka.Consumer`.

    Raises:
        ConfigError: *sealer* is none, or a policy needs a *quarantine* and there is none.
        KafkaException: The client's configuration is wrong.
    """

    def __init__(self, *args: Any, sealer: Sealer, quarantine: Any = None, **config: Any) -> None:
        super().__init__(*self._open_with(sealer, quarantine, args, config), **config)


class DeserializingConsumer(confluent_kafka.DeserializingConsumer[K, V], OpeningConsumer):  # type: ignore[misc]  # its poll is typed by K and V
    """`confluent_kafka.DeserializingConsumer` that opens before its deserializers see anything.

    Args:
        conf: As for `confluent_kafka.DeserializingConsumer`.
        sealer: As in `Consumer`.
        quarantine: As in `Consumer`.

    Raises:
        ConfigError: As in `Consumer`.
        KafkaException: The client's configuration is wrong.
    """

    # Its `poll` begins with `super().poll(timeout)`, which is ours: the method resolution order does all the work.

    def __init__(self, conf: dict[str, Any], *, sealer: Sealer, quarantine: Any = None) -> None:
        super().__init__(*self._open_with(sealer, quarantine, (conf,), {}))


def _partition(message: Message) -> Partition:
    return message.topic() or "", message.partition() or 0


def _forgetting(callback: Callable[[Any, Any], Any] | None) -> Callable[[Any, Any], None]:
    """Make a rebalance callback that forgets what was with the partitions, then calls the user's."""

    def forget(consumer: OpeningConsumer, partitions: list[TopicPartition]) -> None:
        consumer._forget(partitions)  # noqa: SLF001 - a part of that class, without a reference to the consumer
        if callback is not None:
            callback(consumer, partitions)

    return forget
