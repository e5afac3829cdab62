"""How the parts become one pipeline with a cache. The one module that knows all of them."""

from __future__ import annotations

import os
from typing import Final, NamedTuple

from pipeline.announcing import announcer_for
from pipeline.cache import LocalCache, RedisCache, TwoTierCache, provide_default_cache
from pipeline.cache.audit.auditor import Auditor, Told
from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.coherence.process import Announce
from pipeline.cache.locks import Lock
from pipeline.courier import build_courier
from pipeline.figures import Reporter, build_reporter
from pipeline.figures.fields import AUDITED, STALE_SERVES, UNDECIDED
from pipeline.figures.records import Role
from pipeline.hot import HotKeys, Recent, Teller
from pipeline.optimized import OptimizedPipeline, Refresh
from pipeline.persona_pipeline import PersonaPipeline, get_pipeline
from pipeline.settings import Settings, get_settings
from pipeline.tracing import tracer_of

LONGEST_WAIT_S: Final = 30.0
"""For another's answer. With a model call of its own after that, a task stays within its limit."""


class Equipment(NamedTuple):
    """What a worker lends its processes: the node's bus, the way to tell the other nodes, the way to queue a request, and the
    node's id. A program that is no worker has none."""

    bus: NodeBus | None = None
    announce: Announce | None = None
    refresh: Refresh | None = None
    node: str = ""


_BARE = Equipment()


def build_cache(settings: Settings, equipment: Equipment = _BARE, sampler: Sampler | None = None) -> TwoTierCache:
    """A cache as the settings describe it. Connects on first use. `sampler`: see TwoTierCache."""
    l2 = None
    if settings.cache_url:
        l2 = RedisCache(url=settings.cache_url, namespace=settings.cache_namespace, timeout_s=settings.cache_timeout_s)
    return TwoTierCache(
        LocalCache(settings.l1_max_entries, max_bytes=int(settings.l1_max_mb * 2**20) or None),
        l2,
        staleness_bound_s=settings.staleness_bound_s,
        strict=settings.strict,
        l1_max_ttl_s=settings.l1_max_ttl_s,
        max_ttl_s=settings.max_ttl_s,
        lease_s=settings.lease_s,
        wait_s=min(settings.llm_timeout_s, LONGEST_WAIT_S),
        bus=equipment.bus,
        listens=settings.listen,
        announce=equipment.announce,
        sampler=sampler,
        watcher=tracer_of(settings),
    )


def build_optimized_pipeline(
    settings: Settings, pipeline: PersonaPipeline, equipment: Equipment = _BARE, reporter: Reporter | None = None
) -> OptimizedPipeline:
    """That pipeline behind a cache as the settings describe it. Without equipment to announce with, invalidations are announced
    where the settings name a broker: see InstalledAnnouncer. `reporter`: of this process, if it has one already."""
    announcing = None
    if equipment.announce is None:
        announcing = announcer_for(settings, lambda: told)
        equipment = equipment._replace(announce=announcing)
    sampler = Sampler(settings.audit_per_s if settings.cache_url else 0)
    cache = build_cache(settings, equipment, sampler)
    if reporter is None:
        role: Role = "worker" if equipment.node else "producer"
        reporter = build_reporter(settings, build_courier(settings), node=equipment.node, role=role, l1_entries=cache.l1.__len__)
    told, courier = reporter, reporter.courier
    recent = None
    if courier.connects:
        recent = Recent()
        courier.carry(Teller(HotKeys(settings.cache_namespace), recent, keeps_requests=settings.preload_budget > 0).tell)
    if courier.connects and settings.audit_per_s and cache.l2 is not None:
        bound_s = settings.staleness_bound_s
        courier.carry(Auditor(sampler, cache.l2.keys, bound_s=bound_s, told=_counted_by(reporter)).audit)
    if (tracer := tracer_of(settings)) is not None:
        from pipeline.tracing.stages import TracedPipeline

        pipeline = TracedPipeline(pipeline, tracer)
    return OptimizedPipeline(
        pipeline,
        cache,
        grace_s=settings.stale_grace_s,
        refresh=equipment.refresh,
        reporter=reporter,
        recent=recent,
        announcing=announcing,
    )


def _counted_by(reporter: Reporter) -> Told:
    def told(checks: int, stale: int, undecided: int) -> None:
        for event, amount in ((AUDITED, checks), (STALE_SERVES, stale), (UNDECIDED, undecided)):
            if amount:
                reporter.tally.count(event, amount)

    return told


def build_beside_children(settings: Settings, reporter: Reporter) -> OptimizedPipeline:
    """The pipeline of a node's main process, whose children have their own. `equip` was called before."""
    return build_optimized_pipeline(settings, get_pipeline(), _equipment, reporter)


_equipment = _BARE
_built: tuple[int, OptimizedPipeline] | None = None
_build_lock = Lock()


def equip(equipment: Equipment) -> None:
    """Lend this to the pipeline that `get_optimized_pipeline` builds, here and in the children forked from now on."""
    global _equipment  # noqa: PLW0603 - one a process, set once at its start
    _equipment = equipment


def get_optimized_pipeline() -> OptimizedPipeline:
    """This process's pipeline, built from its settings at the first call. A forked child builds its own."""
    global _built  # noqa: PLW0603 - one a process, owned by this function
    built = _built
    if built is not None and built[0] == os.getpid():
        return built[1]
    with _build_lock:
        if _built is None or _built[0] != os.getpid():
            made = (os.getpid(), build_optimized_pipeline(get_settings(), get_pipeline(), _equipment))
            if _built is None or _built[0] != os.getpid():  # else a signal handler was here meanwhile
                _built = made
        return _built[1]


provide_default_cache(lambda: get_optimized_pipeline().cache)
