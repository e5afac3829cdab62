"""How soon an invalidation reaches every pool child of a busy fleet, beside Celery's own broadcast, and at what cost.

The fleet: 2 nodes of 3 pool children. A task occupies every slot for the whole time: it waits, as for a model, and asks the cache
in between. The invalidations come from a program that is not a worker. Latency: from the moment before `invalidate` is called
until a child serves the new version, so the call itself, and the pause between two samples of a child, are part of it.

Once more with an app that is not the product's and has installed the cache (`installed_...`). There the program that
invalidates knows no broker: the nodes hear the cache's server.
"""

from __future__ import annotations

import random
import statistics
import time
from contextlib import closing
from typing import Final, NamedTuple

from celery import Celery

from benchmarks.kit.board import Board
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.reach import REACH_S, Moment, reach_figures
from benchmarks.kit.routes import BUSY_TASK, INSTALLED_QUEUE, PROBE_KEY, STOCK_EXCHANGE, STOCK_ROUTING_KEY, STOCK_TASK
from benchmarks.measures.cost import measure_get, measure_invalidate
from pipeline.assembly import build_cache
from pipeline.cache import TwoTierCache
from workers.client import PersonaClient
from workers.queue.factory import make_app

NODES: Final = 2
CHILDREN_PER_NODE: Final = 3
PACE_S: Final = (0.010, 0.020)  # between two invalidations, at random: in step with no timer of the fleet
NAP_S: Final = 0.0005  # between two samples of a child: six children on two cores leave both mostly idle
OCCUPY_S: Final = 40.0  # below a task's own time limit
SLOTS_TIMEOUT_S: Final = 30.0
STOCK_MARGIN_S: Final = 4.0


INSTALLED: Final = ("children", "reached", "p50_ms", "p99_ms", "max_ms", "stale_beyond_bound", "most_stale_ms")
"""What is told of the installed app."""


class Size(NamedTuple):
    """The size of the measurement. The million keys are always a million: their figure's name says so."""

    warm_up: int
    invalidations: int
    stock_busy_s: float
    cost_rounds: int
    get_rounds: int


FULL: Final = Size(warm_up=20, invalidations=500, stock_busy_s=6.0, cost_rounds=200, get_rounds=300)
QUICK: Final = Size(warm_up=5, invalidations=40, stock_busy_s=1.0, cost_rounds=20, get_rounds=20)


def measure_coherence(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when a child was not reached, or served a stale version beyond the bound."""
    size = QUICK if quick else FULL
    versions = size.warm_up + size.invalidations
    with Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE) as fleet:
        with (
            closing(make_app(fleet.settings)) as app,
            closing(Board.create(fleet.new_file("board"), children=fleet.children, versions=versions)) as board,
        ):
            with PersonaClient(fleet.settings) as client:
                figures, problems = _measure_reach(fleet, app, board, size, progress, client.cache)
            if problems:  # the rest would cost time, and might fail in other words
                raise BenchmarkFailedError(problems, figures)
            figures |= _measure_stock(fleet, app, board, size, progress)
        fleet.stop_nodes()
        figures |= measure_invalidate(fleet.settings, size.cost_rounds, progress)
        figures |= measure_get(fleet.settings, size.get_rounds, progress)
    return figures | _measure_installed(size, progress)


def _measure_installed(size: Size, progress: Progress) -> Figures:
    """The same of an app that has installed the cache."""
    versions = size.warm_up + size.invalidations
    with Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE, app="benchmarks.kit.installed_app") as fleet:
        board = Board.create(fleet.new_file("board"), children=fleet.children, versions=versions)
        app = Celery("sender", broker=fleet.settings.broker_url, set_as_current=False)
        app.conf.task_default_queue = INSTALLED_QUEUE
        with closing(app), closing(board), closing(build_cache(fleet.settings)) as cache:
            figures, problems = _measure_reach(fleet, app, board, size, progress, cache)
    named = {f"installed_{name}": figures[name] for name in INSTALLED}
    if problems:
        raise BenchmarkFailedError([f"an installed app: {problem}" for problem in problems], named)
    return named


def _measure_reach(
    fleet: Fleet, app: Celery, board: Board, size: Size, progress: Progress, cache: TwoTierCache
) -> tuple[Figures, list[str]]:
    """Of invalidations that are made by that cache."""
    bound_s = fleet.settings.staleness_bound_s
    _occupy(fleet, app, board, OCCUPY_S)
    progress(f"coherence: {size.invalidations} invalidations, all {fleet.children} slots are busy")
    moments, problems = _invalidate(cache, board, size)
    # A lost notice is made up for within the bound: wait that long for every child, and a little more.
    time.sleep(max(REACH_S, bound_s) + 0.2)
    if not _all_busy(board):
        problems.append("a slot fell free while it was measured")
    figures = reach_figures(board, moments, size.warm_up, bound_s)
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


def _invalidate(cache: TwoTierCache, board: Board, size: Size) -> tuple[list[Moment], list[str]]:
    """Bump the source's version and invalidate the value made from it, again and again; item n is version n + 1."""
    moments, not_durable = [], 0
    for version in range(1, size.warm_up + size.invalidations + 1):
        time.sleep(random.uniform(*PACE_S))  # noqa: S311 - spreads the invalidations, guards nothing
        asked_ns = time.monotonic_ns()
        board.source = version
        not_durable += not cache.invalidate(PROBE_KEY).durable
        moments.append(Moment(asked_ns, time.monotonic_ns()))
    return moments, [f"{not_durable} invalidations were not durable"] if not_durable else []


def _measure_stock(fleet: Fleet, app: Celery, board: Board, size: Size, progress: Progress) -> Figures:
    """Celery's own broadcast on the same fleet, while one task occupies every slot and none is waiting: its best case."""
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


BENCHMARK: Final = Benchmark(
    "coherence",
    "How soon every pool child of a busy fleet serves fresh after an invalidation, and what that costs.",
    2,
    measure_coherence,
)
