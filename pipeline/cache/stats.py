"""Counts, and how figures are written in statistics."""

from __future__ import annotations

import itertools


class Count:
    """Counts the calls of `add`, less those of `take_back`. Exact, whatever threads and signal handlers call them.

    Each is one step of `itertools.count`, which nothing can come between: under the GIL, and since Python 3.13 in a free-threaded
    build too (it is an atomic operation there). `n += 1` is not: two threads may read the same n.
    """

    __slots__ = ("_added", "_taken_back", "add", "take_back")

    def __init__(self) -> None:
        self._added, self._taken_back = itertools.count(), itertools.count()
        self.add = self._added.__next__
        """Count one. What it returns means nothing."""
        self.take_back = self._taken_back.__next__
        """Make one call of `add` not to have been. What it returns means nothing."""

    def read(self) -> int:
        """How many there are. What is counted meanwhile may be among them or not."""
        return _next_of(self._added) - _next_of(self._taken_back)


def _next_of(counter: itertools.count[int]) -> int:
    """What it would return next, without its moving: that is all that its `repr` says."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))


def percent(part: int, whole: int) -> str:
    """`'80.0%'`; `'0.0%'` of nothing."""
    return f"{100 * part / whole if whole else 0.0:.1f}%"


def megabytes(size_bytes: int) -> str:
    """`'12.5 MB'`, of 2**20 bytes."""
    return f"{size_bytes / 2**20:.1f} MB"


class Counters:
    """Named counts of one process. Thread-safe, exact, without a lock."""

    def __init__(self, *names: str) -> None:
        self._counts = {name: Count() for name in names}

    def add(self, name: str) -> None:
        """Count one."""
        self._counts[name].add()

    def snapshot(self) -> dict[str, int]:
        return {name: count.read() for name, count in self._counts.items()}
