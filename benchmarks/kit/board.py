"""Memory shared by the measuring program and the measured pool children, in which they write for each other.

Nothing is sent during a measurement: a child notes a moment by one write to memory, and the figures are made afterwards.
Moments are CLOCK_MONOTONIC in nanoseconds, which all processes of a machine share.
"""

from __future__ import annotations

import mmap
import sys
from pathlib import Path
from typing import Final, Self

# Words of 8 bytes. First the board's own, then one block for each child.
_CHILDREN, _VERSIONS, _SOURCE, _STOP = range(4)
_HEADER_WORDS: Final = 8
# Of a child: its process, whether a task occupies it, how often it was sampled and when, the longest time between two samples,
# when it ran the stock task. Then for each version: when it was first served, and when the last lookup began that gave it.
_PID, _OCCUPIED, _SAMPLES, _BEGAN, _ENDED, _LONGEST_GAP, _STOCK = range(7)
_CHILD_WORDS: Final = 8
_WORD_BYTES: Final = 8


class Board:
    """A file that every process of a benchmark maps. Each word has one writer; a word is written at once or not at all."""

    def __init__(self, path: Path) -> None:
        """Attach to a board that `create` has made."""
        self.path = path
        with path.open("r+b") as file:
            self._memory = mmap.mmap(file.fileno(), 0)
        self._words = memoryview(self._memory).cast("q")
        self.children = self._words[_CHILDREN]
        self.versions = self._words[_VERSIONS]

    @classmethod
    def create(cls, path: Path, *, children: int, versions: int) -> Self:
        """A new board: `children` that serve, of a source that takes the versions 0 to `versions`."""
        words = _HEADER_WORDS + children * (_CHILD_WORDS + 2 * (versions + 1))
        with path.open("xb") as file:
            file.truncate(words * _WORD_BYTES)
            file.write(children.to_bytes(_WORD_BYTES, sys.byteorder) + versions.to_bytes(_WORD_BYTES, sys.byteorder))
        return cls(path)

    def close(self) -> None:
        self._words.release()
        self._memory.close()

    # -- the program that measures writes these

    @property
    def source(self) -> int:
        """The version that a computation finds: the source of the benchmark's cached value."""
        return self._words[_SOURCE]

    @source.setter
    def source(self, version: int) -> None:
        self._words[_SOURCE] = version

    @property
    def stopped(self) -> bool:
        """Whether the children's tasks shall end."""
        return bool(self._words[_STOP])

    @stopped.setter
    def stopped(self, stopped: bool) -> None:
        self._words[_STOP] = stopped

    # -- a child writes into its own block

    def enter(self, child: int, pid: int) -> None:
        """The task that occupies this child has begun."""
        at = self._block(child)
        self._words[at + _PID] = pid
        self._words[at + _SAMPLES] = self._words[at + _LONGEST_GAP] = 0
        self._words[at + _OCCUPIED] = 1

    def leave(self, child: int) -> None:
        self._words[self._block(child) + _OCCUPIED] = 0

    def served(self, child: int, version: int, asked_ns: int, served_ns: int) -> None:
        """A lookup, begun at one moment and answered at the other, gave this version."""
        words, at = self._words, self._block(child)
        if words[at + _SAMPLES]:
            words[at + _LONGEST_GAP] = max(words[at + _LONGEST_GAP], served_ns - words[at + _ENDED])
        else:
            words[at + _BEGAN] = served_ns
        words[at + _SAMPLES] += 1
        words[at + _ENDED] = served_ns
        first = at + _CHILD_WORDS + 2 * version
        if not words[first]:
            words[first] = served_ns
        words[first + 1] = asked_ns

    def ran_stock(self, pid: int, now_ns: int) -> None:
        """The stock task ran in the child of that pid; its first run counts."""
        for child in range(self.children):
            at = self._block(child)
            if self._words[at + _PID] == pid and not self._words[at + _STOCK]:
                self._words[at + _STOCK] = now_ns

    # -- read afterwards

    def occupant(self, child: int) -> int:
        """The pid of the process whose slot the child's task occupies now, and in which it has served; 0 if none."""
        at = self._block(child)
        return self._words[at + _PID] if self._words[at + _OCCUPIED] and self._words[at + _SAMPLES] else 0

    def samples(self, child: int) -> int:
        return self._words[self._block(child) + _SAMPLES]

    def mean_interval_ns(self, child: int) -> float:
        """The mean time from one answered lookup to the next."""
        at = self._block(child)
        return (self._words[at + _ENDED] - self._words[at + _BEGAN]) / max(1, self._words[at + _SAMPLES] - 1)

    def longest_gap_ns(self, child: int) -> int:
        return self._words[self._block(child) + _LONGEST_GAP]

    def first_served_ns(self, child: int, version: int) -> int:
        """When the child first served that version; 0: never."""
        return self._words[self._block(child) + _CHILD_WORDS + 2 * version]

    def last_asked_ns(self, child: int, version: int) -> int:
        """When the last lookup began that gave this version; 0: none did."""
        return self._words[self._block(child) + _CHILD_WORDS + 2 * version + 1]

    def stock_ns(self, child: int) -> int:
        """When the stock task ran in the child; 0: it did not."""
        return self._words[self._block(child) + _STOCK]

    def _block(self, child: int) -> int:
        if not 0 <= child < self.children:
            raise ValueError(f"child: {child}; expected 0 to {self.children - 1}")
        return _HEADER_WORDS + child * (_CHILD_WORDS + 2 * (self.versions + 1))
