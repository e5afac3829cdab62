"""The steps that each thread of a workload takes, in an order that its seed decides."""

from __future__ import annotations

import itertools
import os
import random
import threading
import time
from collections.abc import Callable
from typing import Any, Final

from coherence.history import Ended, Journal, Made, Read, Written, now_ns
from coherence.node import RETENTION_S, Announcer
from coherence.settings import ProcessSettings
from coherence.source import Source
from coherence.universe import CACHED, INFOS, ITEMS, PERSONAS, RESONANCES, ROUTINGS, VARIANTS, any_pattern, meant_by

from pipeline.cache import MISS, AsOf, Found, Invalidation, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.breaker import CircuitBreaker
from pipeline.cache.bus import NodeBus
from pipeline.cache.log import RedisInvalidationLog

TTL_S: Final = 300.0
_PAUSES_S: Final = (0.0, 0.0, 0.0, 0.001, 0.005, 0.03)


class Desk:
    """What the threads of one process share: its cache, its journal, its way to the nodes. Made after the fork."""

    def __init__(self, settings: ProcessSettings, source: Source, bus: NodeBus | None, *, stage_mutant: bool = False) -> None:
        self.settings = settings
        self.source = source
        self.node = settings.name if bus is not None else ""
        self.journal = Journal(settings.directory, f"{settings.name}-{os.getpid()}")
        self.stage_mutant = stage_mutant
        self._announcer = Announcer(settings.nodes)
        self._writing = threading.local()
        self._ids = itertools.count()
        l2 = RedisCache(url=settings.redis_url, namespace=settings.namespace)
        l2.connection.breaker = CircuitBreaker(pause_s=0.1)  # so that a fault of the server is over soon
        self.cache = TwoTierCache(
            LocalCache(settings.l1_size),
            l2,
            staleness_bound_s=settings.bound_s,
            strict=True,  # else L1 is served without a bound while the server is away, as is promised
            max_ttl_s=RETENTION_S,
            bus=bus,
            announce=self._announce,
        )
        self.cache._coherence.log = RedisInvalidationLog(
            l2.connection, l2.keys, retention_s=RETENTION_S, max_records=settings.max_records
        )

    def new_id(self) -> str:
        return f"{os.getpid()}-{next(self._ids)}"

    def write(
        self, patterns: tuple[str, ...], keys: tuple[str, ...], act: Callable[[dict[str, int]], Invalidation | None]
    ) -> None:
        """Change the source, then tell the cache by `act`, and write down what it acknowledged."""
        written = self.new_id()
        versions = self.source.bump(keys)
        self._writing.current = (written, versions)
        self._writing.durable = False
        began_ns = now_ns()
        done = act(versions)
        ended_ns = now_ns()
        durable = done.durable if done is not None else self._writing.durable
        self.journal.note(
            Written(
                id=written,
                pid=os.getpid(),
                patterns=patterns,
                versions=versions,
                began_ns=began_ns,
                ended_ns=ended_ns,
                durable=durable,
            )
        )

    def _announce(self, invalidation: Invalidation, _: str | None) -> None:
        written, versions = self._writing.current
        self._writing.durable = invalidation.durable
        self._announcer.tell(invalidation, written, versions)


