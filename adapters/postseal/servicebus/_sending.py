"""Seals what a sender is given, before the client library sees it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sized
from typing import Any, Final

from azure.servicebus import ServiceBusMessage, ServiceBusMessageBatch
from azure.servicebus.exceptions import MessageSizeExceededError

from postseal.core import ConfigError, Sealer
from postseal.core.policy import Policy
from postseal.servicebus._flow import Flow, run
from postseal.servicebus._in_force import InForce
from postseal.servicebus._message import Draft, Sealed, bound_by, draft_of, raw_of
from postseal.servicebus._replies import answered, asks
from postseal.servicebus._session import stands_for_a_state

__all__ = ["Batch", "Sending"]

_SLACK: Final = 64
"""Bytes by which two envelopes of equal body and content type may differ: lengths of lengths, wrapped keys of another data key."""
_UNSEEN: Final = 2048
"""Bytes that sealing is taken to add before one was sealed, where none can be sealed for that alone."""


class Sending:
    """Seals for one sender.

    Args:
        sealer: Seals.
        destination: Of the sender's queue or topic.
        waits: Whether sealing is awaited: the sender is of asyncio.

    Raises:
        ConfigError: No policy speaks of the destination, or it binds what cannot be bound.
    """

    def __init__(self, sealer: Sealer, destination: str, *, waits: bool) -> None:
        self.sealer = sealer
        self.destination = destination
        self._in_force = InForce(sealer, destination)
        bound_by(self.policy)
        self.waits = waits
        self.added: int | None = None
        """Bytes that sealing adds to a body without a content type, as last seen."""
        self._seal: Callable[..., Any] = sealer.aseal if waits else sealer.seal

    @property
    def policy(self) -> Policy:
        """The policy in force."""
        return self._in_force.policy

    @property
    def passes(self) -> bool:
        """Whether messages go out as they are."""
        return not self.policy.seals

    @property
    def draws(self) -> tuple[object, ...]:
        """What of the policy decides how a message is drafted."""
        policy = self.policy
        return policy.seals, policy.bind_headers, policy.encrypt_headers, policy.bind_ordering_key

    # -- messages --------------------------------------------------------------------------------------------------

    def prepare(self, messages: Any) -> Flow[Any]:
        """Return what is to be sent in the place of *messages*: one, several, or a batch."""
        if self.passes and not _is_put_off(messages):
            return self._unsealed(messages)
        if isinstance(messages, ServiceBusMessage):  # the common case
            return (yield from self.seal(messages))
        if _is_nothing(messages):
            return messages
        if isinstance(messages, ServiceBusMessageBatch):
            return (yield from self._whole(messages))
        return (yield from self.prepare_scheduled(messages))

    def prepare_scheduled(self, messages: Any) -> Flow[Any]:
        """Do the same where no batch may stand."""
        if self.passes:
            return self._unsealed(messages)
        if isinstance(messages, Iterable) and not isinstance(messages, Mapping):
            sealed = []
            for message in messages:
                sealed.append((yield from self.seal(message)))  # noqa: PERF401 - a comprehension cannot yield
            return sealed
        return (yield from self.seal(messages))

    def _unsealed(self, messages: Any) -> Any:
        """Count *messages* that go out as they are."""
        several = isinstance(messages, Sized) and not isinstance(messages, Mapping)
        self.sealer.note_unsealed(self.destination, len(messages) if several else 1)
        return messages

    def seal(self, message: Any) -> Flow[Any]:
        """Return a sealed message in the place of *message*, which stays as it is; itself, where nothing is sealed any more."""
        while True:
            if self.passes:
                return self._unsealed(message)
            generation, draft = self.sealer.generation, draft_of(raw_of(message), self.policy)
            sealed = self._made(draft, (yield lambda d=draft: self._call(d)))  # type: ignore[misc] # mypy cannot infer a lambda with a default
            if (
                self.sealer.generation == generation
            ):  # else it may have been drafted by one policy and sealed by another
                return sealed

    def finish(self, draft: Draft) -> Flow[Sealed]:
        """Seal *draft*."""
        envelope: bytes = yield lambda: self._call(draft)
        return self._made(draft, envelope)

    def _call(self, draft: Draft) -> Any:
        if stands_for_a_state(draft.beside.get("content_encoding")):
            raise ValueError(
                "a message cannot have the content_encoding that states of sessions are bound to"
            )
        return self._seal(
            draft.body,
            destination=self.destination,
            content_type=draft.content_type,
            **draft.beside,
            **answered(self.sealer, self.destination, self.policy, draft.parts.get("properties", {})),
        )

    def _made(self, draft: Draft, envelope: bytes) -> Sealed:
        if (added := len(envelope) - len(draft.body)) > 0:  # not where it was sealed before
            self.added = added - len(draft.content_type or "")
        if draft.parts and draft.parts["properties"].get("reply_to"):
            asks(self.sealer, draft.parts["properties"], envelope)
        return draft.finished(envelope, self)

    # -- batches ---------------------------------------------------------------------------------------------------

    def warm_up(self) -> Flow[None]:
        """Have a data key at hand before a batch is filled, where filling it cannot wait for one."""
        if self.policy.direct or self.policy.bind_replies:
            return  # what is sealed for nothing would cost a call, or answers nothing
        if self.waits and not self.passes and (self.added is None or self.policy.data_key.max_messages > 1):
            beside: dict[str, Any] = {"headers": {}} if self.policy.bind_headers else {}
            yield from self.finish(Draft({}, b"", None, beside))

    def seal_now(self, draft: Draft, generation: int) -> Sealed | None:
        """Seal *draft* without waiting, or return None where that cannot be, or where other rules were taken over since *generation*."""
        sealed = self._sealed_now(draft)
        return sealed if self.sealer.generation == generation else None

    def _sealed_now(self, draft: Draft) -> Sealed | None:
        if not self.waits:
            return run(self.finish(draft))
        if self.policy.direct or self.policy.data_key.max_messages == 1:
            return None  # each has a call, or a data key, of its own, and none is ever at hand
        sealing = self._call(draft)
        try:
            sealing.send(None)  # with a data key at hand it does not yield
        except StopIteration as done:
            return self._made(draft, done.value)
        finally:
            sealing.close()
        return None

    def _whole(self, batch: ServiceBusMessageBatch) -> Flow[ServiceBusMessageBatch]:
        """Return *batch* with all in it sealed."""
        mine = getattr(batch, "_postseal", None)
        if not isinstance(mine, Batch) or not mine.is_of(self):
            raise ConfigError(
                "this batch was not made by a protected sender of this queue or topic, so what is in it is not sealed for it; make it with "
                "create_message_batch() of this sender. Nothing was sent"
            )
        return (yield from mine.whole(batch))


class Batch:
    """What a batch knows of its sender; it seals as messages are added, so that the batch counts what will travel.

    asyncio fills batches without awaiting. Where no data key is at hand then, a message goes in as a placeholder of at least its sealed
    size, and is sealed when the batch is sent.
    """

    def __init__(self, sending: Sending) -> None:
        self._sending = sending
        self.put_off = False
        """Whether something in it is yet to be sealed."""
        self._is_clear = False
        self._draws = sending.draws

    def into(self, batch: Any, sealed: Callable[[Any], type]) -> ServiceBusMessageBatch:
        """Return *batch* as one that asks this; *sealed* makes the class of such a batch from that of a bare one."""
        batch._postseal = self  # noqa: SLF001 - ours, and not the client library's
        batch.__class__ = sealed(type(batch))
        return batch  # type: ignore[no-any-return]  # what the client library made

    def is_of(self, sending: Sending) -> bool:
        """Tell whether *sending* may send it: a sender of the same queue, with the same sealer."""
        mine = self._sending
        return mine.sealer is sending.sealer and mine.destination == sending.destination

    def sealed(self, message: Any) -> Any:
        """Return what goes into the batch in the place of *message*."""
        if self._sending.passes:
            self._is_clear = True
            return message
        if not self.put_off:
            self._draws = self._sending.draws
        raw = raw_of(message)
        if isinstance(raw, Sealed) and isinstance(raw.made_by, Sending) and self.is_of(raw.made_by):
            return message  # the client library fills a batch for a list that was sealed before
        generation, draft = self._sending.sealer.generation, draft_of(raw, self._sending.policy)
        sealed = None if self.put_off else self._sending.seal_now(draft, generation)
        if sealed is None:
            policy = self._sending.policy
            added = self._sending.added or (_UNSEEN if policy.direct or policy.bind_replies else 0)
            size = len(draft.body) + len(draft.content_type or "") + added + _SLACK
            sealed = draft.finished(bytes(size), self._sending)
            sealed.draft = draft
            self.put_off = True
        return sealed

    def whole(self, batch: ServiceBusMessageBatch) -> Flow[ServiceBusMessageBatch]:
        """Return *batch* where all in it is sealed; else another, with what was put off sealed now.

        Raises:
            ConfigError: Other rules were taken over since it was filled, which want it otherwise.
        """
        if self._is_clear or (self.put_off and self._sending.draws != self._draws):
            raise ConfigError(
                "other policies were taken over since this batch was filled, so what is in it is not as they want it; fill another. "
                "Nothing was sent"
            )
        if not self.put_off:
            return batch
        other = ServiceBusMessageBatch(
            max_size_in_bytes=batch.max_size_in_bytes,
            amqp_transport=batch._amqp_transport,  # noqa: SLF001 - a batch has no public way to say it
            tracing_attributes=batch._tracing_attributes,  # noqa: SLF001 - likewise
        )
        for message in batch._messages:  # noqa: SLF001 - likewise
            draft = getattr(message.raw_amqp_message, "draft", None)
            try:
                other.add_message(message if draft is None else (yield from self._sending.finish(draft)))
            except MessageSizeExceededError as error:
                error.add_note(
                    "sealed under a new data key, the batch is larger than it was; send fewer messages in it"
                )
                raise
        return other


def _is_put_off(messages: Any) -> bool:
    mine = getattr(messages, "_postseal", None)
    return isinstance(mine, Batch) and mine.put_off


def _is_nothing(messages: Any) -> bool:
    """Tell whether the client library will send nothing, and say nothing."""
    try:
        return len(messages) == 0
    except TypeError:
        return False
