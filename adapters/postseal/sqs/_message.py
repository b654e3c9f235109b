"""What an SQS message has beside its body: a destination, attributes, their size and MD5. Pure: no client, no sealer.

Source: Amazon SQS API Reference (SendMessage, ReceiveMessage, Message); SPEC.md 5.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass, field
from functools import lru_cache
from hashlib import md5
from typing import Any, Final, TypeAlias

from postseal.core import ConfigError, Opened, Policy, Sealer
from postseal.core.context import HeaderValue

__all__ = [
    "MAX_BYTES",
    "MAX_TOPIC_BYTES",
    "Attributes",
    "Place",
    "Places",
    "asks_for",
    "asks_for_all",
    "attributes_md5",
    "attributes_of",
    "attributes_size",
    "destination_of",
    "is_fifo",
    "names_queue",
    "topic_destination_of",
    "values_of",
    "without",
]

MAX_BYTES: Final = 1024 * 1024
"""Bytes of a message, and of all messages of a batch, attributes counted. Source: Amazon SQS Developer Guide, message quotas."""
MAX_TOPIC_BYTES: Final = 256 * 1024
"""Bytes of a message to a topic, and of all messages of a batch. Source: Amazon SNS, quotas, Publish and PublishBatch."""

Attributes: TypeAlias = Mapping[str, Mapping[str, Any]]
"""``MessageAttributes``: by name, a DataType and a StringValue or BinaryValue."""

_QUEUE: Final = re.compile(r"[A-Za-z0-9_-]{1,80}|[A-Za-z0-9_-]{1,75}\.fifo")
"""Source: Amazon SQS API, CreateQueue, QueueName."""
_TOPIC: Final = re.compile(r"[A-Za-z0-9_-]{1,256}|[A-Za-z0-9_-]{1,251}\.fifo")
"""Source: Amazon SNS API, CreateTopic, Name."""
_TOPIC_PARTS: Final = 6
_MAX_PLACES: Final = 1024
_PLAIN_TYPES: Final = frozenset(("String", "Binary"))
"""Data types that the type of a value says already."""


# -- destinations ------------------------------------------------------------------------------------------------------


@lru_cache(maxsize=1024)
def destination_of(queue_url: str) -> str:
    """Return the destination of the queue at *queue_url*: ``sqs:`` and the last part of its path.

    Account and region are no part of it, so that messages open where they were redriven or bridged to.

    Raises:
        ConfigError: The URL does not end in a queue's name.
    """
    name = queue_url.rpartition("/")[2]
    if not names_queue(name):
        raise ConfigError(f"QueueUrl does not end in the name of a queue: {queue_url!r}")
    return f"sqs:{name}"


@lru_cache(maxsize=1024)
def topic_destination_of(arn: str) -> str:
    """Return the destination of the SNS topic of that *arn*: ``sns:`` and its name.

    Raises:
        ConfigError: It is no topic's. The text does not show it, as it may be that of somebody's phone.

    Source: Service Authorization Reference, SNS: arn:partition:sns:region:account:topic.
    """
    parts = arn.split(":")
    if len(parts) != _TOPIC_PARTS or parts[0] != "arn" or parts[2] != "sns" or not _TOPIC.fullmatch(parts[5]):
        raise ConfigError(
            "this is not the ARN of an SNS topic, and nothing else is published to by a protected client"
        )
    return f"sns:{parts[5]}"


def names_queue(name: str) -> bool:
    """Tell whether *name* may be that of a queue."""
    return _QUEUE.fullmatch(name) is not None


def is_fifo(destination: str) -> bool:
    """Tell whether messages of *destination* keep their order and are deduplicated."""
    return destination.endswith(".fifo")


@dataclass(frozen=True, slots=True)
class Place:
    """What a policy says of one queue or topic, looked up once.

    Args:
        destination: Its logical destination.
        policy: The policy in force there.
        seal: Seals a body at once, in the common case: `Sealer.at_hand`.
        open: Opens an envelope likewise: `Sealer.open_at_hand`.
        open_body: To its body alone, where no ledger is to be told: `Sealer.body_at_hand`.
        reader: Who reads there, to the ledger: the queue, where it gets copies of what is sent to topics.
        noted: Whether a ledger is told what is settled.
    """

    destination: str
    policy: Policy
    seal: Callable[[bytes], bytes | None]
    open: Callable[[bytes], Opened | None]
    open_body: Callable[[bytes], bytes | None]
    reader: str = ""
    noted: bool = False
    bind: tuple[str, ...] = field(init=False)
    """Names of the attributes to bind."""
    takes: tuple[str, ...] = field(init=False)
    """Names of the attributes that are taken out of what is sent, and encrypted with the body."""
    bind_group: bool = field(init=False)
    plain: bool = field(init=False)
    """Whether nothing has to be known of a message but its body."""
    fifo: bool = field(init=False)
    seals: bool = field(init=False)
    """Whether what is sent there is sealed."""
    wraps: bool = field(init=False)
    """Whether messages of topics may lie there, in SNS's JSON or by themselves."""

    def __post_init__(self) -> None:
        policy = self.policy
        object.__setattr__(self, "bind", policy.bind_headers)
        object.__setattr__(self, "bind_group", policy.bind_ordering_key)
        object.__setattr__(self, "takes", policy.taken_headers)
        object.__setattr__(
            self, "plain", not self.bind and not self.bind_group and not policy.encrypt_headers
        )
        object.__setattr__(self, "fifo", is_fifo(self.destination))
        object.__setattr__(self, "seals", policy.seals)
        object.__setattr__(self, "wraps", _speaks_of_topics(policy))

    @classmethod
    def of(cls, destination: str, sealer: Sealer) -> Place:
        """Look up what *sealer* says of *destination*.

        Raises:
            ConfigError: No policy speaks of it.
        """
        policy = sealer.policy_for(destination)
        reader = destination if sealer.ledger is not None and _speaks_of_topics(policy) else ""
        return cls(
            destination,
            policy,
            sealer.at_hand(destination),
            sealer.open_at_hand(destination, reader),
            sealer.body_at_hand(destination),
            reader,
            sealer.ledger is not None,
        )


