"""What traces cost: hits and misses through the queue with them on and off, a hit of L1, and a span by itself.

Three nodes of two processes, each with servers of its own: without OpenTelemetry, with it and PERSONA_TRACES off, and with it
on. Each works off the same full queue, in turn. The last two do it twice: for callers that are not traced, of whose hits a
hundred a second are told, and for callers that are, of whose requests every one is.
"""

from __future__ import annotations

import itertools
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Mapping
from contextlib import ExitStack, closing
from pathlib import Path
from typing import Any, Final, NamedTuple, Self
from uuid import uuid4

import msgspec
from celery import Celery

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.drain import Drain
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.nodes import own_environment
from benchmarks.kit.processor import cpu_s_of
from benchmarks.kit.requests import spread_over
from benchmarks.kit.routes import PROCESS_TASK
from benchmarks.kit.spans import SpanSink, hide_opentelemetry
from benchmarks.kit.turns import in_turn
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.flight.watching import Watcher
from pipeline.models import PersonaRequest
from pipeline.settings import Settings
from pipeline.tracing.context import Place
from pipeline.tracing.process import check_extra
from pipeline.tracing.sending import EVERY_S
from pipeline.tracing.spans import Tracer, Unit
from workers.queue.factory import make_app
from workers.queue.reach import bound_waits, close_results

PROCESSES: Final = 2
KINDS: Final = 20
HITS_A_ROUND: Final = 100_000
UNITS_A_ROUND: Final = 300
STEPS: Final = 10
"""As many spans as a miss has in its child."""
TRACEPARENT: Final = f"00-{'a1' * 16}-{'b2' * 8}-01"
NAMESPACE: Final = "tracing-bench"


class Size(NamedTuple):
    """The size of the measurement."""

    warm_up: int
    hits: int
    misses: int
    rounds: int
    call_rounds: int
    settle_s: float
    """After each turn: what a node then sends of its spans is that turn's, too."""


FULL: Final = Size(warm_up=400, hits=3_000, misses=200, rounds=9, call_rounds=20, settle_s=2 * EVERY_S)
QUICK: Final = Size(warm_up=40, hits=60, misses=10, rounds=1, call_rounds=1, settle_s=0.0)


def measure_tracing(progress: Progress, *, quick: bool = False) -> Measured:
    """The figures. Raises BenchmarkFailedError when an answer was wrong, or spans came from where they are off, or none from
    where they are on."""
    check_extra()
    size = QUICK if quick else FULL
    with tempfile.TemporaryDirectory() as folder, SpanSink() as sink, ModelServer(delay_ms=0) as model, ExitStack() as stack:
        path = os.pathsep.join([str(hide_opentelemetry(Path(folder))), own_environment()["PYTHONPATH"]])

        def fleet(environ: Mapping[str, str]) -> Fleet:
            return stack.enter_context(Fleet(progress, nodes=1, children=PROCESSES, environ={**model.environment, **environ}))

        without, off = fleet({"PYTHONPATH": path}), fleet({})
        on = fleet(sink.environ)
        sides = {
            "without": stack.enter_context(Side(without)),
            "off": stack.enter_context(Side(off)),
            "traced_off": stack.enter_context(Side(off, {"traceparent": TRACEPARENT})),
            "on": stack.enter_context(Side(on)),
            "traced_on": stack.enter_context(Side(on, {"traceparent": TRACEPARENT})),
        }
        progress("tracing: hits through the queue, in turn")
        for side in sides.values():
            side.work_off_hits(size.warm_up)
        if sink.bytes == 0:
            on.await_(lambda: sink.bytes > 0, "spans have come", timeout_s=10)
        hits = _in_turn(sides, size.rounds, lambda side: side.spent(side.work_off_hits, size.hits, size.settle_s))
        progress("tracing: misses through the queue, in turn")
        misses = _in_turn(sides, size.rounds, lambda side: side.spent(side.work_off_misses, size.misses, size.settle_s))
        settings = off.settings
        for each in (without, off, on):
            each.stop_nodes()
        figures: Figures = {}
        for what, spent in (("hit", hits), ("miss", misses)):
            rates = {name: [each.per_s for each in rounds] for name, rounds in spent.items()}
            cpu_us = {name: [each.cpu_us for each in rounds] for name, rounds in spent.items()}
            figures |= {f"{name}_{what}_per_s": statistics.median(rates[name]) for name in sides}
            figures |= {f"{name}_{what}_cpu_us": statistics.median(cpu_us[name]) for name in sides}
            for name, other in (("off", "without"), ("on", "off"), ("traced_on", "traced_off")):
                figures |= ratio_of_medians(rates[name], rates[other]).figures(f"{name}_to_{other}_{what}_ratio")
                figures |= ratio_of_medians(cpu_us[name], cpu_us[other]).figures(f"{name}_to_{other}_{what}_cpu_ratio")
        progress("tracing: a hit of L1, and a span")
        spans, notes = _measure_spans(size.call_rounds)
        return Measured(figures | _measure_hit(settings, size.call_rounds) | spans, notes)


class Spent(NamedTuple):
    """What one turn took: requests a second, and the processor time of a request, of all of the node's processes."""

    per_s: float
    cpu_us: float


