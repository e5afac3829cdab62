"""The cost of counting and events: hits through the queue with all of it on and with all of it off, and one hit's own share.

Two nodes of two processes, each with servers of its own: one counts, reports and sends every event of Celery, the other does
neither. Each works off the same full queue, in turn, so that the machine's other load meets both.
"""

from __future__ import annotations

import gc
import itertools
import operator
import statistics
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from functools import partial
from typing import Any, Final, NamedTuple, Self

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.drain import Check, Drain
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.requests import spread_over
from benchmarks.kit.routes import PROCESS_TASK
from pipeline.assembly import build_optimized_pipeline
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, read_figures
from pipeline.figures.tally import FOLD_AT, Tally
from pipeline.models import PersonaRequest
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import PromptResponder
from pipeline.settings import Settings
from workers.queue.factory import make_app
from workers.queue.reach import bound_waits, close_results

PROCESSES: Final = 2
KINDS: Final = 20
HITS_A_ROUND: Final = 2 * FOLD_AT  # each round pays for sorting what it has recorded, too
REPORTED_TIMEOUT_S: Final = 10.0
SILENT_APP: Final = "benchmarks.kit.silent_app"


class Size(NamedTuple):
    """The size of the measurement."""

    warm_up: int
    tasks: int
    rounds: int
    hit_rounds: int


FULL: Final = Size(warm_up=400, tasks=1_500, rounds=11, hit_rounds=40)
QUICK: Final = Size(warm_up=40, tasks=60, rounds=2, hit_rounds=2)


def measure_overhead(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when an answer was no hit, or when the counts differ from the requests."""
    size = QUICK if quick else FULL
    wires = [request.to_wire() for request in spread_over(KINDS, KINDS)]
    with (
        Fleet(progress, nodes=1, children=PROCESSES) as counting,
        Fleet(progress, nodes=1, children=PROCESSES, app=SILENT_APP, environ={"PERSONA_FIGURES": "false"}) as silent,
    ):
        progress("overhead: hits through the queue, with all counting and events on and with them off, in turn")
        with Side(counting, wires, size) as on, Side(silent, wires, size) as off:
            for number in range(size.rounds):
                for side in (on, off) if number % 2 == 0 else (off, on):  # the first of a round finds the machine otherwise
                    side.work_off(size.tasks)
        _check_counted(counting, on.asked)
        _check_counted(silent, 0)
        figures = {"counted_per_s": statistics.median(on.per_s), "uncounted_per_s": statistics.median(off.per_s)}
        figures |= ratio_of_medians(on.per_s, off.per_s).figures("throughput_ratio")
        counting.stop_nodes()
        progress("overhead: a hit in this process, with and without counting")
        return figures | _measure_hit(counting.settings, size.hit_rounds)


class Side:
    """One of the two nodes, warm."""

    def __init__(self, fleet: Fleet, wires: Sequence[Mapping[str, Any]], size: Size) -> None:
        self._wires = wires
        self.per_s: list[float] = []
        self.asked = 0
        self._app = make_app(fleet.settings)
        self._drain = Drain(self._app, fleet.settings)
        self._warm_up = size.warm_up

    def __enter__(self) -> Self:
        bound_waits(self._app)
        self._run(self._warm_up, lambda _, result: "content" in result)
        return self

    def __exit__(self, *_: object) -> None:
        self._drain.close()
        close_results(self._app)
        self._app.close()

    def work_off(self, count: int) -> None:
        self.per_s.append(self._run(count, lambda _, result: result["cached"] in ("l1", "l2")))

    def _run(self, count: int, right: Check) -> float:
        self.asked += count
        return self._drain.per_s(PROCESS_TASK, self._wires, count, right)


def _check_counted(fleet: Fleet, expected: int) -> None:
    """The fleet's figures count every request; those of a node that does not count, none."""
    with closing(RedisConnection(fleet.settings.cache_url, timeout_s=5)) as connection:
        keys = FigureKeys(fleet.settings.cache_namespace)

        def counted() -> int:
            return read_figures(connection, keys).ever.requests.total

        if expected:
            fleet.await_(lambda: counted() >= expected, "all that was asked is reported", timeout_s=REPORTED_TIMEOUT_S)
        if counted() != expected:
            raise BenchmarkFailedError([f"{expected} requests were asked and {counted()} counted"])


def _measure_hit(settings: Settings, rounds: int) -> Figures:
    """The cost of a count, and beside it an L1 hit of `process_request` with and without, in a process that reports.

    `count_ns` is measured by itself, in turn with the same loop without it: the two hits are fifty times as long, and their
    difference is mostly the machine's noise.
    """
    request = PersonaRequest.create("What does a count cost?", "calm-flowing-learning")
    counted_ns, uncounted_ns, with_ns, without_ns = [], [], [], []
    collecting = gc.isenabled()
    with closing(build_optimized_pipeline(settings, PersonaPipeline(load_catalog(), PromptResponder()))) as pipeline:
        # One pipeline, and two calls of the same form: the interpreter specialises for what it sees most often.
        counted = partial(pipeline.process_request, request, counted=True)
        uncounted = partial(pipeline.process_request, request, counted=False)
        counted()
        gc.disable()
        try:
            for _ in range(rounds):
                pipeline.cache.refresh()  # the lease holds for this round
                counted_ns.append(_mean_ns(counted))
                pipeline.cache.refresh()
                uncounted_ns.append(_mean_ns(uncounted))
                with_ns.append(_mean_count_ns(pipeline.reporter.tally))
                without_ns.append(_mean_count_ns(None))
        finally:
            if collecting:
                gc.enable()
        hits = pipeline.reporter.tally.snapshot()["l1"].count
    # Where the machine stood still for longer than a lease, the next hit came from L2.
    if not 0.99 <= hits / (2 * rounds * HITS_A_ROUND) <= 1:
        raise BenchmarkFailedError([f"{hits} hits were counted of {2 * rounds * HITS_A_ROUND}"])
    return {
        "counted_hit_ns": statistics.median(counted_ns),
        "uncounted_hit_ns": statistics.median(uncounted_ns),
        "count_ns": statistics.median(map(operator.sub, with_ns, without_ns)),
    }


def _mean_ns(ask: Callable[[], object]) -> float:
    turns = itertools.repeat(None, HITS_A_ROUND)
    # This thread's own time: it includes neither the machine's other load nor the 0.5 ms a second of the reporting thread.
    began_ns = time.thread_time_ns()
    for _ in turns:
        ask()
    return (time.thread_time_ns() - began_ns) / HITS_A_ROUND


def _mean_count_ns(tally: Tally | None) -> float:
    """Of a loop that takes the time as a hit does, each a new number, and counts it as a hit does, sorting included."""
    clock = time.perf_counter
    turns = itertools.repeat(None, HITS_A_ROUND)
    began_ns = time.thread_time_ns()
    if tally is None:
        for _ in turns:
            started = clock()
            elapsed_ms = (clock() - started) * 1000
    else:
        for _ in turns:
            started = clock()
            elapsed_ms = (clock() - started) * 1000
            samples = tally.samples["l1"]
            samples.append(elapsed_ms)
            if len(samples) >= tally.fold_at:
                tally.full()
    return (time.thread_time_ns() - began_ns) / HITS_A_ROUND


BENCHMARK: Final = Benchmark(
    "overhead",
    "What counting and events cost: throughput with all of it on beside that with all of it off, and a hit's own share.",
    13,
    measure_overhead,
)
