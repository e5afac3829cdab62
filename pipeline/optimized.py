"""The persona pipeline behind the two-tier cache.

One module, and a long one: it is the one face of the pipeline, with a method for each thing to do.
"""

from __future__ import annotations

import hashlib
import logging
import math
import time
from collections.abc import Callable, Sequence
from typing import Any, Final, Literal, NamedTuple

import msgspec

from pipeline import keys
from pipeline.announcing import Announcing
from pipeline.cache import MISS, AsOf, Found, Grace, Invalidation, TwoTierCache
from pipeline.cache.entry import MissType
from pipeline.cache.stats import percent
from pipeline.errors import ModelError, TransientModelError
from pipeline.figures import Reporter
from pipeline.figures.fields import ANSWERED, FAILED
from pipeline.hot import Recent
from pipeline.models import ChatContext, PersonaRequest, PersonaResponse, ResonanceKey
from pipeline.persona_pipeline import PersonaPipeline
from pipeline.personas import PersonaInfo
from pipeline.prompts import PromptTemplate, template_version
from pipeline.responders import CutShort
from pipeline.routing import Routing
from pipeline.shapes import Shapes, Unmatched

logger: Final = logging.getLogger(__name__)

REFRESH_PAUSE_S: Final = 5.0
"""So long an answer past its time to live is not sent to be computed anew once more: a failing model is not asked at the rate of
the requests."""

Refresh = Callable[[PersonaRequest], None]
"""Has a request answered anew, by another process. Neither raises nor waits."""
Renewed = Literal["computed", "joined", "fresh", "away"]
"""How a renewal ended: computed here, or by another process; not needed; or not begun, since Redis is out of reach."""


_NOTHING: Final = Found(None, "")


class _NotKept(Exception):  # noqa: N818 - no error: a way past the cache, which keeps nothing that a computation did not return
    """An answer that the model did not end by itself. The caller that computed it is given it."""

    def __init__(self, response: PersonaResponse) -> None:
        super().__init__()
        self.response = response


class Sought(NamedTuple):
    """The result of a look-up: the answer's key and, unless it was found, what it depends on. `key` is empty if this process
    would have to ask Redis for the routing."""

    key: str
    deps: tuple[str, ...]
    response: PersonaResponse | None


class Hit(NamedTuple):
    """An answer that may be served, and nobody has been served yet."""

    request: PersonaRequest
    key: str
    found: Found
    started: float


