"""What the decorators have in common."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Sequence
from typing import Any, Generic, NamedTuple, TypeVar, cast

from postseal.core.counting import Tally
from postseal.core.errors import ConfigError, KeyUnavailable
from postseal.core.keys import DirectKeys, KeyContext, KeyProvider, NewDataKey, PublicKeys, Recipient

__all__ = ["Around", "Call", "Measure", "NotAsked", "measures", "seconds", "whole"]

_T = TypeVar("_T")


class NotAsked(KeyUnavailable):
    """The key service was not asked: it did not answer lately, or its quota is used up. Keep the message and try again."""


class Measure(NamedTuple):
    """A number that a decorator tells of.

    Attributes:
        metric: Its name in `postseal.core.telemetry.METRICS`.
        key: The name of the key provider.
        what: What it is of: an operation, a reason. Empty where there is but one.
        value: As of now.
    """

    metric: str
    key: str
    what: str
    value: int


class Call(Generic[_T]):
    """A call that is still to be made. What it is made with may be a data key, so it does not show in a traceback."""

    __slots__ = ("_arguments", "_method")

    def __init__(self, method: Callable[..., _T], *arguments: object) -> None:
        self._method = method
        self._arguments = arguments

    def __call__(self) -> _T:
        return self._method(*self._arguments)


class Around(ABC):
    """A key provider around a key provider. Whatever else that has, this has, too.

    Args:
        inner: The one that is asked.
        name: What it is called in errors and metrics.

    Raises:
        ConfigError: *inner* is no key provider.
    """

    def __init__(self, inner: KeyProvider, *, name: str = "") -> None:
        if not isinstance(inner, KeyProvider):
            raise ConfigError(f"{type(self).__name__} goes around a KeyProvider, not {type(inner).__name__}")
        self.inner = inner
        self.name = name

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.inner!r}>"

    def __getattr__(self, name: str) -> Any:
        if name == "inner":  # not made yet: a copy, say
            raise AttributeError(name)
        return getattr(self.inner, name)

    @property
    def public_key_fingerprints(self) -> frozenset[bytes]:
        """Those of the inner one."""
        return self.inner.public_key_fingerprints if isinstance(self.inner, PublicKeys) else frozenset()

    def generate(self, context: KeyContext) -> NewDataKey:
        """Have a new data key made."""
        return self._ask("generate", context, Call(self.inner.generate, context))

    def wrap(self, data_key: bytes, context: KeyContext) -> tuple[Recipient, ...]:
        """Have *data_key* wrapped."""
        call = Call(self.inner.wrap, data_key, context)
        del data_key  # a traceback shows the locals of its frames to whoever asks
        return self._ask("wrap", context, call)

    def unwrap(self, recipients: Sequence[Recipient], context: KeyContext) -> bytes:
        """Have a data key unwrapped."""
        return self._ask("unwrap", context, Call(self.inner.unwrap, recipients, context))

    def encrypt(self, plaintext: bytes, context: KeyContext) -> Recipient:
        """Have a body encrypted, where the inner one does that: `DirectKeys`."""
        call = Call(cast("DirectKeys", self.inner).encrypt, plaintext, context)
        del plaintext  # as in `wrap`
        return self._ask("encrypt", context, call)

    def decrypt(self, recipient: Recipient, context: KeyContext) -> bytes:
        """Have a body decrypted, likewise."""
        return self._ask("decrypt", context, Call(cast("DirectKeys", self.inner).decrypt, recipient, context))

    def measures(self) -> Iterator[Measure]:
        """Yield what is to be told of this one, and not of the inner one."""
        yield from ()

    @property
    @abstractmethod
    def in_words(self) -> str:
        """What it does, in a few words."""

    def _measure(self, metric: str, tally: Tally, what: str = "") -> Measure:
        return Measure(metric, self.name, what, tally.value)

    def _about(self, verb: str) -> str:
        """Say which call an error is of."""
        return f"{f'keys.{self.name}' if self.name else repr(self.inner)} {verb}"

    @abstractmethod
    def _ask(self, verb: str, context: KeyContext, call: Call[_T]) -> _T:
        """Make *call*, or say why not."""


def measures(*providers: object) -> Iterator[Measure]:
    """Yield what *providers*, and all that they are around or combined of, tell of: each once."""
    seen: set[int] = set()
    left = list(providers)
    while left:
        one = left.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        found = getattr(type(one), "measures", None)
        if found is not None:
            yield from found(one)
        left.append(getattr(one, "inner", None))
        left += getattr(one, "parts", ())


def seconds(value: float, what: str, *, zero: bool = False) -> float:
    """Return *value*, seen to be seconds.

    Raises:
        ConfigError: It is not.
    """
    right = isinstance(value, (int, float)) and not isinstance(value, bool)
    if not right or not (value >= 0 if zero else value > 0) or value > 86400:  # noqa: PLR2004 - a day
        raise ConfigError(f"{what} must be seconds, over 0 and at most 86,400: {value!r}")
    return value


def whole(value: int, what: str, most: int) -> int:
    """Return *value*, seen to be a whole number from 1 to *most*.

    Raises:
        ConfigError: It is not.
    """
    if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= most:
        raise ConfigError(f"{what} must be a whole number, 1 to {most:,}: {value!r}")
    return value
