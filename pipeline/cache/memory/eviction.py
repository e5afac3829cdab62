"""Which entry goes when there is no room: S3-FIFO, with one bit an entry. Why this one: docs/local-cache.md.

After Yang, Zhang, Qiu, Yue and Vigfusson, "FIFO queues are all you need for cache eviction", SOSP 2023.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable
from typing import Final

PROBATION_SHARE: Final = 0.1
"""Of the room, as in the paper: so much of it goes to what has not been used again yet."""
GHOSTS_PER_RESIDENT: Final = 2
"""A place of the ghost table is overwritten by whatever comes to it: with two for each entry, what was evicted is remembered for
about as many evictions as the paper's queue of one for each entry does, at 8 bytes an entry instead of some 150."""

_GHOST_BITS: Final = 0xFFFFFFFF


class Resident:
    """What is kept, as eviction sees it. `used` is all that a hit writes, and it writes it without a lock."""

    __slots__ = ("after", "before", "expires_at", "key", "main", "used")

    def __init__(self, expires_at: float) -> None:
        self.key = ""
        self.expires_at = expires_at
        self.used = False
        self.main = False
        self.before: Resident | None = None
        self.after: Resident | None = None


class _Queue:
    """First in, first out, and out of the middle at once: a removed resident must not be kept alive by its place."""

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
    """Two queues and a memory of what left the first one unused.

    New residents wait in *probation*; who was used there moves to *main*, who was not goes and leaves a ghost. Who comes while
    his ghost is remembered goes straight to main. In main, who was used since his last turn gets another. So what is asked for
    once, however much of it there is, passes through a tenth of the room.

    Each call is O(1), an eviction on the average: every step beyond its first takes away a mark that a use has made.
    Not thread-safe: the cache calls it under its lock. `Resident.used` may be set by anybody at any time.
    """

    def __init__(self, room: int) -> None:
        self._room = room
        self._probation_room = max(1, int(room * PROBATION_SHARE))
        self._probation = _Queue()
        self._main = _Queue()
        self._ghosts: array[int] | None = None  # made at the first eviction: a cache that never fills needs none

    def __len__(self) -> int:
        return self._probation.size + self._main.size

    def recall(self, resident: Resident) -> None:
        """Ask for the ghost of one that comes: before another goes to make room for it, whose ghost may take the place."""
        ghosts = self._ghosts
        if ghosts is None:
            return
        digest = hash(resident.key)
        place = digest % len(ghosts)
        if ghosts[place] == digest & _GHOST_BITS:  # another key's may look the same: then it is a wrong queue, no wrong value
            ghosts[place] = 0
            resident.main = True

    def admit(self, resident: Resident) -> None:
        """Take in a resident: where its ghost says, if it was recalled."""
        self._queue_of(resident).append(resident)

    def replace(self, old: Resident, new: Resident) -> None:
        """Let `new` stand for `old`, which has the same key: having been written again is a use."""
        self._queue_of(old).remove(old)
        new.main, new.used = old.main, True
        self._queue_of(new).append(new)

    def remove(self, resident: Resident) -> None:
        """Let one go that was deleted."""
        self._queue_of(resident).remove(resident)

    def remove_aged(self, resident: Resident) -> None:
        """Let one go that was asked for and has expired or is not valid: when it comes again, it is one that is used again."""
        self._remember(resident.key)
        self._queue_of(resident).remove(resident)

    def evict(self, now_s: float) -> str:
        """Let one go, for space; its key. There must be one. What has expired goes before what has not, where it is met."""
        if self._ghosts is None:
            self._ghosts = array("I", bytes(array("I").itemsize * self._room * GHOSTS_PER_RESIDENT))
        probation, main = self._probation, self._main
        while True:
            queue = probation if probation.size >= self._probation_room or not main.size else main
            resident = queue.first
            if resident is None:
                raise LookupError("there is nobody to evict")
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
        """Let all go, and take in these: in this order, in the queues where they were, whatever state the queues are in."""
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
