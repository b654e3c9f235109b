"""Every error of postseal, by what the caller does next.

    PostsealError                     never raised itself
    |- ConfigError (ValueError)       the caller's code or policy is wrong: mend it
    |  |- PolicyFileError             the policy file is wrong: carries all mistakes with their lines
    |- MissingExtraError (ImportError) install the extra that it names
    |- Refused                        this message will never be handed on: settle and audit
    |- TooLarge (ValueError)          too large for its broker once sealed: send less
    |- KeyUnavailable                 the key service did not answer: keep the message, try again
    |  |- AuditUnavailable            an event that must be written could not be: likewise
    |  `- LedgerUnavailable           the ledger of deliveries did not answer: likewise
    |- KeyRefused                     the key service said no: mend rights or keys

Key providers raise two more, which never leave the core: `NotMine` (try the next recipient) and `KeyBroken` (will never open).
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from typing import Any

__all__ = [
    "AuditUnavailable",
    "ConfigError",
    "KeyBroken",
    "KeyRefused",
    "KeyUnavailable",
    "LedgerUnavailable",
    "MissingExtraError",
    "Mistake",
    "NotMine",
    "PolicyFileError",
    "PostsealError",
    "Refused",
    "TooLarge",
    "Verdict",
    "nearest",
]


class Verdict(StrEnum):
    """What `Sealer.open` found. Source: SPEC.md 10.4."""

    OK = "ok"
    REDELIVERY = "redelivery"
    DUPLICATE = "duplicate"
    CLEAR = "clear"

    UNPROTECTED = "unprotected"
    DOWNGRADE = "downgrade"
    FORGED = "forged"
    UNKNOWN_KEY = "unknown-key"
    UNKNOWN_SENDER = "unknown-sender"
    WRONG_DESTINATION = "wrong-destination"
    STALE = "stale"
    FUTURE = "future"
    CONFLICT = "conflict"
    MALFORMED = "malformed"

    KEY_UNAVAILABLE = "key-unavailable"


class PostsealError(Exception):
    """Whatever postseal raises. Never raised itself."""


class ConfigError(PostsealError, ValueError):
    """The caller's code or policy is wrong. Trying again does not help."""


class Mistake(NamedTuple):
    """Something wrong in a policy file.

    Attributes:
        file: As the caller named it.
        line: From 1.
        column: From 1, in characters.
        text: What is wrong, and what would be right. Never holds a secret.
    """

    file: str
    line: int
    column: int
    text: str

    def __str__(self) -> str:
        return f"{self.file}:{self.line}:{self.column}: {self.text}"


class PolicyFileError(ConfigError):
    """A policy file that cannot be used. `str()` has one line for each mistake.

    Attributes:
        mistakes: All of them, by line.
    """

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        super().__init__(self.mistakes)

    def __str__(self) -> str:
        return "\n".join(map(str, self.mistakes))


class MissingExtraError(PostsealError, ImportError):
    """A client library that this module needs is not installed; the text names the extra that brings it."""

    @classmethod
    def naming(cls, extra: str, module: str, missing: ImportError) -> MissingExtraError:
        """Say which *extra* brings what *module* needs."""
        return cls(
            f"{module} needs {missing.name or missing}, which is not installed: pip install 'postseal[{extra}]'"
        )


class Refused(PostsealError):
    """This message will never be handed on.

    Attributes:
        verdict: Why, in one word; the same words in every adapter.
        detail: Why, in a sentence for the operator. Not part of `str()`, because the text of an error travels further than an
            audit event and whoever forges messages should learn nothing from it.
        destination: Where it lay.
    """

    def __init__(self, verdict: Verdict, detail: str = "", *, destination: str = "") -> None:
        super().__init__(verdict, detail, destination)
        self.verdict = verdict
        self.detail = detail
        self.destination = destination

    def __str__(self) -> str:
        where = f" at {self.destination}" if self.destination else ""
        return f"message refused{where}: {self.verdict.value}"

    def __reduce__(self) -> tuple[Any, ...]:
        return _refused, (self.verdict, self.detail, self.destination)


def _refused(verdict: Verdict, detail: str, destination: str) -> Refused:
    return Refused(verdict, detail, destination=destination)


class TooLarge(PostsealError, ValueError):
    """A body that, once sealed, is over the limit of its broker or of its data key. Nothing was sent."""


class KeyUnavailable(PostsealError):
    """The key service did not answer, or asked us to wait. Keep the message and try again."""

    verdict = Verdict.KEY_UNAVAILABLE


class LedgerUnavailable(KeyUnavailable):
    """The ledger of deliveries did not answer: its disk is full, its server is away. Keep the message and try again."""


class AuditUnavailable(KeyUnavailable):
    """A message was to be refused, and its event must be written somewhere that did not take it. Keep the message and try again.

    A kind of `KeyUnavailable`, because whoever consumes does the same.
    """


class KeyRefused(PostsealError):
    """The key service said no: no right, or a key that is disabled, deleted or of the wrong kind. Trying again does not help."""


class NotMine(PostsealError):
    """None of these recipients is this provider's: try the next provider."""


class KeyBroken(PostsealError):
    """This wrapped key will never open: changed bytes or another context."""


def nearest(word: str, words: Iterable[str]) -> str:
    """Return ``; did you mean 'x'?`` for the word of *words* nearest to *word*, or the list of them, or nothing."""
    import difflib  # noqa: PLC0415 - only for who made a mistake; `import postseal.core` is to be quick

    known = sorted(words)
    close = difflib.get_close_matches(word, known, n=1)
    if close:
        return f"; did you mean {close[0]!r}?"
    return f"; there are: {', '.join(map(repr, known))}" if known else ""
