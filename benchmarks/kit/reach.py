"""Makes figures of the children's notes. Pure: no clock, no process."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.kit.board import Board
from benchmarks.kit.contract import Figures

REACH_S: Final = 1.0
"""A child that serves fresh later than this was not reached."""


class Moment(NamedTuple):
    """One invalidation: the moment before the call, and that of its return."""

    asked_ns: int
    returned_ns: int


def reach_figures(board: Board, moments: Sequence[Moment], warm_up: int, bound_s: float) -> Figures:
    """The figures of the children's notes. A new version counts as served when it or a newer one was."""
    measured = range(warm_up + 1, len(moments) + 1)
    latencies_ms: list[float] = []
    after_return_ms: list[float] = []
    reached = pairs_reached = stale = 0
    most_stale_ms = 0.0
    for child in range(board.children):
        fresh_ns = _first_fresh(board, child)
        in_time = 0
        for version in measured:
            moment = moments[version - 1]
            if fresh_ns[version] and fresh_ns[version] - moment.asked_ns <= REACH_S * 1e9:
                in_time += 1
                latencies_ms.append((fresh_ns[version] - moment.asked_ns) / 1e6)
                after_return_ms.append((fresh_ns[version] - moment.returned_ns) / 1e6)
        reached += in_time == len(measured)
        pairs_reached += in_time
        for version in range(len(moments)):
            # Served at a moment after the call that made it stale had returned: by how much?
            age_ms = (board.last_asked_ns(child, version) - moments[version].returned_ns) / 1e6
            most_stale_ms = max(most_stale_ms, age_ms)
            stale += age_ms > bound_s * 1000
    children = range(board.children)
    return {
        "children": board.children,
        "reached": reached,
        "reached_share": pairs_reached / (len(measured) * board.children),
        "invalidations": len(measured),
        "p50_ms": statistics.median(latencies_ms) if latencies_ms else 0.0,
        "p99_ms": _p99(latencies_ms),
        "max_ms": max(latencies_ms, default=0.0),
        "after_return_p50_ms": statistics.median(after_return_ms) if after_return_ms else 0.0,
        "after_return_p99_ms": _p99(after_return_ms),
        "invalidate_call_p50_ms": statistics.median((moment.returned_ns - moment.asked_ns) / 1e6 for moment in moments[warm_up:]),
        "stale_beyond_bound": stale,
        "most_stale_ms": most_stale_ms,
        "staleness_bound_ms": bound_s * 1000,
        "samples": sum(map(board.samples, children)),
        "sample_interval_ms": statistics.mean(map(board.mean_interval_ns, children)) / 1e6,
        "sample_gap_max_ms": max(map(board.longest_gap_ns, children)) / 1e6,
    }


def _first_fresh(board: Board, child: int) -> list[int]:
    """By version: when the child first served it or a newer one; 0 if never."""
    fresh_ns = [board.first_served_ns(child, version) for version in range(board.versions + 1)]
    for version in range(board.versions - 1, -1, -1):
        newer = fresh_ns[version + 1]
        if newer and (not fresh_ns[version] or newer < fresh_ns[version]):
            fresh_ns[version] = newer
    return fresh_ns


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else max(values, default=0.0)
