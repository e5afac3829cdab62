"""The two tiers as one cache: what may be served, and when. The protocol and its proof: docs/coherence.md.

One module, and a long one: it is the one face of the cache, and its parts do the work.
"""

from __future__ import annotations

import math
import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, TypeVar, Unpack

import msgspec

from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.codec import Codec, codec_for
from pipeline.cache.coherence.bus import VERSION, NodeBus
from pipeline.cache.coherence.listener import Listener
from pipeline.cache.coherence.log import InvalidationLog, LocalInvalidationLog, RedisInvalidationLog
from pipeline.cache.coherence.process import Announce, Coherence, Invalidation
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.entry import MISS, AsOf, MissType
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.in_flight import InFlight
from pipeline.cache.flight.leases import Leases, Taken
from pipeline.cache.flight.single import LONGEST_PAUSE_S, Outcome, SingleFlight
from pipeline.cache.grace import Grace
from pipeline.cache.keys import check_deps, check_key, check_text
from pipeline.cache.kind import PLAIN, Kind, KindOptions, checked_ttl_s
from pipeline.cache.memory.local import COPY, LocalCache
from pipeline.cache.patterns.pattern import escape, parse
from pipeline.cache.seconds import Duration
from pipeline.cache.server.shared import NO_SERVER, RedisCache
from pipeline.cache.stats import Counters
from pipeline.cache.sweeper import Sweeper, Swept
from pipeline.cache.tiers import Found, Tiers

T = TypeVar("T")


Deps = Iterable[str] | Callable[[], Iterable[str]]


