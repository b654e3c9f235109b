"""What a sink is: somewhere that audit lines go, beside `logging`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

from postseal.core.audit._flood import FloodLimit

__all__ = ["AuditSink"]


@runtime_checkable
class AuditSink(Protocol):
    """Takes audit lines. A file and syslog are here: `AuditFile`, `AuditSyslog`. ``str()`` of it names it in a log.

    Attributes:
        limit: How many events it is told whole; None for all of them.
        required: Whether an event must be written here before its message may be settled.
    """

    limit: FloodLimit | None
    required: bool

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Write *lines*, each of them or none. One thread at a time calls it, unless it is required.

        Raises:
            OSError: It cannot now; the same lines will come again.
        """
        ...

    def close(self) -> None:
        """Close whatever is open; `write` opens it again."""
        ...
