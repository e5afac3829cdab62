"""All rows, in the order of the plan."""

from __future__ import annotations

from typing import Final

from reliability.mutants import MUTANTS
from reliability.result import Row
from reliability.rows import broker, cache, coherence, kernel, messages, monitor, time, users, workers

ROWS: Final[tuple[Row, ...]] = (
    *workers.ROWS,
    *kernel.ROWS,
    *broker.ROWS,
    *cache.ROWS,
    *coherence.ROWS,
    *messages.ROWS,
    *time.ROWS,
    *users.ROWS,
    *monitor.ROWS,
)

__all__ = ["MUTANTS", "ROWS"]