class OptimizedPipeline:
    """The same answers as `PersonaPipeline`, each computed once while it is valid. Thread-safe; not for use across a fork.

    An answer is served from the cache only to a request that is equal in all that shapes it, and with a personal context
    only to that user's own. What the cache holds of another release (other prompts, model or parameters) is not served.
    """

    def __init__(
        self,
        pipeline: PersonaPipeline,
        cache: TwoTierCache,
        *,
        grace_s: float = 0.0,
        refresh: Refresh | None = None,
        reporter: Reporter | None = None,
        recent: Recent | None = None,
        announcing: Announcing | None = None,
        clock: Callable[[], float] = time.perf_counter,
    ) -> None:
        """`grace_s`: how long an answer is kept past its time to live. `refresh`: called with a request whose answer was served
        past its time to live, and with its key, to have it answered anew by another process; it must neither raise nor wait.
        `reporter`: tells the fleet what this process counts; without one it counts for itself. Its courier is closed with the
        pipeline.
        `recent`: is told what is asked for, but for personal requests. `announcing`: closed with the pipeline.
        """
        self.pipeline = pipeline
        self.cache = cache
        self._grace_s = grace_s
        self._refresh = refresh
        self._clock = clock
        self._note = None if recent is None else recent.note
        self._announcing = announcing
        self.reporter = Reporter() if reporter is None else reporter
        self._tally = self.reporter.tally
        self._catalog_version = pipeline.catalog.version
        self._shapes = Shapes(persona.slug for persona in pipeline.catalog)
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
        max_age_s: float | None = None,
    ) -> PersonaResponse:
        """Answer one input. Without `use_cache` nothing is read from the cache and nothing kept. `max_age_s`: see PersonaRequest.

        Raises InvalidRequestError, and the ModelErrors of the responder; never because Redis is away.
        """
        return self.process_request(PersonaRequest.create(user_input, resonance_key, context, use_cache, max_age_s))

    def process_request(self, request: PersonaRequest, *, counted: bool = True, tried_again: bool = False) -> PersonaResponse:
        """Answer a validated request. `cached` says where the answer came from.

        Not `counted`: an answer is renewed, and no caller waits for it. `tried_again`: after a TransientModelError the caller
        tries once more, so that the request has not failed yet.
        """
        started = self._clock()
        try:
            found = self._fetch(request, counted) if request.use_cache else Found(self.pipeline.process_request(request), "no")
        except Exception as error:
            if counted and not (tried_again and isinstance(error, TransientModelError)):
                self._tally.record(FAILED, (self._clock() - started) * 1000)
            raise
        return self._served(found, started, counted=counted)

    def seek(self, request: PersonaRequest, *, wait: bool = True) -> Sought:
        """Look for the answer and compute none. A found answer is served and counted as `process_request` does it. Without `wait`
        Redis is not asked: only what this process has is found."""
        started = self._clock()
        as_of = self.cache.as_of()
        if wait:
            routing = self.routing(request.resonance_key, as_of)
        else:
            known = self.cache.peek(keys.routing_key(request.resonance_key), type=Routing)
            if known is MISS or known.value.catalog != self._catalog_version:
                return Sought("", (), None)
            routing = known.value
        key = self._key(routing.slug, request)
        if wait:
            stale_age_s = 0.0
            if self._refresh is not None:
                stale_age_s = math.inf if request.max_age_s is None else request.max_age_s
            found = self.cache.lookup(key, type=PersonaResponse, stale_age_s=stale_age_s)
        else:
            found = self.cache.peek(key, type=PersonaResponse)
        if found is not MISS and found.source == "stale":
            self._have_refreshed(request, key)
        if found is MISS:  # the process that computes it notes that it was asked for
            return Sought(key, keys.response_deps(routing.slug, request), None)
        response = self._served(found, started)
        if self._note is not None and ((context := request.context) is None or not context.is_personal):
            self._note((key, request))
        return Sought(key, (), response)

    def seek_many(self, requests: Sequence[PersonaRequest]) -> list[Hit | None]:
        """Look for answers within their time to live, and compute none: in this process, and then, for all that it does not have,
        in Redis, in one round trip; in two where it does not know a routing. Nothing is counted: see `served`.
        """
        started = self._clock()
        hits = [self._hit(request, started) for request in requests]
        absent = [number for number, hit in enumerate(hits) if hit.found is _NOTHING]
        for _ in range(2):
            wanted: dict[str, Any] = {}
            for number in absent:
                request, key = hits[number].request, hits[number].key
                wanted |= {key: PersonaResponse} if key else {keys.routing_key(request.resonance_key): Routing}
            if not wanted or not self.cache.warm(wanted):
                break
            for number in absent:
                again = self._hit(hits[number].request, started)
                hits[number] = (
                    again._replace(found=msgspec.structs.replace(again.found, source="l2"))
                    if again.found is not _NOTHING
                    else again
                )
            absent = [number for number in absent if hits[number].found is _NOTHING]
        return [None if hit.found is _NOTHING else hit for hit in hits]

    def _hit(self, request: PersonaRequest, started: float) -> Hit:
        """What this process has: an answer; else its key, if the routing is known."""
        known = self.cache.peek(keys.routing_key(request.resonance_key), type=Routing)
        if known is MISS or known.value.catalog != self._catalog_version:
            return Hit(request, "", _NOTHING, started)
        key = self._key(known.value.slug, request)
        found = self.cache.peek(key, type=PersonaResponse)
        return Hit(request, key, _NOTHING if found is MISS else found, started)

    def response(self, hit: Hit) -> PersonaResponse:
        """A hit as its caller will see it."""
        return self._served(hit.found, hit.started, counted=False)

    def served(self, hit: Hit, response: PersonaResponse) -> None:
        """Count a hit: its caller has the response."""
        self._tally.record(hit.found.source, response.execution_time_ms)
        if self._note is not None and ((context := hit.request.context) is None or not context.is_personal):
            self._note((hit.key, hit.request))

    def _served(self, found: Found, started: float, *, counted: bool = True) -> PersonaResponse:
        elapsed_ms = (self._clock() - started) * 1000
        if counted:
            # As Tally.record, which would cost a hit twice as much.
            tally = self._tally
            samples = tally.samples[found.source]
            samples.append(elapsed_ms)
            if len(samples) >= tally.fold_at:
                tally.full()
        answer: PersonaResponse = found.value
        return msgspec.structs.replace(answer, cached=found.source, execution_time_ms=elapsed_ms, degraded=found.degraded)

    def renew(self, request: PersonaRequest, least_s: float) -> Renewed:
        """Compute the answer anew if it has less than `least_s` left, or is not there. Until then the old one is served.

        Nothing is counted. One computation in the fleet, shared with callers that miss the answer meanwhile. Raises ValueError
        for a personal request, whose answer is its user's alone, and the ModelErrors of the responder.
        """
        if request.context is not None and request.context.is_personal:
            raise ValueError("request: has a personal context; such an answer is not renewed")
        as_of = self.cache.as_of()
        routing = self.routing(request.resonance_key, as_of)
        key = self._key(routing.slug, request)
        left_s = self.cache.left_s([key])
        if left_s is None:
            return "away"
        if left_s[key] >= least_s:
            return "fresh"
        # Without leave to serve the old answer after a failure: the caller shall know of it.
        found = self._answer(key, request, routing, as_of, Grace(s=self._grace_s), least_s)
        return "computed" if found.source == "no" else "joined"

    def key_of(self, request: PersonaRequest) -> str:
        """The key of the request's answer."""
        return self._key(self.routing(request.resonance_key, self.cache.as_of()).slug, request)

    def place_of(self, request: PersonaRequest) -> tuple[str, tuple[str, ...]]:
        """The key of the request's answer and what it depends on, by this process's release and settings: nothing is read."""
        slug = self.pipeline.route(ResonanceKey.parse(request.resonance_key)).slug
        return self._key(slug, request), keys.response_deps(slug, request)

    def deps_of(self, key: str) -> tuple[str, ...]:
        """What a value of that key is computed from; nothing if it is none of the pipeline's. An answer's key has no user."""
        return keys.deps_of(key, self._made_by)

    def _fetch(self, request: PersonaRequest, counted: bool) -> Found:
        # Before the routing is read: an answer computed from a routing that L1 still held must not pass for newer than it.
        as_of = self.cache.as_of()
        routing = self.routing(request.resonance_key, as_of)
        key = self._key(routing.slug, request)
        if self._note is not None and counted and ((context := request.context) is None or not context.is_personal):
            self._note((key, request))
        return self._answer(key, request, routing, as_of, self._grace(request, key))

    def _answer(
        self, key: str, request: PersonaRequest, routing: Routing, as_of: AsOf, grace: Grace, least_s: float = 0.0
    ) -> Found:
        slug = routing.slug

        def answer() -> PersonaResponse:
            response = self.pipeline.answer(request, routing, self.template(slug, request.resonance_key, as_of))
            if isinstance(response.content, CutShort):
                raise _NotKept(msgspec.structs.replace(response, content=str(response.content)))
            return response

        try:
            return self.cache.fetch(
                key,
                answer,
                keys.response_kind(request.context),
                deps=lambda: keys.response_deps(slug, request),
                as_of=as_of,
                grace=grace,
                least_s=least_s,
            )
        except _NotKept as ended:
            return Found(ended.response, "no", self.cache.degraded)

    def _key(self, slug: str, request: PersonaRequest) -> str:
        return keys.response_key(slug, request, self._made_by[slug])

    def _grace(self, request: PersonaRequest, key: str) -> Grace:
        return Grace(
            s=self._grace_s,
            refresh=None if self._refresh is None else lambda: self._have_refreshed(request, key),
            forgives=_is_the_models_failure,
            max_age_s=request.max_age_s,
        )

    def _have_refreshed(self, request: PersonaRequest, key: str) -> None:
        in_flight = self.cache.in_flight
        if self._refresh is not None and in_flight is not None and in_flight.may_refresh(key, REFRESH_PAUSE_S):
            self._refresh(msgspec.structs.replace(request, max_age_s=0.0))

    # -- the stages before an answer

    def routing(self, resonance: str, as_of: AsOf) -> Routing:
        """Which persona answers this resonance key. `as_of`: what was known before the first input was read."""
        key = keys.routing_key(resonance)
        routing: Routing | MissType = self.cache.get(key, type=Routing)
        if routing is MISS or routing.catalog != self._catalog_version:
            routing = self.pipeline.route(ResonanceKey.parse(resonance))
            self.cache.fill(key, routing, keys.ROUTING, as_of=as_of)
        return routing

    def info(self, slug: str, as_of: AsOf) -> PersonaInfo:
        """The part of a persona that prompts need."""
        key, current = keys.info_key(slug), self.pipeline.info(slug)
        info: PersonaInfo | MissType = self.cache.get(key, type=PersonaInfo)
        if info is MISS or info.version != current.version:
            info = current
            self.cache.fill(key, info, keys.INFO, as_of=as_of)
        return info

    def template(self, slug: str, resonance: str, as_of: AsOf) -> PromptTemplate:
        """What a persona is told for this resonance key, whatever the request."""
        key, info = keys.template_key(slug, resonance), self.info(slug, as_of)
        template: PromptTemplate | MissType = self.cache.get(key, type=PromptTemplate)
        if template is MISS or template.version != template_version(info):
            template = self.pipeline.template(info, ResonanceKey.parse(resonance))
            self.cache.fill(key, template, keys.TEMPLATE, deps=(keys.info_key(slug),), as_of=as_of)
        return template

    def preload_common_personas(self) -> int:
        """Bring every persona's info into both tiers; how many there are."""
        as_of = self.cache.as_of()
        for persona in self.pipeline.catalog:
            self.info(persona.slug, as_of)
        return len(self.pipeline.catalog)

    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """Make misses of all entries that match or depend on a match, in every process. See TwoTierCache.invalidate.

        Keys hold data encoded: where a pattern is made from data, use `invalidate_user`, `invalidate_persona` or
        `pipeline.pattern_for`. Raises InvalidPatternError, also for a pattern within `user:` that is no user's key; one that can
        match no key is logged.
        """
        checked = self._checked(patterns)
        return self.cache.invalidate(*checked, wait_s=wait_s)

    def invalidate_user(self, *user_ids: str, wait_s: float = 0.0) -> Invalidation:
        """Forget the answers that were made for these users, whatever stands in their ids, and no other user's.

        Raises InvalidRequestError for an id that no request can name.
        """
        if not user_ids:
            raise ValueError("user_ids: none given")
        return self.cache.invalidate(*map(keys.user_key_to_invalidate, user_ids), wait_s=wait_s)

    def invalidate_persona(self, *names: str, wait_s: float = 0.0) -> Invalidation:
        """Forget these personas' infos, templates and answers. Case does not count. Raises InvalidRequestError for one that there
        is not."""
        if not names:
            raise ValueError("names: none given")
        return self.cache.invalidate(*map(self.persona_pattern, names), wait_s=wait_s)

    def persona_pattern(self, name: str) -> str:
        """The pattern of what there is of a persona, by its name as answers show it. Raises InvalidRequestError."""
        return keys.persona_pattern(self.pipeline.catalog.get(name).slug)

    def unmatched(self, pattern: str) -> Unmatched | None:
        """That no key of the pipeline can match the pattern, and the nearest that one can; None if one can. Looks at no key."""
        return self._shapes.unmatched(pattern)

    def invalidate_cache_pattern(self, pattern: str) -> int:
        """Invalidate what matches, everywhere, and remove its bytes; how many keys went. See `invalidate`, and
        TwoTierCache.delete_pattern."""
        (checked,) = self._checked((pattern,))
        return self.cache.delete_pattern(checked)

    def _checked(self, patterns: tuple[str, ...]) -> tuple[str, ...]:
        checked = tuple(map(keys.check_pattern, patterns))
        for pattern in checked:
            unmatched = self._shapes.unmatched(pattern)
            if unmatched is not None and not unmatched.foreign:
                logger.warning("cache.pattern_unmatched: %s", unmatched.message)
        return checked

    def clear_cache(self) -> int:
        """Invalidate everything, everywhere, and remove this cache's bytes; how many keys went."""
        return self.cache.clear()

    def get_cache_stats(self) -> dict[str, Any]:
        """This process's figures since its start. `avg_time_ms` is the mean of the requests' own times."""
        counted = self.reporter.tally.snapshot()
        requests = sum(counted[source].count for source in ANSWERED)
        hits = requests - counted["no"].count
        time_ms = math.fsum(counted[source].sum_ms for source in ANSWERED)
        stats = self.cache.get_stats()
        return {
            "total_requests": requests,
            "cache_hits": hits,
            "cache_misses": requests - hits,
            "hit_rate": percent(hits, requests),
            "avg_time_ms": f"{time_ms / requests if requests else 0.0:.1f}",
            **stats,
        }

    def close(self) -> None:
        """Send what waits, report what was counted and close this process's connections; a later call opens them anew."""
        if self._announcing is not None:
            self._announcing.close()
        self.reporter.courier.close()
        self.cache.close()


def _is_the_models_failure(error: Exception) -> bool:
    return isinstance(error, ModelError)


def _digest(*parts: str) -> str:
    return hashlib.blake2b(msgspec.json.encode(parts), digest_size=16).hexdigest()
