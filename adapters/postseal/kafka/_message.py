"""What of a Kafka message is bound, and where its envelope rides: pure, without a client.

The envelope is the record's value. Key, headers, timestamp and partition travel as they are; bound are the topic, the headers that the
policy names, and the key where the policy says so. Headers that the policy encrypts travel in the envelope instead. On the wire a header's
value is bytes or null, so that is the form that is bound: the text that a producer gives becomes the UTF-8 that a consumer will get.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable
from dataclasses import dataclass, field
from typing import Final, TypeAlias

from postseal.core import ConfigError, Opened, Policy, Sealer, Verdict
from postseal.core.context import HeaderValue, fold

__all__ = [
    "KafkaHeaders",
    "Topic",
    "Topics",
    "clear_headers",
    "opened_headers",
    "quarantine_headers",
    "quarantines",
    "speaks_of_kafka",
    "wire_bytes",
    "wire_headers",
    "without",
]

KafkaHeaders: TypeAlias = dict[str, str | bytes | None] | list[tuple[str, str | bytes | None]]
"""Headers as confluent-kafka takes them."""

_SCHEME: Final = "kafka:"
_REFUSED_SUFFIX: Final = ".refused"
"""Dead letters of a topic lie in the topic of this name after its own, unless the policy names another."""
_VERDICT: Final = "postseal-verdict"
_TOPIC: Final = "postseal-topic"
_PARTITION: Final = "postseal-partition"
_OFFSET: Final = "postseal-offset"
_SIZE: Final = "postseal-size"
_OURS: Final = frozenset((_VERDICT, _TOPIC, _PARTITION, _OFFSET, _SIZE))


@dataclass(frozen=True, slots=True)
class Topic:
    """What the policy says of one topic, looked up once.

    Args:
        name: The topic.
        destination: Its logical destination.
        policy: The policy in force there.
        quick: Seals a value that has nothing bound to it, if that can be done at once; gives None else.
        open_quick: Opens one likewise, where no ledger is to be told of it.
    """

    name: str
    destination: str
    policy: Policy
    quick: Callable[[bytes], bytes | None] = field(default=lambda _: None, repr=False)
    open_quick: Callable[[bytes], bytes | None] = field(default=lambda _: None, repr=False)
    binds: frozenset[str] = field(init=False)
    """Names of the headers to bind."""
    binds_key: bool = field(init=False)
    takes: tuple[str, ...] = field(init=False)
    """Names of the headers that are taken out of a record and encrypted with its value."""
    serializes: bool = field(init=False)
    """Whether a serializer can serve it, which does not see the key and cannot take headers out of a message."""
    plain: bool = field(init=False)
    """Whether neither headers nor the key are bound, and none are encrypted."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "binds", frozenset(self.policy.bind_headers))
        object.__setattr__(self, "binds_key", self.policy.bind_ordering_key)
        object.__setattr__(self, "takes", self.policy.taken_headers)
        object.__setattr__(self, "serializes", not self.binds_key and not self.policy.encrypt_headers)
        object.__setattr__(
            self, "plain", not self.binds and not self.binds_key and not self.policy.encrypt_headers
        )
        if not self.plain:
            object.__setattr__(self, "quick", lambda _: None)
            object.__setattr__(self, "open_quick", lambda _: None)

    @property
    def quarantine(self) -> str | None:
        """The topic that takes its refused messages, or None where they are not to be sent anywhere.

        What is refused where it lies in quarantine stays there: it would be moved on and on.
        """
        if not quarantines(self.policy):
            return None
        named = self.policy.quarantine or ""
        if named.startswith(_SCHEME):
            target = named.removeprefix(_SCHEME)
        elif self.name.endswith(_REFUSED_SUFFIX):
            target = self.name
        else:
            target = self.name + _REFUSED_SUFFIX
        return None if target == self.name else target


