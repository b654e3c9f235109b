"""The base of what is configured once and never changed: limits, policies.

Not a dataclass, for two reasons: the constructor takes any iterable where the attribute is a tuple, and `import postseal.core`
need not load `inspect` and all that comes with it, which would take longer than loading the cipher.
"""

from __future__ import annotations

from typing import Any, Self

from postseal.core.errors import ConfigError, nearest

__all__ = ["Value"]


class Value:
    """Frozen, compared and shown by its slots."""

    __slots__: tuple[str, ...] = ()

    def _set(self, **values: Any) -> None:
        for name, value in values.items():
            object.__setattr__(self, name, value)

    def replace(self, **changes: Any) -> Self:
        """Return a copy with *changes*, checked like a new one."""
        values = {name: getattr(self, name) for name in self.__slots__}
        for name in changes:
            if name not in values:
                raise ConfigError(f"{type(self).__name__} has no option {name!r}{nearest(name, values)}")
        return type(self)(**values | changes)

    def __setattr__(self, name: str, value: object) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen: use replace({name}=...)")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{type(self).__name__} is frozen")

    def __eq__(self, other: object) -> bool:
        if type(other) is not type(self):
            return NotImplemented
        return all(getattr(self, name) == getattr(other, name) for name in self.__slots__)

    def __hash__(self) -> int:
        return hash(tuple(getattr(self, name) for name in self.__slots__))

    def __repr__(self) -> str:
        shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
        return f"{type(self).__name__}({shown})"

    def __reduce__(self) -> tuple[Any, ...]:
        return _make, (type(self), {name: getattr(self, name) for name in self.__slots__})


def _make(kind: type[Any], values: dict[str, Any]) -> Any:
    return kind(**values)
