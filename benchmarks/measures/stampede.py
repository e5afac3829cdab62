"""Many callers ask for the same new answer at the same moment: how often the model is called, and how long each caller waits.

From 8 programs by `PersonaClient`, four threads each, and two by a bare Celery app's `send_task`; 2 nodes of 3 pool children.
Then the pool child that computes is killed while all wait.
"""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Sequence
from itertools import chain
from typing import Final, NamedTuple

from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.load import Happened, Plan, Producers, check_right, shared_among, warm_up
from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.requests import RESONANCES
from benchmarks.views.load_views import view_stampede
from pipeline.models import PersonaRequest
from workers.client import PersonaClient
from workers.queue.factory import make_app

NODES: Final = 2
CHILDREN_PER_NODE: Final = 3
KEYS: Final = 20
THREADS: Final = 4
KILLED_AT: Final = 0.4  # of the model's time: the owner has begun some 0.2 s before the others
TAKEN_OVER_MARGIN_S: Final = 0.5
"""For a look at the lease, every 0.1 s, and the way to the model."""
ANSWERED_MARGIN_S: Final = 5.0
"""For the way of an answer to the waiting callers, of which some have tasks of their own behind each other in the queue."""
BEGIN_TIMEOUT_S: Final = 10.0


class Size(NamedTuple):
    """The size of the measurement. `model_ms` is long enough for every caller to ask meanwhile: later it would be a hit."""

    clients: int
    raw: int
    requests: int
    kills: int
    model_ms: float
    environ: dict[str, str]


FULL: Final = Size(clients=8, raw=2, requests=1_000, kills=5, model_ms=1_000, environ={})
QUICK: Final = Size(clients=2, raw=1, requests=60, kills=1, model_ms=500, environ={"PERSONA_LEASE_S": "1"})


class Wave(NamedTuple):
    """The outcome of one wave of requests. `killed_at_s` and `taken_over_at_s`, the model's next call after that, are moments of
    the monotonic clock; 0 if no process was killed."""

    happened: list[Happened]
    model_calls: int
    killed_at_s: float = 0.0
    taken_over_at_s: float = 0.0

    @property
    def takeover_s(self) -> float:
        return self.taken_over_at_s - self.killed_at_s

    @property
    def longest_s(self) -> float:
        """Until the last caller had its answer: from the moment of asking, or from the kill if there was one."""
        ended_s = max(each.ended_s for each in self.happened)
        return ended_s - (self.killed_at_s or self.happened[0].due_s)


