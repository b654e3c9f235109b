"""The section ``[references]``: where records of data keys are that messages carry by reference."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Final

from postseal.core.config._kinds import (
    Duration,
    FileName,
    Option,
    Schema,
    Table,
    Text,
    Word,
    a_kind_of,
    shown,
)
from postseal.core.config._report import At
from postseal.core.errors import ConfigError, nearest
from postseal.core.forking import begin_again_in_child
from postseal.core.keys import ReferenceStore

__all__ = ["STORES", "ReferencesKind", "store_of"]


def _https(url: str) -> str:
    if re.match(r"https?://[^/\s@]+", url) is None:
        raise ConfigError(f"{shown(url)} is no address: https://ACCOUNT.table.core.windows.net")
    return url


def _table(name: str, *options: Option) -> Table:
    word = Option("store", Word(name), "Which kind of store.", required="which kind of store is it?")
    return Table(word, *options, what=f"[references] of store {name!r}", elsewhere=_ELSEWHERE)


_ELSEWHERE: Final = {"key_by_reference": "a [[policy]]"}
STORES: Final[Mapping[str, Table]] = {
    "sqlite": _table(
        "sqlite",
        Option(
            "path",
            FileName(),
            "The file; relative to this one. Made if it is not there.",
            required='where is it? path = "references.db"',
        ),
    ),
    "dynamodb": _table(
        "dynamodb",
        Option("table", Text("a table"), "Its name.", required="which table?"),
        Option(
            "keep",
            Duration(),
            "How long a record is to stay, for the table's TTL. For ever where it is not there.",
        ),
        Option("region", Text("a region"), "Where the environment does not say it."),
        Option("profile", Text("a profile"), "Profile of the AWS configuration."),
        Option(
            "endpoint_url",
            Text("an address"),
            "Another address than that of AWS: a VPC endpoint, an emulator.",
        ),
    ),
    "azure-table": _table(
        "azure-table",
        Option(
            "account",
            Text("an address", check=_https),
            "Address of the account.",
            required='where? account = "https://ACCOUNT.table.core.windows.net"',
        ),
        Option("table", Text("a table"), "Its name.", required="which table?"),
        Option(
            "credential",
            Word("default", "managed-identity", "workload-identity", "environment", "cli"),
            "Who we are to Azure.",
            default="default",
        ),
        Option("client_id", Text("a client id"), "Of a managed or workload identity."),
    ),
}
"""By the word of ``store``. A topic of Kafka is handed in by the program: `postseal.kafka.KafkaReferences`."""


class ReferencesKind:
    """The section: its store decides which options it has."""

    words = "a store of records: `[references]`"

    def read(self, value: object, at: At) -> dict[str, Any] | None:
        """Return its options."""
        if not isinstance(value, dict):
            at.wrong(f"references must be a table, not {a_kind_of(value)}: [references]")
            return None
        word = value.get("store")
        if word is None:
            at.wrong(f"[references] has no store: which kind is it? There are: {', '.join(STORES)}", key=True)
            return None
        if not isinstance(word, str) or word not in STORES:
            hint = (
                ": the program hands in a topic, Sealer.from_file(..., references=KafkaReferences(...))"
                if word == "kafka"
                else nearest(str(word), STORES)
            )
            (at / "store").wrong(f"store is {shown(word)}{hint}")
            return None
        return STORES[word].read(value, at)

    def schema(self) -> Schema:
        """Return one form for each store."""
        return {
            "type": "object",
            "required": ["store"],
            "oneOf": [table.schema() for table in STORES.values()],
        }


def store_of(options: Mapping[str, Any]) -> ReferenceStore:
    """Make the store that *options* name; its path is the whole one."""
    kind = options["store"]
    if kind == "sqlite":
        from postseal.core.providers.reference_stores import SqliteReferences  # noqa: PLC0415 - for who has one

        return SqliteReferences(options["path"])
    return _Connected(options)


class _Connected:
    """A store on a client of our own, which a forked child makes anew: connections are not for sharing."""

    def __init__(self, options: Mapping[str, Any]) -> None:
        self._options = options
        self._inner: ReferenceStore | None = _connect(options)
        begin_again_in_child(self)

    def __repr__(self) -> str:
        return repr(self._inner or self._options["store"])

    def begin_again(self) -> None:
        """Forget the parent's client."""
        self._inner = None

    def _store(self) -> ReferenceStore:
        # Two threads that ask first at once may make two; either will do.
        inner = self._inner = self._inner or _connect(self._options)
        return inner

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record."""
        return self._store().get(reference)

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there."""
        self._store().put(reference, record)


def _connect(options: Mapping[str, Any]) -> ReferenceStore:
    from postseal.core.providers import clients, reference_stores  # noqa: PLC0415 - for who has one

    if options["store"] == "dynamodb":
        client = clients.aws_client(
            "dynamodb",
            region=options.get("region"),
            profile=options.get("profile"),
            endpoint_url=options.get("endpoint_url"),
        )
        return reference_stores.DynamoReferences(client, options["table"], keep=options.get("keep"))
    credential = clients.azure_credential(options.get("credential", "default"), options.get("client_id"))
    return reference_stores.AzureTableReferences(
        clients.table_client(options["account"], options["table"], credential)
    )
