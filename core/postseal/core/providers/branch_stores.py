"""Where branch keys are kept, wrapped: in memory, in a SQLite file, in a DynamoDB table.

A store need keep no secret, but whoever can write to it can take away, or bring back an older version: give that right to who rotates.
"""

from __future__ import annotations

import base64
import json
import os
from functools import partial
from threading import Lock
from typing import Any

from postseal.core.errors import ConfigError, KeyRefused
from postseal.core.keys import Recipient
from postseal.core.providers._tables import call, execute, make_file
from postseal.core.providers.branch import BranchRecord

__all__ = ["DynamoBranches", "MemoryBranches", "SqliteBranches"]


class MemoryBranches:
    """For tests, and for one process: what it holds is gone with it, and all that was sealed under it."""

    def __init__(self) -> None:
        self._records: dict[str, dict[int, BranchRecord]] = {}
        self._lock = Lock()

    def newest(self, branch: str) -> BranchRecord | None:
        """Return the record of the highest version."""
        with self._lock:
            versions = self._records.get(branch)
            return versions[max(versions)] if versions else None

    def get(self, branch: str, version: int) -> BranchRecord | None:
        """Return that record."""
        return self._records.get(branch, {}).get(version)

    def add(self, record: BranchRecord) -> bool:
        """Keep *record*, unless there is one of that version."""
        with self._lock:
            return self._records.setdefault(record.branch, {}).setdefault(record.version, record) is record

    def destroy(self, branch: str) -> int:
        """Leave nothing but the numbers of its versions."""
        with self._lock:
            versions = self._records.get(branch, {})
            self._records[branch] = {number: BranchRecord(branch, number, ()) for number in versions}
            return len(versions)


class SqliteBranches:
    """In a file that the processes of one machine share. Back it up: what it loses is lost with all that was sealed under it.

    Args:
        path: Made if it is not there, for its owner alone.
    """

    def __init__(self, path: str | os.PathLike[str]) -> None:
        self._path = os.fspath(path)
        self._do = partial(execute, self._path)
        make_file(self._path)
        self._do(
            "CREATE TABLE IF NOT EXISTS branch_keys (branch TEXT, version INTEGER, recipients TEXT NOT NULL, "
            "PRIMARY KEY (branch, version))"
        )

    def __repr__(self) -> str:
        return f"<SqliteBranches {self._path}>"

    def newest(self, branch: str) -> BranchRecord | None:
        """Return the record of the highest version."""
        return self._one("WHERE branch = ? ORDER BY version DESC LIMIT 1", branch)

    def get(self, branch: str, version: int) -> BranchRecord | None:
        """Return that record."""
        return self._one("WHERE branch = ? AND version = ?", branch, version)

    def add(self, record: BranchRecord) -> bool:
        """Keep *record*, unless there is one of that version."""
        statement = "INSERT OR IGNORE INTO branch_keys VALUES (?, ?, ?)"
        return self._do(statement, record.branch, record.version, _written(record.recipients))[1] == 1

    def destroy(self, branch: str) -> int:
        """Leave nothing but the numbers of its versions. The file is written over where they stood (``secure_delete``)."""
        return self._do("UPDATE branch_keys SET recipients = '[]' WHERE branch = ?", branch)[1]

    def _one(self, where: str, *values: Any) -> BranchRecord | None:
        rows, _ = self._do(f"SELECT branch, version, recipients FROM branch_keys {where}", *values)  # noqa: S608 - texts of this class
        return BranchRecord(rows[0][0], rows[0][1], _read(rows[0][2])) if rows else None


class DynamoBranches:
    """In a DynamoDB table with the keys ``branch`` (S) and ``version`` (N). Its point-in-time recovery also brings back what was destroyed.

    Args:
        client: ``boto3.client("dynamodb")``, with timeouts of yours.
        table: Its name.
    """

    def __init__(self, client: Any, table: str) -> None:
        if not hasattr(client, "put_item"):
            raise ConfigError("DynamoBranches takes a boto3 client of dynamodb")
        self._table = table
        self._client = client
        self._call = partial(call, table)

    def __repr__(self) -> str:
        return f"<DynamoBranches {self._table}>"

    def newest(self, branch: str) -> BranchRecord | None:
        """Return the record of the highest version."""
        answer = self._call(
            self._client.query,
            KeyConditionExpression="branch = :branch",
            ExpressionAttributeValues={":branch": {"S": branch}},
            ConsistentRead=True,
            ScanIndexForward=False,
            Limit=1,
        )
        return _of_item(answer["Items"][0]) if answer["Items"] else None

    def get(self, branch: str, version: int) -> BranchRecord | None:
        """Return that record."""
        key = {"branch": {"S": branch}, "version": {"N": str(version)}}
        answer = self._call(self._client.get_item, Key=key, ConsistentRead=True)
        return _of_item(answer["Item"]) if "Item" in answer else None

    def add(self, record: BranchRecord) -> bool:
        """Keep *record*, unless there is one of that version."""
        item = {
            "branch": {"S": record.branch},
            "version": {"N": str(record.version)},
            "recipients": {"S": _written(record.recipients)},
        }
        return bool(
            self._call(self._client.put_item, Item=item, ConditionExpression="attribute_not_exists(branch)")
        )

    def destroy(self, branch: str) -> int:
        """Leave nothing but the numbers of its versions."""
        newest = self.newest(branch)
        for version in range(1, (newest.version if newest else 0) + 1):
            item = {"branch": {"S": branch}, "version": {"N": str(version)}, "recipients": {"S": "[]"}}
            self._call(self._client.put_item, Item=item)
        return newest.version if newest else 0


def _written(recipients: tuple[Recipient, ...]) -> str:
    return json.dumps(
        [[r.algorithm, r.key_id.hex(), base64.b64encode(r.wrapped_key).decode()] for r in recipients]
    )


def _read(written: str) -> tuple[Recipient, ...]:
    try:
        return tuple(
            Recipient(int(algorithm), bytes.fromhex(key_id), base64.b64decode(wrapped, validate=True))
            for algorithm, key_id, wrapped in json.loads(written)
        )
    except (ValueError, TypeError):
        raise KeyRefused("a record of the store of branch keys is none") from None


def _of_item(item: Any) -> BranchRecord:
    return BranchRecord(item["branch"]["S"], int(item["version"]["N"]), _read(item["recipients"]["S"]))
