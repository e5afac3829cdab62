"""The pipeline's figures as tables: the cost of an answer, and where the time goes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import BarPlot, Table, View, shown

_CASES: Final = {
    "l1_hit": "L1 hit",
    "l2_hit": "L2 hit",
    "miss": "miss",
    "miss_alone": "miss, without Redis",
    "uncached": "no cache",
}
_PROFILED: Final = ("l1_hit", "l2_hit", "miss")
_STAGES: Final = {
    "request": "check the request",
    "key": "its key and dependencies",
    "answer": "put the answer together",
    "counting": "count it",
    "cache": "the cache",
    "flight": "one computation a key",
    "redis": "the Redis client",
    "server": "the socket and the server",
    "compute": "compute the prompt",
    "other": "other",
}
_TEXT: Final = """
`OptimizedPipeline.process` with no model configured: what is computed is the prompt, and the rest is what this project itself
costs. An L1 hit is two lookups (the routing, the answer); an L2 hit finds neither in L1, and reads both from Redis; a miss is a
new input under a known routing. The shares are a profiler's, which makes what calls many small functions look dearer than it is.
"""


def view_pipeline(figures: Mapping[str, float]) -> View:
    costs = Table(("process", "µs"), tuple((title, *shown(figures, f"{name}_us")) for name, title in _CASES.items()))
    stages = {
        stage: title
        for stage, title in _STAGES.items()
        if any(figures.get(f"{case}_{stage}_pct", 0) >= 0.5 for case in _PROFILED)
    }
    shares = Table(
        ("share of the time, %", *(_CASES[case] for case in _PROFILED)),
        tuple((title, *(f"{figures[f'{case}_{stage}_pct']:.0f}" for case in _PROFILED)) for stage, title in stages.items()),
    )
    plot = BarPlot(
        "stages",
        "Where the time goes",
        "% of the profiled time",
        tuple(_CASES[case] for case in _PROFILED),
        {title: tuple(figures[f"{case}_{stage}_pct"] for case in _PROFILED) for stage, title in stages.items()},
    )
    return View(_TEXT, (costs, shares), (plot,))
