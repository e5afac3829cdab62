"""What processes write of themselves and of invalidations, as JSON, and others read; and for how long it stays."""

from __future__ import annotations

from typing import Final, Literal

import msgspec

from pipeline.cache.encoding.decoders import ready

Role = Literal["main", "worker", "producer"]
"""`main`: a worker's main process, which runs no task of a prefork pool. `worker`: a process that runs tasks. `producer`: any
other program."""

SLOT_S: Final = 5
SLOTS: Final = 180
"""A quarter of an hour."""
KEEP_MS: Final = 20 * 60 * 1000
"""How long Redis keeps a slot, and which nodes applied an invalidation."""
CHANGED_EVERY_S: Final = 5.0
"""A process with nothing to count says no more often than this that its row has changed."""
SHOW_EVERY_S: Final = 15.0
"""One whose row is as it was says so often that it lives."""
ROW_MS: Final = 45_000
"""A process that has not reported for so long is not shown any more."""
KEPT_INVALIDATIONS: Final = 50
SHOWN_PATTERNS: Final = 5
SHOWN_PATTERN_CHARS: Final = 120
_USER: Final = "user:"


@ready
class ProcessRow(msgspec.Struct, frozen=True):
    """One process. `since` is when it began to count, in seconds since 1970 by its own clock. `requests`: its own since then,
    by source, and `failed`. `l1_entries`: None for a process without an L1. `missed`: what it looked for in vain and queued as
    tasks, which count as requests of the workers. `pool`: a main process's pool children, by pid; None if they are not
    known, as of any other process."""

    node: str
    pid: int
    role: Role
    since: float
    requests: dict[str, int]
    l1_entries: int | None = None
    missed: int = 0
    pool: tuple[int, ...] | None = None


@ready
class InvalidationRow(msgspec.Struct, frozen=True):
    """One invalidation that was made. `patterns` are the first few of `pattern_count`, each cut to 120 characters and without a
    user's id; `at`: when it was published, in seconds since 1970 by the clock of `by`, the process that made it."""

    id: str
    at: float
    patterns: tuple[str, ...]
    pattern_count: int
    by: str
    durable: bool


def shown_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The first few, each cut. Of a user's key not the id: what is shown of a fleet is for more eyes than answers are."""
    return tuple(_shown(pattern)[:SHOWN_PATTERN_CHARS] for pattern in patterns[:SHOWN_PATTERNS])


def _shown(pattern: str) -> str:
    return pattern if not pattern.startswith(_USER) or pattern == f"{_USER}*" else f"{_USER}(an id)"