def _speaks_of_topics(policy: Policy) -> bool:
    return any(each.startswith("sns:") for each in policy.destinations)


class Places(dict[str, Place]):
    """Queues or topics that were met, by URL or ARN.

    Args:
        sealer: Knows their policies.
        destination_of: Names the destination of a URL or ARN; raises `ConfigError` where it is none.
    """

    def __init__(self, sealer: Sealer, destination_of: Callable[[str], str]) -> None:
        super().__init__()
        self._sealer = sealer
        self._destination_of = destination_of
        sealer.forget_with(self)

    def __missing__(self, address: str) -> Place:
        """Look *address* up and keep it.

        Raises:
            ConfigError: It is no address, or no policy speaks of it.
        """
        destination = self._destination_of(address)
        generation = self._sealer.generation
        place = Place.of(destination, self._sealer)
        if len(self) >= _MAX_PLACES:
            self.clear()
        self[address] = place
        if (
            self._sealer.generation != generation
        ):  # other rules were taken over meanwhile: not for the next message
            self.pop(address, None)
        return place


# -- attributes --------------------------------------------------------------------------------------------------------


def values_of(attributes: Attributes | None) -> list[tuple[str, HeaderValue]]:
    """Return *attributes* as headers: text of String, bytes of Binary; of any other data type its name, too, before the value.

    Source: SPEC.md 5.2.
    """
    if not attributes:
        return []
    found: list[tuple[str, HeaderValue]] = []
    for name, attribute in attributes.items():
        kind = str(attribute.get("DataType"))
        if kind not in _PLAIN_TYPES:
            found.append((name, kind))
        found.append((name, _value(attribute)))
    return found


def attributes_of(headers: Iterable[tuple[str, HeaderValue]]) -> dict[str, dict[str, Any]]:
    """Return *headers* as the attributes that they were: what `values_of` made of them."""
    values: dict[str, list[HeaderValue]] = {}
    for name, value in headers:
        values.setdefault(name, []).append(value)
    return {name: _attribute(each) for name, each in values.items()}


def _attribute(values: list[HeaderValue]) -> dict[str, Any]:
    value = values[-1]
    kind = values[0] if len(values) > 1 else "Binary" if isinstance(value, bytes) else "String"
    if isinstance(value, bytes):
        return {"DataType": kind, "BinaryValue": value}
    # Only who seals without this adapter can have put anything but text there.
    return {"DataType": kind, "StringValue": value if isinstance(value, str) else str(value)}


def without(attributes: Attributes | None, names: Collection[str]) -> dict[str, Mapping[str, Any]]:
    """Return *attributes* but for those of *names*."""
    return {name: value for name, value in (attributes or {}).items() if name not in names}


def _value(attribute: Mapping[str, Any]) -> HeaderValue:
    if _is_binary(attribute):
        value = attribute.get("BinaryValue")
        return value.encode() if isinstance(value, str) else value  # botocore takes both
    return attribute.get("StringValue")


def _is_binary(attribute: Mapping[str, Any]) -> bool:
    return str(attribute.get("DataType")).startswith("Binary")


def _raw(value: HeaderValue) -> bytes:
    """Return the bytes of a value that SQS counts and digests; none of one that botocore will not send."""
    if isinstance(value, str):
        return value.encode("utf-8", "surrogatepass")
    return bytes(value) if isinstance(value, (bytes, bytearray, memoryview)) else b""


def attributes_size(attributes: Attributes | None) -> int:
    """Return the bytes that *attributes* count for: names, types and values. Source: SQS Developer Guide, message attributes."""
    if not attributes:
        return 0
    return sum(
        len(name.encode()) + len(str(attribute.get("DataType", "")).encode()) + len(_raw(_value(attribute)))
        for name, attribute in attributes.items()
    )


def asks_for_all(names: Collection[str]) -> bool:
    """Tell whether a receive with these *names* hands out every attribute. Source: SQS API, ReceiveMessage."""
    return "All" in names or ".*" in names


def asks_for(name: str, names: Collection[str]) -> bool:
    """Tell whether a receive with these *names* may hand out the attribute *name*. Source: SQS API, ReceiveMessage."""
    if name in names or asks_for_all(names):
        return True
    return any(pattern.endswith(".*") and name.startswith(pattern[:-2]) for pattern in names)


# -- MD5 ---------------------------------------------------------------------------------------------------------------


def attributes_md5(attributes: Attributes) -> str:
    """Return the MD5 of *attributes* in hex, as SQS does. Source: SQS Developer Guide, calculating the MD5 digest of message attributes."""
    digest = md5(usedforsecurity=False)
    for name, attribute in sorted(attributes.items()):
        binary = _is_binary(attribute)
        value = _raw(_value(attribute))
        for part in (name.encode(), str(attribute.get("DataType", "")).encode()):
            digest.update(len(part).to_bytes(4, "big") + part)
        digest.update((b"\x02" if binary else b"\x01") + len(value).to_bytes(4, "big") + value)
    return digest.hexdigest()
