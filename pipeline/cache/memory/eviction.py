"""Which entry goes when there is no room: S3-FIFO, with one bit an entry. Why this policy: docs/local-cache.md.

After Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

PROBATION_SHARE: Final = 0.1
"""The share of the room for entries that were not used again yet; as in the paper."""
GHOSTS_PER_RESIDENT: Final = 2
"""A newer ghost overwrites the one in its place of the table. With two places for each entry, evicted keys are remembered for
about as many evictions as by the paper's queue of one for each entry, at 8 bytes an entry instead of some 150."""

_GHOST_BITS: Final = 0xFFFFFFFF


class Resident:
    """An entry as eviction sees it. A hit writes `used` alone, without a lock."""

    __slots__ = ("after", "before", "expires_at", "key", "main", "used")

    def __init__(self, expires_at: float) -> None:
        self.key = ""
        self.expires_at = expires_at
        self.used = False
        self.main = False
        self.before: Resident | None = None
        self.after: Resident | None = None


class _Queue:
    """First in, first out, with O(1) removal from the middle: a removed resident must not be kept alive by its place."""

    __slots__ = ("first", "last", "size")

    def __init__(self) -> None:
        self.first: Resident | None = None
        self.last: Resident | None = None
        self.size = 0

    def append(self, resident: Resident) -> None:
        last = self.last
        resident.before = last
        resident.after = None
        if last is None:
            self.first = resident
        else:
            last.after = resident
        self.last = resident
        self.size += 1

    def remove(self, resident: Resident) -> None:
        before, after = resident.before, resident.after
        if before is None:
            self.first = after
        else:
            before.after = after
        if after is None:
            self.last = before
        else:
            after.before = before
        resident.before = resident.after = None
        self.size -= 1


class Eviction:
    """Two queues, and a memory of the keys that left the first one unused.

    New residents wait in *probation*. Entries used while there move to *main*; unused ones are evicted and remembered as ghosts.
    An entry that comes while its ghost is remembered goes straight to main. In main, an entry used since its last turn gets
    another. So entries that are asked for once, however many, pass through a tenth of the room.

    Each call is O(1), an eviction on the average: every step beyond its first clears a mark that a use has made.
    Not thread-safe: the cache calls it under its lock. Any thread may set `Resident.used` at any time.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._probation_room = max(1, int(room * PROBATION_SHARE))
        self._probation = _Queue()
        self._main = _Queue()
        self._ghosts: array[int] | None = None  # made at the first eviction: until the cache is full it needs none

    def __len__(self) -> int:
        return self._probation.size + self._main.size

    def recall(self, resident: Resident) -> None:
        """Look up a newcomer's ghost. To be called before an eviction makes room for it, whose ghost may take the same place."""
        ghosts = self._ghosts
        if ghosts is None:
            return
        digest = hash(resident.key)
        place = digest % len(ghosts)
        if ghosts[place] == digest & _GHOST_BITS:  # another key's ghost may look the same: a wrong queue, never a wrong value
            ghosts[place] = 0
            resident.main = True

    def admit(self, resident: Resident) -> None:
        """Take in a resident, into the queue that its ghost says if it was recalled."""
        self._queue_of(resident).append(resident)

    def replace(self, old: Resident, new: Resident) -> None:
        """Put `new` in the place of `old`, which has the same key. A second write counts as a use."""
        self._queue_of(old).remove(old)
        new.main, new.used = old.main, True
        self._queue_of(new).append(new)

    def remove(self, resident: Resident) -> None:
        """Take out a resident that was deleted."""
        self._queue_of(resident).remove(resident)

    def remove_aged(self, resident: Resident) -> None:
        """Take out a resident that was asked for and has expired or is not valid. When its key comes again, it counts as used
        again."""
        self._remember(resident.key)
        self._queue_of(resident).remove(resident)

    def evict(self, now_s: float) -> str:
        """Take out one resident for space and return its key. There must be one. An expired one goes first, where it is met."""
        if self._ghosts is None:
            self._ghosts = array("I", bytes(array("I").itemsize * self._room * GHOSTS_PER_RESIDENT))
        probation, main = self._probation, self._main
        while True:
            queue = probation if probation.size >= self._probation_room or not main.size else main
            resident = queue.first
            if resident is None:
                raise LookupError("there is no entry to evict")
            queue.remove(resident)
            if resident.used and resident.expires_at > now_s:
                resident.used = False
                resident.main = True
                main.append(resident)
                continue
            if resident.used or not resident.main:
                self._remember(resident.key)
            return resident.key

    def restart(self, residents: Iterable[Resident] = ()) -> None:
        """Take out all, and take in these: in this order, each in its queue, whatever state the queues are in."""
        for queue in (self._probation, self._main):
            # Linked to each other, they would wait for the garbage collector.
            resident = queue.first
            while resident is not None:
                following = resident.after
                resident.before = resident.after = None
                resident = following
        self._probation, self._main = _Queue(), _Queue()
        for resident in residents:
            self._queue_of(resident).append(resident)

    def _queue_of(self, resident: Resident) -> _Queue:
        return self._main if resident.main else self._probation

    def _remember(self, key: str) -> None:
        ghosts = self._ghosts
        if ghosts is not None:
            digest = hash(key)
            ghosts[digest % len(ghosts)] = digest & _GHOST_BITS
