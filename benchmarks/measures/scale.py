"""What grows with the number of processes: throughput, the idle commands on Redis, and the time of an invalidation.

Two curves. Worker processes: nodes of one pool child each, which is the dearest way to have that many. Reading processes:
programs that are no node and read through a cache of their own: each with a listener; by the lease alone; as children of one
parent that follows the log for them; and, as the floor, processes that have no cache and only ask the server once.
"""

from __future__ import annotations

import random
import sys
import time
from collections.abc import Callable, Sequence
from contextlib import ExitStack, closing
from types import TracebackType
from typing import Any, Final, NamedTuple, Self

import redis

from benchmarks.kit.bare import BARE_KEY
from benchmarks.kit.board import Board
from benchmarks.kit.compare import quantile, scaling, slope
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.drain import Drain
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer, expected_answer
from benchmarks.kit.reach import Moment, reach_figures
from benchmarks.kit.readers import READS_A_NOTE
from benchmarks.kit.requests import MODEL_DELAY_MS, spread_over
from benchmarks.kit.routes import PROBE_KEY, PROCESS_TASK
from benchmarks.views.scale_view import view_scale
from pipeline.cache.coherence.node import QUIET_S
from pipeline.settings import Settings
from workers.client import PersonaClient
from workers.queue.factory import make_app

WORKERS: Final = (1, 2, 4, 8, 16)
READERS: Final = (1, 4, 16, 64)
KINDS: Final = 20
WAYS: Final = {"listening": "readers", "deaf": "deaf", "shared": "shared", "bare": "bare"}
"""How the reading processes learn of an invalidation, and what their figures begin with. The bare ones have no cache: they are
the floor, what it costs so many processes to be told and to ask the server once."""
NAP_S: Final = 0.005  # between two reads of a calm reader
APPLIED_WITHIN_S: Final = 5.0
SETTLE_S: Final = 0.5
READERS_TIMEOUT_S: Final = 30.0
STOP_S: Final = 10.0


class Size(NamedTuple):
    """The size of the measurement, for each number of processes."""

    workers: tuple[int, ...]
    readers: tuple[int, ...]
    quiet_s: float
    """In full: until nodes take themselves for idle."""
    idle_s: float
    """In full: long enough to count once what a process does every 15 seconds at the longest."""
    busy_s: float
    hits: int
    misses_a_worker: int
    invalidations: int
    stale_rounds: int
    heard_rounds: int


FULL: Final = Size(
    WORKERS,
    READERS,
    quiet_s=QUIET_S + SETTLE_S,
    idle_s=15.0,
    busy_s=1.5,
    hits=500,
    misses_a_worker=15,
    invalidations=60,
    stale_rounds=4,
    heard_rounds=20,
)
QUICK: Final = Size(
    (1, 2),
    (2,),
    quiet_s=SETTLE_S,
    idle_s=0.3,
    busy_s=0.2,
    hits=40,
    misses_a_worker=2,
    invalidations=5,
    stale_rounds=1,
    heard_rounds=2,
)


