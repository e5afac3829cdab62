"""The figures of the whole fleet, as documents that any program may read."""

from __future__ import annotations

import math
from typing import Literal

import msgspec

from pipeline.figures.records import SLOT_S, Role


class Requests(msgspec.Struct, frozen=True):
    """Requests by where their answer came from (`no`: computed), and those that failed."""

    l1: int = 0
    l2: int = 0
    joined: int = 0
    stale: int = 0
    no: int = 0
    failed: int = 0

    @property
    def answered(self) -> int:
        return self.saved + self.no

    @property
    def saved(self) -> int:
        """Answers that nothing was computed for."""
        return self.l1 + self.l2 + self.joined + self.stale

    @property
    def total(self) -> int:
        return self.answered + self.failed

    @property
    def hit_ratios(self) -> dict[str, float | None]:
        """By tier, of the requests that looked there: L1 is asked by all, L2 by those that L1 did not answer. None: no request
        looked. A stale answer was found and is no hit; one that was joined was in neither tier."""
        beyond_l1 = self.total - self.l1
        return {
            "l1": self.l1 / self.total if self.total else None,
            "l2": self.l2 / beyond_l1 if beyond_l1 else None,
        }


class Times(msgspec.Struct, frozen=True, array_like=True):
    """How long some samples of a slot were, some at least; quantiles are 6 % off at most. In JSON the two numbers."""

    p50_ms: float
    p99_ms: float


class Slot(msgspec.Struct, frozen=True):
    """`slot_s` seconds of FleetFigures from `at` on, in seconds since 1970 by the server's clock. `times`: of the series of
    `pipeline.figures.fields` that have samples in it. `queued`: the most that were seen to wait, by queue; a queue at which
    nobody looked is not in it."""

    at: int
    requests: Requests
    invalidations: int = 0
    times: dict[str, Times] = {}
    queued: dict[str, int] = {}


class Mark(msgspec.Struct, frozen=True):
    """Something that befell the fleet: see MarkRow. `name`: the version, or the node as people are told of it."""

    kind: Literal["version", "lost"]
    at: float
    name: str


class Source(msgspec.Struct, frozen=True):
    """The answers from one source. `share` is of all answers, 0.0-1.0. Times are those of the call that answered; quantiles are
    6 % off at most."""

    source: str
    count: int
    share: float
    mean_ms: float
    p50_ms: float
    p99_ms: float


class Spread(msgspec.Struct, frozen=True):
    """Some times: how many, and how long they were; quantiles are 6 % off at most. All 0 of none."""

    count: int = 0
    p50_ms: float = 0.0
    p99_ms: float = 0.0
    max_ms: float = 0.0


class Applied(msgspec.Struct, frozen=True):
    """A node, by its name as in Node, has applied an invalidation so long after it was published (by the clocks of two hosts)."""

    node: str
    delay_ms: float


class MadeInvalidation(msgspec.Struct, frozen=True):
    """One of the last invalidations: see InvalidationRow. `reach` has the nodes that applied its broadcast, the quickest first,
    of `alive` nodes that there are now; a node that the broadcast missed learns of it from the log, and is not in it."""

    id: str
    at: float
    patterns: tuple[str, ...]
    pattern_count: int
    by: str
    durable: bool
    reach: tuple[Applied, ...]
    alive: int


class Process(msgspec.Struct, frozen=True):
    """One process that reported within the last 45 s: see ProcessRow."""

    pid: int
    role: Role
    since: float
    requests: Requests
    l1_entries: int | None
    missed: int = 0

    @property
    def look_ups(self) -> int:
        """How often it looked for an answer and learnt whether there is one. Each counts where it was made: of one request a
        program that asks has one, and the worker that gets its task another."""
        return self.requests.answered + self.missed


class Node(msgspec.Struct, frozen=True):
    """A worker (with `alive`, whether its main process follows the log), or a host with its other programs. A worker's `name` is
    `name/pid` where several share one."""

    name: str
    alive: bool
    processes: tuple[Process, ...]


