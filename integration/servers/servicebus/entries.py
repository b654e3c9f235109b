"""What a queue holds: messages, their locks, sessions; and what it is told to do."""

import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import IntEnum
from typing import Any, Protocol

from .deadlines import FOREVER


class State(IntEnum):
    """As a peek shows it."""

    ACTIVE = 0
    DEFERRED = 1
    SCHEDULED = 2


class Content(Protocol):
    """What a queue must know of a message."""

    @property
    def size(self) -> int:
        """In bytes."""
        ...

    @property
    def ttl(self) -> float | None:
        """In seconds."""
        ...

    @property
    def message_id(self) -> str | None:
        """The sender's own identifier."""
        ...

    @property
    def session_id(self) -> str | None:
        """The session that it belongs to."""
        ...

    @property
    def properties(self) -> Mapping[str, Any]:
        """What the application added."""
        ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Options:
    """What a queue or subscription does, in Azure's words; times in seconds, sizes in bytes."""

    lock_duration: float = 60
    max_delivery_count: int = 10
    requires_session: bool = False
    default_message_time_to_live: float = FOREVER
    dead_lettering_on_message_expiration: bool = False
    forward_to: str = ""
    forward_dead_lettered_messages_to: str = ""
    duplicate_detection: float = 0
    max_message_size: int = 1024 * 1024


@dataclass(slots=True, eq=False)
class Lock:
    """Who may settle a message or receive from a session, and until when, in seconds since 1970."""

    token: uuid.UUID
    until: float


@dataclass(slots=True, eq=False)
class Entry:
    """A message in a queue."""

    sequence: int
    content: Content
    enqueued_at: float
    expires_at: float
    state: State = State.ACTIVE
    due_at: float = 0
    delivery_count: int = 0
    lock: Lock | None = None
    # What dead-lettering adds to the application's properties, and whence it came.
    stamps: dict[str, str] = field(default_factory=dict)
    source: str | None = None


@dataclass(slots=True, eq=False)
class Session:
    """A session: its state, and the lock of whoever receives from it."""

    name: str
    state: bytes | None = None
    lock: Lock | None = None
    changed_at: float = 0
