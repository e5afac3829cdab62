"""How figures are written in statistics."""

from __future__ import annotations

from pipeline.cache.count import Count


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
