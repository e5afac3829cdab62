"""The cost of `OptimizedPipeline.process` by the source of the answer, without a model, and where the time goes."""

from __future__ import annotations

import cProfile
import itertools
import pstats
import statistics
import time
from collections import Counter
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Final, NamedTuple

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.turns import Batch, in_turn
from benchmarks.views.pipeline_view import view_pipeline
from pipeline.assembly import build_cache
from pipeline.models import PersonaResponse
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import responder_from
from pipeline.settings import Settings, load_settings

QUESTION: Final = "How do I tell my team that the plan has changed, without taking away their drive?"
RESONANCE: Final = "calm-medium-seek_advice"
COSTLIEST: Final = 3

# Maps the file of a function to its purpose. The first that fits counts; built-in functions count for their caller.
STAGES: Final = (
    ("request", ("pipeline/models.py",)),
    ("key", ("pipeline/keys.py",)),
    ("answer", ("pipeline/optimized.py", "pipeline/hot/")),
    ("counting", ("pipeline/figures/",)),
    ("redis", ("/redis/", "pipeline/cache/server/")),
    ("flight", ("pipeline/cache/flight/", "/threading.py")),
    ("cache", ("pipeline/cache/",)),
    ("compute", ("pipeline/",)),
)
STAGE_NAMES: Final = (*(name for name, _ in STAGES), "server", "other")
_WAITING: Final = ("recv_into", "sendall", "recv", "send")
"""Methods of a socket: the share of the system and the server."""


class Size(NamedTuple):
    """The size of the measurement."""

    rounds: int
    hits: int
    reads: int
    profiled: int


FULL: Final = Size(rounds=40, hits=500, reads=100, profiled=3_000)
QUICK: Final = Size(rounds=2, hits=50, reads=10, profiled=30)


def measure_pipeline(progress: Progress, *, quick: bool = False) -> Measured:
    """The figures: `CASE_us`, and `CASE_STAGE_pct` of its profile. Raises BenchmarkFailedError when an answer was not the right
    one, or came from another source than its case says."""
    size = QUICK if quick else FULL
    with Fleet(progress, nodes=0, children=0) as fleet, ExitStack() as resources:
        cases = _Cases(fleet.settings, resources)
        progress("pipeline: hits and misses")
        counts = {"l1_hit": size.hits, "l2_hit": size.reads, "miss": size.reads, "miss_alone": size.reads, "uncached": size.reads}
        batches = {name: cases.batch(name, count) for name, count in counts.items()}
        took = in_turn(batches, size.rounds, cases.renew)
        figures: Figures = {f"{name}_us": statistics.median(ns) / 1_000 for name, ns in took.items()}
        figures |= ratio_of_medians(took["l1_hit"], took["uncached"]).figures("l1_hit_to_uncached_ratio")
        figures |= ratio_of_medians(took["l2_hit"], took["l1_hit"]).figures("l2_hit_to_l1_hit_ratio")
        progress("pipeline: where the time goes")
        notes = []
        for name in ("l1_hit", "l2_hit", "miss"):
            shares, costliest = _profile(cases, name, size.profiled)
            figures |= {f"{name}_{stage}_pct": 100 * shares[stage] for stage in STAGE_NAMES}
            notes.append(f"the costliest places of {name}, by the profiler: {', '.join(costliest)}")
    return Measured(figures, tuple(notes))


class _Cases:
    """One request for each source of an answer."""

    def __init__(self, settings: Settings, resources: ExitStack) -> None:
        bare = PersonaPipeline(load_catalog(), responder_from(settings))
        self._numbers = itertools.count()
        self._shared = OptimizedPipeline(bare, build_cache(settings))
        self._alone = OptimizedPipeline(bare, build_cache(load_settings({})))
        for pipeline in (self._shared, self._alone):
            resources.callback(pipeline.close)
        self._expected = bare.process(QUESTION, RESONANCE).content
        self._shared.process(QUESTION, RESONANCE)
        self.calls: dict[str, Callable[[], PersonaResponse]] = {
            "l1_hit": lambda: self._shared.process(QUESTION, RESONANCE),
            "l2_hit": self._l2_hit,
            "miss": lambda: self._shared.process(self._new(), RESONANCE),
            "miss_alone": lambda: self._alone.process(self._new(), RESONANCE),
            "uncached": lambda: bare.process(QUESTION, RESONANCE),
        }
        self._sources = {"l1_hit": "l1", "l2_hit": "l2"}

    def renew(self) -> None:
        """Begin a round as a node's child does, with the lease that its main process has just renewed."""
        self._shared.cache.refresh()
        self._shared.process(QUESTION, RESONANCE)

    def batch(self, name: str, count: int) -> Batch:
        call, source = self.calls[name], self._sources.get(name, "no")

        def run() -> float:
            began_ns = time.perf_counter_ns()
            for _ in range(count):
                response = call()
                if response.cached != source:
                    raise BenchmarkFailedError([f"{name}: an answer came from {response.cached!r} instead of {source!r}"])
            took_ns = time.perf_counter_ns() - began_ns
            if QUESTION not in response.content or (name not in ("miss", "miss_alone") and response.content != self._expected):
                raise BenchmarkFailedError([f"{name}: another answer than the pipeline gives without a cache"])
            if name == "l2_hit":
                self._shared.process(QUESTION, RESONANCE)
            return took_ns / count

        return run

    def _l2_hit(self) -> PersonaResponse:
        self._shared.cache.l1.clear()  # half a microsecond
        return self._shared.process(QUESTION, RESONANCE)

    def _new(self) -> str:
        return f"{QUESTION} ({next(self._numbers)})"


def _profile(cases: _Cases, name: str, count: int) -> tuple[Counter[str], list[str]]:
    """Each stage's share of the time, and the functions that take most of it by themselves.

    A profiler takes its own share of each call of a Python function, so that code with many calls seems to take more.
    """
    call = cases.calls[name]
    profiler = cProfile.Profile()
    for number in range(count):
        if number % 500 == 0:
            cases.renew()
        profiler.enable()
        call()
        profiler.disable()
    profiled: dict[Any, Any] = pstats.Stats(profiler).stats  # type: ignore[attr-defined]  # documented in profile.rst only
    by_stage: Counter[str] = Counter()
    by_place: Counter[str] = Counter()
    for function, (_, _, own_s, _, callers) in profiled.items():
        if function[0] != "~":
            by_stage[_stage(function[0])] += own_s
            by_place[f"{function[2]} ({Path(function[0]).name})"] += own_s
        elif any(waiting in function[2] for waiting in _WAITING) and "socket" in function[2]:
            by_stage["server"] += own_s
            by_place["the socket"] += own_s
        else:
            for caller, (_, _, caller_s, _) in callers.items():
                by_stage[_stage(caller[0])] += caller_s
    whole = sum(by_stage.values())
    shares = Counter({stage: own_s / whole for stage, own_s in by_stage.items()})
    return shares, [f"{place} {100 * own_s / whole:.0f} %" for place, own_s in by_place.most_common(COSTLIEST)]


def _stage(file: str) -> str:
    return next((name for name, parts in STAGES if any(part in file for part in parts)), "other")


BENCHMARK: Final = Benchmark(
    "pipeline",
    "What an answer costs by where it comes from, and where the time goes.",
    8,
    measure_pipeline,
    view_pipeline,
)