class Side:
    """One of the nodes, for callers of one sort."""

    _numbers = itertools.count()

    def __init__(self, fleet: Fleet, headers: Mapping[str, str] | None = None) -> None:
        self._app = make_app(fleet.settings)
        (self._pid,) = fleet.pids
        self._drain = Drain(_Sending(self._app, headers or {}), fleet.settings)
        self._wires = [request.to_wire() for request in spread_over(KINDS, KINDS)]

    def __enter__(self) -> Self:
        bound_waits(self._app)
        self._drain.per_s(PROCESS_TASK, self._wires, KINDS, lambda _, result: "content" in result)
        return self

    def __exit__(self, *_: object) -> None:
        self._drain.close()
        close_results(self._app)
        self._app.close()

    def work_off_hits(self, count: int) -> float:
        return self._drain.per_s(PROCESS_TASK, self._wires, count, lambda _, result: result["cached"] in ("l1", "l2"))

    def work_off_misses(self, count: int) -> float:
        wires = [
            PersonaRequest.create(f"What does miss {next(self._numbers)} cost?", "calm-flowing-planning").to_wire()
            for _ in range(count)
        ]
        return self._drain.per_s(PROCESS_TASK, wires, count, lambda _, result: result["cached"] == "no")

    def spent(self, work: Callable[[int], float], count: int, settle_s: float) -> Spent:
        began_s = cpu_s_of(self._pid)
        per_s = work(count)
        time.sleep(settle_s)
        return Spent(per_s, (cpu_s_of(self._pid) - began_s) / count * 1e6)


class _Sending:
    """That app, whose messages bear these headers."""

    def __init__(self, app: Celery, headers: Mapping[str, str]) -> None:
        self._app, self._headers = app, headers

    def send_task(self, name: str, **options: Any) -> Any:
        return self._app.send_task(name, headers=dict(self._headers), **options)


def _in_turn(sides: Mapping[str, Side], rounds: int, work: Callable[[Side], Spent]) -> dict[str, list[Spent]]:
    spent: dict[str, list[Spent]] = {name: [] for name in sides}
    names = list(sides)
    for number in range(rounds):
        for name in names[number % len(names) :] + names[: number % len(names)]:
            spent[name].append(work(sides[name]))
    return spent


def _measure_hit(settings: Settings, rounds: int) -> Figures:
    """A `get` that L1 answers, of a cache that is watched and of one that is not."""
    tracer = Tracer(lambda _: None, samples=lambda _: True)

    def cache(watcher: Watcher | None) -> TwoTierCache:
        l2 = RedisCache(url=settings.cache_url, namespace=NAMESPACE)
        return TwoTierCache(LocalCache(1000), l2, staleness_bound_s=60.0, watcher=watcher)

    with closing(cache(tracer)) as watched, closing(cache(None)) as bare:
        for each in (watched, bare):
            each.set("key", "value")

        def hits(each: TwoTierCache) -> float:
            each.refresh()
            get, turns = each.get, itertools.repeat(None, HITS_A_ROUND)
            began_ns = time.thread_time_ns()
            for _ in turns:
                get("key")
            return (time.thread_time_ns() - began_ns) / HITS_A_ROUND

        took = in_turn({"on_l1_ns": lambda: hits(watched), "off_l1_ns": lambda: hits(bare)}, rounds)
    return {name: statistics.median(ns) for name, ns in took.items()}


def _measure_spans(rounds: int) -> tuple[Figures, tuple[str, ...]]:
    """A span, recorded and written as OTLP; by the SDK, too, if it is here. And both spans of a hit at the door."""
    from pipeline.tracing.stencil import written
    from workers.node.tracing.door import spans_of_hits

    units: list[Unit] = []
    encoder = msgspec.msgpack.Encoder()
    tracer = Tracer(units.append, samples=lambda _: True)

    def ours() -> float:
        began_ns = time.thread_time_ns()
        for _ in range(UNITS_A_ROUND):
            with tracer.unit("outer", Place(1, 2), "consumer") as step:
                step.note("persona.source", "no")
                for _ in range(STEPS - 1):
                    with tracer.step("inner") as inner:
                        inner.note("persona.source", "no")
            written(units.pop())
        return (time.thread_time_ns() - began_ns) / (UNITS_A_ROUND * STEPS)

    def hits() -> float:
        noted = encoder.encode((1, 2, [(str(uuid4()), TRACEPARENT, "l1", time.time())] * UNITS_A_ROUND))
        began_ns = time.thread_time_ns()
        spans_of_hits(noted)
        return (time.thread_time_ns() - began_ns) / UNITS_A_ROUND

    batches = {"span_ns": ours, "hit_spans_ns": hits}
    notes: tuple[str, ...] = ()
    try:
        from opentelemetry.exporter.otlp.proto.common.trace_encoder import encode_spans
        from opentelemetry.sdk.trace import ReadableSpan, SpanProcessor, TracerProvider
    except ModuleNotFoundError:
        notes = ("the SDK is not installed and left out (`make bench` installs it)",)
    else:
        ended: list[ReadableSpan] = []

        class Kept(SpanProcessor):
            def on_end(self, span: ReadableSpan) -> None:
                ended.append(span)

        provider = TracerProvider()
        provider.add_span_processor(Kept())
        sdk = provider.get_tracer("benchmarks")

        def theirs() -> float:
            began_ns = time.thread_time_ns()
            for _ in range(UNITS_A_ROUND):
                with sdk.start_as_current_span("outer", attributes={"persona.source": "no"}):
                    for _ in range(STEPS - 1):
                        with sdk.start_as_current_span("inner", attributes={"persona.source": "no"}):
                            pass
                encode_spans(ended).SerializeToString()
                ended.clear()
            return (time.thread_time_ns() - began_ns) / (UNITS_A_ROUND * STEPS)

        batches["sdk_span_ns"] = theirs
    return {name: statistics.median(ns) for name, ns in in_turn(batches, rounds).items()}, notes


BENCHMARK: Final = Benchmark(
    "tracing",
    "What traces cost: throughput with them on, off, and without OpenTelemetry; a hit of L1; and a span beside the SDK's.",
    17,
    measure_tracing,
)
