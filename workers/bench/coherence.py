"""How soon an invalidation reaches every pool child of a busy fleet, beside Celery's own broadcast, and what it costs.

The fleet: 2 nodes of 3 pool children, every slot occupied for the whole of it by a task that waits, as for a model, and asks the
cache in between. The invalidations come from a program that is no worker. Latency: from the moment before `invalidate` is called
until a child serves the new version, so the call itself, and the pause between two samples of a child, are part of it.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import closing
from typing import Final, NamedTuple

from celery import Celery

from workers.app import make_app
from workers.bench import Figures, Progress
from workers.bench.board import Board
from workers.bench.cost import measure_get, measure_invalidate
from workers.bench.errors import BenchmarkFailedError
from workers.bench.fleet import Fleet
from workers.bench.routes import BUSY_TASK, PROBE_KEY, STOCK_EXCHANGE, STOCK_ROUTING_KEY, STOCK_TASK
from workers.client import PersonaClient

NODES: Final = 2
CHILDREN_PER_NODE: Final = 3
PACE_S: Final = (0.010, 0.020)  # between two invalidations, at random: in step with no timer of the fleet
NAP_S: Final = 0.0005  # between two samples of a child: six children on two cores leave both mostly idle
REACH_S: Final = 1.0
OCCUPY_S: Final = 40.0  # below a task's own time limit
SLOTS_TIMEOUT_S: Final = 30.0
STOCK_MARGIN_S: Final = 4.0


class Size(NamedTuple):
    """How much is measured. The million keys are always a million: their figure says so."""

    warm_up: int
    invalidations: int
    stock_busy_s: float
    cost_rounds: int
    get_rounds: int


FULL: Final = Size(warm_up=20, invalidations=500, stock_busy_s=6.0, cost_rounds=200, get_rounds=300)
QUICK: Final = Size(warm_up=5, invalidations=40, stock_busy_s=1.0, cost_rounds=20, get_rounds=20)


class Moment(NamedTuple):
    """One invalidation: before it was called, and when it had returned."""

    asked_ns: int
    returned_ns: int


def measure_coherence(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when a child was not reached, or served what was stale beyond the bound."""
    size = QUICK if quick else FULL
    versions = size.warm_up + size.invalidations
    with Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE) as fleet:
        with (
            closing(make_app(fleet.settings)) as app,
            closing(Board.create(fleet.new_file("board"), children=fleet.children, versions=versions)) as board,
        ):
            figures, problems = _measure_reach(fleet, app, board, size, progress)
            figures |= _measure_stock(fleet, app, board, size, progress)
        fleet.stop_nodes()
        figures |= measure_invalidate(fleet.settings, size.cost_rounds, progress)
        figures |= measure_get(fleet.settings, size.get_rounds, progress)
    if problems:
        raise BenchmarkFailedError(problems, figures)
    return figures


def _measure_reach(fleet: Fleet, app: Celery, board: Board, size: Size, progress: Progress) -> tuple[Figures, list[str]]:
    bound_s = fleet.settings.staleness_bound_s
    _occupy(fleet, app, board, OCCUPY_S)
    progress(f"coherence: {size.invalidations} invalidations, all {fleet.children} slots are busy")
    with PersonaClient(fleet.settings) as client:
        moments, problems = _invalidate(client, board, size)
    # One that is lost heals within the bound: wait so long for every child, and a little more.
    time.sleep(max(REACH_S, bound_s) + 0.2)
    if not _all_busy(board):
        problems.append("a slot fell free while it was measured")
    figures = _reach_figures(board, moments, size.warm_up, bound_s)
    _release(fleet, board)
    if figures["reached"] != fleet.children:
        problems.append(f"only {figures['reached']:g} of {fleet.children} children served fresh each time within {REACH_S:g} s")
    if figures["stale_beyond_bound"]:
        problems.append(f"{figures['stale_beyond_bound']:g} times a version was served beyond the staleness bound")
    return figures, problems


def _occupy(fleet: Fleet, app: Celery, board: Board, run_s: float) -> None:
    """Fill every slot; return when each child has served."""
    board.stopped = False
    for child in range(board.children):
        app.send_task(BUSY_TASK, args=[str(board.path), child, run_s, NAP_S], ignore_result=True)
    fleet.await_(lambda: _all_busy(board), "every slot is busy", timeout_s=SLOTS_TIMEOUT_S)


def _all_busy(board: Board) -> bool:
    """Whether the tasks occupy as many processes as there are."""
    return len({board.occupant(child) for child in range(board.children)} - {0}) == board.children


def _release(fleet: Fleet, board: Board) -> None:
    board.stopped = True
    fleet.await_(lambda: not any(map(board.occupant, range(board.children))), "every slot is free", timeout_s=SLOTS_TIMEOUT_S)


def _invalidate(client: PersonaClient, board: Board, size: Size) -> tuple[list[Moment], list[str]]:
    """Bump the source's version and invalidate what was made from it, again and again; item n is version n + 1."""
    moments, not_durable = [], 0
    for version in range(1, size.warm_up + size.invalidations + 1):
        time.sleep(random.uniform(*PACE_S))  # noqa: S311 - spreads the invalidations, guards nothing
        asked_ns = time.monotonic_ns()
        board.source = version
        not_durable += not client.invalidate(PROBE_KEY).durable
        moments.append(Moment(asked_ns, time.monotonic_ns()))
    return moments, [f"{not_durable} invalidations were not durable"] if not_durable else []


def _reach_figures(board: Board, moments: list[Moment], warm_up: int, bound_s: float) -> Figures:
    """From what the children noted. The new version counts as served when that one or a newer one was."""
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


def _measure_stock(fleet: Fleet, app: Celery, board: Board, size: Size, progress: Progress) -> Figures:
    """Celery's own broadcast on the same fleet, while every slot is occupied by one task and none is waiting: its best case."""
    _occupy(fleet, app, board, size.stock_busy_s)
    progress(f"coherence: a stock broadcast, all slots are busy for {size.stock_busy_s:g} s")
    sent_ns = time.monotonic_ns()
    app.send_task(
        STOCK_TASK,
        args=[str(board.path)],
        exchange=STOCK_EXCHANGE.name,
        exchange_type=STOCK_EXCHANGE.type,
        routing_key=STOCK_ROUTING_KEY,
        declare=[STOCK_EXCHANGE],
        ignore_result=True,
    )
    waited_s = size.stock_busy_s + STOCK_MARGIN_S
    children = range(board.children)
    while time.monotonic_ns() < sent_ns + waited_s * 1e9 and not all(map(board.stock_ns, children)):
        fleet.check()
        time.sleep(0.02)
    after_ms = [(ran_ns - sent_ns) / 1e6 for ran_ns in map(board.stock_ns, children) if ran_ns]
    return {
        "stock_reached": len(after_ms),
        "stock_p50_ms": statistics.median(after_ms) if after_ms else 0.0,
        "stock_busy_ms": size.stock_busy_s * 1000,
        "stock_waited_ms": waited_s * 1000,
    }


def _p99(values: list[float]) -> float:
    return statistics.quantiles(values, n=100, method="inclusive")[98] if len(values) > 1 else max(values, default=0.0)