def measure_stampede(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when the model was called once too often, an answer was wrong or missing, or a
    caller waited beyond the lease."""
    size = QUICK if quick else FULL
    with (
        ModelServer(delay_ms=size.model_ms) as model,
        Fleet(progress, nodes=NODES, children=CHILDREN_PER_NODE, environ={**model.environment, **size.environ}) as fleet,
        Producers(fleet, client=size.clients, raw=size.raw) as producers,
        PersonaClient(fleet.settings) as client,
    ):
        bench = _Bench(fleet, model, producers, client, size)
        warm_up(fleet)
        progress(f"stampede: {size.requests} requests for one key, then for {KEYS}")
        one = bench.wave("one", keys=1)
        several = bench.wave("several", keys=KEYS)
        kills = []
        for number in range(1, size.kills + 1):
            progress(f"stampede: the child that computes is killed, {number} of {size.kills}")
            kills.append(bench.wave(f"kill {number}", keys=1, kill=True))
    figures, problems = judge(one, several, kills, size, fleet.settings.lease_s)
    if problems:
        raise BenchmarkFailedError(problems, figures)
    return figures


def judge(one: Wave, several: Wave, kills: Sequence[Wave], size: Size, lease_s: float) -> tuple[Figures, list[str]]:
    """The figures, and the faults."""
    figures: Figures = {
        "requests": size.requests,
        "keys": 1,
        "model_calls": one.model_calls,
        "last_answer_ms": one.longest_s * 1000,
        "keys20_model_calls": several.model_calls,
        "keys20_last_answer_ms": several.longest_s * 1000,
        "model_ms": size.model_ms,
        "lease_s": lease_s,
    }
    problems = [f"one key: {problem}" for problem in check_right(one.happened, size.requests)]
    problems += [f"{KEYS} keys: {problem}" for problem in check_right(several.happened, size.requests)]
    if one.model_calls != 1:
        problems.append(f"one key took {one.model_calls} calls of the model")
    if several.model_calls != KEYS:
        problems.append(f"{KEYS} keys took {several.model_calls} calls of the model")
    if kills:
        figures["kills"] = len(kills)
        figures["kill_model_calls"] = sum(wave.model_calls for wave in kills)
        figures["kill_takeover_ms"] = max(wave.takeover_s for wave in kills) * 1000
        figures["kill_longest_wait_ms"] = max(wave.longest_s for wave in kills) * 1000
    for number, wave in enumerate(kills, 1):
        problems += [f"kill {number}: {problem}" for problem in check_right(wave.happened, size.requests)]
        if wave.model_calls != 2:
            problems.append(f"kill {number}: {wave.model_calls} calls of the model, where one was killed and one more is due")
        if wave.takeover_s > lease_s + TAKEN_OVER_MARGIN_S:
            problems.append(f"kill {number}: the next began {wave.takeover_s:.1f} s after it; the lease is {lease_s:g} s")
        if wave.longest_s > lease_s + size.model_ms / 1000 + ANSWERED_MARGIN_S:
            problems.append(f"kill {number}: a caller waited {wave.longest_s:.1f} s after it; the lease is {lease_s:g} s")
    return figures, problems


class _Bench:
    """Sends waves of requests to a fleet."""

    def __init__(self, fleet: Fleet, model: ModelServer, producers: Producers, client: PersonaClient, size: Size) -> None:
        self._fleet, self._model, self._producers, self._client, self._size = fleet, model, producers, client, size

    def wave(self, name: str, *, keys: int, kill: bool = False) -> Wave:
        """All requests at once, over `keys` keys that were never asked for. `kill`: one more caller asks right before them, and
        the process that computes for it is killed when they wait."""
        kinds = [
            PersonaRequest.create(f"Stampede {name}, question {number}.", RESONANCES[number % len(RESONANCES)])
            for number in range(keys)
        ]
        requests = [kinds[number * keys // self._size.requests] for number in range(self._size.requests)]
        plans = [Plan(share, threads=THREADS) for share in shared_among(requests, self._size.clients + self._size.raw)]
        before = self._model.calls
        killed_at_s = taken_over_at_s = 0.0

        def kill_owner(starts_at_s: float) -> None:
            nonlocal killed_at_s, taken_over_at_s
            pid = self._owner(kinds[0])
            time.sleep(max(0.0, starts_at_s + self._size.model_ms / 1000 * KILLED_AT - time.monotonic()))
            os.kill(pid, signal.SIGKILL)
            killed_at_s = time.monotonic()
            longest_s = self._fleet.settings.lease_s + ANSWERED_MARGIN_S
            self._fleet.await_(
                lambda: self._model.calls > before + 1, "another computes what the killed one did", timeout_s=longest_s
            )
            taken_over_at_s = time.monotonic()

        happened = self._producers.run(plans, kill_owner if kill else None)
        calls = self._model.calls - before
        return Wave(list(chain.from_iterable(happened)), calls, killed_at_s, taken_over_at_s)

    def _owner(self, request: PersonaRequest) -> int:
        """Ask first. Returns the pid of the pool child that computes."""
        before = self._model.calls
        ticket = self._client.submit_request(request)
        self._fleet.await_(lambda: self._model.calls > before, "the model is asked", timeout_s=BEGIN_TIMEOUT_S)
        app = make_app(self._fleet.settings)
        try:
            nodes = app.control.inspect(limit=self._fleet.nodes).active() or {}
            pid = {task["id"]: task["worker_pid"] for tasks in nodes.values() for task in tasks}.get(ticket.task_id)
            if pid is None:
                raise BenchmarkFailedError(["no node runs the task that computes"])
            return int(pid)
        finally:
            app.close()


BENCHMARK: Final = Benchmark(
    "stampede",
    "A thousand simultaneous requests for a missing answer: how often the model is called, also when its caller is killed.",
    10,
    measure_stampede,
    view_stampede,
)
