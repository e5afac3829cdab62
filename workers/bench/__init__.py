"""Benchmarks. Each starts what it measures, checks its own answers, and returns flat figures with units in their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from workers.bench.errors import BenchmarkFailedError

Figures = dict[str, float]
Progress = Callable[[str], None]
Benchmark = Callable[[Progress, bool], Figures]

__all__ = ["BENCHMARKS", "Benchmark", "BenchmarkFailedError", "Figures", "Progress", "run_benchmark"]


def _coherence(progress: Progress, quick: bool) -> Figures:
    """How soon every pool child of a busy fleet serves fresh after an invalidation, and what that costs."""
    from workers.bench.coherence import measure_coherence

    return measure_coherence(progress, quick=quick)


# A further benchmark: a function here that imports its module when it is called. `persona bench` runs them in this order.
BENCHMARKS: Final[Mapping[str, Benchmark]] = {"coherence": _coherence}


def run_benchmark(name: str, progress: Progress, *, quick: bool = False) -> dict[str, Any]:
    """Run one; the document `{"bench", "figures", "machine", "versions"}`. `quick`: as a test of the benchmark, not to be quoted.

    Raises BenchmarkFailedError, with the document, when its check of its own answers failed. On the way out, however that
    is, every process that it started has been ended.
    """
    from workers.bench.machine import describe_machine, describe_versions

    document: dict[str, Any] = {"bench": name, "figures": {}, "machine": describe_machine(), "versions": describe_versions()}
    try:
        document["figures"] = BENCHMARKS[name](progress, quick)
    except BenchmarkFailedError as failure:
        document["figures"] = failure.figures
        failure.document = document
        raise
    return document
