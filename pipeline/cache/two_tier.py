"""The two tiers as one cache: what may be served, and when. The protocol and its proof: docs/coherence.md.

One module, and a long one: it is the one face of the cache, and its parts do the work.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, TypeVar, Unpack

import msgspec

from pipeline.cache.aio.desk import Desk
from pipeline.cache.aio.face import AsyncCache, Parts
from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.coherence.bus import VERSION, NodeBus
from pipeline.cache.coherence.listener import Listener
from pipeline.cache.coherence.log import InvalidationLog, LocalInvalidationLog, RedisInvalidationLog
from pipeline.cache.coherence.process import Announce, Coherence, Invalidation
from pipeline.cache.coherence.registry import NodeRegistry
from pipeline.cache.encoding.codec import codec_for
from pipeline.cache.entry import MISS, OUTDATED, AsOf, Miss, MissType
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.asking import Asking, Keeper, Made, Many
from pipeline.cache.flight.computation import LIVE, computing, note
from pipeline.cache.flight.filling import Filling
from pipeline.cache.flight.in_flight import InFlight
from pipeline.cache.flight.leases import Leases
from pipeline.cache.flight.single import SingleFlight
from pipeline.cache.grace import Grace
from pipeline.cache.keys import check_deps, check_key, check_text
from pipeline.cache.kind import PLAIN, Kind, KindOptions, checked_ttl_s, lifetime_of
from pipeline.cache.lineage import MOST_DEPS
from pipeline.cache.memory.local import COPY, LocalCache
from pipeline.cache.patterns.pattern import escape, parse
from pipeline.cache.seconds import Duration
from pipeline.cache.server.shared import NO_SERVER, RedisCache
from pipeline.cache.stats import Counters
from pipeline.cache.sweeper import Sweeper, Swept
from pipeline.cache.tiers import Found, Tiers

if TYPE_CHECKING:
    from pipeline.cache.flight.watching import Watcher

T = TypeVar("T")


Deps = Iterable[str] | Callable[[], Iterable[str]]


def _keys_of(deps: Deps) -> tuple[str, ...]:
    return check_deps(deps() if callable(deps) else deps)


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
        max_value_bytes: int = 16 * 2**20,
        ttl_jitter: float = 0.1,
        lease_s: float = 5.0,
        wait_s: float = 30.0,
        bus: NodeBus | None = None,
        listens: bool = False,
        announce: Announce | None = None,
        sampler: Sampler | None = None,
        watcher: Watcher | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`strict`: with Redis out of reach, bypass L1 rather than serve it unconfirmed. `max_ttl_s`: the longest TTL of any
        entry, and how long the log remembers. `max_value_bytes`: a value whose JSON is larger is not kept. `ttl_jitter`: a
        computed entry lives up to this share shorter, so that what was made together does not end together. `lease_s`: how long
        a key waits at most for the process that computed it and died (see `Leases`). `wait_s`: how long a caller waits for
        another one's computation before it computes by itself. `bus`: the node's, which its main process keeps in step.
        `listens`: where none does, a thread hears what others invalidate, from the first read of L2 on; else the lease alone
        tells. `announce` is told of every invalidation made here, with the id to acknowledge it by if a caller waits for that; it
        must not raise. `sampler`: is told of some of the answers that are served. `watcher`: of the steps beyond L1.
        """
        self._max_ttl_s = max_ttl_s
        counters = Counters(
            "l2_hits",
            "l2_misses",
            "computed",
            "joined",
            "stale",
            "taken_over",
            "waited_out",
            "fills_discarded",
            "degraded",
            "unkept",
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
        self._clock = clock
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
        self._filling = Filling(self._tiers, coherence, leases, counters, wall_clock=wall_clock)
        self._keeper = Keeper(
            self._tiers,
            self._filling,
            counters,
            max_ttl_s=max_ttl_s,
            max_value_bytes=max_value_bytes,
            ttl_jitter=ttl_jitter,
            rng=rng,
            clock=clock,
        )
        desk = Desk(blocks=l2 is not None)
        self._parts = Parts(self._tiers, self._keeper, self._flight, coherence, desk)
        if watcher is not None:
            from pipeline.cache.aio.watching import watch_tasks  # where they are needed: most programs do not load them
            from pipeline.cache.flight.watching import watch

            watch(watcher, self._tiers, self._flight, self._filling)
            self._parts = self._parts._replace(leader=watch_tasks(watcher, desk))
        # For `get` alone, which looks nothing up that need not be.
        self._view = coherence.view
        self._slots = self.l1.slots
        self._count_hit = self.l1.hits.add
        self._lookup = self._tiers.lookup

    @property
    def aio(self) -> AsyncCache:
        """The same calls for asyncio."""
        return AsyncCache(self, self._parts)

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
                if LIVE and (running := computing()) is not None:
                    reads, deps = running.reads, slot.deps
                    if reads.setdefault(key, deps) is not deps or len(reads) > MOST_DEPS:
                        running.note_again(key, deps)
                return slot.shared if slot.shared is not COPY else slot.value(type)
        found = self._lookup(key, type)
        if LIVE:
            note(key, () if found is MISS else found.deps)  # that there is none is an input, too
        return default if found is MISS else found.value

    def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:
        """The values of these keys, those that there are: of L1, and all the rest in one round trip. Raises InvalidPatternError
        for a key that is no text."""
        found = self.lookup_many(keys, type=type)
        return {key: each.value for key, each in found.items()}

    def lookup_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Found]:
        """As `get_many`, with where each value came from."""
        asked = tuple(keys)
        found = self._tiers.lookup_many(asked, type=type)
        if LIVE:
            for key in asked:
                note(key, found[key].deps if key in found else ())
        return found

    def reads(self, *keys: str) -> None:
        """Say that the computation which is under way reads inputs that no cache holds, by the keys that will be invalidated when
        they change: to be called before they are read. Nothing outside of a computation. Raises InvalidPatternError."""
        for key in check_deps(keys):
            note(key, ())

    def lookup(self, key: str, *, type: Any = Any, stale_age_s: float = 0.0) -> Found | MissType:
        """The value and where it came from, or MISS. `stale_age_s`: an entry past its time to live will do, if it still is there
        and was computed less than that ago. Raises InvalidPatternError for a key that is no text."""
        found = self._lookup(key, type, stale_age_s)
        if LIVE:
            note(key, () if found is MISS else found.deps)
        return found

    def peek(self, key: str, *, type: Any = Any) -> Found | MissType:
        """The value that this process may serve without asking Redis, or MISS. Never waits; a miss is not counted."""
        found = self._tiers.peek(key, type=type)
        if LIVE:
            note(key, () if found is MISS else found.deps)
        return found

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
        kind.lifetimes_s(self._max_ttl_s, grace)  # refused also where there is a hit
        stale_age_s = 0.0 if grace is None or grace.refresh is None else grace.longest_age_s
        asked_at_s = self._clock()
        found: Found | Miss = MISS
        if least_s <= 0:
            found = self._lookup(key, kind.type, stale_age_s, asked_at_s, kind.single_flight)  # by place: that is faster
        if found is not MISS and found is not OUTDATED and (accept is None or accept(found.value)):
            if found.source == "stale" and grace is not None and grace.refresh is not None:
                grace.refresh()
            if LIVE:
                note(key, found.deps)
            return found
        asking = Asking(self._keeper, key, compute, kind, _keys_of(deps), accept=accept, grace=grace, least_s=least_s)
        asking.looks_from(asked_at_s)
        try:
            if kind.single_flight:
                outcome, joined = self._flight.run(
                    key, asking.wanted_deps, as_of, asking.probe, asking.computed, asked_at_s=asked_at_s,
                    computation=asking.computation, unread=found is OUTDATED,
                )  # fmt: skip
                if found is OUTDATED and not joined:
                    self._tiers.count_read(hit=outcome.found.source == "l2")
            else:
                outcome, joined = asking.computed(self.as_of() if as_of is None else as_of), False
            brought: Found | MissType = asking.brought(outcome) if joined else outcome.found
            found = asking.computed(self.as_of() if as_of is None else as_of).found if brought is MISS else brought
        except Exception as error:
            if grace is None or not grace.forgives(error) or (found := asking.look(grace.longest_age_s)) is MISS:
                note(key, asking.computation.deps())  # an outer computation that catches it depends on what led to it
                raise
        note(key, found.deps)
        return found

    def get_or_compute_many(
        self,
        keys: Iterable[str],
        compute: Callable[[Sequence[str]], Mapping[str, T]],
        *,
        deps: Deps = (),
        **kept: Unpack[KindOptions],
    ) -> dict[str, T]:
        """The values of these keys: those that are cached, in one round trip; and what `compute` returns for all the others,
        which it is given at once, kept in another round trip. A key that it returns no value for is not in the outcome.

        No caller waits for another's computation: two that miss a key compute it both. What `compute` reads, and `deps`, each of
        its values depends on. Raises as `get_or_compute`, and ValueError for a value that was not asked for.
        """
        kind = Kind(**kept) if kept else PLAIN
        asked, given = tuple(dict.fromkeys(map(check_key, keys))), _keys_of(deps)
        as_of = self.as_of()
        found = self.lookup_many(asked, type=kind.type)
        absent = tuple(key for key in asked if key not in found)
        if not absent:
            return {key: found[key].value for key in asked}
        many = Many(self._keeper, absent)
        with many:
            values = compute(absent)
        made = many.keep(values, kind, given, as_of)
        many.noted()
        return {key: found[key].value if key in found else made[key] for key in asked if key in found or key in made}

    def renew(self, key: str, name: str, compute: Callable[[], object]) -> None:
        """Have a thread of this cache's do that, which computes the key anew, unless one does already. Never waits. A failure is
        told in the log, by the name."""
        self._parts.desk.renew(key, name, compute)

    def fill(self, key: str, value: object, kind: Kind = PLAIN, *, deps: Deps = (), as_of: AsOf) -> None:
        """Keep a value that the caller has computed from inputs read since `as_of`, unless it is known to be invalid by now. For
        values that cost less than it costs to ask Redis which process computes them: two callers that miss both compute.

        Raises UncacheableValueError (also for a value that depends on more than 10,000 keys), InvalidPatternError (the key or a
        dep) or ValueError (`kind.ttl`).
        """
        check_key(key)
        ttl_s = lifetime_of(kind, value, None, self._max_ttl_s)
        whole = self._filling.with_theirs(_keys_of(deps))
        self._keeper.keep(value, Made(key, kind.type, ttl_s, whole, as_of))
        note(key, whole)

    # -- changing

    def set(self, key: str, value: object, ttl: Duration = 300, *, type: Any = Any) -> Invalidation:
        """Keep `value` for `ttl` (seconds, or a timedelta), in place of what any process holds for the key. Of two racing sets
        the worst outcome is a miss.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        ttl_s = checked_ttl_s(ttl, "ttl", self._max_ttl_s)
        codec = codec_for(type)
        payload, carried = codec.encode(value)  # refuse it before anything is invalidated
        self._keeper.check_size(payload)
        done = self.invalidate(escape(key))
        self._filling.store(key, carried, payload, ttl_s, (), codec, self._as_of(done))
        return done

    def set_many(self, values: Mapping[str, object], ttl: Duration = 300, *, type: Any = Any) -> Invalidation:
        """As `set`, of several keys: one record of the log a key, and two round trips. Raises ValueError for an empty mapping."""
        ttl_s = checked_ttl_s(ttl, "ttl", self._max_ttl_s)
        codec = codec_for(type)
        encoded: dict[str, tuple[object, bytes, float]] = {}
        for key, value in values.items():
            payload, carried = codec.encode(value)
            self._keeper.check_size(payload)
            encoded[check_key(key)] = (carried, payload, ttl_s)
        done = self.invalidate(*map(escape, encoded))
        self._filling.store_many(encoded, (), codec, self._as_of(done))
        return done

    def _as_of(self, done: Invalidation) -> AsOf:
        """Since when a value is valid that replaces what was invalidated."""
        return AsOf(done.epoch, done.seq, self._view.generation) if done.durable else self._view.as_of()

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
        """Close this process's sockets, and end its listener and its threads; a later call opens and begins them anew."""
        if self._coherence.listener is not None:
            self._coherence.listener.close()
        self._parts.desk.close()
        if self.l2 is not None:
            self.l2.close()
