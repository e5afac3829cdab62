"""A caller's need of a value that is not at hand: how it is computed and kept, and what others' computations bring of it."""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterable, Mapping
from contextvars import Token
from typing import Any, Final, NamedTuple

from pipeline.cache.encoding.codec import codec_for
from pipeline.cache.entry import MISS, AsOf, MissType
from pipeline.cache.errors import UncacheableValueError
from pipeline.cache.flight.computation import COMPUTING, LIVE, Computation, computing, note
from pipeline.cache.flight.filling import Filling
from pipeline.cache.flight.leases import Taken
from pipeline.cache.flight.seeking import LONGEST_PAUSE_S, Outcome
from pipeline.cache.grace import Grace
from pipeline.cache.kind import Kind, lifetime_of
from pipeline.cache.lineage import MOST_DEPS, TOO_MANY
from pipeline.cache.stats import Counters, megabytes
from pipeline.cache.tiers import Found, Tiers

logger: Final = logging.getLogger(__name__)

_MOST_TOLD: Final = 1_000
Accept = Callable[[Any], bool]


class Keeper:
    """How a cache keeps what was computed for it. Thread-safe."""

    def __init__(
        self,
        tiers: Tiers,
        filling: Filling,
        counters: Counters,
        *,
        max_ttl_s: float,
        max_value_bytes: int,
        ttl_jitter: float,
        rng: Callable[[], float],
        clock: Callable[[], float],
    ) -> None:
        """`counters` has computed and unkept."""
        self.tiers = tiers
        self.filling = filling
        self.max_ttl_s = max_ttl_s
        self.max_value_bytes = max_value_bytes
        self._counters = counters
        self._ttl_jitter = ttl_jitter
        self._rng = rng
        self.now_s = clock
        self._told: set[str] = set()

    def keep(self, value: object, made: Made) -> tuple[Any, bytes, float, tuple[str, ...]]:
        """Keep what was computed: the value as JSON carried it, the JSON, for how long, and all that it depends on. Raises
        UncacheableValueError for a value that does not fit, or depends on too many keys."""
        self._counters.add("computed")
        self.remember(made.key, made.deps)
        lifetime_s = made.ttl_s * (1 - self._ttl_jitter * self._rng())
        codec = codec_for(made.type)
        payload, carried = codec.encode(value)
        self.check_size(payload)
        self.filling.store(made.key, carried, payload, lifetime_s, made.deps, codec, made.as_of, made.grace_s, made.began_s)
        return carried, payload, lifetime_s, made.deps

    def keep_many(
        self, values: Mapping[str, Any], kind: Kind, deps: tuple[str, ...], as_of: AsOf, began_s: float
    ) -> dict[str, Any]:
        """As `keep`, of several values that were computed together, in one round trip; the values as JSON carried them. One that
        does not fit is not kept."""
        codec = codec_for(kind.type)
        _, negative_s, _ = kind.lifetimes_s(self.max_ttl_s)
        carried, payloads = {}, {}
        for key, value in values.items():
            self._counters.add("computed")
            ttl_s = lifetime_of(kind, value, negative_s, self.max_ttl_s)
            try:
                self.remember(key, deps)
                payload, carried[key] = codec.encode(value)
                self.check_size(payload)
            except UncacheableValueError as error:
                self.unfit(key, kind, error)
                carried[key] = value
            else:
                payloads[key] = (carried[key], payload, ttl_s * (1 - self._ttl_jitter * self._rng()))
        self.filling.store_many(payloads, deps, codec, as_of, began_s)
        return carried

    def remember(self, key: str, deps: tuple[str, ...]) -> None:
        """Remember what a value depends on that was computed, kept or not. Raises UncacheableValueError if these are too many."""
        self.filling.remember(key, deps)
        if deps is TOO_MANY:
            raise UncacheableValueError(
                f"value: depends on more than {MOST_DEPS:,} keys; to keep it, let it read less through the cache, and name by "
                "cache.reads() a key that is invalidated when any of that changes"
            )

    def check_size(self, payload: bytes) -> None:
        """Raises UncacheableValueError for a value that is too large."""
        if len(payload) > self.max_value_bytes:
            size, most = megabytes(len(payload)), megabytes(self.max_value_bytes)
            raise UncacheableValueError(f"value: is too large: {size}; kept are up to {most} (max_value_bytes)")

    def unfit(self, key: str, kind: Kind, error: UncacheableValueError) -> None:
        """Tell, once a function, that its value is not kept. Raises the error if the kind wants it raised."""
        if kind.unfit == "raise":
            raise error
        self._counters.add("unkept")
        name = kind.name or key.partition(":")[0]
        if name not in self._told and len(self._told) < _MOST_TOLD:
            self._told.add(name)
            logger.warning(
                "cache.value_not_kept: %s: %s; its callers compute it each time (told once; unfit='raise' raises)", name, error
            )


