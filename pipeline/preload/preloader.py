"""Warm caches before the traffic comes: what is the same for all requests, and the answers that are asked for most."""

from __future__ import annotations

import logging
import random
import time
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Final, NamedTuple

from pipeline import keys
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.errors import ModelError
from pipeline.hot import HotKeys, HotSet
from pipeline.models import RESONANCES, PersonaResponse
from pipeline.optimized import OptimizedPipeline
from pipeline.preload.rounds import Progress, Round, report_of
from pipeline.prompts import PromptTemplate
from pipeline.routing import Routing

logger: Final = logging.getLogger(__name__)

FAILURES: Final = 3
"""After so many failures of the model in a round no more is spent on it."""
ROUND_S: Final = 30.0
"""So long a round gives out renewals. The last one may then take as long as the model's deadline, and both together fit into a
task's time limit."""
POLL_S: Final = 0.1
HELPERS: Final = 3
"""So many processes at a time help the one that leads a round."""
WARMED: Final = 200
"""How many of the hottest answers a process begins with."""
ASKED_AT_ONCE: Final = 100
"""So many entries come in one answer of Redis: some hundred kilobytes."""
NO_SHARED_TIER: Final = "there is no shared tier: PERSONA_CACHE_URL is not set"
AWAY: Final = "the cache's Redis is out of reach"
OUT_OF_TIME: Final = f"it took longer than {ROUND_S:g} s; the next one goes on"

Share = Callable[[str], None]
"""Has another process take part in the round of that id. Neither raises nor waits."""


class Stages(NamedTuple):
    """How many of the stages before an answer are in both tiers."""

    personas: int
    routes: int
    templates: int


def hot_set_of(pipeline: OptimizedPipeline) -> HotSet | None:
    """The answers that the fleet is asked for most; None without a shared tier."""
    l2 = pipeline.cache.l2
    return None if l2 is None else HotSet(l2.connection, HotKeys(l2.keys.namespace))


def preload_stages(pipeline: OptimizedPipeline) -> Stages:
    """Bring every persona's info, the routing of every resonance key and its prompt template into both tiers."""
    personas = pipeline.preload_common_personas()
    pipeline.cache.warm(dict.fromkeys(map(keys.routing_key, RESONANCES), Routing))
    as_of = pipeline.cache.as_of()
    slugs = {resonance: pipeline.routing(resonance, as_of).slug for resonance in RESONANCES}
    pipeline.cache.warm({keys.template_key(slug, resonance): PromptTemplate for resonance, slug in slugs.items()})
    for resonance, slug in slugs.items():
        pipeline.template(slug, resonance, as_of)
    return Stages(personas, len(slugs), len(slugs))


def warm(pipeline: OptimizedPipeline, most: int = WARMED) -> int:
    """Bring the fleet's hottest answers, as L2 has them, into this process's L1, with the routings that lead to them; how many
    entries came. One round trip tells which they are, a second one brings them."""
    hot = hot_set_of(pipeline)
    if hot is None:
        return 0
    try:
        answers = [key for key, _ in hot.top(most)]
    except SharedTierUnavailableError:
        return 0
    routings = {keys.routing_key(keys.resonance_of(key)): Routing for key in answers}
    return pipeline.cache.warm(routings | dict.fromkeys(answers, PersonaResponse))


