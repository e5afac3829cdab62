"""The benchmarks that exist: every module of `benchmarks/measures/` with a `BENCHMARK`. And how one of them is run."""

from __future__ import annotations

import pkgutil
from collections.abc import Sequence
from functools import cache
from importlib import import_module
from typing import Any

from benchmarks import measures
from benchmarks.kit.contract import Benchmark, Measured, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.machine import describe_machine, describe_versions


@cache
def all_benchmarks() -> dict[str, Benchmark]:
    """By name, in the order of the page."""
    modules = [import_module(f"{measures.__name__}.{each.name}") for each in pkgutil.iter_modules(measures.__path__)]
    found = [module.BENCHMARK for module in modules if hasattr(module, "BENCHMARK")]
    return {each.name: each for each in sorted(found, key=lambda each: each.place)}


def run_benchmark(benchmark: Benchmark, progress: Progress, *, quick: bool = False, rows: Sequence[str] = ()) -> dict[str, Any]:
    """Run a benchmark. Returns the document `{"bench", "figures", "machine", "versions"}`, and `"notes"` if there are any.
    `quick`: as a test of the benchmark, not to be quoted. `rows`: of one that has them, these only.

    Raises BenchmarkFailedError, with the document, when its check of its own answers failed. Every process that it started has
    been ended, however it ends.
    """
    document: dict[str, Any] = {"bench": benchmark.name, "figures": {}}
    document |= {"machine": describe_machine(), "versions": describe_versions()}
    try:
        measured = benchmark.measure(progress, quick=quick, **({"rows": rows} if rows else {}))
    except BenchmarkFailedError as failure:
        document["figures"] = failure.figures
        failure.document = document
        raise
    if isinstance(measured, Measured):
        measured, notes = measured
        if notes:
            document["notes"] = list(notes)
    document["figures"] = measured
    return document
