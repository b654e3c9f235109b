"""What becomes of a message that a client fetched: opened and handed on, settled, or set back to come again.

librdkafka stores the offset of a message for the next commit when it hands it over: before we could know whether it opens. So that is
switched off here and done by us, once a message was opened; and where opening has to wait, the partition is set back and paused.

Storing an offset takes about as long as opening a message. So `poll` stores one for many: it notes the last message of each partition, and
stores what is noted at most 10 ms later, when it has to wait for a message, and before anything that commits or changes partitions.
"""

from __future__ import annotations

import logging
import weakref
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, Final

from confluent_kafka import KafkaError, KafkaException, Message, TopicPartition

from postseal.core import KeyUnavailable, Opened, Refused, Sealer, Verdict
from postseal.kafka._errors import RefusedMessage
from postseal.kafka._ledger import Uncommitted
from postseal.kafka._message import Topics, clear_headers, opened_headers
from postseal.kafka._partitions import Partition, Troubles
from postseal.kafka._quarantine import NotConfirmed, Quarantine, check_quarantine, headers_of

if TYPE_CHECKING:
    from confluent_kafka import Consumer as Client
else:
    Client = object

__all__ = ["Client", "Opening", "commits_told", "partition_of", "take_over_storing"]

_STORE: Final = "enable.auto.offset.store"
_YES: Final = frozenset(("true", "t", "1"))
_NO: Final = frozenset(("false", "f", "0"))
"""How librdkafka reads booleans."""
_UNSTORED_FOR: Final = 0.01
"""Seconds for which an offset may be noted and not stored while messages come: what is done in them is done again after a crash."""
_log: Final = logging.getLogger("postseal.kafka")


def commits_told(conf: dict[str, Any], config: dict[str, Any], opening: Opening) -> dict[str, Any]:
    """Return *conf* with an ``on_commit`` that tells the ledger first and then calls the user's; as it is, where there is no ledger."""
    if opening._uncommitted is None:  # noqa: SLF001 - of this package
        return conf
    user = config.pop("on_commit", conf.get("on_commit"))
    # The client keeps the callback: without a circle, a consumer ends when nobody has it any more.
    known = weakref.ref(opening)

    def on_commit(error: Any, partitions: Any) -> None:
        if error is None and (told := known()) is not None:
            told._committed(partitions)  # noqa: SLF001 - likewise
        if user is not None:
            user(error, partitions)

    return conf if user is not None and not callable(user) else {**conf, "on_commit": on_commit}


def take_over_storing(conf: dict[str, Any], config: dict[str, Any]) -> tuple[dict[str, Any], bool]:
    """Return *conf* with the client's own storing of offsets off, and whether offsets are to be stored by us.

    Takes what says so out of *config*, the options given by name, which overrides *conf*.
    """
    wanted = str(config.pop(_STORE, conf.get(_STORE, True))).lower()
    # What is no boolean at all is for the client to refuse.
    return {**conf, _STORE: False if wanted in _YES else wanted}, wanted not in _NO


class _Left(Exception):
    """A refused message stays as it is: it is not handed on, and its offset is not stored."""


class Where(Mapping[str, str | int]):
    """Where the broker has a message: looked at where it is refused, so not put together for each that opens."""

    __slots__ = ("message",)

    message: Message

    def _coordinates(self) -> dict[str, str | int]:
        topic, partition, offset = self.message.topic(), self.message.partition(), self.message.offset()
        return {"topic": topic or "", "partition": partition or 0, "offset": offset or 0}

    def __getitem__(self, name: str) -> str | int:
        return self._coordinates()[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._coordinates())

    def __len__(self) -> int:
        return len(self._coordinates())


