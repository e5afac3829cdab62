"""What a run consists of: the real caches of several processes, a node's bus and its follower, the server, the source of truth;
and the history that comes of it, which the coherence checker judges."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from functools import cache
from itertools import count
from types import SimpleNamespace

from coherence.history import Read, Record

from pipeline.cache import Found, Invalidation, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from schedules.programs import KEYS, Options
from schedules.server.lua import Script
from schedules.server.network import Network
from schedules.tasks import ALWAYS, Clock, Run, Task

URL = "redis://server/0"
NAMESPACE = "s"
RETENTION_S = 86_400.0


@cache
def meant_by(pattern: str) -> tuple[str, ...]:
    return tuple(key for key in KEYS if fnmatch.fnmatchcase(key, pattern))


class Notice(SimpleNamespace):
    """A broadcast on its way: `epoch`, `seq`, `patterns`, and what the history knows of it: `written`, `versions`."""


class World:
    """One run's. All is made anew for each."""

    def __init__(self, options: Options, scripts: dict[bytes, Script]) -> None:
        self.options = options
        self.clock = Clock()
        self.network = Network(self.clock, scripts)
        self.keys = KeySpace(NAMESPACE)
        self.history: list[Record] = []
        self.notices: list[Notice] = []
        self.waiting: list[Task] = []
        self.source: dict[str, int] = dict.fromkeys(KEYS, 1)
        self.setting = False
        self._caches: dict[str, TwoTierCache] = {}
        self._buses: dict[str, NodeBus] = {}
        self._mains: dict[str, NodeFollower] = {}
        self.pids: dict[str, int] = defaultdict(count(1).__next__)
        self._numbers = 0
        self.writing: dict[int, tuple[str, dict[str, int]]] = {}
        self.durable: dict[int, bool] = {}
        self.heard: dict[str, int] = defaultdict(int)

    # -- in place of chance and time, see `points.Outer`

    def token_hex(self, count: int) -> str:
        self._numbers += 1
        return f"{self._numbers:0{2 * count}x}"

    @staticmethod
    def stands_still(_: float) -> None:
        """A mutant's sleep: a step at which the task may be held, as at any other."""
        run = Run.current
        if run is not None:
            run.arrive("stands still", ALWAYS)

    # -- processes

    def cache(self, process: str) -> TwoTierCache:
        if process not in self._caches:
            self._caches[process] = self._new_cache(process)
        return self._caches[process]

    def begin_anew(self, process: str) -> None:
        """The process has ended, and another one begins in its place."""
        self._caches[process] = self._new_cache(process)
        self.pids.pop(process, None)

    def _new_cache(self, process: str) -> TwoTierCache:
        clock, options = self.clock, self.options
        l2 = RedisCache(url=URL, namespace=NAMESPACE, wall_clock=clock.wall)
        l2.connection = self._connection()
        made = TwoTierCache(
            LocalCache(100, clock=clock),
            l2,
            staleness_bound_s=options.bound,
            strict=not options.loose,
            max_ttl_s=RETENTION_S,
            ttl_jitter=0.0,
            bus=self._bus(process[:1]) if process.startswith("n") else None,
            announce=self._announce,
            clock=clock,
            wall_clock=clock.wall,
            rng=lambda: 0.0,
        )
        made._coherence.log = self._log(l2.connection)
        made._flight._sleep = clock.sleep
        return made

    def _connection(self) -> RedisConnection:
        return RedisConnection(URL, retry_pause_s=0.0, clock=self.clock)

    def _log(self, connection: RedisConnection) -> RedisInvalidationLog:
        return RedisInvalidationLog(connection, self.keys, retention_s=RETENTION_S, max_records=self.options.records)

    def _bus(self, node: str) -> NodeBus:
        if node not in self._buses:
            self._buses[node] = NodeBus(self.options.slots)
            connection = self._connection()
            registry = NodeRegistry(connection, self.keys, clock=self.clock, sleep=self.clock.sleep)
            self._mains[node] = NodeFollower(node, self._buses[node], self._log(connection), registry, clock=self.clock)
            self._mains[node].beat()
        return self._buses[node]

    def main(self, node: str) -> NodeFollower:
        self._bus(node)
        return self._mains[node]

    def _announce(self, invalidation: Invalidation, _: str | None) -> bool:
        mine = me()
        written, versions = self.writing[mine]
        self.durable[mine] = invalidation.durable
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        patterns = list(invalidation.patterns)
        self.notices.append(Notice(epoch=epoch, seq=seq, patterns=patterns, written=written, versions=versions))
        run = Run.current
        while run is not None and self.waiting:
            run.wake(self.waiting.pop())
        return True

    # -- the world

    def tick(self, seconds: str) -> None:
        self.clock.now_s += float(seconds)

    def evict(self, what: str) -> None:
        keys = self.keys
        logs = {"tail": keys.tail, "records": keys.records, "marks": keys.marks}
        self.network.master.remove(logs[what] if what in logs else keys.entry(what))

    def empty(self) -> None:
        self.network.master.do_flushdb()

    def snapshot(self) -> None:
        self.network.snapshot()

    def failover(self) -> None:
        self.network.fail_over()

    def demote(self) -> None:
        self.network.demote()

    def away(self) -> None:
        self.network.away = True

    def back(self) -> None:
        self.network.away = False

    def full(self) -> None:
        self.network.master.full = True

    def room(self) -> None:
        self.network.master.full = False

    def lose(self) -> None:
        """The next answer does not arrive."""
        self.network.lost_answers += 1

    # -- the history

    def number(self) -> int:
        self._numbers += 1
        return self._numbers

    def trouble(self, process: str) -> tuple[bool, int]:
        l2 = self.cache(process).l2
        assert l2 is not None
        return not l2.connection.breaker.closed, l2.connection.breaker.opened_count

    def served(
        self,
        process: str,
        key: str,
        found: Found,
        began_ns: int,
        operation_ns: int,
        direct: tuple[str, ...],
        trouble: tuple[bool, int],
    ) -> None:
        loose = self.options.loose
        self.history.append(
            Read(
                pid=self.pids[process],
                node=process[:1] if process.startswith("n") else "",
                key=key,
                made=found.value["made"],
                versions=found.value["versions"],
                source=found.source,
                began_ns=began_ns,
                ended_ns=self.clock.now_ns(),
                operation_ns=operation_ns,
                direct=direct if found.source == "no" else (),
                degraded=found.degraded or (loose and (trouble[0] or trouble != self.trouble(process))),
                strict=not loose,
            )
        )


def me() -> int:
    return Run.current.task.index if Run.current is not None else -1
