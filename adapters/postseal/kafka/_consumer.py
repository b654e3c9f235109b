"""Consumers that open what they hand on."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Generic, TypeVar

import confluent_kafka

from postseal.core import Sealer
from postseal.kafka._opening import commits_told, take_over_storing
from postseal.kafka._receiving import Receiving

__all__ = ["Consumer", "DeserializingConsumer"]

K = TypeVar("K")
V = TypeVar("V")


class OpeningConsumer(Receiving, confluent_kafka.Consumer):
    """What our consumers share. Made ready by `_prepare` before the client itself is."""

    # What is called for every message: `super()` would be made each time.
    _client_poll: Any = confluent_kafka.Consumer.poll
    _client_store: Any = confluent_kafka.Consumer.store_offsets

    def _prepare(
        self, sealer: Sealer, quarantine: Any, args: tuple[Any, ...], config: dict[str, Any]
    ) -> tuple[Any, ...]:
        """Return the client's arguments, and take what is ours out of *config*."""
        conf, *rest = args or ({},)
        is_known = isinstance(conf, dict)
        self._open_with(sealer, quarantine, str((conf | config).get("group.id", "")) if is_known else "")
        if not is_known:
            return args  # the client says what is wrong
        conf, self._stores = take_over_storing(commits_told(conf, config, self), config)
        return conf, *rest

    def __exit__(self, *_: object) -> None:
        self.close()  # which the client's own does not call


class Consumer(OpeningConsumer):
    """`confluent_kafka.Consumer` that opens what it hands on: swap the import, name the sealer.

    A working program::

        consumer = Consumer({"bootstrap.servers": "localhost:9092", "group.id": "billing"}, sealer=sealer)
        consumer.subscribe(["orders"])
        message = consumer.poll(10)
        print(message.value())

    Offsets are stored when a message was opened, not when it was fetched: by a later call, at most 10 ms behind while messages come, and
    before any call that waits, commits or gives partitions back. With ``"enable.auto.offset.store": False`` storing is left to the
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
        super().__init__(*self._prepare(sealer, quarantine, args, config), **config)


if TYPE_CHECKING or hasattr(confluent_kafka.DeserializingConsumer, "__class_getitem__"):
    _Deserializing = confluent_kafka.DeserializingConsumer
else:  # before 2.16 it is not generic

    class _Deserializing(confluent_kafka.DeserializingConsumer, Generic[K, V]):
        pass


class DeserializingConsumer(_Deserializing[K, V], OpeningConsumer):  # type: ignore[misc]  # its poll is typed by K and V
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
        super().__init__(*self._prepare(sealer, quarantine, (conf,), {}))
