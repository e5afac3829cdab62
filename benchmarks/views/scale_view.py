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

Reading processes: programs that are no node, each with an L1 of its own. What was invalidated one of them computes at once,
and the others read it from Redis. "Listening" is what they do unless they are told otherwise: a thread hears what the cache's
server tells of each append. By the lease alone each learns of it when its lease ends, at the latest after the staleness bound
(1 s) and on the average after half of it. "One parent": their parent follows the log for all of them, in memory that they share,
as a worker's main process does. To renew a lease is one exchange of two commands a second; the parent does it for all its
children. All processes share two cores, so that the last of 64 is as late as their work takes. "Bare" processes are the floor:
they have no cache, and do nothing but hear the server's message in a thread, wake as often as the readers do, and ask for one
key. What the machine needs for that, no cache on it can undercut. An exponent of 1: twice the processes do twice the work.
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
    "invalidate_p99_ms": "p99 ms",
    "invalidate_max_ms": "max ms",
}
_OTHERS: Final = {name: title for name, title in _READERS.items() if name != "reads_per_s"}


def view_scale(figures: Mapping[str, float]) -> View:
    workers, readers = _sizes(figures, "workers"), _sizes(figures, "readers")
    return View(
        text=_TEXT,
        tables=(
            _table("worker processes", "workers", workers, _WORKERS, figures),
            _table("reading processes, listening", "readers", readers, _READERS, figures),
            _table("reading processes, by the lease alone", "deaf", readers, _OTHERS, figures),
            _table("reading processes of one parent", "shared", readers, _OTHERS, figures),
            _table("bare processes: one message, one GET", "bare", readers, _OTHERS, figures),
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
                    curve("p99", figures, "readers{}_invalidate_p99_ms", readers),
                    curve("p50 by the lease alone", figures, "deaf{}_invalidate_p50_ms", readers),
                    curve("p99 of one parent", figures, "shared{}_invalidate_p99_ms", readers),
                    curve("p99 of bare processes", figures, "bare{}_invalidate_p99_ms", readers),
                ),
                what="reading processes",
                log_y=True,
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
