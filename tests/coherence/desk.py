"""The state shared by the threads and tasks of one process of a workload."""

from __future__ import annotations

import itertools
import os
from collections.abc import Awaitable, Callable
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Final

from coherence.audited import Audit
from coherence.history import Journal, Written, now_ns
from coherence.manners import run_in_context_of_callers
from coherence.node import RETENTION_S, Announcer
from coherence.settings import NAMESPACE, ProcessSettings
from coherence.source import Source

from pipeline.cache import Invalidation, LocalCache, RedisCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.log import RedisInvalidationLog
from pipeline.cache.server.breaker import CircuitBreaker

_numbers: Final = itertools.count()


@dataclass
class Writing:
    """What a worker is about to tell the cache of. `durable`: whether the log has it, once it was announced."""

    id: str
    versions: dict[str, int]
    durable: bool = False


class Desk:
    """Its cache, its journal, its way to the nodes. Made after the fork."""

    def __init__(self, settings: ProcessSettings, source: Source, bus: NodeBus | None, *, url: str = "") -> None:
        """`url`: of the server, if not the one in the settings."""
        self.settings = settings
        self.source = source
        self.node = settings.name if bus is not None else ""
        self.journal = Journal(settings.directory, f"{settings.name}-{os.getpid()}")
        self._announcer = Announcer(settings.nodes)
        self.audit = Audit(settings, self.journal, url or settings.redis_url)
        self._writing: ContextVar[Writing] = ContextVar("writing")
        l2 = RedisCache(url=url or settings.redis_url, namespace=NAMESPACE)
        l2.connection.breaker = CircuitBreaker(pause_s=settings.retry_s)  # so that a fault of the server is soon over
        self.breaker = l2.connection.breaker
        self.cache = TwoTierCache(
            LocalCache(settings.l1_size),
            l2,
            staleness_bound_s=settings.bound_s,
            strict=not settings.loose,  # else L1 is served without a bound while the server is away, as is promised
            max_ttl_s=RETENTION_S,
            bus=bus,
            listens=settings.listens,
            announce=self._announce,
            sampler=self.audit.sampler,
        )
        self.cache._coherence.log = RedisInvalidationLog(
            l2.connection, l2.keys, retention_s=RETENTION_S, max_records=settings.max_records
        )
        run_in_context_of_callers(self.cache)
        self.audit.begin()

    def new_id(self) -> str:
        return f"{os.getpid()}-{next(_numbers)}"

    async def write(
        self,
        patterns: tuple[str, ...],
        keys: tuple[str, ...],
        act: Callable[[dict[str, int]], Awaitable[Invalidation | None]],
    ) -> None:
        """Change the source, then tell the cache by `act`, and write down its acknowledgement; nothing if the call is broken
        off."""
        writing = Writing(self.new_id(), self.source.bump(keys))
        token = self._writing.set(writing)
        try:
            began_ns = now_ns()
            done = await act(writing.versions)
            ended_ns = now_ns()
        finally:
            self._writing.reset(token)
        durable = done.durable if done is not None else writing.durable
        self.journal.note(
            Written(
                id=writing.id,
                pid=os.getpid(),
                patterns=patterns,
                versions=writing.versions,
                began_ns=began_ns,
                ended_ns=ended_ns,
                durable=durable,
            )
        )

    def trouble(self) -> tuple[bool, int]:
        """Whether the server is out of reach, and how often it was found so: unequal at two moments, it was in between."""
        return not self.breaker.closed, self.breaker.opened_count

    def _announce(self, invalidation: Invalidation, _: str | None) -> bool:
        writing = self._writing.get()
        writing.durable = invalidation.durable
        self._announcer.tell(invalidation, writing.id, writing.versions)
        return True
