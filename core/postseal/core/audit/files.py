"""Audit lines in a file: JSON, one object a line, rotated, chained on request; shared by processes.

One file serves all processes of a machine: a lock beside it (``.lock``) is held while a line is added, so lines never mix, and a chain
is one, whoever writes. On Windows, where that lock does not exist, one process may write a file.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Final

from postseal.core.audit._flood import FloodLimit
from postseal.core.audit._log import audit_log
from postseal.core.audit.chain import START, Chain, Head, head_of
from postseal.core.errors import ConfigError
from postseal.core.forking import ForkSafeLock

if sys.platform != "win32":
    import fcntl

__all__ = ["AuditFile", "encode"]

_LOCK_WAIT: Final = 5.0
"""Seconds until a lock that another process holds is a failure."""
_LOCK_PAUSE: Final = 0.005
_LONGEST: Final = 1024
"""Characters of a value; what is over is cut off. Only what brokers say can be that long."""


def encode(line: Mapping[str, Any]) -> str:
    """Return *line* as JSON: one line of ASCII."""
    return json.dumps(_cut(line), separators=(",", ":"), default=str)


def _cut(value: Any) -> Any:
    if isinstance(value, str):
        return value if len(value) <= _LONGEST else value[:_LONGEST] + "..."
    if isinstance(value, Mapping):
        return {str(name): _cut(inner) for name, inner in value.items()}
    return value


class AuditFile:
    """A file of audit lines.

    Args:
        path: Its folder must exist. Older files are ``path.1``, the newest, ``path.2`` and so on.
        limit: How many events are written whole; None for every event.
        required: Whether an event must be on disk, flushed, before its message is settled: where it cannot be written, the message is
            kept. Every event is written then, and each waits for the disk.
        chained: Whether each line carries the hash of the one before (`postseal.core.audit.chain`).
        secret: Keys the chain, which is on then. At least 32 random bytes.
        max_bytes: Size at which a new file is begun.
        keep: Older files that are kept.

    Raises:
        ConfigError: It cannot be written, or an option is out of its range.
    """

    def __init__(
        self,
        path: str | os.PathLike[str],
        *,
        limit: FloodLimit | None = FloodLimit(),  # noqa: B008 - frozen
        required: bool = False,
        chained: bool = False,
        secret: bytes | None = None,
        max_bytes: int = 100 * 2**20,
        keep: int = 10,
    ) -> None:
        self.path = Path(path)
        self.limit = None if required else limit
        self.required = required
        if isinstance(max_bytes, bool) or not isinstance(max_bytes, int) or max_bytes < 4096:  # noqa: PLR2004 - a few lines
            raise ConfigError(f"an audit file's max_bytes is at least 4,096: {max_bytes!r}")
        if isinstance(keep, bool) or not isinstance(keep, int) or not 1 <= keep <= 10_000:  # noqa: PLR2004 - names are tried one by one
            raise ConfigError(f"an audit file's keep is 1 to 10,000 files: {keep!r}")
        self._max_bytes = max_bytes
        self._keep = keep
        self._chain = Chain(secret) if chained or secret is not None else None
        self._lock = ForkSafeLock()
        self._file = -1
        try:
            with self._lock, self._alone():
                self._follow()
        except OSError as error:
            raise ConfigError(f"{self} cannot be written: {error.strerror or error}") from None

    def __str__(self) -> str:
        return f"audit file {self.path}"

    def write(self, lines: Sequence[Mapping[str, Any]]) -> None:
        """Add *lines*, all or none of them.

        Raises:
            OSError: They cannot be written now.
        """
        texts = [encode(line) for line in lines]
        with self._lock, self._alone():
            size = self._follow()
            head = self._head(size)
            if size and size + sum(map(len, texts)) > self._max_bytes:
                head = self._rotate(head)
                size = self._follow()
            data, n, last = [], head.n, head.hash
            for text in texts:
                if self._chain is None:
                    data.append(text.encode() + b"\n")
                else:
                    n += 1
                    made, last = self._chain.line(text, n, last)
                    data.append(made)
            size = self._append(b"".join(data), size)
            self._put_head(Head(n, last, size))

    def close(self) -> None:
        """Close the file; `write` opens it again."""
        with self._lock:
            if self._file >= 0:
                os.close(self._file)
                self._file = -1

    def __del__(self) -> None:
        with suppress(Exception):  # the constructor may have failed, the interpreter may be ending
            os.close(self._file)

    # -- under the lock --------------------------------------------------------------------------------------------

    @contextmanager
    def _alone(self) -> Iterator[None]:
        """Hold the lock that is between processes."""
        if sys.platform == "win32":
            yield
            return
        # Opened each time: a lock belongs to the opened file, which a forked child would share with its parent.
        lock = os.open(
            self.path.with_name(self.path.name + ".lock"), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600
        )
        try:
            end = time.monotonic() + _LOCK_WAIT
            while True:
                try:
                    fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                    break
                except BlockingIOError:
                    if time.monotonic() > end:
                        raise TimeoutError(f"another process holds the lock of {self}") from None
                    time.sleep(_LOCK_PAUSE)
            try:
                yield
            finally:
                fcntl.flock(lock, fcntl.LOCK_UN)
        finally:
            os.close(lock)

    def _follow(self) -> int:
        """Open the file of that name, unless it is open: another process may have begun a new one. Return its size."""
        if self._file >= 0:
            ours = os.fstat(self._file)
            with suppress(FileNotFoundError):
                named = self.path.stat()
                if (ours.st_dev, ours.st_ino) == (named.st_dev, named.st_ino):
                    return ours.st_size
            os.close(self._file)
            self._file = -1
        self._file = os.open(
            self.path, os.O_RDWR | os.O_APPEND | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600
        )
        return os.fstat(self._file).st_size

    def _append(self, data: bytes, size: int) -> int:
        """Write *data* behind *size*; leave nothing of it where not all can be written."""
        try:
            view = memoryview(data)
            while view:
                view = view[os.write(self._file, view) :]
            if self.required:
                os.fsync(self._file)
        except OSError:
            with suppress(OSError):
                os.ftruncate(self._file, size)
            raise
        return size + len(data)

    def _rotate(self, head: Head) -> Head:
        """Begin a new file."""
        # First the head: should we end between the two, its size tells that the file is to be looked through again.
        begun = head._replace(size=0)
        self._put_head(begun)
        for number in range(self._keep, 1, -1):
            with suppress(FileNotFoundError):
                self._numbered(number - 1).replace(self._numbered(number))
        self.path.replace(self._numbered(1))
        return begun

    def _numbered(self, number: int) -> Path:
        return self.path.with_name(f"{self.path.name}.{number}")

    def _head(self, size: int) -> Head:
        """Return the last line of the chain, whoever wrote it."""
        if self._chain is None:
            self._mend(size)
            return Head(0, START, size)
        head = Head(0, START, 0)
        with suppress(FileNotFoundError):
            read = self._chain.read_head(head_of(self.path).read_bytes())
            if read is None:
                audit_log().error("the head of %s was altered, or is of another secret", self)
            else:
                head = read
        if size > head.size:
            return self._look_through(head)
        if size < head.size:
            # The chain goes on behind the lines that were there, so that they will be missed.
            audit_log().error("%s was cut short: it had %d bytes and has %d", self, head.size, size)
        return head

    def _look_through(self, head: Head) -> Head:
        """Take what was written behind *head* by a process that ended before it could write a new one."""
        assert self._chain is not None  # noqa: S101 - for the type checkers
        with self.path.open("rb") as file:
            file.seek(head.size)
            end = head.size
            for line in file:
                if not line.endswith(
                    b"\n"
                ):  # half a line, of a process that was killed: no message was settled for it
                    os.ftruncate(self._file, end)
                    audit_log().warning("half a line at the end of %s was taken away", self)
                    break
                end += len(line)
                link = None
                with suppress(ValueError):
                    link = self._chain.read(line)
                if link is not None and link.n == head.n + 1:
                    head = Head(link.n, link.hash, end)
        return head

    def _mend(self, size: int) -> None:
        """End half a line that a process left which was killed."""
        if not size:
            return
        with self.path.open("rb") as file:
            file.seek(size - 1)
            if file.read() != b"\n":
                os.write(self._file, b"\n")

    def _put_head(self, head: Head) -> None:
        if self._chain is None:
            return
        file = os.open(head_of(self.path), os.O_WRONLY | os.O_CREAT | getattr(os, "O_CLOEXEC", 0), 0o600)
        try:
            os.write(file, self._chain.head(head))
        finally:
            os.close(file)
