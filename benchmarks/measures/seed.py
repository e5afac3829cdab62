"""The scenarios of the report that this project began with, beside the report's claims and the possible limits.

In one process, as in the report: the pipeline behind both tiers, with a real server for the second and a model that takes
95 ms. Each round begins with both tiers empty. A scenario's saving is counted against the same requests through the pipeline
without a cache.
"""

from __future__ import annotations

import gc
import itertools
import random
import statistics
import threading
import time
import tracemalloc
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from typing import Final, NamedTuple

import redis

from benchmarks.kit.compare import quantile
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer, expected_answer, reference_responder
from benchmarks.kit.requests import MODEL_DELAY_MS, RESONANCES, spread_over
from benchmarks.views.seed_view import view_seed
from pipeline.assembly import build_cache
from pipeline.models import PersonaRequest, PersonaResponse
from pipeline.optimized import OptimizedPipeline
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import load_catalog
from pipeline.responders import Responder, responder_from
from pipeline.settings import Settings, load_settings

AT_ONCE: Final = 10
L1_ENTRIES: Final = 1_000
USAGE_INPUTS: Final = 400  # with 1,000 requests by Zipf 1.0, at most three of four can be hits: where the report puts its own
CLAIMS: Final[dict[str, float]] = {
    "repeat50_saved_pct": 94,
    "patterns10_saved_pct": 88,
    "dashboard20_saved_pct": 96,
    "repetitive_hit_pct": 90,
    "varied_hit_pct": 50,
    "usage_hit_pct": 75,  # "70-80 %"
    "hit_ms": 2,  # "2-5 ms" in one place, "1-2 ms" in another
    "patterns10_mean_ms": 11.3,  # 1,130 ms for 100 requests
    "simultaneous10_ms": 100,
    "l1_1000_mb": 2.5,
    "l2_1000_mb": 10,
}


class Size(NamedTuple):
    """The size of the measurement. Scenarios whose saving is a figure are as large as the report's also when quick."""

    model_delay_ms: float
    rounds: int
    base_requests: int
    varied_requests: int
    usage_requests: int


FULL: Final = Size(MODEL_DELAY_MS, rounds=3, base_requests=50, varied_requests=100, usage_requests=1_000)
QUICK: Final = Size(20.0, rounds=1, base_requests=5, varied_requests=10, usage_requests=20)


class Scenario(NamedTuple):
    """One run of a scenario: the time of each request, and of those that were hits."""

    took_ms: tuple[float, ...]
    hits_ms: tuple[float, ...]
    requests: int
    kinds: int

    @property
    def total_ms(self) -> float:
        return sum(self.took_ms)

    def saved_pct(self, base_ms: float) -> float:
        """The saving, of the time that as many requests take without a cache, `base_ms` each."""
        return 100 * (1 - self.total_ms / (self.requests * base_ms))

    @property
    def hit_pct(self) -> float:
        return 100 * len(self.hits_ms) / self.requests

    @property
    def limit_pct(self) -> float:
        """The largest share that can be hits; the time saved if a hit cost nothing."""
        return 100 * (1 - self.kinds / self.requests)


