"""What the two tiers hold, and whether it may be served. The protocol and its proof: docs/coherence.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import msgspec

from pipeline.cache.audit.sampler import Sampler, Tier
from pipeline.cache.codec import Codec, codec_for
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import MISS, AsOf, Entry, MissType
from pipeline.cache.errors import ReentrantUseError, SharedTierUnavailableError
from pipeline.cache.keys import check_text
from pipeline.cache.lineage import Lineage
from pipeline.cache.memory.local import LocalCache, Slot
from pipeline.cache.server.shared import RedisCache
from pipeline.cache.stats import Counters


class Found(msgspec.Struct, frozen=True):
    """A value and where it came from: `l1`, `l2`, `joined` (another caller's computation, waited for), `stale` (past its time to
    live) or `no` (computed). `degraded`: it could not be confirmed with Redis, or not be kept there."""

    value: Any
    source: str
    degraded: bool = False


class Tiers:
    """L1 and L2 as one store of entries that are judged at every read. `TwoTierCache` has one, and computes and changes by it."""

    def __init__(
        self,
        l1: LocalCache,
        l2: RedisCache | None,
        coherence: Coherence,
        counters: Counters,
        *,
        sampler: Sampler,
        strict: bool,
        l1_max_ttl_s: float,
        clock: Callable[[], float],
        wall_clock: Callable[[], float],
    ) -> None:
        """`counters` has l2_hits, l2_misses, stale, fills_discarded and degraded."""
        self.l1 = l1
        self.l2 = l2
        self._lineage = Lineage()
        self._hit = l1.hit
        self._coherence = coherence
        self._view = coherence.view
        self._counters = counters
        self._sampler = sampler
        self._strict = strict
        self._l1_max_ttl_s = l1_max_ttl_s
        self._clock = clock
        self._wall_clock = wall_clock

    @property
    def degraded(self) -> bool:
        """See TwoTierCache.degraded."""
        if self.l2 is None:
            return False
        connection = self.l2.connection
        return not connection.breaker.closed or connection.refused is not None

    # -- reading

    def lookup(self, key: str, *, type: Any = Any, stale_age_s: float = 0.0, now_s: float | None = None) -> Found | MissType:
        """See TwoTierCache.lookup. `now_s`: the clock's reading, if the caller has just taken it."""
        # The hot path, a second time: see TwoTierCache.get.
        if now_s is None:
            now_s = self._clock()
        if self._coherence.leased(now_s):
            try:
                slot = self._hit(key, now_s, self._view.generation)
            except TypeError:
                check_text(key)
                raise
            if slot is not None:
                try:
                    found = Found(slot.value(type), "l1")
                except msgspec.DecodeError:
                    self.l1.reject(key, slot)
                else:
                    if now_s >= self._sampler.due_s:
                        self._sampler.note(key, slot.deps, slot.as_of, "l1", now_s, slot.made_s)
                    return found
        return self._lookup_beyond(key, codec_for(type), now_s, stale_age_s)

    def peek(self, key: str, *, type: Any = Any) -> Found | MissType:
        """See TwoTierCache.peek."""
        check_text(key)
        now_s = self._clock()
        if not self._coherence.leased(now_s):
            return MISS
        slot = self._judged_slot(key, now_s)
        return MISS if slot is None else self._serve(slot, codec_for(type), key, now_s)

    def _lookup_beyond(self, key: str, codec: Codec[Any], now_s: float, stale_age_s: float) -> Found | MissType:
        """What L1 may not serve at once: because it is not there, was judged by older records, or the lease has run out."""
        check_text(key)  # not before: L1 has no other keys
        # The lease first, and then the judgement: to be granted it may bring in what the slot must be judged by.
        if self._coherence.leased(now_s):
            slot = self._judged_slot(key, now_s)
            if slot is not None:
                return self._serve(slot, codec, key, now_s)
        if self.l2 is None:
            self.l1.count(hit=False)
            return MISS
        try:
            found = self._read_confirming(self.l2, key)
        except ReentrantUseError:
            self.l1.count(hit=False)
            return MISS  # nothing is out of reach: what could not be confirmed is not served
        except SharedTierUnavailableError:
            self._counters.add("degraded")
            slot = None if self._strict or self.l2.connection.superseded else self._judged_slot(key, now_s)
            if slot is not None:
                return self._serve(slot, codec, key, now_s, degraded=True)
            self.l1.count(hit=False)
            return MISS
        # L1 once more, by what the read has taught.
        slot = self._judged_slot(key, now_s) if found is not None else None
        if slot is not None:
            return self._serve(slot, codec, key, now_s)
        self.l1.count(hit=False)
        raw, generation = found or (None, 0)
        entry = self.l2.decode(key, raw)
        promoted = self.promote(key, entry, codec, generation, stale_age_s)
        if promoted is not MISS and entry is not None:
            self.note(key, entry, "stale" if promoted.source == "stale" else "l2", now_s)
        self._counters.add("l2_misses" if promoted is MISS else "stale" if promoted.source == "stale" else "l2_hits")
        return promoted

    def note(self, key: str, entry: Entry, tier: Tier, began_s: float) -> None:
        """Have the sampler note an entry of L2 that is served, if one is due."""
        if self._sampler.due(tier, began_s):
            self._sampler.note(key, entry.deps, entry, tier, began_s)

    def _judged_slot(self, key: str, now_s: float) -> Slot | None:
        """L1's slot, if it is valid by what is known now; an invalid one goes."""
        slot = self.l1.peek(key, now_s)
        if slot is None:
            return None
        generation = self._view.generation  # before judging: see InvalidationView
        if slot.generation != generation:
            if not self._view.valid(slot.as_of, key, slot.deps):
                self._lineage.note(key, slot.deps)
                self.l1.discard(key, slot)
                return None
            slot.generation = generation
        return slot

    def _serve(self, slot: Slot, codec: Codec[Any], key: str, now_s: float, *, degraded: bool = False) -> Found | MissType:
        try:
            found = Found(slot.value(codec.type), "l1", degraded)
        except msgspec.DecodeError:
            self.l1.discard(key, slot)
            self.l1.count(hit=False)
            return MISS
        self.l1.count(hit=True)
        if now_s >= self._sampler.due_s and not degraded:  # of what could not be confirmed nothing is promised
            self._sampler.note(key, slot.deps, slot.as_of, "l1", now_s, slot.made_s)
        return found

    def promote(
        self, key: str, entry: Entry | None, codec: Codec[Any], generation: int, stale_age_s: float = 0.0
    ) -> Found | MissType:
        """What L2 had, if it may be served, kept in L1 if fresh. `generation`: that from before it was read. Not counted."""
        if entry is None:
            return MISS
        wall_s = self._wall_clock()
        remaining_s = entry.remaining_s(wall_s)
        stale = entry.grace_ms > 0 and remaining_s <= 0  # without a grace Redis alone decides
        if stale and entry.age_s(wall_s) >= stale_age_s:
            return MISS
        as_of = AsOf(entry.epoch, entry.seq, generation)
        if not self._view.valid(as_of, key, entry.deps):
            return MISS
        try:
            value = codec.decode(entry.value)
        except msgspec.DecodeError:
            return MISS  # another type, or a struct of another release
        self._lineage.note(key, entry.deps)
        if stale:
            return Found(value, "stale")  # not into L1: the next reader shall see what has come in its place
        self._keep(key, codec.beside(value, entry.value), value, codec, as_of, entry.deps, remaining_s)
        return Found(value, "l2")

    def _read_confirming(self, l2: RedisCache, key: str) -> tuple[bytes | None, int] | None:
        """The entry's bytes, after the view has caught up with the log as it stood when they were read; and the generation
        before that, from which on what is invalidated here counts against them. None when the view cannot judge them, nor
        anything else now: another thread has taken it to another epoch."""
        self._coherence.append_pending()
        generation = self._view.generation_of_reads
        asked_at_s = self._clock()
        raw, tail = l2.read(key)
        return (raw, generation) if self._coherence.catch_up(tail, asked_at_s) else None

    # -- many at once

    def warm(self, wanted: Mapping[str, Any]) -> int:
        """See TwoTierCache.warm."""
        keys = [key for key in wanted if key not in self.l1]
        read = self._read_many_confirming(keys)
        if read is None or self.l2 is None:
            return 0
        raws, generation = read
        entries = map(self.l2.decode, keys, raws)
        promoted = [
            self.promote(key, entry, codec_for(wanted[key]), generation) for key, entry in zip(keys, entries, strict=True)
        ]
        return sum(found is not MISS for found in promoted)

    def left_s(self, keys: Sequence[str]) -> dict[str, float] | None:
        """See TwoTierCache.left_s."""
        read = self._read_many_confirming(keys)
        if read is None or self.l2 is None:
            return None
        raws, generation = read
        wall_s = self._wall_clock()
        left = dict.fromkeys(keys, 0.0)
        for key, entry in zip(keys, map(self.l2.decode, keys, raws), strict=True):
            if entry is not None and self._view.valid(AsOf(entry.epoch, entry.seq, generation), key, entry.deps):
                left[key] = max(0.0, entry.remaining_s(wall_s))
        return left

    def _read_many_confirming(self, keys: Sequence[str]) -> tuple[list[bytes | None], int] | None:
        """As `_read_confirming`, of several; None also without an L2."""
        for key in keys:
            check_text(key)
        if self.l2 is None:
            return None
        try:
            self._coherence.append_pending()
            generation = self._view.generation_of_reads
            asked_at_s = self._clock()
            raws, tail = self.l2.read_many(keys)
            return (raws, generation) if self._coherence.catch_up(tail, asked_at_s) else None
        except SharedTierUnavailableError:
            self._counters.add("degraded")
            return None

    # -- filling

    def with_theirs(self, deps: tuple[str, ...]) -> tuple[str, ...]:
        """These deps, and what the entries of these were computed from: an invalidation reaches what was computed from what was
        computed from a match. L1 has most of them, which were read a moment ago; L2 is asked for the others in one round trip."""
        whole = dict.fromkeys(deps)
        absent = []
        for dep in deps:
            # Also of an entry that was discarded, swept or replaced since it was read: this value was computed from that one.
            remembered, slot = self._lineage.of(dep), self.l1.slots.get(dep)
            whole |= dict.fromkeys(remembered)
            if slot is not None:
                whole |= dict.fromkeys(slot.deps)
            elif not remembered:
                absent.append(dep)
        if absent and self.l2 is not None:
            try:
                raws, _ = self.l2.read_many(absent)
            except SharedTierUnavailableError:
                raws = []  # nor can the entry be kept there
            for dep, raw in zip(absent, raws, strict=False):
                entry = self.l2.decode(dep, raw)
                if entry is not None:
                    whole |= dict.fromkeys(entry.deps)
        return tuple(whole)

    def store(
        self,
        key: str,
        value: object,
        ttl_s: float,
        deps: tuple[str, ...],
        codec: Codec[Any],
        as_of: AsOf,
        grace_s: float = 0.0,
        made_s: float = math.inf,
    ) -> tuple[Any, bytes]:
        """Keep a value in both tiers, unless it is known to be invalid by now; the value as JSON carried it, and the JSON."""
        payload, carried = codec.encode(value)
        self._lineage.note(key, deps)  # before it may be discarded
        if ttl_s <= 0:
            return carried, payload
        beside = b"" if codec.shareable(carried) else payload
        if not self._keep(key, beside, carried, codec, as_of, deps, ttl_s, made_s):
            self._counters.add("fills_discarded")
        elif self.l2 is not None:
            created_ms = int(self._wall_clock() * 1000)
            raw = msgspec.Raw(payload)
            entry = Entry(key, as_of.epoch, as_of.seq, deps, created_ms, int(ttl_s * 1000), raw, int(grace_s * 1000))
            try:
                self.l2.write(key, entry)
            except SharedTierUnavailableError:
                self._counters.add("degraded")
        return carried, payload

    def _keep(
        self,
        key: str,
        payload: bytes,
        value: object,
        codec: Codec[Any],
        as_of: AsOf,
        deps: tuple[str, ...],
        ttl_s: float,
        made_s: float = math.inf,
    ) -> bool:
        """Put the entry into L1, if it is valid by what is known now.

        An invalidation that arrives right after the judgement finds the slot marked with the older generation: the next
        read judges it again. So neither a fill nor an advancing view needs the other's lock.
        """
        generation = self._view.generation
        if not self._view.valid(as_of, key, deps):
            return False
        expires_at_s = self._clock() + min(ttl_s, self._l1_max_ttl_s)
        known = AsOf(as_of.epoch, as_of.seq, generation)
        self.l1.put(key, Slot(codec, payload, value, expires_at_s, known, deps, made_s))
        return True
