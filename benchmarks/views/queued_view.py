"""The queue's figures as tables: beside a task that does nothing, and beside what a user might pick instead."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.peers import PEERS
from benchmarks.views.view import BarPlot, Table, View, shown, shown_ratio

_TEXT: Final = """
Throughput: a queue that is full is worked off by a node with two pool processes (or eight threads), while no caller waits for the
results; every result is checked afterwards. Round trip: one program sends a request, waits for its answer, and sends the next. A
hit is `persona.process` answered from a cache, which the node's main process does itself (docs/fetch.md); "nothing" is a task of
the same app, with the same argument and a constant result of the same size, which goes through the pool. The goal is 5 times its
throughput. "By the client" is `PersonaClient.ask`, which may know a shorter way than the queue.

Mixed: hits, one after another, while all slots are busy with misses and more of these wait. The goal is 20 ms at p99.

The others run as their own documentation starts them, with their own defaults, on the same server, in two processes: a task
that reads the answer from Redis and returns it. Their promises differ, and so does what they pay for them: Huey, and Celery with
its stock settings, lose a task whose process dies, which this project gives to another one; RQ forks a process for each job; arq
looks for new jobs every half second; none of them keeps its cache coherent. Where a library polls for a result, it does so every
5 ms here.
"""


_POOLS: Final = {"2 processes": "", "8 threads": "threads_"}
_ASKED: Final = {"hit": "a hit", "bare": "nothing", "client_hit": "by the client"}


def view_queue(figures: Mapping[str, float]) -> View:
    throughput = Table(
        ("pool", "hits/s", "nothing/s", "hits to nothing"),
        tuple(
            (
                pool,
                *shown(figures, f"{prefix}hit_per_s", f"{prefix}bare_per_s"),
                shown_ratio(figures, f"{prefix}hit_to_bare_ratio"),
            )
            for pool, prefix in _POOLS.items()
        ),
    )
    round_trips = Table(
        ("round trip", "p50 ms", "p99 ms"),
        tuple(
            (f"{title}, {pool}", *shown(figures, f"{prefix}{asked}_p50_ms", f"{prefix}{asked}_p99_ms"))
            for pool, prefix in _POOLS.items()
            for asked, title in _ASKED.items()
        ),
    )
    mixed = Table(
        ("mixed", "hits", "p50 ms", "p99 ms", "misses", "all answered after s", "at best s"),
        (
            (
                "all slots busy",
                *shown(figures, "mixed_hits", "mixed_hit_p50_ms", "mixed_hit_p99_ms"),
                *shown(figures, "mixed_misses", "mixed_misses_s", "mixed_misses_least_s"),
            ),
        ),
    )
    names = [name for name in PEERS if f"{name}_hit_per_s" in figures]
    if not names:
        return View(_TEXT, (throughput, round_trips, mixed))
    others = Table(
        ("queue", "hits/s", "persona to it", "p50 ms", "p99 ms"),
        (
            ("persona", *shown(figures, "persona_hit_per_s"), "", *shown(figures, "hit_p50_ms", "hit_p99_ms")),
            *(
                (
                    name,
                    *shown(figures, f"{name}_hit_per_s"),
                    shown_ratio(figures, f"persona_to_{name}_ratio"),
                    *shown(figures, f"{name}_hit_p50_ms", f"{name}_hit_p99_ms"),
                )
                for name in names
            ),
        ),
        title="Beside what a user might pick instead",
    )
    everyone = ("persona", *names)
    rates = tuple(figures.get(f"{name}_hit_per_s", 0.0) for name in everyone)
    plot = BarPlot("others", "Hits through the queue, two processes each", "tasks a second", everyone, {"hits": rates})
    return View(_TEXT, (throughput, round_trips, mixed, others), (plot,))
