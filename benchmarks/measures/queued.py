"""The cost of the queue: `persona.process` on a hit beside a Celery task that does nothing, and beside what a user might pick
instead.

Throughput: two processes (or eight threads) work off a full queue, and no caller waits for the results meanwhile.
Round trip: a program sends one request, waits for its answer, and sends the next.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from typing import Any, Final, NamedTuple
from urllib.parse import urlsplit

import redis
from celery import Celery

from benchmarks.kit.compare import quantile, ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.drain import Drain
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.model_server import ModelServer, expected_answer, expected_response
from benchmarks.kit.nodes import own_environment
from benchmarks.kit.requests import spread_over
from benchmarks.kit.routes import BARE_TASK, PROCESS_TASK
from benchmarks.peers import PEERS, WORKER_PROCESSES, installed
from benchmarks.peers.plain import CACHE_URL, QUEUE_URL, RESULT_URL, keep
from benchmarks.views.queued_view import view_queue
from pipeline.models import PersonaRequest
from workers.client import QUEUE, PersonaClient
from workers.queue.factory import make_app
from workers.queue.reach import bound_waits, close_results
from workers.stack.processes import ChildProcess

APP: Final = "benchmarks.kit.queue_app"
THREADS: Final = 8
KINDS: Final = 20
TASK_TIMEOUT_S: Final = 10.0
PEER_TIMEOUT_S: Final = 60.0
STOP_S: Final = 5.0
QUEUE_DATABASE, RESULT_DATABASE, CACHE_DATABASE = 2, 3, 2  # of the peers, apart from the node's own


class Size(NamedTuple):
    """The size of the measurement."""

    warm_up: int
    hits: int
    tasks: int
    rounds: int
    trips: int
    peer_rounds: int
    peer_tasks_share: float
    peer_trips: int
    peer_trips_s: float
    slow_tasks: int
    slow_ms: float


FULL: Final = Size(
    warm_up=200,
    hits=6_000,
    tasks=600,
    rounds=5,
    trips=300,
    peer_rounds=3,
    peer_tasks_share=1.0,
    peer_trips=100,
    peer_trips_s=2.0,
    slow_tasks=12,
    slow_ms=2_000,
)
QUICK: Final = Size(
    warm_up=40,
    hits=200,
    tasks=40,
    rounds=1,
    trips=5,
    peer_rounds=1,
    peer_tasks_share=0.02,
    peer_trips=3,
    peer_trips_s=0.2,
    slow_tasks=3,
    slow_ms=300,
)
QUICK_PEERS: Final = ("dramatiq",)  # each takes seconds to start


class _Asked(NamedTuple):
    """The requests of everything in this benchmark, and their right answers."""

    wires: tuple[dict[str, Any], ...]
    contents: Mapping[str, str]

    def hit(self, wire: Mapping[str, Any], result: Any) -> bool:
        """Whether the result is the right answer, and from a cache."""
        return bool(result["content"] == self.contents[wire["user_input"]] and result["cached"] in ("l1", "l2"))


def measure_queue(progress: Progress, *, quick: bool = False) -> Measured:
    """The figures. Raises BenchmarkFailedError when an answer was wrong, or one that had to be a hit was computed."""
    size = QUICK if quick else FULL
    requests = spread_over(KINDS, KINDS)
    asked = _Asked(
        tuple(request.to_wire() for request in requests),
        {request.user_input: expected_answer(request) for request in requests},
    )
    figures: Figures = {}
    with ModelServer(delay_ms=0) as model:
        with Fleet(progress, nodes=1, children=WORKER_PROCESSES, app=APP, environ=model.environment) as fleet:
            progress("queue: hits beside a task that does nothing, in a pool of processes")
            figures |= _measure_node(fleet, asked, size)
            peers, notes = _measure_peers(fleet, asked, size, progress, QUICK_PEERS if quick else tuple(PEERS))
            figures |= peers
        with Fleet(progress, nodes=1, children=THREADS, pool="threads", app=APP, environ=model.environment) as fleet:
            progress("queue: the same in a pool of threads")
            of_threads = _measure_node(fleet, asked, size)
        # Two fleets with empty caches, which compute nothing but the first request of each kind.
        if model.calls != 2 * KINDS:
            raise BenchmarkFailedError([f"the model was called {model.calls} times for {2 * KINDS} misses"])
    figures |= {f"threads_{name}": number for name, number in of_threads.items()}
    return Measured(figures | _measure_mixed(asked, size, progress), notes)


def _measure_node(fleet: Fleet, asked: _Asked, size: Size) -> Figures:
    """Throughput in rounds, hits and nothing in turn; then round trips, in turn as well."""
    hits, bare = [], []
    with closing(make_app(fleet.settings)) as app, closing(Drain(app, fleet.settings)) as drain:
        bound_waits(app)
        try:
            _warm_up(app, drain, asked, size)
            for _ in range(size.rounds):
                hits.append(drain.per_s(PROCESS_TASK, asked.wires, size.hits, asked.hit))
                bare.append(drain.per_s(BARE_TASK, asked.wires, size.tasks, _nothing_done))
            hit_ms, bare_ms = _round_trips(app, asked, size.trips)
        finally:
            close_results(app)
    with PersonaClient(fleet.settings) as client:
        client_ms = [_ask(client, wire, asked) for wire in _turns(asked, size.trips)]
    figures = {"hit_per_s": statistics.median(hits), "bare_per_s": statistics.median(bare)}
    figures |= ratio_of_medians(hits, bare).figures("hit_to_bare_ratio")
    for name, times_ms in (("hit", hit_ms), ("bare", bare_ms), ("client_hit", client_ms)):
        figures |= {f"{name}_p50_ms": quantile(times_ms, 0.5), f"{name}_p99_ms": quantile(times_ms, 0.99)}
    return figures


def _measure_mixed(asked: _Asked, size: Size, progress: Progress) -> Figures:
    """Hits, one after another, while slow misses fill all slots and wait for them."""
    with (
        ModelServer(delay_ms=size.slow_ms) as model,
        Fleet(progress, nodes=1, children=WORKER_PROCESSES, app=APP, environ=model.environment) as fleet,
        closing(make_app(fleet.settings)) as app,
    ):
        progress(f"queue: hits while {size.slow_tasks} misses of {size.slow_ms:g} ms wait for {WORKER_PROCESSES} processes")
        bound_waits(app)
        try:
            for result in [app.send_task(PROCESS_TASK, args=[wire], queue=QUEUE) for wire in asked.wires]:
                result.get(timeout=KINDS * size.slow_ms / 1000 + TASK_TIMEOUT_S)
            slow = spread_over(size.slow_tasks, size.slow_tasks)
            wires = [request.to_wire() | {"user_input": f"Slowly: {request.user_input}"} for request in slow]
            began_s = time.perf_counter()
            misses = [app.send_task(PROCESS_TASK, args=[wire], queue=QUEUE) for wire in wires]
            took_ms = []
            turns = itertools.cycle(asked.wires)
            while not all(miss.ready() for miss in misses):
                wire = next(turns)
                sent_s = time.perf_counter()
                result = _send(app, PROCESS_TASK, wire)
                took_ms.append((time.perf_counter() - sent_s) * 1000)
                if not asked.hit(wire, result):
                    raise BenchmarkFailedError([f"a wrong answer, or no hit: {str(result)[:200]}"])
            ended_s = time.perf_counter() - began_s
        finally:
            close_results(app)
    least_s = -(-size.slow_tasks // WORKER_PROCESSES) * size.slow_ms / 1000
    return {
        "mixed_hit_p50_ms": quantile(took_ms, 0.5),
        "mixed_hit_p99_ms": quantile(took_ms, 0.99),
        "mixed_hits": len(took_ms),
        "mixed_misses": len(misses),
        "mixed_misses_s": ended_s,
        "mixed_misses_least_s": least_s,
    }


def _warm_up(app: Celery, drain: Drain, asked: _Asked, size: Size) -> None:
    """One request of each kind, alone, is computed; then every process has each of them in its L1."""
    for wire in asked.wires:
        if (content := _send(app, PROCESS_TASK, wire)["content"]) != asked.contents[wire["user_input"]]:
            raise BenchmarkFailedError([f"a wrong answer to {wire['user_input']!r}: {content[:60]!r}"])
    drain.per_s(PROCESS_TASK, asked.wires, size.warm_up, asked.hit)
    drain.per_s(BARE_TASK, asked.wires, size.warm_up, _nothing_done)


def _round_trips(app: Celery, asked: _Asked, count: int) -> tuple[list[float], list[float]]:
    took_ms: dict[str, list[float]] = {PROCESS_TASK: [], BARE_TASK: []}
    for wire in _turns(asked, count):
        for task, times_ms in took_ms.items():
            began_s = time.perf_counter()
            result = _send(app, task, wire)
            times_ms.append((time.perf_counter() - began_s) * 1000)
            if task == PROCESS_TASK and not asked.hit(wire, result):
                raise BenchmarkFailedError([f"a wrong answer, or no hit: {str(result)[:200]}"])
    return took_ms[PROCESS_TASK], took_ms[BARE_TASK]


def _send(app: Celery, task: str, wire: Mapping[str, Any]) -> Any:
    return app.send_task(task, args=[wire], queue=QUEUE).get(timeout=TASK_TIMEOUT_S)


def _ask(client: PersonaClient, wire: Mapping[str, Any], asked: _Asked) -> float:
    """Send a request through this project's own client, which chooses its way."""
    began_s = time.perf_counter()
    answer = client.ask(wire["user_input"], wire["resonance_key"])
    took_ms = (time.perf_counter() - began_s) * 1000
    if not asked.hit(wire, answer.to_wire()):
        raise BenchmarkFailedError([f"the client's answer is wrong, or no hit: {answer.cached}, {answer.content[:60]!r}"])
    return took_ms