class TwoTierCache:
    """L1 in this process, L2 in Redis, and the invalidation log that keeps them coherent. Thread-safe. It may be made before a
    fork and used on both sides: a child begins with a copy of L1 and of the counts, and has its own connections and leases.

    A signal handler or finalizer may use it too. In the middle of something that does not bear that it gets a ReentrantUseError.

    What a caller may rely on: a value is what JSON carried, from either tier, and the caller's own. Once `invalidate` has
    returned with `durable`, no read that goes to L2, in any process, returns a value whose computation began before; an L1
    serves such a value for `staleness_bound_s` at most. Nothing raises because Redis is away. Without an L2 the cache is
    this process's alone.
    """

    def __init__(
        self,
        l1: LocalCache | None = None,
        l2: RedisCache | None = None,
        *,
        staleness_bound_s: float = 1.0,
        strict: bool = False,
        l1_max_ttl_s: float = 60.0,
        max_ttl_s: float = 86_400.0,
        ttl_jitter: float = 0.1,
        lease_s: float = 5.0,
        wait_s: float = 30.0,
        bus: NodeBus | None = None,
        listens: bool = False,
        announce: Announce | None = None,
        sampler: Sampler | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`strict`: with Redis out of reach, bypass L1 rather than serve it unconfirmed. `max_ttl_s`: the longest TTL of any
        entry, and how long the log remembers. `ttl_jitter`: a computed entry lives up to this share shorter, so that what
        was made together does not end together. `lease_s`: how long a key waits at most for the process that computed it
        and died (see `Leases`). `wait_s`: how long a caller waits for another one's computation before it computes by itself.
        `bus`: the node's, which its main process keeps in step. `listens`: where none does, a thread hears what others
        invalidate, from the first read of L2 on; else the lease alone tells. `announce` is told of every invalidation made here,
        with the id to acknowledge it by if a caller waits for that; it must not raise. `sampler`: is told of some of the answers
        that are served.
        """
        self._max_ttl_s = max_ttl_s
        self._ttl_jitter = ttl_jitter
        self._rng = rng
        counters = Counters(
            "l2_hits", "l2_misses", "computed", "joined", "stale", "taken_over", "waited_out", "fills_discarded", "degraded"
        )
        log: InvalidationLog = LocalInvalidationLog()
        registry, leases = None, None
        if l2 is not None:
            leases = Leases(l2.connection, l2.keys, ttl_s=lease_s, longest_s=wait_s, clock=clock)
            log = RedisInvalidationLog(l2.connection, l2.keys, retention_s=max_ttl_s)
            registry = NodeRegistry(l2.connection, l2.keys)
        coherence = Coherence(log, registry, bound_s=staleness_bound_s, bus=bus, announce=announce, clock=clock)
        if listens and isinstance(log, RedisInvalidationLog):
            coherence.listener = Listener(log.subscribe, coherence)
        self.in_flight = None if l2 is None or leases is None else InFlight(l2.connection, l2.keys, coherence, leases)
        """The tasks in flight for this cache's keys; None without a shared tier."""
        self._flight = SingleFlight(coherence, leases, counters, strict=strict, wait_s=wait_s, clock=clock)
        self.l1 = LocalCache() if l1 is None else l1
        self.l2 = l2
        self._coherence = coherence
        self._counters = counters
        self._clock, self._wall_clock = clock, wall_clock
        self._sampler = Sampler() if sampler is None else sampler
        self._tiers = Tiers(
            self.l1,
            l2,
            coherence,
            counters,
            sampler=self._sampler,
            strict=strict,
            l1_max_ttl_s=l1_max_ttl_s,
            clock=clock,
            wall_clock=wall_clock,
        )
        # For `get` alone, which looks nothing up that need not be.
        self._view = coherence.view
        self._slots = self.l1.slots
        self._count_hit = self.l1.hits.add
        self._lookup = self._tiers.lookup

    # -- reading

    def get(self, key: str, default: Any = MISS, type: Any = Any) -> Any:
        """The value, or `default`. `type`: Any for JSON, or a frozen struct that comes back as such. Raises InvalidPatternError
        for a key that is no text.

        It cannot say where the value came from, nor whether Redis could be asked: `lookup` tells both (`Found.degraded`).
        """
        # The hot path, a first time: the steps of `Tiers.lookup`, with nothing called or made that need not be. A test holds the
        # two against each other.
        try:
            slot = self._slots.get(key)
        except TypeError:
            check_text(key)  # what cannot be looked up in a dict is no text
            raise
        if slot is not None and slot.type is type:
            now_s = self._clock()
            coherence = self._coherence
            if (
                coherence.words[VERSION] == coherence.version
                and now_s < coherence.lease_ends_at_s
                and now_s < slot.expires_at
                and slot.generation == self._view.generation
            ):
                slot.used = True
                self._count_hit()
                if now_s >= self._sampler.due_s:
                    self._sampler.note(key, slot.deps, slot.as_of, "l1", now_s, slot.made_s)
                return slot.shared if slot.shared is not COPY else slot.value(type)
        found = self._lookup(key, type=type)
        return default if found is MISS else found.value

    def lookup(self, key: str, *, type: Any = Any, stale_age_s: float = 0.0) -> Found | MissType:
        """The value and where it came from, or MISS. `stale_age_s`: an entry past its time to live will do, if it still is there
        and was computed less than that ago. Raises InvalidPatternError for a key that is no text."""
        return self._lookup(key, type=type, stale_age_s=stale_age_s)

    def peek(self, key: str, *, type: Any = Any) -> Found | MissType:
        """The value that this process may serve without asking Redis, or MISS. Never waits; a miss is not counted."""
        return self._tiers.peek(key, type=type)

    def warm(self, wanted: Mapping[str, Any]) -> int:
        """Bring into L1 the entries of these keys that L2 has, each with the type it will be asked for, in one round trip; how
        many came.

        Judged as at any read. Keys that L1 has already are not asked for. Nothing is counted: no caller has asked for it.
        """
        return self._tiers.warm(wanted)

    def left_s(self, keys: Sequence[str]) -> dict[str, float] | None:
        """How long L2 may still serve each of these keys within its time to live; 0 for one that it does not have, or not
        validly. In one round trip. None when Redis cannot be asked."""
        return self._tiers.left_s(keys)

    # -- computing

    def as_of(self) -> AsOf:
        """What this process knows of the log. Take it before the first input of a computation is read, and pass it on."""
        return self._coherence.as_of()

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], T],
        *,
        deps: Deps = (),
        as_of: AsOf | None = None,
        accept: Callable[[T], bool] | None = None,
        grace: Grace | None = None,
        **kept: Unpack[KindOptions],
    ) -> T:
        """The cached value, or what `compute` returns, kept for `ttl` (300 s unless given). An exception of `compute` is not
        cached. `kept`: the fields of a `Kind`. See `fetch` for the others."""
        kind = Kind(**kept) if kept else PLAIN
        value: T = self.fetch(key, compute, kind, deps=deps, as_of=as_of, accept=accept, grace=grace).value
        return value

    def fetch(
        self,
        key: str,
        compute: Callable[[], object],
        kind: Kind = PLAIN,
        *,
        deps: Deps = (),
        as_of: AsOf | None = None,
        accept: Callable[[Any], bool] | None = None,
        grace: Grace | None = None,
        least_s: float = 0.0,
        **kept: Unpack[KindOptions],
    ) -> Found:
        """As `get_or_compute`, with where the value came from. `kind`: how the value is kept; `kept` says it by keywords.

        Of many callers that miss a key at the same time, in whatever threads and processes, one computes and the others have its
        value; see SingleFlight for the bounds, for the errors that threads share, and for computations that need each other's.

        `deps`: the keys it is computed from, or a function that gives them, which a hit does not call; an invalidation of one of
        them invalidates this one. `as_of`: what was known before the first input was read, if that was before this call.
        `accept`: whether a cached value will do, such as one that another release may have written; one that will not is computed
        anew and replaced. `grace`: what may be served past its time to live.

        `least_s`: a cached value that L2 may serve for less than that will not do. It is computed anew ahead of its end, and
        served to every other caller until the new one has taken its place.
        """
        if kept:
            kind = msgspec.structs.replace(kind, **kept)
        check_key(key)
        ttl_s, negative_s, grace_s = kind.lifetimes_s(self._max_ttl_s, grace)
        stale_age_s = 0.0 if grace is None or grace.refresh is None else grace.longest_age_s
        asked_at_s = self._clock()
        found: Found | MissType = MISS
        if least_s <= 0:
            found = self._lookup(key, type=kind.type, stale_age_s=stale_age_s, now_s=asked_at_s)
        if found is not MISS and (accept is None or accept(found.value)):
            if found.source == "stale" and grace is not None and grace.refresh is not None:
                grace.refresh()
            return found
        own_deps = check_deps(deps() if callable(deps) else deps)
        codec = codec_for(kind.type)

        def computed(known: AsOf) -> Outcome:
            made_s = self._clock()
            value = compute()
            lifetime_s = ttl_s if value is not None or negative_s is None else negative_s
            carried, payload, lifetime_s, whole = self._keep(
                key, value, lifetime_s, own_deps, codec, known, 0.0 if value is None else grace_s, made_s
            )
            # Callers that wait for it must find it when they next look, and it must do for them.
            lasting = lifetime_s > max(least_s, 2 * LONGEST_PAUSE_S) and (accept is None or accept(carried))
            return Outcome(Found(carried, "no", self.degraded), payload, codec, whole, lasting, known)

        def probe(taken: Taken | None, generation: int) -> Outcome | None:
            found = self._taken(key, taken, codec, generation, least_s, asked_at_s)
            if found is MISS or (accept is not None and not accept(found.value)):
                return None
            slot = self._slots.get(key)
            payload = codec.encode(found.value)[0]
            if slot is None:
                return Outcome(found, payload, codec, own_deps)
            return Outcome(found, payload, codec, slot.deps, as_of=slot.as_of)

        failures = 0 if self.l2 is None else self.l2.connection.failures
        try:
            if kind.single_flight:
                outcome, joined = self._flight.run(key, own_deps, as_of, probe, computed, asked_at_s=asked_at_s)
            else:
                outcome, joined = computed(self.as_of() if as_of is None else as_of), False
            brought: Found | MissType = self._joined(key, outcome, codec, accept) if joined else outcome.found
            if joined and self.l2 is not None and self.l2.connection.failures == failures:
                # With Redis away a join is judged by what this process knows, and the auditor would know more.
                self._note_joined(key, outcome, asked_at_s)
            return computed(self.as_of() if as_of is None else as_of).found if brought is MISS else brought
        except Exception as error:
            if grace is not None and grace.forgives(error):
                last = self._lookup(key, type=kind.type, stale_age_s=grace.longest_age_s)
                if last is not MISS and (accept is None or accept(last.value)):
                    return last
            raise

    def fill(self, key: str, value: object, kind: Kind = PLAIN, *, deps: Deps = (), as_of: AsOf) -> None:
        """Keep a value that the caller has computed from inputs read since `as_of`, unless it is known to be invalid by now. For
        values that cost less than it costs to ask Redis which process computes them: two callers that miss both compute.

        Raises UncacheableValueError, InvalidPatternError (the key or a dep) or ValueError (`kind.ttl`).
        """
        check_key(key)
        ttl_s, _, _ = kind.lifetimes_s(self._max_ttl_s)
        self._keep(key, value, ttl_s, check_deps(deps() if callable(deps) else deps), codec_for(kind.type), as_of)

    def _keep(
        self,
        key: str,
        value: object,
        ttl_s: float,
        deps: tuple[str, ...],
        codec: Codec[Any],
        as_of: AsOf,
        grace_s: float = 0.0,
        made_s: float = math.inf,
    ) -> tuple[Any, bytes, float, tuple[str, ...]]:
        """Keep what was computed: the value as JSON carried it, the JSON, for how long, and all that it depends on."""
        self._counters.add("computed")
        lifetime_s = ttl_s * (1 - self._ttl_jitter * self._rng())
        whole = self._tiers.with_theirs(deps)
        carried, payload = self._tiers.store(key, value, lifetime_s, whole, codec, as_of, grace_s, made_s)
        return carried, payload, lifetime_s, whole

    def _joined(self, key: str, outcome: Outcome, codec: Codec[Any], accept: Callable[[Any], bool] | None) -> Found | MissType:
        """What another caller's computation brought, as a value of this one's own; MISS if that will not do."""
        if outcome.codec is codec:
            found: Found | MissType = Found(codec.decode(outcome.payload), "joined", self.degraded)
        else:  # seen as another type, which may leave out a part, or be another thing
            found = self._lookup(key, type=codec.type)
        return found if found is not MISS and (accept is None or accept(found.value)) else MISS

    def _note_joined(self, key: str, outcome: Outcome, asked_at_s: float) -> None:
        # Another one than a computed one is noted where it was found.
        if outcome.as_of is not None and outcome.found.source == "no" and self._sampler.due("joined", asked_at_s):
            self._sampler.note(key, outcome.deps, outcome.as_of, "joined", asked_at_s)

    def _taken(
        self, key: str, taken: Taken | None, codec: Codec[Any], generation: int, least_s: float, asked_at_s: float
    ) -> Found | MissType:
        if least_s > 0 and (taken is None or self.l2 is None):
            return MISS  # L1 does not know how long an entry has left
        if self.l2 is None:
            return self._tiers.peek(key, type=codec.type)
        if taken is None:
            return self._lookup(key, type=codec.type)
        entry = self.l2.decode(key, taken.entry)
        if entry is not None and least_s > 0 and entry.remaining_s(self._wall_clock()) < least_s:
            return MISS
        promoted = self._tiers.promote(key, entry, codec, generation)
        if promoted is not MISS and entry is not None:
            self._tiers.note(key, entry, "l2", asked_at_s)
        return promoted

    # -- changing

    def set(self, key: str, value: object, ttl: Duration = 300, *, type: Any = Any) -> Invalidation:
        """Keep `value` for `ttl` (seconds, or a timedelta), in place of what any process holds for the key. Of two racing sets
        the worst outcome is a miss.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        ttl_s = checked_ttl_s(ttl, "ttl", self._max_ttl_s)
        codec = codec_for(type)
        codec.encode(value)  # refuse it before anything is invalidated
        done = self.invalidate(escape(key))
        as_of = AsOf(done.epoch, done.seq, self._view.generation) if done.durable else self._view.as_of()
        self._tiers.store(key, value, ttl_s, (), codec, as_of)
        return done

    def delete(self, key: str) -> bool:
        """Invalidate the key everywhere and remove its bytes; whether there were any."""
        check_key(key)
        self.invalidate(escape(key))
        had = self.l1.delete(key)
        if self.l2 is not None:
            had = self.l2.delete(key) or had
        return had

    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """Make every entry that matches, or was computed from a match, a miss. O(1) in the number of entries.

        Patterns: `*`, `?`, `[...]`, `\\` before a literal; anchored, case-sensitive. Raises InvalidPatternError; never because
        Redis is away: then `durable` is false. With `wait_s` it waits so long for the nodes to say that they have applied it.
        """
        texts = tuple(parse(pattern).text for pattern in patterns)
        if not texts:
            raise ValueError("patterns: none given; '*' means every key")
        return self._coherence.invalidate(texts, wait_s)

    def delete_pattern(self, pattern: str) -> int:
        """Invalidate what matches and remove its bytes; how many keys went, of either tier. Entries that depend on a match become
        misses, and their bytes stay until they expire. Walks all keys in Redis: to make misses, `invalidate` suffices.
        """
        matches = parse(pattern).matcher()
        self.invalidate(pattern)
        here = self.l1.drop(lambda key, _: matches(key))
        if self.l2 is None:
            return len(here)
        return len(here) - self.l2.count_present(here) + self.l2.delete_pattern(pattern)

    def clear(self) -> int:
        """Invalidate everything and remove this namespace's entries, and nothing else of the database; how many went."""
        return self.delete_pattern("*")

    def sweep(self, limit_s: float = 1.0) -> Swept | None:
        """Remove bytes of entries that are invalid anyway, for about so long; the next call, in any process, goes on there.
        None when Redis cannot be asked. See Sweeper."""
        if self.l2 is None:
            return None
        try:
            return Sweeper(self.l2, self._coherence, clock=self._clock).sweep(limit_s)
        except SharedTierUnavailableError:
            return None

    def refresh(self) -> bool:
        """Catch up with the log and renew the lease; whether Redis could be asked."""
        return self._coherence.refresh()

    # -- observing

    @property
    def degraded(self) -> bool:
        """Whether Redis, though configured, was out of reach when it was last needed, or refuses what it is needed for."""
        return self._tiers.degraded

    def get_stats(self) -> dict[str, Any]:
        """Counts of this process since its start, and what L2's server says of itself."""
        l1 = self.l1.get_stats()
        l2 = self.l2.get_stats() if self.l2 is not None else dict(NO_SERVER)
        counts = self._counters.snapshot()
        l2 |= {"hits": counts.pop("l2_hits"), "misses": counts.pop("l2_misses")}
        return {"l1": l1, "l2": l2, **counts}

    def close(self) -> None:
        """Close this process's sockets, and end its listener; a later call opens them anew."""
        if self._coherence.listener is not None:
            self._coherence.listener.close()
        if self.l2 is not None:
            self.l2.close()
