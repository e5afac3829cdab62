"""The two tiers as one cache: who may serve what, and when. The protocol and its proof: docs/coherence.md."""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

from pipeline.cache.bus import STAMP, NodeBus
from pipeline.cache.codec import Codec, codec_for
from pipeline.cache.coherence import Announce, Coherence, Invalidation
from pipeline.cache.entry import AsOf, Entry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import check_deps, check_key
from pipeline.cache.local import COPY, LocalCache, Slot
from pipeline.cache.log import InvalidationLog, LocalInvalidationLog, RedisInvalidationLog
from pipeline.cache.miss import MISS, MissType
from pipeline.cache.nodes import NodeRegistry
from pipeline.cache.patterns import escape, parse
from pipeline.cache.shared import NO_SERVER, RedisCache
from pipeline.cache.stats import Counters

T = TypeVar("T")


class Found(msgspec.Struct, frozen=True):
    """A value and where it came from: `l1`, `l2` or `no` (computed). `degraded`: it could not be confirmed with Redis."""

    value: Any
    source: str
    degraded: bool = False


class TwoTierCache:
    """L1 in this process, L2 in Redis, and the invalidation log that keeps them coherent. Thread-safe; not for use across a
    fork: a child makes its own.

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
        bus: NodeBus | None = None,
        announce: Announce | None = None,
        clock: Callable[[], float] = time.monotonic,
        wall_clock: Callable[[], float] = time.time,
        rng: Callable[[], float] = random.random,
    ) -> None:
        """`strict`: with Redis out of reach, bypass L1 rather than serve it unconfirmed. `max_ttl_s`: the longest TTL of any
        entry, and how long the log remembers. `ttl_jitter`: a computed entry lives up to this share shorter, so that what
        was made together does not end together. `bus`: the node's, which its main process keeps in step. `announce` is told
        of every invalidation made here, with the id to acknowledge it by if anybody waits; it must not raise.
        """
        self.l1 = LocalCache() if l1 is None else l1
        self._hit = self.l1.hit
        self.l2 = l2
        self._strict = strict
        self._l1_max_ttl_s = l1_max_ttl_s
        self._max_ttl_s = max_ttl_s
        self._ttl_jitter = ttl_jitter
        self._clock = clock
        self._wall_clock = wall_clock
        self._rng = rng
        self._counters = Counters("l2_hits", "l2_misses", "computed", "fills_discarded", "degraded")
        log: InvalidationLog = LocalInvalidationLog()
        registry = None
        if l2 is not None:
            log = RedisInvalidationLog(l2.connection, l2.keys, retention_s=max_ttl_s)
            registry = NodeRegistry(l2.connection, l2.keys)
        self._coherence = Coherence(log, registry, bound_s=staleness_bound_s, bus=bus, announce=announce, clock=clock)
        self._view = self._coherence.view

    # -- reading

    def get(self, key: str, default: Any = MISS, type: Any = Any) -> Any:
        """The value, or `default`. `type`: Any for JSON, or a frozen struct that comes back as such."""
        # As `lookup`, with nothing called or made on the way that need not be: this is the hottest path of all.
        now_s = self._clock()
        coherence = self._coherence
        if coherence.words[STAMP] == coherence.stamp and now_s < coherence.lease_ends_at_s:
            slot = self._hit(key, now_s, self._view.generation)
            if slot is not None:
                if slot.shared is not COPY and slot.type is type:
                    return slot.shared
                try:
                    return slot.value(type)
                except msgspec.DecodeError:
                    self.l1.reject(key, slot)
        found = self.lookup(key, type=type)
        return default if found is MISS else found.value

    def lookup(self, key: str, *, type: Any = Any) -> Found | MissType:
        """The value and where it came from, or MISS."""
        now_s = self._clock()
        if self._coherence.leased(now_s):
            slot = self._hit(key, now_s, self._view.generation)
            if slot is not None:
                try:
                    return Found(slot.value(type), "l1")
                except msgspec.DecodeError:
                    self.l1.reject(key, slot)
        return self._lookup_beyond(key, codec_for(type), now_s)

    def _lookup_beyond(self, key: str, codec: Codec[Any], now_s: float) -> Found | MissType:
        """What L1 may not serve at once: because it is not there, was judged by older records, or the lease has run out."""
        slot = self._judged_slot(key, now_s)
        if slot is not None and self._coherence.leased(now_s):
            return self._serve(slot, codec, key)
        if self.l2 is None:
            self.l1.count(hit=False)
            return MISS
        try:
            found = self._read_confirming(self.l2, key)
        except SharedTierUnavailableError:
            self._counters.add("degraded")
            if slot is not None and not self._strict:
                return self._serve(slot, codec, key, degraded=True)
            self.l1.count(hit=False)
            return MISS
        # L1 once more, by what the read has taught.
        slot = self._judged_slot(key, now_s) if found is not None else None
        if slot is not None:
            return self._serve(slot, codec, key)
        self.l1.count(hit=False)
        raw, generation = found or (None, 0)
        return self._promote(key, self.l2.decode(raw), codec, generation)

    def _judged_slot(self, key: str, now_s: float) -> Slot | None:
        """L1's slot, if it is valid by what is known now; an invalid one goes."""
        slot = self.l1.peek(key, now_s)
        if slot is None:
            return None
        generation = self._view.generation  # before judging: see InvalidationView
        if slot.generation != generation:
            if not self._view.valid(slot.as_of, key, slot.deps):
                self.l1.discard(key, slot)
                return None
            slot.generation = generation
        return slot

    def _serve(self, slot: Slot, codec: Codec[Any], key: str, *, degraded: bool = False) -> Found | MissType:
        try:
            found = Found(slot.value(codec.type), "l1", degraded)
        except msgspec.DecodeError:
            self.l1.discard(key, slot)
            self.l1.count(hit=False)
            return MISS
        self.l1.count(hit=True)
        return found

    def _promote(self, key: str, entry: Entry | None, codec: Codec[Any], generation: int) -> Found | MissType:
        """Serve what L2 had, if it is valid, and keep it in L1. `generation`: that from before it was read."""
        if entry is not None:
            as_of = AsOf(entry.epoch, entry.seq, generation)
            if self._view.valid(as_of, key, entry.deps):
                try:
                    value = codec.decode(entry.value)
                except msgspec.DecodeError:
                    value = MISS  # another type, or a struct of another release
                if value is not MISS:
                    self._counters.add("l2_hits")
                    self._keep(key, bytes(entry.value), value, codec, as_of, entry.deps, entry.remaining_s(self._wall_clock()))
                    return Found(value, "l2")
        self._counters.add("l2_misses")
        return MISS

    def _read_confirming(self, l2: RedisCache, key: str) -> tuple[bytes | None, int] | None:
        """The entry's bytes, after the view has caught up with the log as it stood when they were read; and the generation
        before that, from which on what is invalidated here counts against them. None when the view cannot judge them, nor
        anything else now: another thread has taken it to another epoch."""
        self._coherence.append_pending()
        generation = self._view.generation
        asked_at_s = self._clock()
        raw, tail = l2.read(key)
        return (raw, generation) if self._coherence.catch_up(tail, asked_at_s) else None

    # -- computing

    def as_of(self) -> AsOf:
        """What this process knows of the log. Take it before the first input of a computation is read, and pass it on."""
        return self._coherence.as_of()

    def get_or_compute(
        self,
        key: str,
        compute: Callable[[], T],
        *,
        ttl: float = 300,
        deps: Iterable[str] = (),
        type: Any = Any,
        as_of: AsOf | None = None,
        accept: Callable[[T], bool] | None = None,
    ) -> T:
        """The cached value, or what `compute` returns, kept for `ttl` seconds. An exception of `compute` is not cached."""
        value: T = self.fetch(key, compute, ttl=ttl, deps=deps, type=type, as_of=as_of, accept=accept).value
        return value

    def fetch(
        self,
        key: str,
        compute: Callable[[], object],
        *,
        ttl: float = 300,
        deps: Iterable[str] = (),
        type: Any = Any,
        as_of: AsOf | None = None,
        accept: Callable[[Any], bool] | None = None,
    ) -> Found:
        """As `get_or_compute`, with where the value came from.

        `deps`: the keys it is computed from; who invalidates one of them invalidates this one. `as_of`: what was known
        before the first input was read, if that was before this call. `accept`: whether a cached value will do, such as one that
        another release may have written; one that will not is computed anew and replaced.
        """
        check_key(key)
        self._check_ttl(ttl)
        deps = check_deps(deps)
        found = self.lookup(key, type=type)
        if found is not MISS and (accept is None or accept(found.value)):
            return found
        if as_of is None:
            as_of = self.as_of()
        value = compute()
        self._counters.add("computed")
        lifetime_s = ttl * (1 - self._ttl_jitter * self._rng())
        return Found(self._store(key, value, lifetime_s, deps, codec_for(type), as_of), "no", self.degraded)

    def _store(self, key: str, value: object, ttl_s: float, deps: tuple[str, ...], codec: Codec[Any], as_of: AsOf) -> Any:
        """Keep a value in both tiers, unless it is known to be invalid by now; the value as JSON carried it."""
        payload, carried = codec.encode(value)
        if not self._keep(key, payload, carried, codec, as_of, deps, ttl_s):
            self._counters.add("fills_discarded")
        elif self.l2 is not None:
            entry = Entry(as_of.epoch, as_of.seq, deps, int(self._wall_clock() * 1000), int(ttl_s * 1000), msgspec.Raw(payload))
            try:
                self.l2.write(key, entry)
            except SharedTierUnavailableError:
                self._counters.add("degraded")
        return carried

    def _keep(
        self,
        key: str,
        payload: bytes,
        value: object,
        codec: Codec[Any],
        as_of: AsOf,
        deps: tuple[str, ...],
        ttl_s: float,
    ) -> bool:
        """Put the entry into L1, if it is valid by what is known now.

        An invalidation that arrives right after the judgement finds the slot marked with the older generation: the next
        read judges it again. So neither a fill nor an advancing view needs the other's lock.
        """
        generation = self._view.generation
        if not self._view.valid(as_of, key, deps):
            return False
        expires_at_s = self._clock() + min(ttl_s, self._l1_max_ttl_s)
        self.l1.put(key, Slot(codec, payload, value, expires_at_s, AsOf(as_of.epoch, as_of.seq, generation), deps))
        return True

    # -- changing

    def set(self, key: str, value: object, ttl: float = 300, *, type: Any = Any) -> Invalidation:
        """Keep `value` for `ttl` seconds, in place of what any process holds for the key. Of two racing sets the worst
        outcome is a miss.

        Raises UncacheableValueError, InvalidPatternError (the key) or ValueError (ttl).
        """
        check_key(key)
        self._check_ttl(ttl)
        codec = codec_for(type)
        codec.encode(value)  # refuse it before anything is invalidated
        done = self.invalidate(escape(key))
        as_of = AsOf(done.epoch, done.seq, self._view.generation) if done.durable else self._view.as_of()
        self._store(key, value, ttl, (), codec, as_of)
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

    def refresh(self) -> bool:
        """Catch up with the log and renew the lease; whether Redis could be asked."""
        return self._coherence.refresh()

    # -- observing

    @property
    def degraded(self) -> bool:
        """Whether Redis, though configured, was out of reach when it was last needed."""
        return self.l2 is not None and not self.l2.connection.breaker.closed

    def get_stats(self) -> dict[str, Any]:
        """Counts of this process since its start, and what L2's server says of itself."""
        l1 = self.l1.get_stats()
        l2 = self.l2.get_stats() if self.l2 is not None else dict(NO_SERVER)
        counts = self._counters.snapshot()
        l2 |= {"hits": counts.pop("l2_hits"), "misses": counts.pop("l2_misses")}
        return {"l1": l1, "l2": l2, **counts}

    def close(self) -> None:
        """Close this process's sockets; a later call opens them anew."""
        if self.l2 is not None:
            self.l2.close()

    def _check_ttl(self, ttl: float) -> None:
        if not 0 < ttl <= self._max_ttl_s:
            raise ValueError(f"ttl: {ttl}; expected seconds above 0 and up to {self._max_ttl_s:g} (max_ttl_s)")
