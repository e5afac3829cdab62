"""A count that costs its callers no lock."""

from __future__ import annotations

import itertools
import threading


class Count:
    """Counts the calls of `add`. Exact, whatever threads call it.

    `add` is one step of `itertools.count`, which no other thread can come between: under the GIL, and since Python 3.13 in a
    free-threaded build too (it is an atomic operation there). `n += 1` is not: two threads may read the same n.
    """

    __slots__ = ("_lock", "_offset", "add")

    def __init__(self) -> None:
        self.add = itertools.count().__next__
        """Count one. What it returns means nothing."""
        self._lock = threading.Lock()
        self._offset = 0

    def read(self) -> int:
        """How many calls of `add` there were, less what was taken back."""
        with self._lock:
            # There is no look at an iterator that does not move it: this step is not to be counted either.
            counted = self.add() - self._offset
            self._offset += 1
            return counted

    def take_back(self) -> None:
        """Make one call of `add` not to have been."""
        with self._lock:
            self._offset += 1
