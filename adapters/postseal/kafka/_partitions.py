"""Which partitions wait for the key service or for the quarantine, from where they go on, and when: pure, without a client."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, TypeAlias

from postseal.core import Verdict

__all__ = ["Partition", "Trouble", "Troubles"]

FIRST_WAIT: Final = 0.25
"""Seconds after the first failure; each further one doubles them."""
LONGEST_WAIT: Final = 10.0
"""Seconds after which it is tried again at the latest, however long it fails."""


Partition: TypeAlias = tuple[str, int]
"""Topic and number. A plain tuple: one is made for each message."""


class Trouble:
    """A partition that was set back to a message which could not be handed on or settled.

    Attributes:
        offset: From where it goes on.
        failures: In a row, at that offset.
        due: When it is to be fetched from again, on the monotonic clock; None where it already is.
        verdict: Why the message at *offset* is refused, if it was found out already: it is then only the quarantine that has to take it.
    """

    __slots__ = ("due", "failures", "offset", "verdict")

    def __init__(self, offset: int) -> None:
        self.offset = offset
        self.failures = 0
        self.due: float | None = None
        self.verdict: Verdict | None = None

    @property
    def waits(self) -> bool:
        """Whether nothing is fetched from the partition now."""
        return self.due is not None


class Troubles(dict[Partition, Trouble]):
    """By partition, those that were set back and have not handed on a message since. Empty nearly always, and then it costs nothing.

    Args:
        clock: Monotonic, in seconds.
        first_wait: Seconds after a first failure.
        longest_wait: Seconds after any further one, at most.
    """

    def __init__(
        self,
        *,
        clock: Callable[[], float] = time.monotonic,
        first_wait: float = FIRST_WAIT,
        longest_wait: float = LONGEST_WAIT,
    ) -> None:
        super().__init__()
        self._clock = clock
        self._first_wait = first_wait
        self._longest_wait = longest_wait

    def set_back(self, partition: Partition, offset: int) -> Trouble:
        """Note that *partition* goes on from *offset*, at once."""
        trouble = self.get(partition)
        if trouble is None or trouble.offset != offset:
            trouble = self[partition] = Trouble(offset)
        trouble.due = None
        return trouble

    def wait(self, partition: Partition, offset: int, verdict: Verdict | None = None) -> Trouble:
        """Note that *partition* goes on from *offset*, after a while that grows with each failure there."""
        trouble = self.set_back(partition, offset)
        # 2**30 times the first wait is longer than any longest.
        wait = min(self._first_wait * 2 ** min(trouble.failures, 30), self._longest_wait)
        trouble.failures += 1
        trouble.due = self._clock() + wait
        trouble.verdict = verdict
        return trouble

    def over(self, partition: Partition) -> Trouble | None:
        """Note that *partition* handed on a message, or is no longer ours."""
        return self.pop(partition, None)

    def due(self) -> list[Partition]:
        """Return the partitions whose wait has ended, and note that they are fetched from again."""
        now = self._clock()
        # Of a copy: in asyncio's consumer another thread may pause or seek meanwhile.
        ended = [p for p, t in tuple(self.items()) if t.due is not None and t.due <= now]
        for partition in ended:
            self[partition].due = None
        return ended

    def until_due(self) -> float | None:
        """Return the seconds until the next wait ends, 0 or more; None where nothing waits."""
        dues = [trouble.due for trouble in tuple(self.values()) if trouble.due is not None]
        return max(0.0, min(dues) - self._clock()) if dues else None

    def known_verdict(self, partition: Partition, offset: int) -> Verdict | None:
        """Return why the message at *offset* is refused, if that was found out before."""
        trouble = self.get(partition)
        return trouble.verdict if trouble is not None and trouble.offset == offset else None
