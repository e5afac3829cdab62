"""Benchmarks. Each starts what it measures, checks its own answers, and returns flat figures with units in their names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from workers.bench.errors import BenchmarkFailedError
from workers.bench.hit_ratio_view import view_hit_ratio
from workers.bench.load_views import view_dashboard, view_outage, view_stampede, view_submit
from workers.bench.pipeline_view import view_pipeline
from workers.bench.queued_view import view_queue
from workers.bench.scale_view import view_scale
from workers.bench.seed_view import view_seed
from workers.bench.tiers_view import view_tiers
from workers.bench.view import View

Figures = dict[str, float]
Progress = Callable[[str], None]


class Measured(NamedTuple):
    """What a benchmark returns that has something to say beside its figures: what was left out, and why."""

    figures: Figures
    notes: tuple[str, ...] = ()


Benchmark = Callable[[Progress, bool], Figures | Measured]

__all__ = ["BENCHMARKS", "VIEWS", "Benchmark", "BenchmarkFailedError", "Figures", "Measured", "Progress", "run_benchmark"]


def _coherence(progress: Progress, quick: bool) -> Figures:
    """How soon every pool child of a busy fleet serves fresh after an invalidation, and what that costs."""
    from workers.bench.coherence import measure_coherence

    return measure_coherence(progress, quick=quick)


def _seed(progress: Progress, quick: bool) -> Figures:
    """The scenarios of the report that this project began with, beside what it claims and what is possible."""
    from workers.bench.seed import measure_seed

    return measure_seed(progress, quick=quick)


def _queue(progress: Progress, quick: bool) -> Measured:
    """What the queue costs: a hit beside a Celery task that does nothing, and beside what a user might pick instead."""
    from workers.bench.queued import measure_queue

    return measure_queue(progress, quick=quick)


def _scale(progress: Progress, quick: bool) -> Figures:
    """What grows with the number of processes: throughput, idle commands on Redis, the time of an invalidation."""
    from workers.bench.scale import measure_scale

    return measure_scale(progress, quick=quick)


def _overhead(progress: Progress, quick: bool) -> Figures:
    """What counting and events cost: throughput with all of it on beside that with all of it off, and a hit's own share."""
    from workers.bench.overhead import measure_overhead

    return measure_overhead(progress, quick=quick)


def _tiers(progress: Progress, quick: bool) -> Measured:
    """What each operation of each tier costs, beside what a program might use in its place."""
    from workers.bench.tiers import measure_tiers

    return measure_tiers(progress, quick=quick)


def _hit_ratio(progress: Progress, quick: bool) -> Measured:
    """What L1 keeps of all that it is asked for, and what an entry takes, beside other caches and the optimum."""
    from workers.bench.hit_ratio import measure_hit_ratio

    return measure_hit_ratio(progress, quick=quick)


def _pipeline(progress: Progress, quick: bool) -> Measured:
    """What an answer costs by where it comes from, and where the time goes."""
    from workers.bench.pipeline import measure_pipeline

    return measure_pipeline(progress, quick=quick)


def _page(progress: Progress, quick: bool) -> Measured:
    """Flower's page of the fleet under load in a real browser, beside what the load generator has counted."""
    from workers.bench.page_load import measure_page

    return measure_page(progress, quick=quick)


def _submit(progress: Progress, quick: bool) -> Figures:
    """A submit that hits, in Redis and in the program itself, beside the same request as a plain task."""
    from workers.bench.submit import measure_submit

    return measure_submit(progress, quick=quick)


def _stampede(progress: Progress, quick: bool) -> Figures:
    """A thousand simultaneous requests for what nobody has yet: how often the model is called, also when its caller is killed."""
    from workers.bench.stampede import measure_stampede

    return measure_stampede(progress, quick=quick)


def _dashboard(progress: Progress, quick: bool) -> Figures:
    """A thousand requests a second for a minute, over 20 patterns, in an open loop."""
    from workers.bench.dashboard import measure_dashboard

    return measure_dashboard(progress, quick=quick)


def _outage(progress: Progress, quick: bool) -> Figures:
    """The cache's server stops answering in mid-run: what that adds, and how soon it is over."""
    from workers.bench.outage import measure_outage

    return measure_outage(progress, quick=quick)


def _bounds(progress: Progress, quick: bool) -> Figures:
    """What one caller may cost all others: many globs, a long log, an eviction, invalidations in an outage, a frozen broker."""
    from workers.bench.bounds import measure_bounds

    return measure_bounds(progress, quick=quick)


# A further benchmark: a function here that imports its module when it is called. `persona bench` runs them in this order.
BENCHMARKS: Final[Mapping[str, Benchmark]] = {
    "seed": _seed,
    "coherence": _coherence,
    "bounds": _bounds,
    "queue": _queue,
    "scale": _scale,
    "tiers": _tiers,
    "hit_ratio": _hit_ratio,
    "pipeline": _pipeline,
    "submit": _submit,
    "stampede": _stampede,
    "dashboard": _dashboard,
    "outage": _outage,
    "overhead": _overhead,
    "page": _page,
}

# How the figures of one are shown, by tables and plots; those without an entry are shown as a list.
VIEWS: Final[Mapping[str, Callable[[Figures], View]]] = {
    "seed": view_seed,
    "queue": view_queue,
    "scale": view_scale,
    "tiers": view_tiers,
    "hit_ratio": view_hit_ratio,
    "pipeline": view_pipeline,
    "submit": view_submit,
    "stampede": view_stampede,
    "dashboard": view_dashboard,
    "outage": view_outage,
}


def run_benchmark(name: str, progress: Progress, *, quick: bool = False) -> dict[str, Any]:
    """Run one; the document `{"bench", "figures", "machine", "versions"}`, and `"notes"` if there are any. `quick`: as a test
    of the benchmark, not to be quoted.

    Raises BenchmarkFailedError, with the document, when its check of its own answers failed. On the way out, however that
    is, every process that it started has been ended.
    """
    from workers.bench.machine import describe_machine, describe_versions

    document: dict[str, Any] = {"bench": name, "figures": {}, "machine": describe_machine(), "versions": describe_versions()}
    try:
        measured = BENCHMARKS[name](progress, quick)
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
