"""The report's dashboard for real: 1,000 requests a second over 20 patterns, for a minute, and a model that takes 95 ms.

One program sends requests through `PersonaClient`, in an open loop: each request has its intended moment, and its latency counts
from there, so that waiting behind a slow request counts. The workers have worked before; the caches are empty when it begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.kit.compare import quantile
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.load import Happened, Plan, Producers, check_right, warm_up
from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.requests import MODEL_DELAY_MS, spread_over
from benchmarks.views.load_views import view_dashboard

NODES: Final = 2
CHILDREN_PER_NODE: Final = 3
PATTERNS: Final = 20
FIRST_S: Final = 1.0  # in which the patterns are computed
CLAIM_1000_MS: Final = 3_860.0
"""The report's own sum for 1,000 of these requests: 20 x 95 ms, and 980 x 2 ms, one after the other."""


class Size(NamedTuple):
    """The size of the measurement."""

    rate_per_s: float
    seconds: float


FULL: Final = Size(rate_per_s=1_000, seconds=60)
QUICK: Final = Size(rate_per_s=200, seconds=3)


def measure_dashboard(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when a request was lost or failed, an answer was wrong, or the model was called
    more often than there are patterns."""
    size = QUICK if quick else FULL
    count = round(size.rate_per_s * size.seconds)
    requests = tuple(spread_over(PATTERNS, PATTERNS))
    with (
        ModelServer(delay_ms=MODEL_DELAY_MS) as model,
        Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE, environ=model.environment) as fleet,
        Producers(fleet, client=1) as producers,
    ):
        warm_up(fleet)
        before = model.calls
        progress(f"dashboard: {size.rate_per_s:g} requests a second for {size.seconds:g} s")
        [happened] = producers.run([Plan(requests, rate_per_s=size.rate_per_s, count=count)])
        calls = model.calls - before
    figures = dashboard_figures(happened, count) | {"model_calls": calls, "patterns": PATTERNS, "claim_1000_ms": CLAIM_1000_MS}
    problems = check_right(happened, count)
    if calls != PATTERNS:
        problems.append(f"{PATTERNS} patterns took {calls} calls of the model")
    if problems:
        raise BenchmarkFailedError(problems, figures)
    return figures


def dashboard_figures(happened: Sequence[Happened], count: int) -> Figures:
    """`rate_per_s`: answers a second, from the first intended moment to the last answer."""
    answered = [each for each in happened if each.source]
    began_s = min((each.due_s for each in happened), default=0.0)
    took_ms = [each.took_s * 1000 for each in answered]
    settled_ms = [each.took_s * 1000 for each in answered if each.due_s - began_s >= FIRST_S]
    figures: Figures = {
        "requests": count,
        "lost": count - len(happened),
        "failed": sum(not each.source for each in happened),
        "rate_per_s": len(answered) / (max(each.ended_s for each in answered) - began_s) if answered else 0.0,
    }
    for prefix, times_ms in (("", took_ms), ("settled_", settled_ms)):
        if times_ms:
            figures |= {f"{prefix}p50_ms": quantile(times_ms, 0.5), f"{prefix}p99_ms": quantile(times_ms, 0.99)}
            figures[f"{prefix}max_ms"] = max(times_ms)
    # Of the first thousand, as the report adds them up: how long until all of them had their answers.
    first = happened[:1_000]
    figures["first_1000_ms"] = (max(each.ended_s for each in first) - began_s) * 1000 if first else 0.0
    for source in ("l1", "l2", "joined", "no"):
        figures[f"from_{source}"] = sum(each.source == source for each in answered)
    return figures


BENCHMARK: Final = Benchmark(
    "dashboard",
    "A thousand requests a second for a minute, over 20 patterns, in an open loop.",
    11,
    measure_dashboard,
    view_dashboard,
)
