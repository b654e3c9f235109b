"""A sink that is written to by a thread of its own, so that a slow disk or a slow syslog holds up no message."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

from postseal.core.audit._log import Seldom, audit_log
from postseal.core.audit._sink import AuditSink
from postseal.core.forking import begin_again_in_child

__all__ = ["Queue"]

SIZE: Final = 1000
"""Lines that wait, at most: a megabyte or two."""
PATIENCE: Final = 0.1
"""Seconds for which whoever tells of an event waits for room, once, until the sink has caught up."""
_RETRY: Final = 1.0
"""Seconds after which what could not be written is tried again."""
_IDLE: Final = 5.0
"""Seconds after which a thread without work ends."""
_BATCH: Final = 256


class Queue:
    """Lines on their way to *sink*.

    What cannot be written stays here and is tried again each second. When the queue is full, a line is lost: counted, and told of in the
    sink itself as soon as that takes something again. A forked child begins with an empty one: what waits is the parent's to write.
    """

    def __init__(self, sink: AuditSink, *, size: int = SIZE, patience: float = PATIENCE) -> None:
        self.sink = sink
        self._size = size
        self._patience = patience
        self._troubles = Seldom()
        self.begin_again()
        begin_again_in_child(self)

    def begin_again(self) -> None:
        """Be empty, with nobody at work."""
        self._condition = threading.Condition()
        self._lines: deque[Mapping[str, Any]] = deque()
        self._thread: threading.Thread | None = None
        self._stuck = False
        self._hurry = False
        self.lost = 0
        """Lines that were never written."""
        self._lost_told = 0

    def put(self, line: Mapping[str, Any]) -> None:
        """Have *line* written soon. Takes `PATIENCE` at most, and that only once until the sink has caught up."""
        with self._condition:
            if len(self._lines) >= self._size and not self._stuck:
                self._stuck = not self._condition.wait_for(
                    lambda: len(self._lines) < self._size, self._patience
                )
            if len(self._lines) >= self._size:
                self.lost += 1
                return
            self._lines.append(line)
            if self._thread is None:
                self._thread = threading.Thread(target=self._work, name="postseal-audit-sink", daemon=True)
                try:
                    self._thread.start()
                except RuntimeError:  # the system has no more threads for us: the next line tries again
                    self._thread = None
            self._condition.notify_all()

    def flush(self, seconds: float) -> bool:
        """Wait until all is written, at most so long; tell whether it is."""
        with self._condition:
            self._hurry = True
            self._condition.notify_all()
            self._condition.wait_for(lambda: not self._lines or self._thread is None, seconds)
            self._hurry = False
            return not self._lines

    def _work(self) -> None:
        condition = self._condition
        while True:
            with condition:
                if not self._lines and not condition.wait_for(lambda: self._lines, _IDLE):
                    self._thread = None
                    return
                batch = [self._lines[at] for at in range(min(_BATCH, len(self._lines)))]
                lost = self.lost
            written = self._write(batch, lost)
            with condition:
                for _ in range(written):
                    self._lines.popleft()
                if len(self._lines) < self._size / 2:
                    self._stuck = False
                condition.notify_all()
                if not written:
                    condition.wait_for(lambda: self._hurry, _RETRY)

    def _write(self, batch: list[Mapping[str, Any]], lost: int) -> int:
        """Write *batch*; return how many of its lines are done with."""
        lines = batch
        if lost > self._lost_told:
            now = datetime.now(UTC).isoformat(timespec="milliseconds")
            lines = [{"kind": "lost", "time": now, "count": lost - self._lost_told}, *batch]
        try:
            self.sink.write(lines)
        except OSError as error:
            self._complain(error)
            return 0
        except Exception as error:  # noqa: BLE001 - a sink of the user's own; what it cannot take now it never will
            with self._condition:
                self.lost += len(batch)
            self._complain(error)
            return len(batch)
        self._lost_told = lost
        return len(batch)

    def _complain(self, error: Exception) -> None:
        if self._troubles.now(time.monotonic()):
            audit_log().error(
                "%s takes no lines (%s: %s); %d wait, %d are lost; verdicts and counters stay exact",
                self.sink,
                type(error).__name__,
                error,
                len(self._lines),
                self.lost,
            )
