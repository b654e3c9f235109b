"""How the value of a record is sealed, whether the caller waits for it or awaits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from postseal.core import ConfigError
from postseal.kafka._message import Topic, Topics, clear_headers, wire_bytes, wire_headers, without

__all__ = ["Sealing"]

S = TypeVar("S")
"""What sealing gives: the envelope, or an awaitable of it."""


class Sealing(Generic[S]):
    """What our producers share.

    Attributes:
        _topics: The topics of a sealer.
        _seal: `Sealer.seal` of it, or `Sealer.aseal`.
    """

    _seal: Callable[..., S]
    _topics: Topics

    def _check_bare(self, topic: str, headers: Any) -> None:
        """See that a tombstone has none of the headers that would have to be encrypted with its value.

        Raises:
            ConfigError: It has.
        """
        way = self._topics[topic]
        if way.takes and clear_headers(headers, way.takes) != without(headers, ()):
            raise ConfigError(
                f"policy {way.policy.name!r} encrypts {sorted(way.takes)}, and a message without a value has nothing to encrypt them with"
            )

    def _sealed(self, way: Topic, value: str | bytes, key: str | bytes | None, headers: Any) -> S:
        """Seal *value* with what of its record is bound to it."""
        body = value.encode() if isinstance(value, str) else value
        if way.plain:
            return self._seal(body, destination=way.destination)
        return self._seal(
            body,
            destination=way.destination,
            headers=wire_headers(headers),
            ordering_key=wire_bytes(key) if way.binds_key else None,
        )