def measure_seed(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures: `X`, the report's `claim_X`, and `limit_X`, the possible limit. Raises BenchmarkFailedError when an answer was
    wrong, or the model was called more often than there are kinds of requests."""
    size = QUICK if quick else FULL
    with Fleet(progress, nodes=0, children=0) as fleet, ModelServer(delay_ms=size.model_delay_ms) as model:
        settings = load_settings({**fleet.environment, **model.environment})
        bench = SeedRuns(settings, model)
        progress("seed: the model alone")
        base_ms = bench.base_ms(size.base_requests)
        progress("seed: 50 equal requests, 100 over 10 patterns, 1,000 over 20")
        repeat, patterns, dashboard = (
            [bench.run(requests) for _ in range(size.rounds)]
            for requests in (spread_over(50, 1), spread_over(100, 10), spread_over(1_000, 20))
        )
        progress("seed: varied requests, and requests as users might send them")
        varied = bench.run(spread_over(size.varied_requests, size.varied_requests // 2))
        usage = bench.run(as_users_might(size.usage_requests, random.Random(7)))  # noqa: S311 - the same requests each time
        progress(f"seed: {AT_ONCE} simultaneous requests")
        together = [bench.run_together(AT_ONCE) for _ in range(max(2, size.rounds))]
        progress(f"seed: the memory of {L1_ENTRIES} entries")
        memory = measure_memory(settings, fleet.settings.cache_url)
    hits_ms = [ms for scenario in (*repeat, *patterns, *dashboard) for ms in scenario.hits_ms]
    figures: Figures = {"model_ms": base_ms, "model_delay_ms": size.model_delay_ms, "hit_p99_ms": quantile(hits_ms, 0.99)}
    figures |= {"hit_ms": statistics.median(hits_ms), "limit_hit_ms": 0.0}
    for name, scenarios in (("repeat50", repeat), ("patterns10", patterns), ("dashboard20", dashboard)):
        saved = [scenario.saved_pct(base_ms) for scenario in scenarios]
        figures[f"{name}_saved_pct"] = statistics.median(saved)
        figures[f"{name}_saved_pct_low"], figures[f"{name}_saved_pct_high"] = min(saved), max(saved)
        figures[f"limit_{name}_saved_pct"] = scenarios[0].limit_pct
        figures[f"{name}_ms"] = statistics.median(scenario.total_ms for scenario in scenarios)
    figures["dashboard20_per_s"] = 1_000 / (figures["dashboard20_ms"] / 1_000)
    figures["patterns10_mean_ms"] = figures["patterns10_ms"] / 100
    figures["limit_patterns10_mean_ms"] = base_ms / 10
    for name, scenario in (("repetitive", patterns[0]), ("varied", varied), ("usage", usage)):
        figures[f"{name}_hit_pct"], figures[f"limit_{name}_hit_pct"] = scenario.hit_pct, scenario.limit_pct
    figures["usage_saved_s"] = (usage.requests * base_ms - usage.total_ms) / 1_000
    figures["simultaneous10_ms"] = statistics.median(together)
    figures["limit_simultaneous10_ms"] = base_ms
    return figures | memory | {f"claim_{name}": claim for name, claim in CLAIMS.items()}


def as_users_might(count: int, rng: random.Random) -> list[PersonaRequest]:
    """Few inputs are frequent and many are rare: Zipf 1.0 over USAGE_INPUTS. The report does not describe its users."""
    inputs = spread_over(USAGE_INPUTS, USAGE_INPUTS)
    return rng.choices(inputs, weights=[1 / rank for rank in range(1, USAGE_INPUTS + 1)], k=count)


class SeedRuns:
    """Runs scenarios, each with empty tiers, and judges every answer."""

    def __init__(self, settings: Settings, model: ModelServer) -> None:
        self._settings, self._model = settings, model
        self._responder = responder_from(settings)
        self._bare = PersonaPipeline(load_catalog(), self._responder)
        self._rounds = itertools.count()
        self._bare.process_request(spread_over(1, 1)[0])  # imports the client, opens the connection

    def base_ms(self, requests: int) -> float:
        """The median of one request without a cache."""
        return statistics.median(self._timed(self._bare.process_request, request)[0] for request in spread_over(requests, 10))

    def run(self, requests: Sequence[PersonaRequest]) -> Scenario:
        """One after the other."""
        with self._empty_pipeline() as pipeline, self._checked_calls(requests):
            answers = [self._timed(pipeline.process_request, request) for request in requests]
        hits_ms = tuple(ms for ms, answer in answers if answer.cached != "no")
        return Scenario(tuple(ms for ms, _ in answers), hits_ms, len(requests), len(set(requests)))

    def run_together(self, count: int) -> float:
        """Equal requests from as many threads, released at once: the time until the last has its answer, in ms."""
        requests = spread_over(count, 1)
        barrier = threading.Barrier(count + 1)

        with self._empty_pipeline() as pipeline, self._checked_calls(requests), ThreadPoolExecutor(count) as threads:

            def ask(request: PersonaRequest) -> tuple[float, PersonaResponse]:
                barrier.wait()
                answer = pipeline.process_request(request)
                return time.perf_counter(), answer

            asked = [threads.submit(ask, request) for request in requests]
            barrier.wait()
            began_s = time.perf_counter()
            answers = [future.result() for future in asked]
        for request, (_, answer) in zip(requests, answers, strict=True):
            self._check(request, answer)
        return (max(ended_s for ended_s, _ in answers) - began_s) * 1000

    def _timed(self, ask: Callable[[PersonaRequest], PersonaResponse], request: PersonaRequest) -> tuple[float, PersonaResponse]:
        began_s = time.perf_counter()
        answer = ask(request)
        took_ms = (time.perf_counter() - began_s) * 1000
        self._check(request, answer)
        return took_ms, answer

    def _check(self, request: PersonaRequest, answer: PersonaResponse) -> None:
        if answer.content != expected_answer(request):
            raise BenchmarkFailedError([f"a wrong answer to {request.user_input!r}"])

    def _empty_pipeline(self) -> AbstractContextManager[OptimizedPipeline]:
        return empty_pipeline(self._settings, self._responder, next(self._rounds))

    @contextmanager
    def _checked_calls(self, requests: Sequence[PersonaRequest]) -> Iterator[None]:
        """One call of the model for each kind of request: no answer was made up, and none computed twice."""
        kinds, before = len(set(requests)), self._model.calls
        yield
        calls = self._model.calls - before
        if calls != kinds:
            raise BenchmarkFailedError([f"{len(requests)} requests of {kinds} kinds took {calls} calls of the model"])


@contextmanager
def empty_pipeline(settings: Settings, responder: Responder, number: int) -> Iterator[OptimizedPipeline]:
    """A pipeline whose tiers hold nothing yet; `number` makes its keys in Redis its own."""
    own = settings.model_copy(update={"cache_namespace": f"seed{number}"})
    pipeline = OptimizedPipeline(PersonaPipeline(load_catalog(), responder), build_cache(own))
    try:
        pipeline.cache.get("bench:warm-up", None)  # connects, and loads the log: a scenario begins in a running program
        yield pipeline
    finally:
        pipeline.close()


def measure_memory(settings: Settings, cache_url: str) -> Figures:
    """The memory of a full L1 in this process, and of the same entries in the server. The limit: their answers' bytes.

    Answers of some 700 characters, all different. Its time is not measured: the tracing makes everything slow.
    """
    requests = spread_over(L1_ENTRIES, L1_ENTRIES)
    with redis.Redis.from_url(cache_url) as server, empty_pipeline(settings, reference_responder(), -1) as pipeline:
        pipeline.process_request(PersonaRequest.create("Warm up: this one is the first to go.", RESONANCES[0]))
        kept, content_bytes = 0, 0
        gc.collect()
        server_before = int(server.info("memory")["used_memory"])
        tracemalloc.start()
        try:
            before = tracemalloc.get_traced_memory()[0]
            for request in requests:
                answer = pipeline.process_request(request)
                content_bytes += len(answer.content.encode())
            del answer
            gc.collect()
            kept = tracemalloc.get_traced_memory()[0] - before
        finally:
            tracemalloc.stop()
        server_kept = int(server.info("memory")["used_memory"]) - server_before
        held = pipeline.cache.l1.get_stats()["size"]
    if held != L1_ENTRIES:
        raise BenchmarkFailedError([f"L1 holds {held} entries, not {L1_ENTRIES}"])
    return {
        "l1_1000_mb": kept / 1e6,
        "limit_l1_1000_mb": content_bytes / 1e6,
        "l2_1000_mb": server_kept / 1e6,
        "limit_l2_1000_mb": content_bytes / 1e6,
    }


BENCHMARK: Final = Benchmark(
    "seed",
    "The scenarios of the report that this project began with, beside what it claims and what is possible.",
    1,
    measure_seed,
    view_seed,
)
