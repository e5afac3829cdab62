"""The cache's server stops answering in mid-run (SIGSTOP: its connections stay open) and goes on later (SIGCONT).

All the while one program asks through `PersonaClient`, in an open loop, and another one sends plain tasks, which the workers
answer from their own caches. The outage's cost is the difference to the same requests before it.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.kit.compare import quantile
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.load import Happened, Plan, Producers, check_right, warm_up
from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.requests import MODEL_DELAY_MS, spread_over
from benchmarks.views.load_views import view_outage
from pipeline.models import PersonaRequest

NODES: Final = 2
CHILDREN_PER_NODE: Final = 3
PATTERNS: Final = 20
CLIENT_PER_S: Final = 200.0
TASKS_PER_S: Final = 40.0
THREADS: Final = 32
SETTLE_S: Final = 1.0
"""At the start and at the end of a window: requests that belong to neither."""
LONGEST_RECOVERY_S: Final = 5.0
WAYS: Final = ("client", "tasks")


class Size(NamedTuple):
    """The size of the measurement: seconds before, during and after; and how often each pattern is asked before, by tasks."""

    calm_s: float
    stopped_s: float
    after_s: float
    fills: int


FULL: Final = Size(calm_s=6, stopped_s=12, after_s=8, fills=30)
QUICK: Final = Size(calm_s=1.5, stopped_s=2, after_s=1.5, fills=5)


class Times(NamedTuple):
    """Moments of the monotonic clock. `open_s`: from then on every process has met the time-out once, by its own bounds."""

    calm_s: float
    stopped_s: float
    open_s: float
    resumed_s: float


def measure_outage(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when a request was lost or failed, an answer was wrong, or a process had not
    recovered LONGEST_RECOVERY_S after the server."""
    size = QUICK if quick else FULL
    lasts_s = size.calm_s + size.stopped_s + size.after_s
    patterns = tuple(spread_over(PATTERNS, PATTERNS))
    plans = [
        Plan(patterns, rate_per_s=CLIENT_PER_S, count=round(CLIENT_PER_S * lasts_s)),
        Plan(patterns, rate_per_s=TASKS_PER_S, count=round(TASKS_PER_S * lasts_s), threads=THREADS),
    ]
    with (
        ModelServer(delay_ms=MODEL_DELAY_MS) as model,
        Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE, environ=model.environment) as fleet,
        Producers(fleet, client=1, raw=1) as producers,
    ):
        warm_up(fleet)
        _fill(producers, patterns, size.fills)
        settings, server = fleet.settings, fleet.servers["cache"]
        moments: list[float] = []

        def stop_and_resume(starts_at_s: float) -> None:
            progress(f"outage: the cache's server stops for {size.stopped_s:g} s")
            for after_s, number in ((size.calm_s, signal.SIGSTOP), (size.calm_s + size.stopped_s, signal.SIGCONT)):
                time.sleep(max(0.0, starts_at_s + after_s - time.monotonic()))
                os.kill(server, number)
                moments.append(time.monotonic())

        happened = producers.run(plans, stop_and_resume)
    stopped_s, resumed_s = moments
    # Entries confirmed right before it are served until the bound; then comes the time-out of the first call.
    open_s = stopped_s + settings.staleness_bound_s + settings.cache_timeout_s + 0.25
    times = Times(stopped_s - size.calm_s, stopped_s, open_s, resumed_s)
    figures: Figures = {"stopped_s": resumed_s - stopped_s, "client_per_s": CLIENT_PER_S, "tasks_per_s": TASKS_PER_S}
    problems = []
    for way, plan, each in zip(WAYS, plans, happened, strict=True):
        problems += [f"{way}: {problem}" for problem in check_right(each, plan.count)]
        figures |= outage_figures(way, each, times)
        if figures[f"{way}_recovered_s"] > LONGEST_RECOVERY_S:
            problems.append(f"{way}: degraded answers until {figures[f'{way}_recovered_s']:.1f} s after the server was back")
    figures["wrong"] = sum(not each.right for way in happened for each in way if each.source)
    figures["failed"] = sum(not each.source for way in happened for each in way)
    if problems:
        raise BenchmarkFailedError(problems, figures)
    return figures


def outage_figures(way: str, happened: Sequence[Happened], times: Times) -> Figures:
    """p50 and p99 of each window, and the outage's addition to p99. `recovered_s`: from the server's return to the last request
    that was answered unconfirmed."""
    windows = {
        "calm": (times.calm_s + SETTLE_S, times.stopped_s),
        "opening": (times.stopped_s, times.open_s),
        "open": (times.open_s, times.resumed_s),
        "after": (times.resumed_s + SETTLE_S, float("inf")),
    }
    figures: Figures = {}
    for name, (begins_s, ends_s) in windows.items():
        took_ms = [each.took_s * 1000 for each in happened if begins_s <= each.due_s < ends_s and each.source]
        if took_ms:
            figures |= {f"{way}_{name}_p50_ms": quantile(took_ms, 0.5), f"{way}_{name}_p99_ms": quantile(took_ms, 0.99)}
            figures[f"{way}_{name}_max_ms"] = max(took_ms)
    for name in ("opening", "open"):
        if f"{way}_{name}_p99_ms" in figures and f"{way}_calm_p99_ms" in figures:
            figures[f"{way}_{name}_added_p99_ms"] = figures[f"{way}_{name}_p99_ms"] - figures[f"{way}_calm_p99_ms"]
    degraded = [each.due_s for each in happened if each.degraded]
    figures[f"{way}_degraded"] = len(degraded)
    figures[f"{way}_recovered_s"] = max([0.0, *(due_s - times.resumed_s for due_s in degraded)])
    return figures


def _fill(producers: Producers, patterns: tuple[PersonaRequest, ...], fills: int) -> None:
    """Until nearly every process has nearly every pattern in its L1: which child takes a task is chance."""
    client, tasks = producers.run([Plan(patterns), Plan(patterns * fills, threads=THREADS)])
    if problems := check_right([*client, *tasks], len(patterns) * (1 + fills)):
        raise BenchmarkFailedError(problems)


BENCHMARK: Final = Benchmark(
    "outage",
    "The cache's server stops answering in mid-run: what that adds, and how soon it is over.",
    12,
    measure_outage,
    view_outage,
)
