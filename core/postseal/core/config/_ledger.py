"""What a policy file says of the ledger of settled messages, and what is made of it."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple, get_args
from urllib.parse import urlsplit

from postseal.core.config._kinds import (
    Count,
    Duration,
    Either,
    FileName,
    Named,
    Option,
    Schema,
    Table,
    Text,
    Word,
    a_kind_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.config._secrets import Secret
from postseal.core.errors import ConfigError, nearest
from postseal.core.replay import LedgerFailure, MemoryLedger

if TYPE_CHECKING:
    from postseal.core.replay import Ledger

__all__ = ["MEMORY", "STORES", "LedgerKind", "check_ledger", "ledger_of"]

MEMORY: Final = "memory"


def _redis_url(url: str) -> str:
    parts = urlsplit(url)
    if parts.scheme not in ("redis", "rediss", "unix"):
        raise ConfigError(
            f"no address of Redis like redis://host:6379/0{nearest(parts.scheme, ('redis', 'rediss'))}"
        )
    if "@" in parts.netloc:
        raise ConfigError('a password never stands in the policy file: url = { env = "..." }')
    return url


_MAX_AGE: Final = Option(
    "max_age",
    Duration(most=3650 * 86400.0),
    "How long a settled message is remembered where its policy has no `max_message_age`; at least each of those.",
    default="14d",
)
_ON_FAILURE: Final = Option(
    "on_failure",
    Word(*get_args(LedgerFailure)),
    "What happens while the store is away: `keep` has messages wait at their broker, `deliver` lets them pass.",
    default="keep",
)
_STORE: Final = Option(
    "store",
    Word("memory", "sqlite", "redis"),
    "Where it is kept: in this process, on this machine, or for several.",
    required="where is it kept? store = 'memory', 'sqlite' or 'redis'",
)


class Store(NamedTuple):
    """One kind of ledger: its options, and what makes it of them."""

    table: Table
    make: Callable[[Mapping[str, Any]], Ledger]


def _memory(options: Mapping[str, Any]) -> Ledger:
    return MemoryLedger(**options)


def _sqlite(options: Mapping[str, Any]) -> Ledger:
    from postseal.core.replay import SqliteLedger  # noqa: PLC0415 - for who has one

    return SqliteLedger(**options)


def _redis(options: Mapping[str, Any]) -> Ledger:
    from postseal.core.replay import RedisLedger  # noqa: PLC0415 - likewise

    return RedisLedger.from_url(**{"timeout": 5.0, **options})


STORES: Final = {
    MEMORY: Store(
        Table(
            _STORE,
            Option("max_ids", Count(1, 10**9), "How many are remembered; then the oldest go.", default=10**6),
            _MAX_AGE,
            what="[ledger]",
            elsewhere={"path": "[ledger] of store = 'sqlite'", "url": "[ledger] of store = 'redis'"},
        ),
        _memory,
    ),
    "sqlite": Store(
        Table(
            _STORE,
            Option("path", FileName(), "The file; relative to this one.", required="where is it to be?"),
            Option(
                "max_ids", Count(1, 10**10), "How many are remembered; then the oldest go.", default=10**7
            ),
            _MAX_AGE,
            _ON_FAILURE,
            Option("timeout", Duration(most=600.0), "How long a locked file is waited for.", default="5s"),
            what="[ledger]",
            elsewhere={"url": "[ledger] of store = 'redis'"},
        ),
        _sqlite,
    ),
    "redis": Store(
        Table(
            _STORE,
            Option(
                "url",
                Either(Text("an address like `redis://host:6379/0`", check=_redis_url), Secret(binary=False)),
                'Where Redis is; with a password, a reference: `{ env = "REDIS_URL" }`.',
                required='where is it? url = { env = "REDIS_URL" }',
            ),
            Option(
                "prefix",
                Named("a prefix"),
                "Of its keys there: who shares one shares what is known.",
                default="postseal:ledger:",
            ),
            _MAX_AGE,
            _ON_FAILURE,
            Option("timeout", Duration(most=600.0), "How long an answer may take.", default="5s"),
            what="[ledger]",
            elsewhere={"path": "[ledger] of store = 'sqlite'", "max_ids": "the other stores"},
        ),
        _redis,
    ),
}


class LedgerKind:
    """The section ``[ledger]``: its store decides which options it has."""

    words = "a ledger: `[ledger]`"

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return its options."""
        if not isinstance(value, dict):
            at.wrong(f"ledger must be a table, not {a_kind_of(value)}: [ledger]")
            return None
        word = value.get("store")
        if word is None:
            at.wrong(f"[ledger] has no store: {_STORE.required}", key=True)
            return None
        if not isinstance(word, str) or word not in STORES:
            (at / "store").wrong(f"store is {shown(word)}{nearest(str(word), STORES)}")
            return None
        return STORES[word].table.read(value, at)

    def schema(self) -> Schema:
        """Return one form for each store."""
        return {
            "type": "object",
            "required": ["store"],
            "oneOf": [_with_store(name, each.table.schema()) for name, each in STORES.items()],
        }


def _with_store(name: str, schema: Schema) -> Schema:
    properties = {**schema["properties"], "store": {**schema["properties"]["store"], "enum": [name]}}
    return {**schema, "properties": properties}


def check_ledger(
    policies: Iterable[tuple[At, Mapping[str, Any] | None]], ledger: Mapping[str, Any] | None
) -> None:
    """See that the ledger remembers for as long as messages may come, and that there is one where a policy speaks of duplicates."""
    remembers = None if ledger is None else ledger.get("max_age", MemoryLedger().max_age)
    for at, policy in policies:
        given = policy or {}
        age, on_duplicate = given.get("max_message_age"), given.get("on_duplicate", "deliver")
        if remembers is None and on_duplicate != "deliver":
            (at / "on_duplicate").warn(
                f"on_duplicate = {on_duplicate!r} needs a ledger, and the file has none: add [ledger], or hand one to the sealer"
            )
        elif remembers is not None and age is not None and age > remembers:
            (at / "max_message_age").wrong(
                f"max_message_age is {age:g} s, but [ledger] remembers for {remembers:g} s: a copy could come when it has forgotten; "
                "give it a longer max_age"
            )


def ledger_of(options: Mapping[str, Any], path: Path | None) -> Ledger:
    """Make what *options* name, with secrets in their place and *path* where they say one."""
    given = {name: value for name, value in options.items() if name != "store"}
    if path is not None:
        given["path"] = path
    return STORES[options["store"]].make(given)
