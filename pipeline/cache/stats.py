"""Counters, and the format of figures in statistics."""

from __future__ import annotations

import itertools


class Count:
    """Counts the calls of `add`, less those of `take_back`. Exact with any threads and signal handlers.

    Each call is one step of `itertools.count`, which nothing can interrupt: under the GIL, and since Python 3.13 in a
    free-threaded build too (an atomic operation there). `n += 1` is not: two threads may read the same n.
    """

    __slots__ = ("_added", "_taken_back", "add", "take_back")

    def __init__(self) -> None:
        self._added, self._taken_back = itertools.count(), itertools.count()
        self.add = self._added.__next__
        """Count one. The return value means nothing."""
        self.take_back = self._taken_back.__next__
        """Undo one call of `add`. The return value means nothing."""

    def read(self) -> int:
        """The count. Calls made meanwhile may be included or not."""
        return _next_of(self._added) - _next_of(self._taken_back)


def _next_of(counter: itertools.count[int]) -> int:
    """The counter's next value, read from its `repr`, which says nothing else: this does not advance it."""
    return int(repr(counter).removeprefix("count(").removesuffix(")"))


def percent(part: int, whole: int) -> str:
    """`'80.0%'`; `'0.0%'` if `whole` is 0."""
    return f"{100 * part / whole if whole else 0.0:.1f}%"


def megabytes(size_bytes: int) -> str:
    """`'12.5 MB'`, of 2**20 bytes."""
    return f"{size_bytes / 2**20:.1f} MB"


class Counters:
    """Named counters of one process. Thread-safe, exact, without a lock."""

    def __init__(self, *names: str) -> None:
        self._counts = {name: Count() for name in names}

    def add(self, name: str) -> None:
        """Count one."""
        self._counts[name].add()

    def snapshot(self) -> dict[str, int]:
        return {name: count.read() for name, count in self._counts.items()}
