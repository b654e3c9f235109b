"""How the value of a record is sealed, whether the caller waits for it or awaits it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

from postseal.kafka._message import Topic, Topics, bound_headers, wire_bytes

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

    def _sealed(self, way: Topic, value: str | bytes, key: str | bytes | None, headers: Any) -> S:
        """Seal *value* with what of its record is bound to it."""
        body = value.encode() if isinstance(value, str) else value
        if way.plain:
            return self._seal(body, destination=way.destination)
        return self._seal(
            body,
            destination=way.destination,
            headers=bound_headers(headers, way.binds),
            ordering_key=wire_bytes(key) if way.binds_key else None,
        )
