"""What a run consists of: the real caches of several processes, a node's bus and its follower, the server, the source of truth;
and the history that comes of it, which the coherence checker judges."""

from __future__ import annotations

import fnmatch
from collections import defaultdict
from collections.abc import Callable
from functools import cache, partial
from itertools import count
from types import SimpleNamespace
from typing import Any

from coherence.history import Applied, Made, Read, Record, Written
from schedules.lua import Script
from schedules.network import Network
from schedules.programs import DEPS, KEYS, Op, Options
from schedules.tasks import ALWAYS, WAITING, Clock, Run, Task, point

from pipeline.cache import MISS, AsOf, Found, Grace, Invalidation, Kind, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.coherence.node import NodeFollower
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection

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
        self._source: dict[str, int] = dict.fromkeys(KEYS, 1)
        self._setting = False
        self._caches: dict[str, TwoTierCache] = {}
        self._buses: dict[str, NodeBus] = {}
        self._mains: dict[str, NodeFollower] = {}
        self.pids: dict[str, int] = defaultdict(count(1).__next__)
        self._numbers = 0
        self._writing: dict[int, tuple[str, dict[str, int]]] = {}
        self._durable: dict[int, bool] = {}
        self._heard: dict[str, int] = defaultdict(int)

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
        l2.connection = RedisConnection(URL, retry_pause_s=0.0, clock=clock)
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

    def _log(self, connection: RedisConnection) -> RedisInvalidationLog:
        return RedisInvalidationLog(connection, self.keys, retention_s=RETENTION_S, max_records=self.options.records)

    def _bus(self, node: str) -> NodeBus:
        if node not in self._buses:
            self._buses[node] = NodeBus(self.options.slots)
            connection = RedisConnection(URL, retry_pause_s=0.0, clock=self.clock)
            registry = NodeRegistry(connection, self.keys, clock=self.clock, sleep=self.clock.sleep)
            self._mains[node] = NodeFollower(node, self._buses[node], self._log(connection), registry, clock=self.clock)
            self._mains[node].beat()
        return self._buses[node]

    def main(self, node: str) -> NodeFollower:
        self._bus(node)
        return self._mains[node]

    def _announce(self, invalidation: Invalidation, _: str | None) -> bool:
        me = _me()
        written, versions = self._writing[me]
        self._durable[me] = invalidation.durable
        epoch, seq = (invalidation.epoch, invalidation.seq) if invalidation.durable else ("", 0)
        patterns = list(invalidation.patterns)
        self.notices.append(Notice(epoch=epoch, seq=seq, patterns=patterns, written=written, versions=versions))
        run = Run.current
        while run is not None and self.waiting:
            run.wake(self.waiting.pop())
        return True

    # -- what a process does

    def do(self, process: str, op: Op) -> None:
        """One operation, as a line of a program names it."""
        what, *given = op
        point(ALWAYS, f"{process} begins: {' '.join(op)}", None)
        if process == "!":
            getattr(self, f"_world_{what}")(*given)
        elif process == "n":
            getattr(self, f"_main_{what}")(process, *given)
        else:
            getattr(self, f"_{what}")(process, *given)

    def _get(self, process: str, key: str) -> None:
        """The fast path, which does not say where the value came from: judged as what L1 may serve."""
        began_ns, trouble = self.clock.now_ns(), self._trouble(process)
        value = self.cache(process).get(key)
        if value is not MISS:
            self._served(process, key, Found(value, "l1"), began_ns, began_ns, (), trouble)

    def _look(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.lookup(key))

    def _peek(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.peek(key))

    def _stale(self, process: str, key: str) -> None:
        self._found(process, key, lambda cache: cache.lookup(key, stale_age_s=self.options.grace))

    def _found(self, process: str, key: str, look: Callable[[TwoTierCache], Any]) -> None:
        began_ns, trouble = self.clock.now_ns(), self._trouble(process)
        found = look(self.cache(process))
        if found is not MISS:
            self._served(process, key, found, began_ns, began_ns, (), trouble)

    def _fetch(self, process: str, key: str) -> None:
        self._fetched(process, key)

    def _ahead(self, process: str, key: str) -> None:
        """What L2 has will not do, so that it is not asked."""
        self._fetched(process, key, least_s=self.options.ttl)

    def _respond(self, process: str, key: str) -> None:
        """As the pipeline answers: an answer that is computed from a routing which was read before."""
        operation_ns = self.clock.now_ns()
        as_of = self.cache(process).as_of()
        routed = self._fetched(process, "g", as_of=as_of, operation_ns=operation_ns)
        as_of_answer = None if self.options.stage else as_of
        self._fetched(process, key, as_of=as_of_answer, operation_ns=operation_ns, inputs=lambda: dict(routed["versions"]))

    def _fetched(
        self,
        process: str,
        key: str,
        *,
        as_of: AsOf | None = None,
        operation_ns: int | None = None,
        inputs: Callable[[], dict[str, int]] | None = None,
        **given: Any,
    ) -> dict[str, Any]:
        options = self.options
        direct = (key, *(dep for dep in DEPS[key] if dep == "u"))
        began_ns, trouble = self.clock.now_ns(), self._trouble(process)
        grace = Grace(options.grace, refresh=lambda: None) if options.grace else None

        def compute() -> dict[str, Any]:
            made, made_ns = f"v{self._number()}", self.clock.now_ns()
            versions = {}
            for name in direct:
                point(ALWAYS, f"{process} reads {name} at its source", None)
                versions[name] = self._source[name]
            of_inputs = inputs or (lambda: self._read_deps(process, key, operation_ns or began_ns))
            for name, version in of_inputs().items():
                versions[name] = min(version, versions.get(name, version))
            self.history.append(Made(made, key, versions, made_ns))
            return {"made": made, "versions": versions}

        kind = Kind(ttl=options.ttl)
        found = self.cache(process).fetch(key, compute, kind, deps=DEPS[key], as_of=as_of, grace=grace, **given)
        self._served(process, key, found, began_ns, operation_ns or began_ns, direct, trouble)
        value: dict[str, Any] = found.value
        return value

    def _read_deps(self, process: str, key: str, operation_ns: int) -> dict[str, int]:
        """The values that it is computed from, through the cache."""
        versions: dict[str, int] = {}
        for dep in DEPS[key]:
            if dep != "u":
                versions |= self._fetched(process, dep, operation_ns=operation_ns)["versions"]
        return versions

    def _fill(self, process: str, key: str) -> None:
        as_of = self.cache(process).as_of()
        point(ALWAYS, f"{process} reads {key} at its source", None)
        made, versions = f"v{self._number()}", {key: self._source[key]}
        self.history.append(Made(made, key, versions, self.clock.now_ns()))
        self.cache(process).fill(key, {"made": made, "versions": versions}, as_of=as_of)

    def _inv(self, process: str, *patterns: str) -> None:
        keys = tuple(dict.fromkeys(key for pattern in patterns for key in meant_by(pattern)))
        write = partial(self._write, process, patterns, keys, lambda _: self.cache(process).invalidate(*patterns))
        if "s" in keys:
            self._alone(write)
        else:
            write()

    def _set(self, process: str, key: str) -> None:
        def act(versions: dict[str, int]) -> Invalidation:
            made = f"v{self._number()}"
            self.history.append(Made(made, key, versions, self.clock.now_ns()))
            return self.cache(process).set(key, {"made": made, "versions": versions}, self.options.ttl)

        self._alone(lambda: self._write(process, (key,), (key,), act))

    def _del(self, process: str, key: str) -> None:
        self._alone(lambda: self._write(process, (key,), (key,), lambda _: self.cache(process).delete(key)))

    def _alone(self, write: Callable[[], None]) -> None:
        """Two that set without agreeing on an order leave the older value by right."""
        if self._setting:
            return
        self._setting = True
        try:
            write()
        finally:
            self._setting = False

    def _write(self, process: str, patterns: tuple[str, ...], keys: tuple[str, ...], act: Callable[[Any], Any]) -> None:
        """Change the source, then tell the cache, and write down its acknowledgement; nothing if it is broken off."""
        written, me = f"w{self._number()}", _me()
        for key in keys:
            self._source[key] += 1
        versions = {key: self._source[key] for key in keys}
        self._writing[me] = (written, versions)
        began_ns = self.clock.now_ns()
        act(versions)
        self.history.append(
            Written(
                id=written,
                pid=self.pids[process],
                patterns=patterns,
                versions=versions,
                began_ns=began_ns,
                ended_ns=self.clock.now_ns(),
                durable=self._durable[me],
            )
        )

    def _refresh(self, process: str) -> None:
        self.cache(process).refresh()

    def _sweep(self, process: str) -> None:
        self.cache(process).sweep()

    def _warm(self, process: str, *keys: str) -> None:
        self.cache(process).warm(dict.fromkeys(keys, Any))

    def _forget(self, process: str) -> None:
        """Its L1 had no room."""
        self.cache(process).l1.clear()

    def _anew(self, process: str) -> None:
        self.begin_anew(process)

    # -- a main process

    def _main_hear(self, node: str, number: str = "") -> None:
        """Take in the next notice, or that one, which may have been heard before. Waits for it."""
        at = int(number) if number else self._heard[node]
        self._heard[node] = max(self._heard[node], at + 1)
        main = self.main(node)
        while len(self.notices) <= at:
            run = Run.current
            if run is None:
                return
            self.waiting.append(run.task)
            run.pause(WAITING)
        notice = self.notices[at]
        main.receive(notice.epoch, notice.seq, notice.patterns)
        self.history.append(Applied(node, notice.written, notice.versions, self.clock.now_ns()))

    def _main_beat(self, node: str) -> None:
        self.main(node).beat()

    # -- the world

    def _world_tick(self, seconds: str) -> None:
        self.clock.now_s += float(seconds)

    def _world_evict(self, what: str) -> None:
        keys = self.keys
        logs = {"tail": keys.tail, "records": keys.records, "marks": keys.marks}
        self.network.master.remove(logs[what] if what in logs else keys.entry(what))

    def _world_empty(self) -> None:
        self.network.master.do_flushdb()

    def _world_snapshot(self) -> None:
        self.network.snapshot()

    def _world_failover(self) -> None:
        self.network.fail_over()

    def _world_demote(self) -> None:
        self.network.demote()

    def _world_away(self) -> None:
        self.network.away = True

    def _world_back(self) -> None:
        self.network.away = False

    def _world_full(self) -> None:
        self.network.master.full = True

    def _world_room(self) -> None:
        self.network.master.full = False

    def _world_lose(self) -> None:
        """The next answer does not arrive."""
        self.network.lost_answers += 1

    # -- the history

    def _number(self) -> int:
        self._numbers += 1
        return self._numbers

    def _trouble(self, process: str) -> tuple[bool, int]:
        l2 = self.cache(process).l2
        assert l2 is not None
        return not l2.connection.breaker.closed, l2.connection.breaker.opened_count

    def _served(
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
                degraded=found.degraded or (loose and (trouble[0] or trouble != self._trouble(process))),
                strict=not loose,
            )
        )


def _me() -> int:
    return Run.current.task.index if Run.current is not None else -1
