"""The persona pipeline behind the two-tier cache."""

from __future__ import annotations

import hashlib
import os
import threading
import time
from collections.abc import Callable
from typing import Any, NamedTuple

import msgspec

from pipeline import keys
from pipeline.cache import AsOf, Found, Invalidation, LocalCache, RedisCache, TwoTierCache, provide_default_cache
from pipeline.cache.bus import NodeBus
from pipeline.cache.coherence import Announce
from pipeline.cache.stats import Counters, percent
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse
from pipeline.persona_pipeline import PersonaPipeline, get_pipeline
from pipeline.personas import PersonaInfo
from pipeline.prompts import PromptTemplate, template_version
from pipeline.routing import Routing
from pipeline.settings import Settings, get_settings


class OptimizedPipeline:
    """The same answers as `PersonaPipeline`, each computed once while it is valid. Thread-safe; not for use across a fork.

    An answer is served from the cache only to a request that is equal in all that shapes it, and with a personal context
    only to that user's own. What the cache holds of another release (other prompts, model or parameters) is not served.
    """

    def __init__(self, pipeline: PersonaPipeline, cache: TwoTierCache, *, clock: Callable[[], float] = time.perf_counter) -> None:
        self.pipeline = pipeline
        self.cache = cache
        self._clock = clock
        self._counters = Counters("requests", "hits", "time_us")
        self._catalog_version = pipeline.catalog.version
        self._made_by = {
            persona.slug: _digest(self._catalog_version, template_version(persona.info), pipeline.responder.fingerprint)
            for persona in pipeline.catalog
        }

    def process(
        self,
        user_input: str,
        resonance_key: str,
        context: ChatContext | dict[str, Any] | None = None,
        use_cache: bool = True,
    ) -> PersonaResponse:
        """Answer one input. Without `use_cache` nothing is read from the cache and nothing kept.

        Raises InvalidRequestError, and the ModelErrors of the responder; never because Redis is away.
        """
        return self.process_request(PersonaRequest.create(user_input, resonance_key, context, use_cache))

    def process_request(self, request: PersonaRequest) -> PersonaResponse:
        """Answer a validated request. `cached` says where the answer came from."""
        started = self._clock()
        found = self._fetch(request) if request.use_cache else Found(self.pipeline.process_request(request), "no")
        elapsed_ms = (self._clock() - started) * 1000
        self._counters.add("requests")
        self._counters.add("time_us", round(elapsed_ms * 1000))
        if found.source != "no":
            self._counters.add("hits")
        answer: PersonaResponse = found.value
        return msgspec.structs.replace(answer, cached=found.source, execution_time_ms=elapsed_ms, degraded=found.degraded)

    def _fetch(self, request: PersonaRequest) -> Found:
        # Before the routing is read: an answer computed from a routing that L1 still held must not pass for newer than it.
        as_of = self.cache.as_of()
        routing = self._routing(request, as_of)
        slug = routing.slug
        return self.cache.fetch(
            keys.response_key(slug, request, self._made_by[slug]),
            lambda: self.pipeline.answer(request, routing, self._template(slug, request, as_of)),
            ttl=keys.response_ttl_s(request.context),
            deps=keys.response_deps(slug, request),
            type=PersonaResponse,
            as_of=as_of,
        )

    def _routing(self, request: PersonaRequest, as_of: AsOf) -> Routing:
        routing: Routing = self.cache.get_or_compute(
            keys.routing_key(request.resonance_key),
            lambda: self.pipeline.route(request.resonance),
            ttl=keys.ROUTING_TTL_S,
            type=Routing,
            as_of=as_of,
            accept=lambda routing: routing.catalog == self._catalog_version,
        )
        return routing

    def _info(self, slug: str, as_of: AsOf) -> PersonaInfo:
        current = self.pipeline.info(slug)
        info: PersonaInfo = self.cache.get_or_compute(
            keys.info_key(slug),
            lambda: current,
            ttl=keys.INFO_TTL_S,
            type=PersonaInfo,
            as_of=as_of,
            accept=lambda info: info.version == current.version,
        )
        return info

    def _template(self, slug: str, request: PersonaRequest, as_of: AsOf) -> PromptTemplate:
        info = self._info(slug, as_of)
        template: PromptTemplate = self.cache.get_or_compute(
            keys.template_key(slug, request.resonance_key),
            lambda: self.pipeline.template(info, request.resonance),
            ttl=keys.TEMPLATE_TTL_S,
            deps=(keys.info_key(slug),),
            type=PromptTemplate,
            as_of=as_of,
            accept=lambda template: template.version == template_version(info),
        )
        return template

    def preload_common_personas(self) -> int:
        """Bring every persona's info into both tiers; how many there are."""
        as_of = self.cache.as_of()
        for persona in self.pipeline.catalog:
            self._info(persona.slug, as_of)
        return len(self.pipeline.catalog)

    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """Make misses of all entries that match or depend on a match, in every process. See TwoTierCache.invalidate."""
        return self.cache.invalidate(*patterns, wait_s=wait_s)

    def invalidate_cache_pattern(self, pattern: str) -> int:
        """Invalidate what matches, everywhere, and remove its bytes; how many keys went. See TwoTierCache.delete_pattern."""
        return self.cache.delete_pattern(pattern)

    def clear_cache(self) -> int:
        """Invalidate everything, everywhere, and remove this cache's bytes; how many keys went."""
        return self.cache.clear()

    def get_cache_stats(self) -> dict[str, Any]:
        """This process's figures since its start. `avg_time_ms` is the mean of the requests' own times."""
        counts = self._counters.snapshot()
        requests, hits = counts["requests"], counts["hits"]
        stats = self.cache.get_stats()
        return {
            "total_requests": requests,
            "cache_hits": hits,
            "cache_misses": requests - hits,
            "hit_rate": percent(hits, requests),
            "avg_time_ms": f"{counts['time_us'] / 1000 / requests if requests else 0.0:.1f}",
            **stats,
        }

    def close(self) -> None:
        """Close this process's connections; a later call opens them anew."""
        self.cache.close()


class Equipment(NamedTuple):
    """What a worker lends the caches of its processes: the node's bus, and the way to tell the other nodes."""

    bus: NodeBus | None = None
    announce: Announce | None = None


_BARE = Equipment()


def build_cache(settings: Settings, equipment: Equipment = _BARE) -> TwoTierCache:
    """A cache as the settings describe it. Connects on first use."""
    l2 = None
    if settings.cache_url:
        l2 = RedisCache(url=settings.cache_url, namespace=settings.cache_namespace, timeout_s=settings.cache_timeout_s)
    return TwoTierCache(
        LocalCache(settings.l1_max_entries),
        l2,
        staleness_bound_s=settings.staleness_bound_s,
        strict=settings.strict,
        l1_max_ttl_s=settings.l1_max_ttl_s,
        max_ttl_s=keys.LONGEST_TTL_S,
        bus=equipment.bus,
        announce=equipment.announce,
    )


_equipment = _BARE
_built: tuple[int, OptimizedPipeline] | None = None
_build_lock = threading.Lock()


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
            _built = (os.getpid(), OptimizedPipeline(get_pipeline(), build_cache(get_settings(), _equipment)))
        return _built[1]


def _release_build_lock_in_child() -> None:
    # The thread that held it does not exist in the child.
    global _build_lock  # noqa: PLW0603 - one a process, owned by this module
    _build_lock = threading.Lock()


os.register_at_fork(after_in_child=_release_build_lock_in_child)
provide_default_cache(lambda: get_optimized_pipeline().cache)


def _digest(*parts: str) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
