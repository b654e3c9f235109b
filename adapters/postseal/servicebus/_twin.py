"""What the blocking client and that of asyncio do not share."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

__all__ = ["Twin"]


class Twin(NamedTuple):
    """Classes of one of the two clients, each with what makes the protected one of it."""

    sender: tuple[type, Callable[[Any], type]]
    receiver: tuple[type, Callable[[Any], type]]
    session: tuple[type, Callable[[Any], type]]
    waits: bool
    """Whether its calls are awaited."""
    sleep: Callable[[float], Any]
