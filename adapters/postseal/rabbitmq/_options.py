"""How a connection is protected: the same for every client."""

from __future__ import annotations

from dataclasses import dataclass
from math import isfinite

from postseal.core import ConfigError

__all__ = ["Options"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """How a connection is protected, besides by its sealer. Described at `postseal.rabbitmq.protect`."""

    give_back_after: float

    def __post_init__(self) -> None:
        value = self.give_back_after
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not isfinite(value) or value < 0:
            raise ConfigError(f"give_back_after must be 0 seconds or more: {value!r}")
