"""Nodes, connections and the broker die under load, many times: whether a task is lost, and how soon another node answers it.

Callers are plain: a bare Celery app's `send_task`. 3 nodes of 2 pool children; hits, and new questions, which are slow. Beside it
the same nodes with kombu's own way to take messages (`PERSONA_FETCH=pop`, `PERSONA_DOOR=false`).
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Final, NamedTuple

import redis
from celery import Celery
from kombu.exceptions import OperationalError

from benchmarks.kit.callers import Callers, Tally
from benchmarks.kit.compare import quantile
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.deaths import Death, counts, judge, returned, stock_figures
from benchmarks.kit.disk_server import DiskServer
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import READY_TIMEOUT_S, Fleet
from benchmarks.kit.load import warm_up
from benchmarks.kit.model_server import ModelServer
from benchmarks.kit.outages import OUTAGES
from benchmarks.views.deaths_view import view_deaths
from workers.node.fetch.claims import CLAIMS

NODES: Final = 3
CHILDREN: Final = 2
HITS_PER_S: Final = 120.0
SLOW_PER_S: Final = 3.0
MODEL_MS: Final = 500.0
SEED: Final = 20_26
PAUSE_S: Final = (1.0, 2.0)
"""Between a kill and the question which nodes work, a random time; as much again lies between two kills then."""
PING_S: Final = 0.5
FEWEST: Final = 2
"""Nodes that work when one of them is killed."""
SETTLE_S: Final = 0.05
"""From a kill until its claims are read: the server has read what the node had sent."""
ANSWERED_S: Final = 45.0
"""Then a task that has no outcome is lost: a message may be with three nodes that die."""
STOCK: Final = {"PERSONA_FETCH": "pop", "PERSONA_DOOR": "false"}
WORKER_CLIENT: Final = "persona-worker"
BACK_S: Final = 60.0
REST_S: Final = 0.5


class Size(NamedTuple):
    """How often each happens. `stock_s`: for so long the last answers of the stock way are waited for, from its last kill on."""

    kills: int
    stock_kills: int
    stock_s: float
    freezes: int
    frozen_s: float
    breaks: int
    restarts: int
    outages: int
    away_s: float


FULL: Final = Size(kills=100, stock_kills=15, stock_s=210, freezes=2, frozen_s=30, breaks=10, restarts=30, outages=5, away_s=5)
QUICK: Final = Size(kills=2, stock_kills=1, stock_s=0, freezes=1, frozen_s=12, breaks=1, restarts=2, outages=1, away_s=2)
ROWS: Final = ("killed", "stock", "frozen", "broken", "restarted", *OUTAGES)


def measure_deaths(progress: Progress, *, quick: bool = False, rows: Sequence[str] = (), size: Size | None = None) -> Figures:
    """The figures; of these `rows` only, if some are named; `size` goes before `quick`. Raises BenchmarkFailedError when a task
    was lost, an answer was wrong or given twice, a node ended by itself, or what a killed node had was answered too late."""
    size = size or (QUICK if quick else FULL)
    chosen = rows or ROWS
    chance = random.Random(SEED)  # noqa: S311 - a repeatable order of events
    figures: Figures = {}
    said: list[str] = []
    with ModelServer(delay_ms=MODEL_MS) as model:
        if any(not OUTAGES[row].of_results for row in chosen if row in OUTAGES) or set(chosen) - set(OUTAGES):
            with DiskServer() as server, _bench(progress, model.environment, chance, server) as bench:
                if "stock" in chosen:
                    figures |= _beside_stock(bench, progress, {**model.environment, **STOCK}, chance, size, "killed" in chosen)
                elif "killed" in chosen:
                    figures |= bench.killed(size)
                figures |= bench.frozen(size) if "frozen" in chosen else {}
                figures |= bench.broken(size) if "broken" in chosen else {}
                figures |= bench.restarted(server, size) if "restarted" in chosen else {}
                for row in [row for row in chosen if row in OUTAGES and not OUTAGES[row].of_results]:
                    figures |= bench.outage(row, server, size)
                said += bench.said
        if of_results := [row for row in chosen if row in OUTAGES and OUTAGES[row].of_results]:
            with DiskServer() as server, DiskServer() as results:
                environ = {**model.environment, "PERSONA_RESULT_URL": results.url}
                with _bench(progress, environ, chance, server) as bench:
                    for row in of_results:
                        figures |= bench.outage(row, results, size)
                    said += bench.said
    if problems := judge(figures):
        raise BenchmarkFailedError([*problems, *said], figures)
    return figures


def _beside_stock(
    bench: _Bench, progress: Progress, environ: dict[str, str], chance: random.Random, size: Size, killed: bool
) -> Figures:
    """The stock way waits for minutes for what it has not lost: meanwhile nodes of the other are killed."""
    with _bench(progress, environ, chance, None) as stock:
        stock_deaths = stock.kill_nodes("stock", size.stock_kills)
        figures = bench.killed(size) if killed else {}
        progress("deaths: the last answers of the stock way")
        left_s = stock_deaths[-1].at_s + size.stock_s - time.monotonic()
        stock.callers.await_answers("stock", left_s)
        return figures | stock_figures(stock.callers, stock_deaths)


@contextmanager
def _bench(progress: Progress, environ: dict[str, str], chance: random.Random, server: DiskServer | None) -> Iterator[_Bench]:
    url = server.url if server is not None else ""
    with Fleet(progress, nodes=NODES, children=CHILDREN, environ=environ, broker_url=url) as fleet:
        warm_up(fleet)
        with (
            Callers(fleet.settings, hits_per_s=HITS_PER_S, slow_per_s=SLOW_PER_S) as callers,
            closing(redis.Redis.from_url(fleet.settings.broker_url)) as broker,
            closing(Celery("foreign", broker=fleet.settings.broker_url, set_as_current=False)) as app,
        ):
            yield _Bench(fleet, callers, broker, app, chance, progress)


class _Bench:
    """A fleet under load, and what happens to it."""

    def __init__(
        self, fleet: Fleet, callers: Callers, broker: redis.Redis, app: Celery, chance: random.Random, progress: Progress
    ) -> None:
        self.callers = callers
        self.said: list[str] = []
        """The last words of nodes that ended by themselves."""
        self._fleet, self._broker, self._app, self._chance, self._progress = fleet, broker, app, chance, progress

    def kill_nodes(self, phase: str, times: int) -> list[Death]:
        """Kill nodes under load, each replaced at once, until so many are killed and all work again."""
        deaths = []
        with self.callers.load(phase):
            for number in range(1, times + 1):
                time.sleep(self._chance.uniform(*PAUSE_S))
                name = self._chance.choice(self._working(FEWEST))
                time.sleep(self._chance.uniform(0.0, PING_S))
                if number % 10 == 1 or number == times:
                    self._progress(f"deaths: {phase}, a node is killed, {number} of {times}")
                pid = self._fleet.kill_node(name)
                at_s = time.monotonic()
                self._fleet.start_node()
                deaths.append(self._death(pid, at_s))
            self._working(NODES)
            self._fleet.check()
        return deaths

    def killed(self, size: Size) -> Figures:
        deaths = self.kill_nodes("killed", size.kills)
        tally = self._settled("killed")
        times_s, again = returned(self.callers.asked, deaths)
        figures: Figures = {"kills": len(deaths), "sent": tally.sent, "lost": tally.lost, "failed": tally.failed}
        figures |= {"buried": tally.buried, "wrong": tally.wrong, "committed_twice": tally.twice}
        figures |= {"claimed": sum(len(death.task_ids) for death in deaths), "claimed_again": again}
        figures |= {"returned_p50_s": quantile(times_s, 0.5), "returned_max_s": max(times_s)} if times_s else {}
        return figures

    def frozen(self, size: Size) -> Figures:
        """A node and its children stand still for longer than its claims last, and go on."""
        deaths = []
        with self.callers.load("frozen"):
            for number in range(1, size.freezes + 1):
                self._progress(f"deaths: a node is frozen for {size.frozen_s:g} s, {number} of {size.freezes}")
                pid = self._fleet.pid_of(self._chance.choice(self._working(NODES)))
                os.killpg(pid, signal.SIGSTOP)
                try:
                    deaths.append(self._death(pid, time.monotonic()))
                    time.sleep(size.frozen_s)
                finally:
                    os.killpg(pid, signal.SIGCONT)
            self._working(NODES)
        tally = self._settled("frozen")
        times_s, _ = returned(self.callers.asked, deaths)
        return {
            "freezes": len(deaths),
            "frozen_s": size.frozen_s,
            **counts("frozen", tally),
            "frozen_exits": self._ended(),
            "frozen_claimed": sum(len(death.task_ids) for death in deaths),
            **({"frozen_returned_max_s": max(times_s)} if times_s else {}),
        }

    def broken(self, size: Size) -> Figures:
        """Every connection of the workers to their broker is closed by the server."""
        closed = 0
        with self.callers.load("broken"):
            for number in range(1, size.breaks + 1):
                self._progress(f"deaths: all connections are broken, {number} of {size.breaks}")
                time.sleep(self._chance.uniform(*PAUSE_S))
                for client in self._broker.client_list():
                    if client["name"] == WORKER_CLIENT:
                        closed += int(self._broker.client_kill_filter(_id=client["id"]))
            time.sleep(PAUSE_S[1])
        tally = self._settled("broken")
        ended = self._ended()
        return {"breaks": size.breaks, "broken_connections": closed, **counts("broken", tally), "broken_exits": ended}

    def restarted(self, server: DiskServer, size: Size) -> Figures:
        """The broker, which holds the results, too, is stopped and started with its file: half of the times idle."""
        times_s = []
        for number in range(1, size.restarts + 1):
            idle = number % 2 == 0
            self._progress(f"deaths: the broker is restarted {'idle' if idle else 'busy'}, {number} of {size.restarts}")
            if idle:
                self.callers.await_answers("restart", ANSWERED_S)
                back_s = _restart(server)
                with self.callers.load("restart"):
                    times_s.append(self.callers.first_answer_s(back_s, BACK_S))
            else:
                with self.callers.load("restart"):
                    time.sleep(self._chance.uniform(*PAUSE_S))
                    back_s = _restart(server)
                    times_s.append(self.callers.first_answer_s(back_s, BACK_S))
                    time.sleep(REST_S)
        tally = self._settled("restart")
        return {
            "restarts": size.restarts,
            **counts("restart", tally),
            "restart_exits": self._ended(),
            "restart_back_p50_s": quantile(times_s, 0.5),
            "restart_back_max_s": max(times_s),
        }

    def outage(self, name: str, server: DiskServer, size: Size) -> Figures:
        """Something befalls a server for some seconds, under load."""
        fault = OUTAGES[name]
        times_s = []
        for number in range(1, size.outages + 1):
            self._progress(f"deaths: {name} for {size.away_s:g} s, {number} of {size.outages}")
            with self.callers.load(name):
                time.sleep(self._chance.uniform(*PAUSE_S))
                fault.begin(server)
                try:
                    time.sleep(size.away_s)
                finally:
                    fault.end(server)
                times_s.append(self.callers.first_answer_s(time.monotonic(), BACK_S))
                time.sleep(REST_S)
        tally = self._settled(name)
        return {
            f"{name}_times": size.outages,
            f"{name}_s": size.away_s,
            **counts(name, tally),
            f"{name}_exits": self._ended(),
            f"{name}_back_p50_s": quantile(times_s, 0.5),
            f"{name}_back_max_s": max(times_s),
        }

    def _working(self, fewest: int) -> list[str]:
        """The nodes that answer a ping, in order; at least so many."""
        answered: list[str] = []

        def enough() -> bool:
            nonlocal answered
            try:
                answered = sorted(name for reply in self._app.control.ping(timeout=PING_S) for name in reply)
            except (OperationalError, redis.RedisError, OSError):
                return False
            return len(answered) >= fewest

        self._fleet.await_(enough, f"{fewest} nodes answer", timeout_s=READY_TIMEOUT_S)
        return answered

    def _death(self, pid: int, at_s: float) -> Death:
        """What lies in the claims of the node with that process."""
        time.sleep(SETTLE_S)
        task_ids = []
        for key in self._broker.scan_iter(f"{CLAIMS}{socket.gethostname()}/{pid}/*", count=1000):
            task_ids += [json.loads(item)["headers"]["id"] for item in self._broker.lrange(key, 0, -1)]
        return Death(at_s, tuple(task_ids))

    def _settled(self, phase: str) -> Tally:
        self._progress(f"deaths: {phase}, until all is answered")
        self.callers.await_answers(phase, ANSWERED_S)
        return self.callers.tally(phase)

    def _ended(self) -> int:
        """How many nodes have ended by themselves; each is replaced."""
        ended = self._fleet.ended()
        for name in ended:
            self.said += [f"{name}:", *self._fleet.last_words(name)]
            self._fleet.kill_node(name)
            self._fleet.start_node()
        return len(ended)


def _restart(server: DiskServer) -> float:
    """Returns the moment at which it answers again."""
    server.stop()
    server.start()
    return time.monotonic()


BENCHMARK: Final = Benchmark(
    "deaths",
    "Nodes are killed and frozen, connections broken, the broker restarted, under load: what is lost, and how soon it is back.",
    15,
    measure_deaths,
    view_deaths,
    long=True,
    rows=ROWS,
)
