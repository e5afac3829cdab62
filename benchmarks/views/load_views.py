"""The figures of the benchmarks that load a fleet, as tables and plots."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import BarPlot, Table, View, shown, shown_ratio

_STAMPEDE: Final = """
1,000 requests at the same moment from 8 programs by `PersonaClient` (four threads each) and two by `send_task` of a Celery app
that knows nothing of this project, on 2 nodes of 3 pool children; a model that takes one second, so that every request comes in
time to join.
Without anything between, it would be called 1,000 times. Then the pool child that computes is killed (SIGKILL) while all the
others wait. *Taken over*: from the kill to the next call of the model; the lease is the bound. *The last answer*: counted from
the kill.
"""
_DASHBOARD: Final = """
One program asks through `PersonaClient` in an open loop: latency counts from the moment at which a request was intended, whatever
those before it did. Caches are empty when it begins, and 20 patterns are computed in the first second, by a model that takes
95 ms. The report adds 3,860 ms up for 1,000 requests, one after the other; here the rate is given, and the first 1,000 are
answered in the second in which they are asked.
"""
_SUBMIT: Final = """
Requests a second of one program, in turn in each round: plain Celery tasks sent one after the other without waiting, two workers
answering them from their own L1; `submit` of what Redis has; `submit` of what the program has itself. Goals: 20 and 200.
"""
_OUTAGE: Final = """
The cache's server is stopped in mid-run (SIGSTOP: connections stay open and nothing is answered) and goes on later (SIGCONT).
*Opening*: until every process has met the time-out once, by the staleness bound and the time-out of a call. *Open*: after that. A
task passes a node's main process and a pool child, each of which meets the time-out for itself.
"""


def view_stampede(figures: Mapping[str, float]) -> View:
    rows = [
        ("one key", *shown(figures, "requests", "model_calls"), "-", *shown(figures, "last_answer_ms")),
        ("20 keys", *shown(figures, "requests", "keys20_model_calls"), "-", *shown(figures, "keys20_last_answer_ms")),
    ]
    if "kills" in figures:
        name = f"one key, the owner killed ({figures['kills']:g} times)"
        cells = shown(figures, "kill_model_calls", "kill_takeover_ms", "kill_longest_wait_ms")
        rows.append((name, *shown(figures, "requests"), *cells))
    header = ("stampede", "requests each", "calls of the model", "taken over ms", "the last answer ms")
    return View(text=_STAMPEDE, tables=(Table(header, tuple(rows)),))


def view_dashboard(figures: Mapping[str, float]) -> View:
    times = Table(
        ("of", "p50 ms", "p99", "max"),
        (
            ("all", *shown(figures, "p50_ms", "p99_ms", "max_ms")),
            ("after the first second", *shown(figures, "settled_p50_ms", "settled_p99_ms", "settled_max_ms")),
        ),
    )
    counts = Table(
        ("requests", "answers a second", "lost", "failed", "calls of the model", "the first 1,000 ms", "the report's sum ms"),
        (
            shown(
                figures, "requests", "rate_per_s", "lost", "failed", "model_calls", "first_1000_ms", "claim_1000_ms"
            ),
        ),
    )  # fmt: skip
    return View(text=_DASHBOARD, tables=(counts, times))


def view_submit(figures: Mapping[str, float]) -> View:
    rows = (
        ("plain tasks", *shown(figures, "plain_per_s"), "1x"),
        ("plain tasks, each waited for", *shown(figures, "plain_one_by_one_per_s"), "-"),
        ("submit, L2", *shown(figures, "l2_per_s"), shown_ratio(figures, "l2_ratio")),
        ("submit, L1", *shown(figures, "l1_per_s"), shown_ratio(figures, "l1_ratio")),
    )
    labels = ("plain task", "submit, L2", "submit, L1")
    rates = tuple(figures.get(name, 0.0) for name in ("plain_per_s", "l2_per_s", "l1_per_s"))
    plot = BarPlot("submit", "Requests that hit, one program", "requests a second", labels, {"hits": rates}, log_y=True)
    return View(text=_SUBMIT, tables=(Table(("", "a second", "to plain tasks"), rows),), plots=(plot,))


def view_outage(figures: Mapping[str, float]) -> View:
    rows = tuple(
        (
            f"{title}, {window}",
            *shown(figures, *(f"{way}_{window}_{what}" for what in ("p50_ms", "p99_ms", "max_ms", "added_p99_ms"))),
        )
        for way, title in (("client", "PersonaClient"), ("tasks", "plain tasks"))
        for window in ("calm", "opening", "open", "after")
    )
    counts = (
        ("PersonaClient", *shown(figures, "client_degraded", "client_recovered_s", "wrong", "failed")),
        ("plain tasks", *shown(figures, "tasks_degraded", "tasks_recovered_s", "wrong", "failed")),
    )
    return View(
        text=_OUTAGE,
        tables=(
            Table(("", "p50 ms", "p99", "max", "added p99"), rows),
            Table(("", "answers marked degraded", "recovered after s", "wrong (both)", "failed (both)"), counts),
        ),
    )
