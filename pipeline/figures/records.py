"""What processes write of themselves and of invalidations, as JSON, and others read; and for how long it stays."""

from __future__ import annotations

from typing import Final, Literal, NamedTuple

import msgspec

from pipeline.cache.encoding.decoders import ready

Role = Literal["main", "worker", "producer"]
"""`main`: a worker's main process, which runs no task of a prefork pool. `worker`: a process that runs tasks. `producer`: any
other program."""

SLOT_S: Final = 5
SLOTS: Final = 180
"""A quarter of an hour."""
KEEP_MS: Final = 20 * 60 * 1000
"""How long Redis keeps a slot of five seconds, and which nodes applied an invalidation."""


class Step(NamedTuple):
    """Slots of one length: a window of them has `slots` at most, and Redis keeps one for `keep_ms` after it was last added to."""

    slot_s: int
    slots: int
    keep_ms: int

    @property
    def span_s(self) -> int:
        return self.slot_s * self.slots


STEPS: Final = (
    Step(SLOT_S, SLOTS, KEEP_MS),
    Step(60, 60, 80 * 60 * 1000),
    Step(600, 144, (24 * 60 + 40) * 60 * 1000),
)
"""A quarter of an hour, an hour, a day. All count the same: a report adds to a slot of each."""
DAY_S: Final = STEPS[-1].span_s
KEPT_MARKS: Final = 100
MARKS_KEEP_MS: Final = STEPS[-1].keep_ms
TELL_EVERY_S: Final = 20.0
"""How often a node's main process tells that it lives and of which version it is."""
SILENT_MS: Final = 60_000
"""One that has told nothing for so long, and has not left, is marked as lost."""
GAP_MS: Final = 15_000
"""While nobody could look for so long, silence says nothing: it is counted from there on."""
VERSION_EVERY_MS: Final = 60_000
"""So often the moment at which a version was last told is put forward."""
ANEW_MS: Final = 600_000
"""A version that nobody has told for so long is a deploy when it appears, if another was told since."""
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


@ready
class MarkRow(msgspec.Struct, frozen=True):
    """Something that befell the fleet, `at` seconds since 1970 by the server's clock. `version`: a version of workers appeared,
    by its name. `lost`: a node told nothing any more and had not left, by its id; `at` is then when it was last heard of."""

    kind: Literal["version", "lost"]
    at: float
    name: str


def step_of(window_s: float) -> Step:
    """The finest step whose slots reach that far back, or the coarsest."""
    return next((step for step in STEPS if window_s <= step.span_s), STEPS[-1])


def shown_patterns(patterns: tuple[str, ...]) -> tuple[str, ...]:
    """The first few, each cut. Of a user's key not the id: what is shown of a fleet is for more eyes than answers are."""
    return tuple(_shown(pattern)[:SHOWN_PATTERN_CHARS] for pattern in patterns[:SHOWN_PATTERNS])


def _shown(pattern: str) -> str:
    return pattern if not pattern.startswith(_USER) or pattern == f"{_USER}*" else f"{_USER}(an id)"