class Worker:
    """One thread's steps."""

    def __init__(self, desk: Desk, seed: int) -> None:
        self._desk = desk
        self._cache = desk.cache
        self._source = desk.source
        self._rng = random.Random(seed)
        self._steps = 0
        self._misses = 0

    def run(self, steps: int, seconds: float) -> None:
        """Take so many steps, and go on until so much time has passed."""
        began_s = time.monotonic()
        kinds: list[Callable[[], None]] = [
            self._respond,
            self._read_routing,
            self._read_info,
            self._read_item,
            self._look,
            self._get,
            self._invalidate,
            self._set,
            self._delete,
            self._refresh,
        ]
        weights = [30, 8, 8, 8, 14, 8, 6, 2, 1, 1]
        while self._steps < steps or time.monotonic() - began_s < seconds:
            self._rng.choices(kinds, weights)[0]()
            self._steps += 1
            time.sleep(self._rng.choice((0.0, 0.001, 0.002, 0.004)))
        self._desk.journal.note(Ended(os.getpid(), self._steps, self._misses))
        self._desk.journal.flush()

    # -- reading

    def _respond(self) -> None:
        """As the pipeline answers: an answer that is computed from a routing and a template, all through the cache."""
        persona, resonance, variant = self._rng.choice(PERSONAS), self._rng.choice(RESONANCES), self._rng.choice(VARIANTS)
        key, routing, info = f"persona:{persona}:{resonance}:{variant}", f"routing:{resonance}", f"persona:{persona}:info"
        template = f"prompt:{persona}:{resonance}"
        users = (f"user:{persona}",) if variant == "d1" else ()
        operation_ns = now_ns()
        as_of = self._cache.as_of()
        routed = self._fetch(routing, as_of=as_of, operation_ns=operation_ns)

        def inputs() -> dict[str, int]:
            info_found = self._fetch(info, as_of=as_of, operation_ns=operation_ns)
            composed = self._fetch(
                template, deps=(info,), as_of=as_of, operation_ns=operation_ns, inputs=lambda: dict(info_found["versions"])
            )
            return _oldest(routed["versions"], composed["versions"], info_found["versions"])

        self._fetch(
            key,
            deps=(routing, template, info, *users),
            as_of=None if self._desk.stage_mutant else as_of,
            operation_ns=operation_ns,
            inputs=inputs,
            own=users,
        )

    def _read_routing(self) -> None:
        self._fetch(self._rng.choice(ROUTINGS))

    def _read_info(self) -> None:
        self._fetch(self._rng.choice(INFOS))

    def _read_item(self) -> None:
        self._fetch(self._rng.choice(ITEMS))

    def _look(self) -> None:
        key = self._rng.choice(CACHED)
        began_ns = now_ns()
        found = self._cache.lookup(key)
        if found is MISS:
            self._misses += 1
        else:
            self._served(key, found, began_ns, began_ns, ())

    def _get(self) -> None:
        """The fast path, which does not say where the value came from: judged as what L1 may serve."""
        key = self._rng.choice(CACHED)
        began_ns = now_ns()
        value = self._cache.get(key)
        if value is MISS:
            self._misses += 1
        else:
            self._served(key, Found(value, "l1"), began_ns, began_ns, ())

    def _fetch(
        self,
        key: str,
        *,
        deps: tuple[str, ...] = (),
        as_of: AsOf | None = None,
        operation_ns: int | None = None,
        inputs: Callable[[], dict[str, int]] = dict,
        own: tuple[str, ...] = (),
    ) -> dict[str, Any]:
        """The value of `key`, computed if need be from its own version at the source, those of `own`, and `inputs`."""
        direct = (key, *own)
        began_ns = now_ns()

        def compute() -> dict[str, Any]:
            made, compute_began_ns = self._desk.new_id(), now_ns()
            versions = {name: self._source.version(name) for name in direct}
            versions = _oldest(versions, inputs())
            time.sleep(self._rng.choice(_PAUSES_S))
            self._desk.journal.note(Made(made, key, versions, compute_began_ns))
            return {"made": made, "versions": versions}

        found = self._cache.fetch(key, compute, ttl=TTL_S, deps=deps, as_of=as_of)
        self._served(key, found, began_ns, operation_ns or began_ns, direct)
        value: dict[str, Any] = found.value
        return value

    def _served(self, key: str, found: Found, began_ns: int, operation_ns: int, direct: tuple[str, ...]) -> None:
        self._desk.journal.note(
            Read(
                pid=os.getpid(),
                node=self._desk.node,
                key=key,
                made=found.value["made"],
                versions=found.value["versions"],
                source=found.source,
                began_ns=began_ns,
                ended_ns=now_ns(),
                operation_ns=operation_ns,
                direct=direct if found.source == "no" else (),
                degraded=found.degraded,
            )
        )

    # -- writing

    def _invalidate(self) -> None:
        patterns = tuple(any_pattern(self._rng) for _ in range(self._rng.choice((1, 1, 1, 2, 3))))
        keys = tuple(dict.fromkeys(key for pattern in patterns for key in meant_by(pattern)))
        if set(ITEMS).isdisjoint(keys):
            self._desk.write(patterns, keys, lambda _: self._cache.invalidate(*patterns))
            return
        with self._source.writing_items() as mine:
            if mine:
                self._desk.write(patterns, keys, lambda _: self._cache.invalidate(*patterns))

    def _set(self) -> None:
        key = self._rng.choice(ITEMS)

        def act(versions: dict[str, int]) -> Invalidation:
            made = self._desk.new_id()
            self._desk.journal.note(Made(made, key, versions, now_ns()))
            return self._cache.set(key, {"made": made, "versions": versions}, TTL_S)

        with self._source.writing_items() as mine:
            if mine:
                self._desk.write((key,), (key,), act)

    def _delete(self) -> None:
        key = self._rng.choice(ITEMS)

        def act(_: dict[str, int]) -> None:
            self._cache.delete(key)

        with self._source.writing_items() as mine:
            if mine:
                self._desk.write((key,), (key,), act)

    def _refresh(self) -> None:
        self._cache.refresh()


def _oldest(*parts: dict[str, int]) -> dict[str, int]:
    """All versions of all parts; of a key that several have, the oldest."""
    merged: dict[str, int] = {}
    for part in parts:
        for key, version in part.items():
            merged[key] = min(version, merged.get(key, version))
    return merged
