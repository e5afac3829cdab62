"""How figures are written in statistics."""

from __future__ import annotations

import threading


def percent(part: int, whole: int) -> str:
    """`'80.0%'`; `'0.0%'` of nothing."""
    return f"{100 * part / whole if whole else 0.0:.1f}%"


def megabytes(size_bytes: int) -> str:
    """`'12.5 MB'`, of 2**20 bytes."""
    return f"{size_bytes / 2**20:.1f} MB"


class Counters:
    """Named counts of one process. Thread-safe, exact."""

    def __init__(self, *names: str) -> None:
        self._lock = threading.Lock()
        self._counts = dict.fromkeys(names, 0)

    def add(self, name: str, amount: int = 1) -> None:
        with self._lock:
            self._counts[name] += amount

    def snapshot(self) -> dict[str, int]:
        with self._lock:
            return dict(self._counts)