class Made(NamedTuple):
    """How a value was made, and how it is to be kept: `ttl_s` within its time to live, `grace_s` beyond that. `began_s`: when its
    computation began, by the cache's clock, if it was here."""

    key: str
    type: Any
    ttl_s: float
    deps: tuple[str, ...]
    as_of: AsOf
    grace_s: float = 0.0
    began_s: float = math.inf


class Asking:
    """One caller that has missed a key. Made for each, and used by it alone."""

    __slots__ = (
        "_accept",
        "_began_s",
        "_deps",
        "_failures",
        "_grace_s",
        "_keeper",
        "_kind",
        "_least_s",
        "_negative_s",
        "_tiers",
        "asked_at_s",
        "codec",
        "computation",
        "compute",
        "key",
        "wanted_deps",
    )

    def __init__(
        self,
        keeper: Keeper,
        key: str,
        compute: Callable[[], Any],
        kind: Kind,
        deps: tuple[str, ...],
        *,
        accept: Accept | None = None,
        grace: Grace | None = None,
        least_s: float = 0.0,
    ) -> None:
        """See TwoTierCache.fetch. `deps`: those that the caller gives; what the computation reads is added to them."""
        self._keeper = keeper
        self._tiers = keeper.tiers
        self.key = key
        self.compute = compute
        self._kind = kind
        self._deps = deps
        self._accept = accept
        self._least_s = least_s
        _, self._negative_s, self._grace_s = kind.lifetimes_s(keeper.max_ttl_s, grace)
        self.codec = codec_for(kind.type)
        self.computation = Computation(key, computing())
        self.wanted_deps = keeper.filling.likely_deps(key, deps)
        """What the value will depend on, as far as it is known before it is computed."""
        self.asked_at_s: float | None = None
        """When the caller asked, by the cache's clock; None until `looks_from`."""
        self._failures = 0
        self._began_s = math.inf

    def looks_from(self, asked_at_s: float) -> None:
        """Say when the caller asked: before the tiers are looked into for it."""
        self.asked_at_s = asked_at_s
        self._failures = self._tiers.failures

    # -- computing

    def computed(self, known: AsOf) -> Outcome:
        """Compute the value, by what was known before its first input was read, and keep it."""
        running, token = self.computation, None
        try:
            token = COMPUTING.set(running)
            LIVE.add(running)
            self.begin()
            value = self.compute()
        finally:
            running.end()
            LIVE.discard(running)
            if token is not None:
                COMPUTING.reset(token)
        return self.keep(value, known)

    def begin(self) -> None:
        """The computation begins."""
        self._began_s = self._keeper.now_s()
        self.computation.begin()

    def keep(self, value: object, known: AsOf) -> Outcome:
        """The outcome of a computation that has ended. A value that does not fit is the caller's alone."""
        kind, deps = self._kind, self.computation.deps()
        if self._deps:
            deps = together((self._keeper.filling.with_theirs(self._deps, known=self.computation.read), deps))
        grace_s = 0.0 if value is None else self._grace_s
        ttl_s = lifetime_of(kind, value, self._negative_s, self._keeper.max_ttl_s - grace_s)
        try:
            made = Made(self.key, kind.type, ttl_s, deps, known, grace_s, self._began_s)
            carried, payload, lifetime_s, _ = self._keeper.keep(value, made)
        except UncacheableValueError as error:
            self._keeper.unfit(self.key, kind, error)
            return Outcome(Found(value, "no", self._tiers.degraded, deps), b"", None, deps, lasting=False)
        # Callers that wait for it must find it when they next look, and it must do for them.
        lasting = lifetime_s > max(self._least_s, 2 * LONGEST_PAUSE_S) and self._accepts(carried)
        return Outcome(Found(carried, "no", self._tiers.degraded, deps), payload, self.codec, deps, lasting, known)

    # -- what others bring

    def look(self, stale_age_s: float, now_s: float | None = None) -> Found | MissType:
        """What the tiers have."""
        found = self._tiers.lookup(self.key, type=self.codec.type, stale_age_s=stale_age_s, now_s=now_s)
        return found if found is not MISS and self._accepts(found.value) else MISS

    def probe(self, taken: Taken | None, generation: int) -> Outcome | None:
        """See SingleFlight.run."""
        if taken is None:
            found: Found | MissType = MISS if self._least_s > 0 else self._tiers.lookup_again(self.key, self.codec)
        else:
            found = self._tiers.promote(self.key, taken.entry, self.codec, generation, self.asked_at_s, least_s=self._least_s)
        if found is MISS or not self._accepts(found.value):
            return None
        return Outcome(found, self.codec.encode(found.value)[0], self.codec, found.deps)

    def brought(self, outcome: Outcome) -> Found | MissType:
        """What another caller's computation brought, as a value of this one's own; MISS if that will not do."""
        if outcome.codec is self.codec:
            found: Found | MissType = Found(self.codec.decode(outcome.payload), "joined", self._tiers.degraded, outcome.deps)
        else:  # seen as another type, which may leave out a part, or be another thing
            found = self._tiers.lookup(self.key, type=self.codec.type)
        if found is MISS or not self._accepts(found.value):
            return MISS
        self.note_joined(found, outcome)
        return found

    def note_joined(self, found: Found, outcome: Outcome) -> None:
        """Have the sampler note what is served of another caller's computation. What was found was noted where it was found; and
        with Redis away a join is judged by what this process knows, and the auditor would know more."""
        if found.source != "joined" or outcome.found.source != "no" or outcome.as_of is None or self.asked_at_s is None:
            return
        if self._tiers.l2 is not None and self._tiers.failures == self._failures:
            self._tiers.note_joined(self.key, outcome.deps, outcome.as_of, self.asked_at_s)

    def _accepts(self, value: Any) -> bool:
        return self._accept is None or self._accept(value)


