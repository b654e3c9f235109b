"""What must be done at a later time."""

import heapq
from collections.abc import Callable

FOREVER = float("inf")


class Deadlines:
    """Calls to make, each at its time.

    Args:
        clock: Gives the time in seconds since 1970.
    """

    def __init__(self, clock: Callable[[], float]) -> None:
        self.clock = clock
        self._waiting: list[tuple[float, int, Callable[[], None]]] = []
        self._made = 0

    def at(self, moment: float, call: Callable[[], None]) -> None:
        """Have *call* made at *moment*, unless that is never."""
        if moment < FOREVER:
            self._made += 1
            heapq.heappush(self._waiting, (moment, self._made, call))

    def tick(self) -> float:
        """Make the calls that are due, and tell when the next is, in seconds since 1970."""
        while self._waiting and self._waiting[0][0] <= self.clock():
            heapq.heappop(self._waiting)[2]()
        return self._waiting[0][0] if self._waiting else FOREVER