class HotKey(msgspec.Struct, frozen=True):
    """A key that is asked for much. At a steady rate its score stands at some 870 times the requests a second."""

    key: str
    score: float


class Audit(msgspec.Struct, frozen=True):
    """The auditor's judgements of served answers: `checks`, in which it could tell, `stale` of which were served beyond the
    bound; and those in which it could not."""

    checks: int = 0
    stale: int = 0
    undecided: int = 0

    @property
    def least_fresh(self) -> float | None:
        """The share of answers that are fresh, at least, as far as 95 % certainty goes. None without checks. Of n checks without
        a fault it is 1 - 3/n or a little more (exact), with faults Wilson's bound (J. Am. Stat. Assoc. 22, 1927)."""
        if not self.checks:
            return None
        if not self.stale:
            return float(0.05 ** (1 / self.checks))
        share, z = self.stale / self.checks, 1.6449
        spread = z * math.sqrt(share * (1 - share) / self.checks + z * z / (4 * self.checks**2))
        return max(0.0, 1 - (share + z * z / (2 * self.checks) + spread) / (1 + z * z / self.checks))


def nines(share: float) -> str:
    """A share near 1 as a percentage that shows its nines and the digit behind them, never more than it is: `99.97%`."""
    count = max(0, math.floor(-math.log10(max(1 - share, 1e-12))))
    digits = max(1, count - 1)
    return f"{math.floor(share * 100 * 10**digits) / 10**digits:.{digits}f}%"


class Ever(msgspec.Struct, frozen=True):
    """Sums since the cache's server began to keep them: they only grow, until it loses them and they begin anew. `counts` and
    `ms`: how many times each series of `pipeline.figures.fields` has, and their sum. `buckets`: of each of these that has any,
    how many fell into each wide bucket (see `wide_bound_ms`), up to the last that is not empty. `by_producers`: those of the
    requests that were counted by programs that are no worker."""

    requests: Requests = Requests()
    by_producers: Requests = Requests()
    invalidations: int = 0
    not_shown: int = 0
    audit: Audit = Audit()
    counts: dict[str, int] = {}
    ms: dict[str, float] = {}
    buckets: dict[str, tuple[int, ...]] = {}


class FleetFigures(msgspec.Struct, frozen=True):
    """What the fleet does. Without `available`, Redis was out of reach and everything else is empty. `refused`: the server's code
    if it refuses what a cache needs, such as OOM where nothing can be kept; empty if all is well.

    `slots` cover the last `window_s` seconds in steps of `slot_s`, oldest first, without a gap; the last one is still running.
    `requests`, `sources`, `hit_rate` (answers that were not computed, of all answers, 0.0-1.0), `saved` (model calls),
    `invalidation_count` and `spreads` are of that window, and so are the `marks`, the latest first. `spreads` has the times of
    each series of `pipeline.figures.fields.SPREADS`: `queue_wait` (a task published to begun), `staleness` (an invalidation
    published to applied, a sample a node). `requests_per_s`, failed ones included, is of the last 10 s that have ended.

    A process reports once a second: what it has counted since is not in here, and all of it is once it was at rest for so long.
    """

    available: bool
    refused: str = ""
    at: float = 0.0
    window_s: int = 0
    slot_s: int = SLOT_S
    slots: tuple[Slot, ...] = ()
    marks: tuple[Mark, ...] = ()
    requests: Requests = Requests()
    requests_per_s: float = 0.0
    hit_rate: float = 0.0
    saved: int = 0
    sources: tuple[Source, ...] = ()
    spreads: dict[str, Spread] = {}
    invalidation_count: int = 0
    invalidations: tuple[MadeInvalidation, ...] = ()
    nodes: tuple[Node, ...] = ()
    hot: tuple[HotKey, ...] = ()
    ever: Ever = Ever()
