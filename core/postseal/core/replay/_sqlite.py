"""A ledger in one SQLite file, which the processes of one machine share."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Final

from postseal.core.errors import ConfigError, LedgerUnavailable, PostsealError, Verdict
from postseal.core.findings import Finding, bad, good, room_at
from postseal.core.forking import ForkSafeLock, begin_again_in_child
from postseal.core.replay._ledger import LedgerFailure, Receipt, StoredLedger, check_count

__all__ = ["SqliteLedger"]

_VERSION: Final = 1
_APPLICATION: Final = 0x70736C67  # "pslg", so that `file` and we tell it from other databases
_SCHEMA: Final = (
    "CREATE TABLE settled (id BLOB PRIMARY KEY, digest BLOB NOT NULL, expires INTEGER NOT NULL) WITHOUT ROWID",
    "CREATE INDEX settled_by_expires ON settled (expires)",
)
_MOST_PRUNED: Final = 2048
"""Expired ids that are deleted with one settlement, at most: none is to take long."""


class SqliteLedger(StoredLedger):
    """Keeps settled messages in a file in WAL mode; its processes see each other's at once.

    A message is looked up inline: that reads a page or two, and no writer holds it up. In asyncio, writing is done in a thread. Commits are
    not flushed to the disk one by one (``synchronous = NORMAL``): the file is whole after a power failure, but may lack the last of them.
    On a file system that is no local one, WAL does not work.

    Args:
        path: Of the file; made if it is not there, for this user alone to read and write. ``-wal`` and ``-shm`` lie beside it.
        max_ids: How many messages are kept; the oldest go, and `forgotten` counts them. Looked at once in a while.
        max_age: As in `MemoryLedger`.
        on_failure: ``"keep"`` or ``"deliver"``; see `StoredLedger`.
        timeout: Seconds to wait for another process that is writing.
        max_seen: Messages of this process that are remembered in memory as seen.
        clock: Seconds since the epoch.

    Raises:
        ConfigError: An option is wrong, or the file is no ledger.
        LedgerUnavailable: It cannot be opened now, and *on_failure* is ``"keep"``.
    """

    waits = False

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        max_ids: int = 10_000_000,
        max_age: float = 14 * 86400.0,
        on_failure: LedgerFailure = "keep",
        timeout: float = 5.0,
        max_seen: int = 65_536,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(max_age=max_age, on_failure=on_failure, max_seen=max_seen, clock=clock)
        self.max_ids = check_count("max_ids", max_ids)
        self.forgotten = 0
        """How many messages this process deleted before their time, because there were more than *max_ids*."""
        self._path = Path(path)
        self._timeout = timeout
        self._lock = ForkSafeLock()
        self._open: sqlite3.Connection | None = None
        self._left: list[sqlite3.Connection] = []
        self._written = 0
        begin_again_in_child(self)
        try:
            with self._lock:
                self._database()
        except LedgerUnavailable as error:
            self._pass(error)

    def begin_again(self) -> None:
        """Open the file anew in a forked child. The parent's connection is not even closed there. Source: SQLite, How To Corrupt, 2.6."""
        if self._open is not None:
            self._left.append(self._open)
            self._open = None

    def examine(self) -> Iterator[Finding]:
        """Open the file as settling does, and look at the room on its disk. Settles nothing."""
        try:
            yield good(f"{self._path} can be written, and holds {len(self):,} messages")
        except (PostsealError, OSError, sqlite3.Error) as error:
            yield bad(
                f"{self._path}: {error}", "make its folder writable for the user that this process runs as"
            )
        yield from room_at(str(Path(self._path).absolute().parent))

    def close(self) -> None:
        """Close the file. It is opened again when it is needed."""
        with self._lock:
            if self._open is not None:
                self._open.close()
                self._open = None

    def __del__(self) -> None:
        """Close the file of a ledger that nobody closed: Python 3.13 and later warn of one that is left open."""
        if getattr(self, "_open", None) is not None:
            self.close()

    def __len__(self) -> int:
        """Count the settled messages in the file."""
        with self._lock:
            try:
                return int(self._database().execute("SELECT count(*) FROM settled").fetchone()[0])
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    # -- what a store does -----------------------------------------------------------------------------------------

    def _find(self, message: bytes) -> bytes | None:
        with self._lock:
            try:
                found = self._database().execute(
                    "SELECT digest FROM settled WHERE id = ? AND expires > ?", (message, int(self._clock()))
                )
                row = found.fetchone()
            except sqlite3.Error as error:
                raise self._unavailable(error) from error
        return None if row is None else bytes(row[0])

    def _write(self, receipts: Sequence[Receipt]) -> None:
        now = int(self._clock())
        rows = [(message, digest, now + keep, now) for message, digest, keep in receipts]
        with self._lock:
            try:
                with self._database() as database:
                    database.execute("BEGIN IMMEDIATE")
                    database.executemany(
                        "INSERT INTO settled VALUES (?, ?, ?) ON CONFLICT (id) DO UPDATE "
                        "SET digest = excluded.digest, expires = excluded.expires WHERE expires <= ?",
                        rows,
                    )
                    self._prune(database, now, len(rows))
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    def _erase(self, receipts: Sequence[Receipt]) -> None:
        with self._lock:
            try:
                with self._database() as database:
                    database.executemany(
                        "DELETE FROM settled WHERE id = ? AND digest = ?", [each[:2] for each in receipts]
                    )
            except sqlite3.Error as error:
                raise self._unavailable(error) from error

    async def ameet(self, receipt: Receipt) -> Verdict:
        """Like `meet`: a look into the file is shorter than the way to a thread."""
        return self.meet(receipt)

    async def asettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `settle`, in a thread."""
        await asyncio.to_thread(self.settle, receipts)

    async def aunsettle(self, receipts: Sequence[Receipt]) -> None:
        """Like `unsettle`, in a thread."""
        await asyncio.to_thread(self.unsettle, receipts)

    # -- the file --------------------------------------------------------------------------------------------------

    def _database(self) -> sqlite3.Connection:
        if self._open is None:
            self._open = self._connect()
        return self._open

    def _connect(self) -> sqlite3.Connection:
        try:
            os.close(os.open(self._path, os.O_RDWR | os.O_CREAT, 0o600))
            database = sqlite3.connect(self._path, timeout=self._timeout, check_same_thread=False)
        except (OSError, sqlite3.Error) as error:
            raise self._unavailable(error) from error
        try:
            self._prepare(database)
        except ConfigError:
            database.close()
            raise
        except sqlite3.DatabaseError as error:
            database.close()
            if error.sqlite_errorcode == sqlite3.SQLITE_NOTADB:
                raise ConfigError(f"{self._path} is no SQLite file, so no ledger") from error
            raise self._unavailable(error) from error
        return database

    def _prepare(self, database: sqlite3.Connection) -> None:
        """See that it is a ledger, or make it one. Other processes may be at it, too."""
        database.execute("PRAGMA journal_mode = WAL")
        database.execute("PRAGMA synchronous = NORMAL")
        with database:
            database.execute("BEGIN IMMEDIATE")
            found = tuple(
                database.execute(f"PRAGMA {name}").fetchone()[0]
                for name in ("application_id", "user_version")
            )
            if database.execute("SELECT count(*) FROM sqlite_schema").fetchone()[0] == 0:
                database.execute(f"PRAGMA application_id = {_APPLICATION}")
                database.execute(f"PRAGMA user_version = {_VERSION}")
                for statement in _SCHEMA:
                    database.execute(statement)
            elif found != (_APPLICATION, _VERSION):
                raise ConfigError(f"{self._path} is no ledger of this version of postseal")

    def _prune(self, database: sqlite3.Connection, now: int, added: int) -> None:
        """Delete some of what has expired, and once in a while what is too much."""
        database.execute(
            "DELETE FROM settled WHERE id IN (SELECT id FROM settled WHERE expires <= ? ORDER BY expires LIMIT ?)",
            (now, max(_MOST_PRUNED, 2 * added)),
        )
        self._written += added
        if self._written < max(1, min(self.max_ids // 20, 100_000)):
            return
        self._written = 0
        over = database.execute("SELECT count(*) FROM settled").fetchone()[0] - self.max_ids
        if over > 0:
            database.execute(
                "DELETE FROM settled WHERE id IN (SELECT id FROM settled ORDER BY expires LIMIT ?)", (over,)
            )
            self.forgotten += over

    def _unavailable(self, error: Exception) -> LedgerUnavailable:
        return LedgerUnavailable(f"the ledger {self._path} failed: {error}")
