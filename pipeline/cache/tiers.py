"""What the two tiers hold, and whether it may be served. The protocol and its proof: docs/coherence.md."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any, overload

import msgspec

from pipeline.cache.audit.sampler import Sampler, Tier
from pipeline.cache.coherence.process import Coherence
from pipeline.cache.encoding.codec import LARGE_BYTES, Codec, codec_for
from pipeline.cache.entry import MISS, OUTDATED, AsOf, Entry, Miss, MissType
from pipeline.cache.errors import ReentrantUseError, SharedTierUnavailableError
from pipeline.cache.keys import check_text
from pipeline.cache.lineage import Lineage
from pipeline.cache.memory.local import LocalCache, Slot
from pipeline.cache.server.shared import RedisCache
from pipeline.cache.stats import Counters


class Found(msgspec.Struct, frozen=True):
    """A value and where it came from: `l1`, `l2`, `joined` (another caller's computation, waited for), `stale` (past its time to
    live) or `no` (computed). `degraded`: it could not be confirmed with Redis, or not be kept there. `deps`: all that the value
    was computed from."""

    value: Any
    source: str
    degraded: bool = False
    deps: tuple[str, ...] = ()


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
        self.lineage = Lineage()
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

    @property
    def failures(self) -> int:
        """How often the server could not be asked so far."""
        return 0 if self.l2 is None else self.l2.connection.failures

    # -- reading

    @overload
    def lookup(self, key: str, type: Any, stale_age_s: float = ..., now_s: float | None = ...) -> Found | MissType: ...
    @overload
    def lookup(self, key: str, type: Any, stale_age_s: float, now_s: float | None, leads: bool) -> Found | Miss: ...

    def lookup(
        self, key: str, type: Any, stale_age_s: float = 0.0, now_s: float | None = None, leads: bool = False
    ) -> Found | Miss:
        """See TwoTierCache.lookup. `now_s`: the clock's reading, if the caller has just taken it. `leads`: the caller will read
        L2 with the key's lease. So an entry of L1 that is invalid since it was last served is OUTDATED, and L2 not read: it will
        have no more, or what others have computed just now."""
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
                    found = Found(slot.value(type), "l1", False, slot.deps)
                except msgspec.DecodeError:
                    self.l1.reject(key, slot)
                else:
                    if now_s >= self._sampler.due_s:
                        self._sampler.note(key, slot.deps, slot.as_of, "l1", now_s, slot.made_s)
                    return found
        return self._lookup_beyond(key, codec_for(type), now_s, stale_age_s, leads=leads and stale_age_s == 0)

    def count_read(self, *, hit: bool) -> None:
        """Count a look into L2 that came with a lease."""
        self._counters.add("l2_hits" if hit else "l2_misses")

    def peek(self, key: str, *, type: Any = Any) -> Found | MissType:
        """See TwoTierCache.peek."""
        check_text(key)
        now_s = self._clock()
        if not self._coherence.leased(now_s):
            return MISS
        slot = self._judged_slot(key, now_s)
        return MISS if slot is None else self._serve(slot, codec_for(type), key, now_s)

    def _lookup_beyond(self, key: str, codec: Codec[Any], now_s: float, stale_age_s: float, *, leads: bool) -> Found | Miss:
        """What L1 may not serve at once: because it is not there, was judged by older records, or the lease has run out."""
        check_text(key)  # not before: L1 has no other keys
        # The lease first, and then the judgement: to be granted it may bring in what the slot must be judged by.
        outdated = False
        if self._coherence.leased(now_s):
            outdated = leads and self.l1.peek(key, now_s) is not None
            slot = self._judged_slot(key, now_s)
            if slot is not None:
                return self._serve(slot, codec, key, now_s)
        if self.l2 is None or outdated:
            self.l1.count(hit=False)
            return MISS if self.l2 is None else OUTDATED
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
        promoted = self.promote(key, raw, codec, generation, now_s, stale_age_s=stale_age_s)
        self._counters.add("l2_misses" if promoted is MISS else "stale" if promoted.source == "stale" else "l2_hits")
        return promoted

    def _note_served(self, key: str, entry: Entry, tier: Tier, asked_at_s: float) -> None:
        """Have the sampler note an entry of L2 that is served, if one is due."""
        if self._sampler.due(tier, asked_at_s):
            self._sampler.note(key, entry.deps, entry, tier, asked_at_s)

    def note_joined(self, key: str, deps: tuple[str, ...], as_of: AsOf, asked_at_s: float) -> None:
        """As above, of another caller's computation that was waited for."""
        if self._sampler.due("joined", asked_at_s):
            self._sampler.note(key, deps, as_of, "joined", asked_at_s)

    def _judged_slot(self, key: str, now_s: float) -> Slot | None:
        """L1's slot, if it is valid by what is known now; an invalid one goes."""
        slot = self.l1.peek(key, now_s)
        if slot is None:
            return None
        generation = self._view.generation  # before judging: see InvalidationView
        if slot.generation != generation:
            if not self._view.valid(slot.as_of, key, slot.deps):
                self.lineage.note(key, slot.deps)
                self.l1.discard(key, slot)
                return None
            slot.generation = generation
        return slot

    def _serve(self, slot: Slot, codec: Codec[Any], key: str, now_s: float, *, degraded: bool = False) -> Found | MissType:
        try:
            found = Found(slot.value(codec.type), "l1", degraded, slot.deps)
        except msgspec.DecodeError:
            self.l1.discard(key, slot)
            self.l1.count(hit=False)
            return MISS
        self.l1.count(hit=True)
        if now_s >= self._sampler.due_s and not degraded:  # of what could not be confirmed nothing is promised
            self._sampler.note(key, slot.deps, slot.as_of, "l1", now_s, slot.made_s)
        return found

    def promote(
        self,
        key: str,
        raw: bytes | None,
        codec: Codec[Any],
        generation: int,
        asked_at_s: float | None,
        *,
        stale_age_s: float = 0.0,
        least_s: float = 0.0,
    ) -> Found | MissType:
        """What L2 had, if it may be served, kept in L1 if fresh. `generation`: that from before it was read. `asked_at_s`: when
        the caller asked whom it is served to; None if it is served to nobody. `least_s`: for how long it must have left. Not
        counted."""
        if raw is None or self.l2 is None:
            return MISS
        value: Any = None
        entry, opened = None, len(raw) >= LARGE_BYTES
        if not opened:
            entry = self.l2.decode(key, raw)
        elif (both := self.l2.open(key, raw, codec)) is not None:
            entry, value = both
        if entry is None:
            return MISS
        wall_s = self._wall_clock()
        remaining_s = entry.remaining_s(wall_s)
        stale = entry.grace_ms > 0 and remaining_s <= 0  # without a grace Redis alone decides
        if (stale and entry.age_s(wall_s) >= stale_age_s) or remaining_s < least_s != 0:
            return MISS
        as_of = AsOf(entry.epoch, entry.seq, generation)
        if not self._view.valid(as_of, key, entry.deps):
            return MISS
        if not opened:
            try:
                value = codec.decode(entry.value)
            except msgspec.DecodeError:
                return MISS  # another type, or a struct of another release
        self.lineage.note(key, entry.deps)
        if asked_at_s is not None:
            self._note_served(key, entry, "stale" if stale else "l2", asked_at_s)
        if stale:
            return Found(value, "stale", False, entry.deps)  # not into L1: the next reader shall see what has come in its place
        self.keep_here(key, codec.beside(value, entry.value), value, codec, as_of, entry.deps, remaining_s, len(raw))
        return Found(value, "l2", False, entry.deps)

    def lookup_again(self, key: str, codec: Codec[Any]) -> Found | MissType:
        """As `lookup`, after the server could not be asked, or where there is none: another thread may have come first."""
        return self.peek(key, type=codec.type) if self.l2 is None else self.lookup(key, type=codec.type)

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

    def lookup_many(self, keys: Sequence[str], *, type: Any = Any) -> dict[str, Found]:
        """What there is of these keys: that of L1 at once, and all the rest from L2 in one round trip. Without an answer of the
        server, L1 serves as in `lookup`."""
        codec = codec_for(type)
        asked_at_s = self._clock()
        found: dict[str, Found] = {}
        for key in keys:
            check_text(key)
            if (here := self.peek(key, type=type)) is not MISS:
                found[key] = here
        absent = [key for key in dict.fromkeys(keys) if key not in found]
        if not absent:
            return found
        if self.l2 is None:
            for _ in absent:
                self.l1.count(hit=False)
            return found
        read = self._read_many_confirming(absent)
        if read is None:  # each by itself: by what L1 may serve unconfirmed
            more = {key: self.lookup(key, type=type) for key in absent}
            return found | {key: each for key, each in more.items() if each is not MISS}
        raws, generation = read
        for key, raw in zip(absent, raws, strict=True):
            self.l1.count(hit=False)
            promoted = self.promote(key, raw, codec, generation, asked_at_s)
            self._counters.add("l2_misses" if promoted is MISS else "l2_hits")
            if promoted is not MISS:
                found[key] = promoted
        return found

    def warm(self, wanted: Mapping[str, Any]) -> int:
        """See TwoTierCache.warm."""
        keys = [key for key in wanted if key not in self.l1]
        read = self._read_many_confirming(keys)
        if read is None or self.l2 is None:
            return 0
        raws, generation = read
        promoted = [self.promote(key, raw, codec_for(wanted[key]), generation, None) for key, raw in zip(keys, raws, strict=True)]
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

    def keep_here(
        self,
        key: str,
        payload: bytes,
        value: object,
        codec: Codec[Any],
        as_of: AsOf,
        deps: tuple[str, ...],
        ttl_s: float,
        json_bytes: int,
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
        self.l1.put(key, Slot(codec, payload, value, expires_at_s, known, deps, json_bytes, made_s))
        return True
