"""Where records of data keys are published that messages carry by reference: in memory, in a SQLite file, in a DynamoDB or Azure table.

A compacted Kafka topic is `postseal.kafka.KafkaReferences`. A record holds no secret, and its reference is its hash, so a store cannot
exchange it. It has to last as long as the messages that name it: what a store loses, nobody opens.
"""

from __future__ import annotations

import os
import time
from functools import partial
from threading import Lock
from typing import TYPE_CHECKING, Any, Final

from postseal.core.errors import ConfigError, KeyRefused, KeyUnavailable
from postseal.core.providers._tables import call, execute, make_file

if TYPE_CHECKING:
    from collections.abc import Iterable

    from postseal.core.keys import ReferenceStore

__all__ = [
    "AzureTableReferences",
    "CombinedReferences",
    "DynamoReferences",
    "MemoryReferences",
    "SqliteReferences",
]

_PARTITION: Final = "postseal"
_DENIED: Final = frozenset({400, 403, 404})
"""What HTTP says of a table that is not there, or is not ours."""


class CombinedReferences:
    """In several stores at once: two regions, or a table and a file for the archive.

    Publishing waits for all of them; a look-up is content with the first that has the record.

    Args:
        stores: In the order in which they are asked.
    """

    def __init__(self, stores: Iterable[ReferenceStore]) -> None:
        self._stores = tuple(stores)
        if not self._stores:
            raise ConfigError("CombinedReferences needs a store")

    def __repr__(self) -> str:
        return f"<CombinedReferences {', '.join(map(repr, self._stores))}>"

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record. That there is none is certain only if all have said so."""
        failure: KeyUnavailable | KeyRefused | None = None
        for store in self._stores:
            try:
                record = store.get(reference)
            except (KeyUnavailable, KeyRefused) as error:
                failure = failure if isinstance(failure, KeyUnavailable) else error
                continue
            if record is not None:
                return record
        if failure is not None:
            raise failure
        return None

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record* in all of them."""
        for store in self._stores:
            store.put(reference, record)


class MemoryReferences:
    """For tests, and for one process: what it holds is gone with it, and all messages that name it."""

    def __init__(self) -> None:
        self._records: dict[bytes, bytes] = {}
        self._lock = Lock()

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record."""
        return self._records.get(reference)

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there."""
        with self._lock:
            self._records.setdefault(reference, record)


class SqliteReferences:
    """In a file that the processes of one machine share. Back it up.

    Args:
        path: Made if it is not there, for its owner alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._do = partial(execute, self._path)
        make_file(self._path)
        self._do(
            "CREATE TABLE IF NOT EXISTS data_keys (reference BLOB PRIMARY KEY, record BLOB NOT NULL, published REAL NOT NULL)"
        )

    def __repr__(self) -> str:
        return f"<SqliteReferences {self._path}>"

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record."""
        rows, _ = self._do("SELECT record FROM data_keys WHERE reference = ?", reference)
        return bytes(rows[0][0]) if rows else None

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there."""
        self._do("INSERT OR IGNORE INTO data_keys VALUES (?, ?, ?)", reference, record, time.time())

    def forget(self, older_than: float) -> int:
        """Delete what was published more than *older_than* seconds ago, and return how much that was.

        A data key seals for as long as its policy lets it (``data_key.max_age`` and ``max_stale``), and its messages last as long as their
        destination keeps them: give it both together, and more.
        """
        return self._do("DELETE FROM data_keys WHERE published < ?", time.time() - older_than)[1]


class DynamoReferences:
    """In a DynamoDB table with the key ``reference`` (B).

    Args:
        client: ``boto3.client("dynamodb")``, with timeouts of yours.
        table: Its name.
        keep: Seconds after which a record may go: written as ``expires``, which is to be the table's TTL attribute. None for never.
    """

    def __init__(self, client: Any, table: str, *, keep: float | None = None) -> None:
        if not hasattr(client, "put_item"):
            raise ConfigError("DynamoReferences takes a boto3 client of dynamodb")
        if keep is not None and not keep > 0:
            raise ConfigError(f"keep must be over 0 seconds, or None for always: {keep!r}")
        self._client, self._table, self._keep = client, table, keep
        self._call = partial(call, table)

    def __repr__(self) -> str:
        return f"<DynamoReferences {self._table}>"

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record. The read is a consistent one: what was published is found."""
        answer = self._call(self._client.get_item, Key={"reference": {"B": reference}}, ConsistentRead=True)
        return bytes(answer["Item"]["record"]["B"]) if "Item" in answer else None

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there."""
        item: dict[str, Any] = {"reference": {"B": reference}, "record": {"B": record}}
        if self._keep is not None:
            item["expires"] = {"N": str(int(time.time() + self._keep))}
        self._call(self._client.put_item, Item=item)  # whatever is there is the same


class AzureTableReferences:
    """In a table of Azure Storage or Cosmos DB; one partition, a row for each record.

    Args:
        client: ``azure.data.tables.TableClient``, with timeouts and a credential of yours.
    """

    def __init__(self, client: Any) -> None:
        if not hasattr(client, "upsert_entity"):
            raise ConfigError("AzureTableReferences takes an azure.data.tables.TableClient")
        self._client = client

    def __repr__(self) -> str:
        return f"<AzureTableReferences {self._client.table_name}>"

    def get(self, reference: bytes, /) -> bytes | None:
        """Return the record."""
        entity = self._call(
            self._client.get_entity, partition_key=_PARTITION, row_key=reference.hex(), select="record"
        )
        return None if entity is None else bytes(entity["record"])

    def put(self, reference: bytes, record: bytes, /) -> None:
        """Keep *record*, unless it is there."""
        # Whatever is there is the same.
        self._call(
            self._client.upsert_entity,
            {"PartitionKey": _PARTITION, "RowKey": reference.hex(), "record": record},
            mode="replace",
        )

    def _call(self, method: Any, *arguments: Any, **options: Any) -> Any:
        """Return the answer; None where the row is not there."""
        from azure.core.exceptions import (  # noqa: PLC0415 - the client is the caller's
            AzureError,
            ClientAuthenticationError,
            HttpResponseError,
        )

        try:
            return method(*arguments, **options)
        except ClientAuthenticationError as error:
            raise KeyRefused(f"Azure table {self._client.table_name}: not let in") from error
        except HttpResponseError as error:
            code = getattr(error, "error_code", None)
            code = getattr(code, "value", code)
            if code in ("ResourceNotFound", "EntityNotFound"):
                return None
            kind = KeyRefused if error.status_code in _DENIED else KeyUnavailable
            raise kind(f"Azure table {self._client.table_name}: {code or error.status_code}") from error
        except AzureError as error:
            raise KeyUnavailable(f"Azure table {self._client.table_name}: {type(error).__name__}") from error