def _turns(asked: _Asked, count: int) -> Iterator[dict[str, Any]]:
    return itertools.islice(itertools.cycle(asked.wires), count)


def _nothing_done(_wire: Mapping[str, Any], result: Any) -> bool:
    """Whether it is the result as large as an answer, which the task has from its import."""
    return bool(result["content"])


# -- the peers


def _measure_peers(
    fleet: Fleet, asked: _Asked, size: Size, progress: Progress, names: Sequence[str]
) -> tuple[Figures, tuple[str, ...]]:
    """Each in turn with this project's node, which is idle meanwhile; peers that are not installed are left out."""
    notes = {name: f"{name} is not installed and left out ({PEERS[name].install})" for name in names if not installed(name)}
    environ, known = _peer_environ(fleet), json.dumps(_known(asked))
    _fill_plain_cache(environ, asked)
    rates: dict[str, list[float]] = {name: [] for name in ("persona", *names)}
    trips_ms: dict[str, list[float]] = {name: [] for name in names}
    running = [name for name in names if name not in notes]
    with closing(make_app(fleet.settings)) as app, closing(Drain(app, fleet.settings)) as drain:
        for number in range(1, size.peer_rounds + 1):
            progress(f"queue: the others, round {number} of {size.peer_rounds}")
            rates["persona"].append(drain.per_s(PROCESS_TASK, asked.wires, size.hits, asked.hit))
            for name in tuple(running):
                said = _drive(fleet, name, environ, known, size, trips=size.peer_trips if number == 1 else 0)
                if "problem" in said:  # another project's fault is not this one's: the rest is measured all the same
                    running.remove(name)
                    notes[name] = f"{name} did not run and is left out: {said['problem']}"
                    continue
                rates[name].append(said["per_s"])
                trips_ms[name] += said["trips_ms"]
    figures: Figures = {"persona_hit_per_s": statistics.median(rates["persona"])}
    for name in running:
        figures[f"{name}_hit_per_s"] = statistics.median(rates[name])
        figures |= ratio_of_medians(rates["persona"], rates[name]).figures(f"persona_to_{name}_ratio")
        figures[f"{name}_hit_p50_ms"] = quantile(trips_ms[name], 0.5)
        figures[f"{name}_hit_p99_ms"] = quantile(trips_ms[name], 0.99)
    return figures, tuple(notes.values())


