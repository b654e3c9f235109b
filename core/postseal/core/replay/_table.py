"""Ids of messages in little memory: 37 bytes of each in a ring, and two to four more to find it.

A dict of bytes takes three to four times as much. The oldest id goes when a ring is full. Rings are small and many, so that none takes
long to grow: an id belongs to one of them by its first bytes.
"""

from __future__ import annotations

from array import array
from struct import Struct
from typing import Final

from postseal.core.errors import Verdict

__all__ = ["ID_SIZE", "Table"]

ID_SIZE: Final = 16
"""Bytes of an id, and of a digest."""
_RECORD: Final = Struct("<16s16sIB")
"""Id, digest, second since the epoch at which it expires, whether it was settled."""
_SIZE: Final = _RECORD.size
_TAIL: Final = Struct("<IB")
_TAIL_AT: Final = 2 * ID_SIZE
_RING: Final = 4096
"""Ids of a full ring. Below 2**16, which is what an index of two bytes can say."""
_FIRST: Final = 16
"""Ids for which a ring has room at first."""


class Table:
    """Which messages were seen, and which of them were settled. Not safe for threads.

    Args:
        max_ids: How many are kept at most. Above 4,096 they are spread over rings by chance, so that the oldest of a ring may go when
            some hundredths of the others still have room.

    Attributes:
        forgotten: How many went before they expired, for want of room.
    """

    def __init__(self, max_ids: int) -> None:
        count = -(-max_ids // _RING)
        self._rings = [_Ring(-(-max_ids // count)) for _ in range(count)]
        self._count = count
        self.forgotten = 0

    def _ring(self, message: bytes) -> _Ring:
        return self._rings[int.from_bytes(message[:4]) % self._count]

    def __len__(self) -> int:
        """Count the ids, those that have expired and were not yet written over too."""
        return sum(ring.count for ring in self._rings)

    @property
    def nbytes(self) -> int:
        """Bytes that the ids take."""
        return sum(ring.nbytes for ring in self._rings)

    def meet(self, message: bytes, digest: bytes, now: int, expires: int) -> Verdict:
        """Say what is known of a message; note one of which nothing is."""
        ring = self._ring(message)
        at = ring.find(message)
        if at < 0:
            self.forgotten += ring.add(message, digest, now, expires, settled=False)
            return Verdict.OK
        known, ends, settled = ring.read(at)
        if ends <= now:
            ring.write(at, digest, expires, settled=False)
            return Verdict.OK
        if known != digest:
            return Verdict.CONFLICT
        return Verdict.DUPLICATE if settled else Verdict.REDELIVERY

    def settle(self, message: bytes, digest: bytes, now: int, expires: int) -> None:
        """Note that a message was settled."""
        ring = self._ring(message)
        at = ring.find(message)
        if at < 0:
            self.forgotten += ring.add(message, digest, now, expires, settled=True)
        else:
            ring.write(at, digest, expires, settled=True)

    def unsettle(self, message: bytes) -> None:
        """Note that it was not, after all."""
        ring = self._ring(message)
        at = ring.find(message)
        if at >= 0:
            digest, expires, _ = ring.read(at)
            ring.write(at, digest, expires, settled=False)


class _Ring:
    """Records in the order in which they came, and where to find each.

    Args:
        most: How many there may be.
    """

    __slots__ = ("_head", "_index", "_mask", "_most", "_records", "_room", "count")

    def __init__(self, most: int) -> None:
        self._most = most
        self.count = 0
        self._head = 0
        self._make_room(0, b"")

    def _make_room(self, room: int, records: bytes) -> None:
        """Have room for so many, *records* first, which are in order."""
        self._room = room
        self._records = bytearray(room * _SIZE)
        self._records[: len(records)] = records
        self._head = 0
        # At most half full, so that what is not there is soon known not to be.
        self._mask = (1 << (2 * room).bit_length()) - 1
        self._index = array("H", bytes(2 * (self._mask + 1)))
        for number in range(self.count):
            self._link(number)

    @property
    def nbytes(self) -> int:
        return len(self._records) + self._index.itemsize * len(self._index)

    def find(self, message: bytes) -> int:
        """Return where the record of *message* begins, or -1."""
        index, mask, records = self._index, self._mask, self._records
        slot = (
            hash(message) & mask
        )  # keyed by the process: nobody can choose ids that lie in each other's way
        while number := index[slot]:
            at = (number - 1) * _SIZE
            if records.startswith(message, at):
                return at
            slot = (slot + 1) & mask
        return -1

    def read(self, at: int) -> tuple[bytes, int, int]:
        """Return digest, expiry and whether it was settled."""
        _, digest, expires, settled = _RECORD.unpack_from(self._records, at)
        return digest, expires, settled

    def write(self, at: int, digest: bytes, expires: int, *, settled: bool) -> None:
        self._records[at + ID_SIZE : at + _TAIL_AT] = digest
        _TAIL.pack_into(self._records, at + _TAIL_AT, expires, settled)

    def add(self, message: bytes, digest: bytes, now: int, expires: int, *, settled: bool) -> bool:
        """Add a message that is not there; tell whether another went for want of room. The two oldest go if they have expired."""
        for _ in range(2):  # two, so that it gets smaller
            if not self.count or _TAIL.unpack_from(self._records, self._head * _SIZE + _TAIL_AT)[0] > now:
                break
            self._drop_oldest()
        full = self.count == self._most
        if full:
            self._drop_oldest()
        if self.count == self._room:
            self._grow()
        number = (self._head + self.count) % self._room
        _RECORD.pack_into(self._records, number * _SIZE, message, digest, expires, settled)
        self.count += 1
        self._link(number)
        return full

    def _grow(self) -> None:
        cut = self._head * _SIZE
        records = bytes(self._records[cut:] + self._records[:cut])
        self._make_room(min(self._most, max(_FIRST, self._room * 3 // 2)), records)

    def _home(self, number: int) -> int:
        at = number * _SIZE
        return hash(bytes(self._records[at : at + ID_SIZE])) & self._mask

    def _link(self, number: int) -> None:
        index, mask = self._index, self._mask
        slot = self._home(number)
        while index[slot]:
            slot = (slot + 1) & mask
        index[slot] = number + 1

    def _drop_oldest(self) -> None:
        """Take out the oldest, and move up those that are behind it in its run. Source: Knuth, TAOCP 3, 6.4, algorithm R."""
        index, mask = self._index, self._mask
        gap = self._home(self._head)
        while index[gap] != self._head + 1:
            gap = (gap + 1) & mask
        slot = (gap + 1) & mask
        while number := index[slot]:
            home = self._home(number - 1)
            if (slot - home) & mask >= (slot - gap) & mask:
                index[gap] = number
                gap = slot
            slot = (slot + 1) & mask
        index[gap] = 0
        self._head = (self._head + 1) % self._room
        self.count -= 1