class Opening(Client):
    """Opens what a client fetched. That client comes next in the method resolution order: each ``super()`` here is the client's own."""

    _client_store: Any
    """The client's `store_offsets`, looked up once."""
    _unseal: Callable[..., Opened]
    _topics: Topics
    _quarantine: Quarantine | None
    _stores: bool
    _troubles: Troubles
    _raising: deque[RefusedMessage]
    _paused_by_user: set[Partition]
    _where: Where

    _unstored: dict[Partition, Message]
    """The last message of each partition that was dealt with and whose offset is to be stored."""
    _store_by: float
    """When what is there is stored at the latest, on the monotonic clock; 0 where there is nothing."""
    _uncommitted: Uncommitted | None
    """Where there is a ledger."""
    _reader: str

    def _open_with(self, sealer: Sealer, quarantine: Any, group: str) -> None:
        """Make ready, before the client itself is.

        Raises:
            ConfigError: *sealer* is none, or a policy needs a *quarantine* and there is none.
        """
        self._topics = Topics(sealer)
        self._unseal = sealer.open
        check_quarantine(sealer, quarantine)
        self._quarantine = None if quarantine is None else Quarantine(quarantine)
        self._stores = True
        self._troubles = Troubles()
        self._raising = deque()
        self._paused_by_user = set()
        self._where = Where()
        self._unstored = {}
        self._store_by = 0.0
        self._uncommitted = None if sealer.ledger is None else Uncommitted(sealer, group)
        self._reader = "" if sealer.ledger is None else group

    # -- messages --------------------------------------------------------------------------------------------------

    def _accept(self, message: Message, now: float) -> bool:
        """Open *message* in place and note its offset; tell whether it is to be handed on. *now* is on the monotonic clock."""
        left = False
        try:
            handed_on = self._open_quickly(message) or self._open(message)
        except _Left:
            handed_on, left = False, True
        except (KeyUnavailable, NotConfirmed) as error:
            self._wait(message, error)
            return False
        except RefusedMessage:
            if self._troubles:
                self._troubles.over(partition_of(message))
            raise
        except BaseException:
            self._set_back([message])
            raise
        if self._troubles:
            self._troubles.over(partition_of(message))
        if self._stores and not left:
            self._store_later(message, now)
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
                self._store_later(message, 0.0)
        self._store_noted()
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
            partition = partition_of(message)
            if partition in stopped:
                continue  # it comes again
            try:
                if self._open_quickly(message) or self._open(message):
                    handed_on.append(message)
                last[partition] = message
            except _Left:
                continue
            except (KeyUnavailable, NotConfirmed) as error:
                self._wait(message, error)
                stopped.add(partition)
            except RefusedMessage as refused:
                self._raise_later(refused, message)
                stopped.add(partition)
        return handed_on, last, stopped

    # -- one message -----------------------------------------------------------------------------------------------

    def _open_quickly(self, message: Message) -> bool:
        """Do what `_open` does in the common case, with nothing looked at that need not be; else nothing. Tell whether it was one."""
        value = message.value()
        if value is None or self._troubles:
            return False
        body = self._topics[message.topic() or ""].open_quick(value)
        if body is None:
            return False
        message.set_value(body)
        return True

    def _open(self, message: Message) -> bool:
        """Open *message* in place; tell whether it is to be handed on. False means that it was refused and settled.

        Raises:
            RefusedMessage: It is refused, and whoever polls shall know.
            _Left: It is refused, and its policy only observes.
            KeyUnavailable: It has to wait.
            NotConfirmed: It is refused, and the quarantine did not take it.
        """
        value = message.value()
        topic = self._topics[message.topic() or ""]
        if value is None:
            if (
                topic.policy.encrypt_headers and topic.policy.consuming == "enforce"
            ):  # what stands there was not sealed: it is not handed on as if it had been
                message.set_headers(clear_headers(headers_of(message), topic.policy.encrypt_headers) or [])
            return True
        if self._troubles and (verdict := self._known_verdict(message)) is not None:
            # Opened, refused and audited before; the quarantine did not take it then.
            return self._settle(message, Refused(verdict, destination=topic.destination))
        where = self._where
        where.message = message
        if self._uncommitted is not None:
            self._uncommitted.pay()
        try:
            opened = self._unseal(
                value,
                destination=topic.destination,
                # All headers: the sender may have bound more than the policy demands here.
                headers=headers_of(message),
                ordering_key=message.key() if topic.binds_key else None,
                coordinates=where,
                reader=self._reader,
            )
        except Refused as refused:
            return self._settle(message, refused)
        message.set_value(opened.body)
        if opened.headers:
            message.set_headers(opened_headers(headers_of(message), opened))
        if self._uncommitted is not None and opened.receipt is not None:
            self._uncommitted.note(partition_of(message), message.offset() or 0, opened.receipt)
        return True

    def _settle(self, message: Message, refused: Refused) -> bool:
        """Do with a refused *message* what its policy says."""
        topic = self._topics[message.topic() or ""]
        outcome = topic.policy.outcome(refused.verdict)
        if outcome == "leave":
            raise _Left
        if outcome == "discard":
            return False
        target = topic.quarantine
        if outcome == "raise" or target is None or self._quarantine is None:
            raise RefusedMessage(refused, message) from refused
        self._quarantine.take(message, refused.verdict, target)
        return False

    def _known_verdict(self, message: Message) -> Verdict | None:
        return self._troubles.known_verdict(partition_of(message), message.offset() or 0)

    def _committed(self, partitions: Any) -> None:
        """Tell the ledger that these offsets are committed."""
        if self._uncommitted is not None:
            self._uncommitted.committed(partitions)

    def _store_later(self, message: Message, now: float) -> None:
        if not self._unstored:
            self._store_by = now + _UNSTORED_FOR
        self._unstored[message.topic() or "", message.partition() or 0] = message

    def _store_noted(self) -> None:
        """Store what was noted."""
        self._store_by = 0.0
        while self._unstored:
            _, message = self._unstored.popitem()
            self._store(message)

    def _store(self, message: Message) -> None:
        try:
            self._client_store(message=message)
        except KafkaException as error:
            # The partition was taken from us meanwhile: whoever has it now begins at what was committed.
            if error.args[0].code() != KafkaError._STATE:  # noqa: SLF001 - the client's name for a local error
                raise

    # -- going back ------------------------------------------------------------------------------------------------

    def _wait(self, message: Message, error: Exception) -> None:
        """Set the partition back to *message* and fetch nothing from it for a while."""
        partition, offset = partition_of(message), message.offset() or 0
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
        partition, offset = partition_of(message), message.offset() or 0
        # Until it was raised, the position is before it: a transaction must not pass it over.
        self._troubles.set_back(partition, offset)
        self._raising.append(refused)
        self._seek(partition, offset + 1)

    def _raise_held(self) -> None:
        if self._raising:
            refused = self._raising.popleft()
            partition = partition_of(refused.kafka_message)
            if self._troubles.get(partition) is not None:
                self._troubles.set_back(partition, (refused.kafka_message.offset() or 0) + 1)
            raise refused

    def _set_back(self, messages: Iterable[Message]) -> None:
        """Set partitions back to the first of *messages*, none of which was handed on."""
        first: dict[Partition, int] = {}
        for message in messages:
            if message.error() is None:
                first.setdefault(partition_of(message), message.offset() or 0)
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
            for refused in [r for r in tuple(self._raising) if partition_of(r.kafka_message) == partition]:
                self._raising.remove(refused)

    def _forget_all(self) -> None:
        self._forget([TopicPartition(*partition) for partition in self._troubles])


def partition_of(message: Message) -> Partition:
    return message.topic() or "", message.partition() or 0