def _drive(fleet: Fleet, name: str, environ: Mapping[str, str], known: str, size: Size, trips: int) -> dict[str, Any]:
    """One round of one peer, in a process of its own: `{"per_s", "trips_ms"}`, or `{"problem"}`. Raises BenchmarkFailedError
    when it gave a wrong answer."""
    for variable in (QUEUE_URL, RESULT_URL):
        with redis.Redis.from_url(environ[variable]) as server:
            server.flushdb()
    tasks = max(10, int(PEERS[name].tasks * size.peer_tasks_share))
    command = [sys.executable, "-m", "benchmarks.peers.drive", name, "--tasks", str(tasks)]
    command += ["--trips", str(trips), "--seconds", str(size.peer_trips_s)]
    log = fleet.folder / f"{name}.log"
    log.unlink(missing_ok=True)
    process = ChildProcess(command, log=log, environ=environ, directory=fleet.folder, stdin=known)
    try:
        in_time = process.wait(PEER_TIMEOUT_S)
    finally:
        process.stop(STOP_S)  # also when a signal ends the wait: it ends its workers
    lines = log.read_text(encoding="utf-8", errors="replace").splitlines()
    said: dict[str, Any] = json.loads(lines[-1]) if in_time and lines and lines[-1].startswith("{") else {}
    if said.get("wrong"):
        raise BenchmarkFailedError([f"{name}: {said['problem']}"])
    return said or {"problem": "it did not end in time" if not in_time else "it gave no figures"}


def _known(asked: _Asked) -> list[dict[str, Any]]:
    return [{"request": wire, "content": asked.contents[wire["user_input"]]} for wire in asked.wires]


def _fill_plain_cache(environ: Mapping[str, str], asked: _Asked) -> None:
    """The whole response, as in this project's cache."""
    with redis.Redis.from_url(environ[CACHE_URL]) as server:
        for wire in asked.wires:
            keep(server, wire, expected_response(PersonaRequest.from_wire(wire)).to_wire())


def _peer_environ(fleet: Fleet) -> dict[str, str]:
    ours = {
        QUEUE_URL: _database(fleet.settings.broker_url, QUEUE_DATABASE),
        RESULT_URL: _database(fleet.settings.broker_url, RESULT_DATABASE),
        CACHE_URL: _database(fleet.settings.cache_url, CACHE_DATABASE),
        "TMPDIR": str(fleet.folder),  # the temporary files of killed workers go with it
    }
    return own_environment() | ours


def _database(url: str, number: int) -> str:
    return urlsplit(url)._replace(path=f"/{number}").geturl()


BENCHMARK: Final = Benchmark(
    "queue",
    "What the queue costs: a hit beside a Celery task that does nothing, and beside what a user might pick instead.",
    4,
    measure_queue,
    view_queue,
)
