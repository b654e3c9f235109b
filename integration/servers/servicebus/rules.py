"""Which messages of a topic a subscription takes."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable


@runtime_checkable
class Matched(Protocol):
    """What a rule may look at."""

    @property
    def message_id(self) -> str | None: ...  # noqa: D102 - as in the message
    @property
    def properties(self) -> Mapping[str, Any]: ...  # noqa: D102 - likewise


Filter = Callable[[Any], bool]


def everything(_: Any) -> bool:
    """Let each message through."""
    return True


def nothing(_: Any) -> bool:
    """Let none through."""
    return False


@dataclass(frozen=True, slots=True)
class Correlation:
    """Let through what has all these values.

    Args:
        system: By name: message_id, to, subject, reply_to, correlation_id, content_type, session_id, reply_to_session_id.
        properties: Of the application.
    """

    system: Mapping[str, str] = field(default_factory=dict)
    properties: Mapping[str, Any] = field(default_factory=dict)

    def __call__(self, message: Any) -> bool:
        """Tell whether it is let through."""
        return all(getattr(message, name) == value for name, value in self.system.items()) and all(
            name in message.properties and message.properties[name] == value
            for name, value in self.properties.items()
        )


# As they travel. Source: "AMQP request/response operations", rule operations.
_SQL, _TRUE, _FALSE, _CORRELATION = 0x137000006, 0x137000007, 0x137000008, 0x137000009


def from_amqp(description: Any) -> Filter:
    """Read a rule as `add-rule` has it."""
    raise NotImplementedError


def to_amqp(name: str, rule: Filter) -> Any:
    """Write it as `enumerate-rules` has it."""
    raise NotImplementedError
