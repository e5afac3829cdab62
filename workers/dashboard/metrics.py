"""The fleet's figures for Prometheus. docs/operations.md lists the names and their meaning; alerts are built on them.

Counters and histograms are sums that the cache's server has kept since the fleet first counted: they outlive a restart of Flower.
A server that lost them begins at 0, which Prometheus rightly takes for the reset of a counter.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import accumulate
from typing import Final

import msgspec
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from pipeline.figures import FleetFigures
from pipeline.figures.fields import REQUESTS, SPREADS
from pipeline.figures.fleet import Ever
from pipeline.figures.histogram import WIDE_BUCKETS, wide_bound_ms

SHOWN_MS: Final = (0.004, 200_000.0)
"""The range of bounds of buckets that is shown: a hit takes some hundredths of a millisecond, a task lives for 85 s."""
BOUNDS: Final = tuple(wide for wide in range(WIDE_BUCKETS - 1) if SHOWN_MS[0] < wide_bound_ms(wide) < SHOWN_MS[1])


class FleetCollector(Collector):
    """One reading's figures. If there are none, only that the cache's server does not answer. What could not be
    asked is left out: the length of a queue, dead letters, failed tasks."""

    def __init__(
        self,
        figures: FleetFigures,
        queue_lengths: Mapping[str, int],
        dead_letters: int | None = None,
        failed_tasks: int | None = None,
    ) -> None:
        self._figures, self._queue_lengths = figures, queue_lengths
        self._dead_letters, self._failed_tasks = dead_letters, failed_tasks

    def collect(self) -> Iterator[Metric]:
        up = self._figures.available and not self._figures.refused
        yield _gauge("persona_cache_up", "Whether the cache's server answers and accepts entries.", float(up))
        lengths = GaugeMetricFamily("persona_queue_length", "Messages that no worker has taken.", labels=["queue"])
        for queue, length in self._queue_lengths.items():
            lengths.add_metric([queue], length)
        yield lengths
        if self._dead_letters is not None:
            yield _gauge("persona_dead_letters", "Messages that no worker could take, kept for a day.", self._dead_letters)
        if self._failed_tasks is not None:
            failed = "Tasks that have failed, kept for a day, or until they are tried again or dropped."
            yield _gauge("persona_failed_tasks", failed, self._failed_tasks)
        if self._figures.available:
            yield from _now(self._figures)
            yield from _ever(self._figures.ever)


def exposition(
    figures: FleetFigures, queue_lengths: Mapping[str, int], dead_letters: int | None = None, failed_tasks: int | None = None
) -> bytes:
    """In Prometheus's text format."""
    registry = CollectorRegistry()
    registry.register(FleetCollector(figures, queue_lengths, dead_letters, failed_tasks))
    return generate_latest(registry)


def _now(figures: FleetFigures) -> Iterator[Metric]:
    workers = sum(process.role == "worker" for node in figures.nodes for process in node.processes)
    yield _gauge("persona_nodes", "Workers that have beaten within the last 10 s.", sum(node.alive for node in figures.nodes))
    yield _gauge("persona_processes", "Their pool processes.", workers)
    ratios = GaugeMetricFamily(
        "persona_cache_hit_ratio",
        "Of the requests of the last 15 minutes that looked in a tier, the share that found an answer.",
        labels=["tier"],
    )
    for tier, ratio in figures.requests.hit_ratios.items():
        if ratio is not None:
            ratios.add_metric([tier], ratio)
    yield ratios


def _ever(ever: Ever) -> Iterator[Metric]:
    requests = CounterMetricFamily(
        "persona_requests",
        "Requests by the source of the answer, and by the role of the process that answered.",
        labels=["source", "role"],
    )
    all_of_them, by_producers = (msgspec.structs.asdict(each) for each in (ever.requests, ever.by_producers))
    for source in REQUESTS:
        requests.add_metric([source, "producer"], by_producers[source])
        requests.add_metric([source, "worker"], all_of_them[source] - by_producers[source])
    yield requests
    saved = "Requests that would have been a model call without the cache."
    yield CounterMetricFamily("persona_model_calls_saved", saved, value=ever.requests.saved)
    yield CounterMetricFamily("persona_invalidations", "Invalidations made.", value=ever.invalidations)
    not_shown = "Hits that nodes have answered themselves and that Flower was not shown as tasks: PERSONA_HIT_EVENTS_PER_S."
    yield CounterMetricFamily("persona_hits_not_shown", not_shown, value=ever.not_shown)
    checks = "Served answers that the auditor has judged by the log, and could tell."
    yield CounterMetricFamily("persona_audit_checks", checks, value=ever.audit.checks)
    stale = "Those of them that were served although they were invalidated, beyond the staleness bound."
    yield CounterMetricFamily("persona_audit_stale", stale, value=ever.audit.stale)
    undecided = "Served answers of which the auditor could not tell."
    yield CounterMetricFamily("persona_audit_undecided", undecided, value=ever.audit.undecided)
    seconds = HistogramMetricFamily(
        "persona_request_seconds", "How long an answer took, from the call of the pipeline to its return.", labels=["source"]
    )
    for source in REQUESTS:
        _add_histogram(seconds, [source], ever, source)
    yield seconds
    for series in SPREADS:
        histogram = HistogramMetricFamily(f"{series.metric}_seconds", series.help, labels=[])
        _add_histogram(histogram, [], ever, series.name)
        yield histogram


def _add_histogram(family: HistogramMetricFamily, labels: Iterable[str], ever: Ever, series: str) -> None:
    counts = [0] * WIDE_BUCKETS
    counts[: len(ever.buckets.get(series, ()))] = ever.buckets.get(series, ())
    sums = list(accumulate(counts))
    buckets = [(f"{wide_bound_ms(wide) / 1000:.10g}", float(sums[wide])) for wide in BOUNDS]
    family.add_metric(list(labels), [*buckets, ("+Inf", float(sums[-1]))], ever.ms.get(series, 0.0) / 1000)


def _gauge(name: str, meaning: str, value: float) -> Metric:
    return GaugeMetricFamily(name, meaning, value=value)