class Preloader:
    """Preloads one fleet's caches, from any process that may ask the model.

    The process that leads a round renews answers itself, and calls others to help once one renewal has succeeded: so a round
    also ends where no other helps, and a failing model is asked FAILURES times and not by several at once. Never raises because
    Redis is away.
    """

    def __init__(
        self,
        pipeline: OptimizedPipeline,
        *,
        interval_s: float,
        share: Share,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`interval_s`: when the next preload is due; what would end before that is renewed."""
        self._pipeline = pipeline
        self._share = share
        self._clock = clock
        self._sleep = sleep
        self._rng = rng
        # Not more: what was computed a moment ago would be near its end.
        self._longest_s = min(1.4 * interval_s, 0.75 * keys.RESPONSE_TTL_S)
        self._shortest_s = min(1.1 * interval_s, self._longest_s)

    def run(self, round_id: str, budget: int) -> Progress:
        """Warm the stages before an answer, then renew the hot answers that are near their end or not there, at most `budget`,
        the hottest first. The report; it stands in Redis, too, under the round's id."""
        began_s = self._clock()
        stages = preload_stages(self._pipeline)
        hot, told = hot_set_of(self._pipeline), stages._asdict()
        if hot is None:
            return Progress(**told, stopped_because=NO_SHARED_TIER, ended=True)
        round_ = self._round(round_id)
        try:
            round_.tell(**told)
            report = self._renew(round_, hot, budget)
        except SharedTierUnavailableError:
            report = Progress(**told, stopped_because=AWAY, ended=True)
        logger.info("preload.done %s took_s=%.3f", _shown(report), self._clock() - began_s)
        return report

    def help(self, round_id: str) -> bool:
        """Renew one answer of that round; whether it gave one out. Calls the next helper while there is more to do."""
        try:
            round_ = self._round(round_id)
            if not self._renew_one(round_):
                return False
            if round_.left():
                self._share(round_id)
        except SharedTierUnavailableError:
            return False
        return True

    def _renew(self, round_: Round, hot: HotSet, budget: int) -> Progress:
        asked = [key for key, _ in hot.top()]
        left_s: dict[str, float] = {}
        for first in range(0, len(asked), ASKED_AT_ONCE):
            answered = self._pipeline.cache.left_s(asked[first : first + ASKED_AT_ONCE])
            if answered is None:
                raise SharedTierUnavailableError(AWAY)
            left_s |= answered
        due = [key for key in asked if left_s[key] < self._margin_s()][:budget]
        round_.begin(due, len(asked))
        ends_at_s = self._clock() + ROUND_S
        try:
            if round_.read().stopped_because is None:  # the caller may have stopped it before it began
                self._lead(round_, len(due), ends_at_s)
        except BaseException as error:
            with suppress(SharedTierUnavailableError):
                round_.stop(type(error).__name__)  # a time limit, say: no helper goes on spending
            raise
        return round_.end()

    def _margin_s(self) -> float:
        """Different for each, so that what was computed together is not renewed together for ever."""
        return self._shortest_s + (self._longest_s - self._shortest_s) * self._rng()

    def _lead(self, round_: Round, due: int, ends_at_s: float) -> None:
        called = False
        while self._renew_one(round_):
            if not called and round_.read().renewed:
                called = True
                for _ in range(min(HELPERS, round_.left())):
                    self._share(round_.round_id)
            if self._clock() >= ends_at_s:
                break
        while True:  # for those that helpers are at
            progress = round_.read()
            if progress.handled >= due or progress.stopped_because is not None:
                return
            if self._clock() >= ends_at_s:
                round_.stop(OUT_OF_TIME)
                return
            self._sleep(POLL_S)

    def _renew_one(self, round_: Round) -> bool:
        key = round_.take()
        if key is None:
            return False
        hot = hot_set_of(self._pipeline)
        request = hot.request(key) if hot is not None else None
        if hot is None or request is None:
            round_.note("skipped")
            return True
        if self._pipeline.key_of(request) != key:
            hot.forget(key)  # another release had other prompts or another model
            round_.note("skipped")
            return True
        try:
            done = self._pipeline.renew(request, self._longest_s)
        except ModelError as error:
            if round_.note("failed") >= FAILURES:
                round_.stop(f"the model failed {FAILURES} times, the last time with {type(error).__name__}")
                logger.warning("preload.stopped: the model failed %d times (%s)", FAILURES, type(error).__name__)
            return True
        if done == "away":
            round_.stop(AWAY)
            return False
        round_.note("renewed" if done == "computed" else "skipped")
        return True

    def _round(self, round_id: str) -> Round:
        l2 = self._pipeline.cache.l2
        if l2 is None:
            raise SharedTierUnavailableError(NO_SHARED_TIER)
        return Round(l2.connection, HotKeys(l2.keys.namespace), round_id)


def maintain(pipeline: OptimizedPipeline, limit_s: float = 2.0) -> dict[str, Any]:
    """Remove bytes of what was invalidated, for about so long, and let the hot set decay; what was done.

    `looked_at` and `swept` entries of L2; `pass_done`: all that was invalid when the pass began is gone; `hot`: how many keys
    have a score. With `stopped_because` it did not come so far. Never raises because Redis is away.
    """
    hot = hot_set_of(pipeline)
    if hot is None:
        return {"stopped_because": NO_SHARED_TIER}
    swept = pipeline.cache.sweep(limit_s)
    if swept is None:
        return {"stopped_because": AWAY}
    done = {"looked_at": swept.looked_at, "swept": swept.removed, "pass_done": swept.done}
    try:
        return done | {"hot": hot.decay()}
    except SharedTierUnavailableError:
        return done | {"stopped_because": AWAY}


def _shown(progress: Progress) -> str:
    figures: Mapping[str, Any] = report_of(progress)
    return " ".join(f"{name}={value}" for name, value in figures.items())
