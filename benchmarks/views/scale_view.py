"""The curves of `scale`, and their slopes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import Curve, CurvePlot, Table, View, curve, shown

_TEXT: Final = """
Worker processes: nodes with one pool child each, all on this machine, whose cores they share. So the throughput of hits ends
where the cores do, while that of misses, each 95 ms of waiting for the model, grows with the processes. Idle commands are those
that the servers count while no request comes, a second and a node, commands within a script included. p50 and p99 are those
of an invalidation, until every node has acknowledged that it serves nothing older.

Reading processes: programs that are no node, each with an L1 of its own. No notice of an invalidation reaches them: each learns
of it when its lease ends, at the latest after the staleness bound (1 s) and on the average after half of it. To renew the lease
is one command a second. A slope of their invalidations is chance: the lease does not depend on their number. An exponent of 1:
twice the processes do twice the work.
"""
_SLOPES: Final = {
    "workers_miss_exponent": "misses/s: exponent",
    "workers_hit_exponent": "hits/s: exponent",
    "workers_idle_cache_commands_per_s_slope": "idle commands/s on the cache, a node",
    "workers_idle_broker_commands_per_s_slope": "idle commands/s on the broker, a node",
    "workers_invalidate_p50_ms_slope": "invalidation p50 ms, a node",
    "readers_read_exponent": "reads/s: exponent",
    "readers_cache_commands_per_s_slope": "commands/s on the cache, a reading process",
    "readers_invalidate_p50_ms_slope": "invalidation p50 ms, a reading process",
}
_WORKERS: Final = {
    "miss_per_s": "misses/s",
    "hit_per_s": "hits/s",
    "idle_cache_commands_per_s_node": "idle/s: cache",
    "idle_broker_commands_per_s_node": "broker",
    "invalidate_p50_ms": "p50 ms",
    "invalidate_p99_ms": "p99 ms",
}
_READERS: Final = {
    "reads_per_s": "reads/s",
    "cache_commands_per_s_process": "commands/s",
    "invalidate_p50_ms": "p50 ms",
    "invalidate_max_ms": "max ms",
}


def view_scale(figures: Mapping[str, float]) -> View:
    workers, readers = _sizes(figures, "workers"), _sizes(figures, "readers")
    return View(
        text=_TEXT,
        tables=(
            _table("worker processes", "workers", workers, _WORKERS, figures),
            _table("reading processes", "readers", readers, _READERS, figures),
            Table(
                ("what one more adds, or the exponent of growth", "slope"),
                tuple((title, *shown(figures, name)) for name, title in _SLOPES.items()),
                "Slopes",
            ),
        ),
        plots=(
            _plot(
                "throughput",
                "Throughput of worker processes",
                "tasks a second",
                workers,
                (
                    curve("hits", figures, "workers{}_hit_per_s", workers),
                    curve("misses", figures, "workers{}_miss_per_s", workers),
                ),
                log_y=True,
            ),
            _plot(
                "idle",
                "Commands on Redis while no request comes",
                "commands a second",
                workers,
                (
                    curve("cache", figures, "workers{}_idle_cache_commands_per_s", workers),
                    curve("broker", figures, "workers{}_idle_broker_commands_per_s", workers),
                ),
            ),
            _plot(
                "invalidation",
                "An invalidation, until every node has applied it",
                "ms",
                workers,
                (
                    curve("p50", figures, "workers{}_invalidate_p50_ms", workers),
                    curve("p99", figures, "workers{}_invalidate_p99_ms", workers),
                ),
            ),
            _plot(
                "reads",
                "Reads of reading processes, all together",
                "reads a second",
                readers,
                (curve("L1 hits", figures, "readers{}_reads_per_s", readers),),
                what="reading processes",
            ),
            _plot(
                "staleness",
                "An invalidation, until a reading process serves fresh",
                "ms",
                readers,
                (
                    curve("p50", figures, "readers{}_invalidate_p50_ms", readers),
                    curve("max", figures, "readers{}_invalidate_max_ms", readers),
                ),
                what="reading processes",
            ),
        ),
    )


def _sizes(figures: Mapping[str, float], what: str) -> list[int]:
    found = (re.match(rf"{what}(\d+)_", name) for name in figures)
    return sorted({int(match[1]) for match in found if match})


def _table(title: str, prefix: str, sizes: list[int], columns: Mapping[str, str], figures: Mapping[str, float]) -> Table:
    rows = tuple((str(size), *shown(figures, *(f"{prefix}{size}_{name}" for name in columns))) for size in sizes)
    return Table((title, *columns.values()), rows)


def _plot(
    name: str,
    title: str,
    y_label: str,
    sizes: list[int],
    curves: tuple[Curve, ...],
    *,
    what: str = "worker processes",
    log_y: bool = False,
) -> CurvePlot:
    return CurvePlot(name, title, what, y_label, curves, log_x=len(sizes) > 1, log_y=log_y)