def together(parts: Iterable[tuple[str, ...]]) -> tuple[str, ...]:
    """All of these deps, or TOO_MANY."""
    whole: dict[str, None] = {}
    for part in parts:
        if part is TOO_MANY:
            return TOO_MANY
        whole |= dict.fromkeys(part)
    return tuple(whole) if len(whole) <= MOST_DEPS else TOO_MANY


class Many:
    """A computation of several values at once: `with` it. What it reads, all of them depend on."""

    def __init__(self, keeper: Keeper, keys: tuple[str, ...]) -> None:
        self._keeper = keeper
        self._keys = keys
        self._began_s = math.inf
        self._computation = Computation(keys[0], computing())
        self._token: Token[Computation | None] | None = None
        self._whole: tuple[str, ...] = ()

    def noted(self) -> None:
        """Note the values, once they are kept, as read by the computation that needs them."""
        for key in self._keys if LIVE else ():
            note(key, self._whole)

    def __enter__(self) -> None:
        self._began_s = self._keeper.now_s()
        self._token = COMPUTING.set(self._computation)
        LIVE.add(self._computation)

    def __exit__(self, failed: type[BaseException] | None, *_: object) -> None:
        self._computation.end()
        LIVE.discard(self._computation)
        if self._token is not None:
            COMPUTING.reset(self._token)
        if failed is not None:  # as in TwoTierCache.fetch: an outer computation that catches it depends on what led to it
            self._whole = self._computation.deps()
            self.noted()

    def keep(self, values: Mapping[str, Any], kind: Kind, deps: tuple[str, ...], as_of: AsOf) -> dict[str, Any]:
        """Keep them; as JSON carried them. Raises ValueError for one that was not asked for."""
        if more := [key for key in values if key not in self._keys]:
            raise ValueError(f"compute: gave a value for {more[0]!r}, which was not asked for")
        read = self._computation.deps()
        whole = self._whole = together((self._keeper.filling.with_theirs(deps, known=self._computation.read), read))
        return self._keeper.keep_many(values, kind, whole, as_of, self._began_s)