def measure_scale(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when an answer was wrong, a node did not apply an invalidation, or a reader
    served a stale version beyond the bound."""
    size = QUICK if quick else FULL
    figures: Figures = {}
    with (
        ModelServer(delay_ms=MODEL_DELAY_MS) as model,
        Fleet(progress, nodes=0, children=1, environ=model.environment) as fleet,
    ):
        for workers in size.workers:
            fleet.add_nodes(workers - fleet.nodes)
            progress(f"scale: {workers} worker processes")
            measured = _measure_workers(fleet, size)
            figures |= {f"workers{workers}_{name}": number for name, number in measured.items()}
        fleet.stop_nodes()
        for readers in size.readers:
            for way, prefix in WAYS.items():
                progress(f"scale: {readers} reading processes, {way}")
                measured = _measure_readers(fleet, readers, size, way)
                figures |= {f"{prefix}{readers}_{name}": number for name, number in measured.items()}
    return figures | slopes(figures, size.workers, size.readers)


def slopes(figures: Figures, workers: Sequence[int], readers: Sequence[int]) -> Figures:
    """The cost of one process more, and for throughput the exponent: 1 if twice the processes do twice the work."""

    def points(pattern: str, sizes: Sequence[int]) -> list[tuple[float, float]]:
        return [(size, figures[pattern.format(size)]) for size in sizes]

    return {
        "workers_miss_exponent": scaling(points("workers{}_miss_per_s", workers)),
        "workers_hit_exponent": scaling(points("workers{}_hit_per_s", workers)),
        "workers_idle_cache_commands_per_s_slope": slope(points("workers{}_idle_cache_commands_per_s", workers)),
        "workers_idle_broker_commands_per_s_slope": slope(points("workers{}_idle_broker_commands_per_s", workers)),
        "workers_invalidate_p50_ms_slope": slope(points("workers{}_invalidate_p50_ms", workers)),
        "readers_read_exponent": scaling(points("readers{}_reads_per_s", readers)),
        "readers_cache_commands_per_s_slope": slope(points("readers{}_cache_commands_per_s", readers)),
        "readers_invalidate_p50_ms_slope": slope(points("readers{}_invalidate_p50_ms", readers)),
    }


# -- worker processes


def _measure_workers(fleet: Fleet, size: Size) -> Figures:
    with (
        closing(make_app(fleet.settings)) as app,
        closing(Drain(app, fleet.settings)) as drain,
        PersonaClient(fleet.settings) as client,
    ):
        figures = _measure_throughput(drain, fleet.nodes, size)
        figures |= _measure_invalidation(client, fleet.nodes, size.invalidations)
        time.sleep(size.quiet_s)
        idle = _commands_per_s(fleet.settings, size.idle_s)
    figures |= {f"idle_{server}_commands_per_s": per_s for server, per_s in idle.items()}
    return figures | {f"idle_{server}_commands_per_s_node": per_s / fleet.nodes for server, per_s in idle.items()}


def _measure_throughput(drain: Drain, workers: int, size: Size) -> Figures:
    requests = spread_over(KINDS, KINDS)
    contents = {request.user_input: expected_answer(request) for request in requests}
    cached = [request.to_wire() for request in requests]
    computed = [{**wire, "use_cache": False} for wire in cached]

    def right(wire: Any, result: Any) -> bool:
        return bool(result["content"] == contents[wire["user_input"]])

    def hit(wire: Any, result: Any) -> bool:
        return right(wire, result) and result["cached"] in ("l1", "l2")

    drain.per_s(PROCESS_TASK, cached, KINDS + workers * 10, right)  # the warm-up: now all are in L2, and each worker has begun
    return {
        "miss_per_s": drain.per_s(PROCESS_TASK, computed, workers * size.misses_a_worker, right),
        "hit_per_s": drain.per_s(PROCESS_TASK, cached, size.hits, hit),
    }


def _measure_invalidation(client: PersonaClient, nodes: int, count: int) -> Figures:
    """From before the call until every node has acknowledged that it serves nothing older."""
    took_ms = []
    for number in range(count):
        began_s = time.perf_counter()
        made = client.invalidate(f"{PROBE_KEY}:{number % 10}", wait_s=APPLIED_WITHIN_S)
        took_ms.append((time.perf_counter() - began_s) * 1000)
        if not made.durable or made.silent or len(made.applied) != nodes:
            raise BenchmarkFailedError([f"an invalidation was applied by {len(made.applied)} of {nodes} nodes: {made}"])
    return {"invalidate_p50_ms": quantile(took_ms, 0.5), "invalidate_p99_ms": quantile(took_ms, 0.99)}


def _commands_per_s(settings: Settings, during_s: float) -> dict[str, float]:
    """The commands of all clients together, except this one's question. By server."""
    per_s = {}
    with ExitStack() as resources:
        servers = {
            name: resources.enter_context(redis.Redis.from_url(url))
            for name, url in (("cache", settings.cache_url), ("broker", settings.broker_url))
        }
        before = {name: _commands(server) for name, server in servers.items()}
        began_s = time.monotonic()
        time.sleep(during_s)
        for name, server in servers.items():
            counted = _commands(server) - before[name] - 1  # the question itself
            per_s[name] = max(0, counted) / (time.monotonic() - began_s)
    return per_s


def _commands(server: redis.Redis) -> int:
    return int(server.info("stats")["total_commands_processed"])


# -- reading processes


def _measure_readers(fleet: Fleet, readers: int, size: Size, way: str) -> Figures:
    throughput = {}
    if way == "listening":
        with _Readers(fleet, readers, way, nap_s=0.0, versions=1) as busy:
            time.sleep(size.busy_s)
            throughput = {"reads_per_s": busy.reads_per_s()}
    rounds = size.stale_rounds if way == "deaf" else size.heard_rounds
    with _Readers(fleet, readers, way, nap_s=NAP_S, versions=rounds) as calm, PersonaClient(fleet.settings) as client:
        time.sleep(SETTLE_S)
        commands_per_s = _commands_per_s(fleet.settings, size.idle_s)["cache"]
        figures = calm.invalidate(client, rounds)
    return {
        **throughput,
        "cache_commands_per_s": commands_per_s,
        "cache_commands_per_s_process": commands_per_s / readers,
        **figures,
    }


class _Readers:
    """Processes that read the probe, from `__enter__` to `__exit__`; when it begins, each has read."""

    def __init__(self, fleet: Fleet, count: int, way: str, *, nap_s: float, versions: int) -> None:
        self._fleet, self._count, self._way, self._nap_s, self._versions = fleet, count, way, nap_s, versions

    def __enter__(self) -> Self:
        path = self._fleet.new_file(f"readers{self._count}-{self._way}-{self._nap_s:g}")
        self._board = Board.create(path, children=self._count, versions=self._versions)
        self._set_bare(0)
        with PersonaClient(self._fleet.settings) as client:
            client.invalidate(PROBE_KEY)  # other readers, of another board, left it in L2
        command = [sys.executable, "-m", "benchmarks.kit.readers", str(path), "--way", self._way, "--nap-s", str(self._nap_s)]
        self._process = self._fleet.start(path.name, command)
        self._await(lambda: all(map(self._board.occupant, range(self._count))), "every reader has read")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._board.stopped = True
        self._process.wait(STOP_S)
        self._process.kill()
        self._board.close()

    def reads_per_s(self) -> float:
        """Of all together, by each reader's count since its first note."""
        return sum(READS_A_NOTE / (self._board.mean_interval_ns(reader) / 1e9) for reader in range(self._count))

    def invalidate(self, client: PersonaClient, rounds: int) -> Figures:
        """The time until a reader serves the new version."""
        moments: list[Moment] = []
        latencies_ms: list[float] = []
        for version in range(1, rounds + 1):
            # At any moment of the readers' leases, which all began anew when they read the version before.
            time.sleep(random.uniform(0, self._fleet.settings.staleness_bound_s))  # noqa: S311 - guards nothing
            self._set_bare(version)
            asked_ns = time.monotonic_ns()
            self._board.source = version
            client.invalidate(PROBE_KEY)
            moments.append(Moment(asked_ns, time.monotonic_ns()))
            self._await(lambda: all(self._served(version)), f"every reader serves version {version}")  # noqa: B023 - at once
            latencies_ms += [(served_ns - asked_ns) / 1e6 for served_ns in self._served(version)]
        reach = reach_figures(self._board, moments, 0, self._fleet.settings.staleness_bound_s)
        if reach["stale_beyond_bound"]:
            raise BenchmarkFailedError([f"{reach['stale_beyond_bound']:g} times a reader served what was stale beyond the bound"])
        return {
            "invalidate_p50_ms": quantile(latencies_ms, 0.5),
            "invalidate_p99_ms": quantile(latencies_ms, 0.99),
            "invalidate_max_ms": max(latencies_ms),
            "most_stale_ms": reach["most_stale_ms"],
        }

    def _set_bare(self, version: int) -> None:
        """What the bare processes read. They hear of it as the others do."""
        if self._way == "bare":
            with redis.Redis.from_url(self._fleet.settings.cache_url) as server:
                server.set(BARE_KEY, version)

    def _served(self, version: int) -> list[int]:
        return [self._board.first_served_ns(reader, version) for reader in range(self._count)]

    def _await(self, condition: Callable[[], bool], what: str) -> None:
        def met() -> bool:
            if self._process.exit_code is not None:
                said = self._process.log.read_text(encoding="utf-8", errors="replace").splitlines()[-5:]
                raise BenchmarkFailedError([f"the readers ended with {self._process.exit_code}:", *said])
            return condition()

        self._fleet.await_(met, what, timeout_s=READERS_TIMEOUT_S)


BENCHMARK: Final = Benchmark(
    "scale",
    "What grows with the number of processes: throughput, idle commands on Redis, the time of an invalidation.",
    5,
    measure_scale,
    view_scale,
)