class Topics(dict[str, Topic]):
    """Topics that were met, by name.

    Args:
        sealer: Knows their policies.
    """

    def __init__(self, sealer: Sealer) -> None:
        super().__init__()
        if not isinstance(sealer, Sealer):
            raise ConfigError(f"sealer must be a postseal.core.Sealer, not {type(sealer).__name__}")
        self._sealer = sealer
        sealer.forget_with(self)

    def __missing__(self, name: str) -> Topic:
        """Look *name* up and keep it.

        Raises:
            ConfigError: No policy speaks of it.
            TypeError: It is no text.
        """
        if not isinstance(name, str):
            raise TypeError(f"topic must be a str, not {type(name).__name__}")
        destination = _SCHEME + name
        generation = self._sealer.generation
        policy = self._sealer.policy_for(destination)
        seal, open_ = self._sealer.at_hand(destination), self._sealer.body_at_hand(destination)
        topic = self[name] = Topic(name, destination, policy, seal, open_)
        if (
            self._sealer.generation != generation
        ):  # other rules were taken over meanwhile: not for the next message
            self.pop(name, None)
        return topic


def wire_bytes(value: str | bytes | None) -> bytes | None:
    """Return *value* as it will be on the wire."""
    return value.encode() if isinstance(value, str) else value


def wire_headers(headers: KafkaHeaders | None) -> list[tuple[str, bytes | None]] | None:
    """Return all of *headers* with values as on the wire; None where there are none."""
    if not headers:
        return None
    return [(name, wire_bytes(value)) for name, value in _pairs(headers)]


def without(
    headers: KafkaHeaders | None, names: Collection[str]
) -> list[tuple[str, str | bytes | None]] | None:
    """Return *headers* but for those of *names*; None where none are left.

    A name that could be taken for one of *names* does not come so far: sealing refuses it.
    """
    return [pair for pair in _pairs(headers or []) if pair[0] not in names] or None


def opened_headers(headers: KafkaHeaders | None, opened: Opened) -> list[tuple[str, str | bytes | None]]:
    """Return *headers*, as received, and behind them those that came encrypted, in the form in which all of Kafka's are received."""
    return [*_pairs(headers or []), *((name, _as_received(value)) for name, value in opened.headers)]


def _as_received(value: HeaderValue) -> bytes | None:
    if value is None or isinstance(value, bytes):
        return value
    # Only who seals without this adapter can have put anything else there.
    return value.encode() if isinstance(value, str) else str(value).encode()


def clear_headers(
    headers: KafkaHeaders | None, names: Collection[str]
) -> list[tuple[str, str | bytes | None]] | None:
    """Return *headers* of a record without a value, but for those that could be taken for one of *names*: nobody encrypted them."""
    folded = {fold(name) for name in names}
    return [pair for pair in _pairs(headers or []) if fold(pair[0]) not in folded] or None


def quarantines(policy: Policy) -> bool:
    """Tell whether refused messages of *policy* are to be sent to a topic of ours.

    Raises:
        ConfigError: They are, but the policy names a quarantine of another broker.
    """
    if policy.on_refused == "quarantine" and not (policy.quarantine or "").startswith(_SCHEME):
        raise ConfigError(
            f"policy {policy.name!r}: quarantine is {policy.quarantine!r}, but refused messages of a Kafka topic go to "
            "a Kafka topic: 'kafka:...'"
        )
    return policy.on_refused in ("dead-letter", "quarantine")


def speaks_of_kafka(policy: Policy) -> bool:
    """Tell whether *policy* is for some Kafka topic."""
    return any(pattern.startswith(_SCHEME) for pattern in (*policy.destinations, *policy.accept_from))


def quarantine_headers(
    headers: KafkaHeaders | None,
    verdict: Verdict,
    topic: str,
    partition: int,
    offset: int,
    *,
    size: int | None = None,
) -> list[tuple[str, str | bytes | None]]:
    """Return *headers* with ours behind them: the verdict in one word, where the message lay, and its *size*, if it is not there.

    No detail: whoever forges messages may read the quarantine. What an earlier quarantine, or a forger, wrote under our names is replaced.
    """
    return [
        *((name, value) for name, value in _pairs(headers or []) if name not in _OURS),
        (_VERDICT, verdict.value.encode()),
        (_TOPIC, topic.encode()),
        (_PARTITION, b"%d" % partition),
        (_OFFSET, b"%d" % offset),
        *([] if size is None else [(_SIZE, b"%d" % size)]),
    ]


def _pairs(headers: KafkaHeaders) -> Iterable[tuple[str, str | bytes | None]]:
    return headers.items() if isinstance(headers, dict) else headers
