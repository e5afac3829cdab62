"""How a value gets into the tiers, with all that it depends on."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Mapping
from typing import Any

import msgspec

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.encoding.codec import Codec
from pipeline.cache.entry import AsOf, Entry
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.flight.leases import Leases
from pipeline.cache.lineage import MOST_DEPS, TOO_MANY
from pipeline.cache.stats import Counters
from pipeline.cache.tiers import Tiers


class Filling:
    """Writes to both tiers of a cache. Thread-safe."""

    def __init__(
        self, tiers: Tiers, coherence: Coherence, leases: Leases | None, counters: Counters, *, wall_clock: Callable[[], float]
    ) -> None:
        """`leases`: by which others wait for what is stored. `counters` has fills_discarded and degraded."""
        self._tiers = tiers
        self._view = coherence.view
        self._leases = leases
        self._counters = counters
        self._wall_clock = wall_clock

    def likely_deps(self, key: str, deps: tuple[str, ...]) -> tuple[str, ...]:
        """These, and what the key's values depended on that this process has seen of late."""
        before = self._tiers.lineage.of(key)
        return deps + before if before and before is not TOO_MANY else deps

    def with_theirs(self, deps: tuple[str, ...], known: Container[str] = ()) -> tuple[str, ...]:
        """These deps, and what the entries of these were computed from: an invalidation reaches what was computed from what was
        computed from a match. L1 has most of them, which were read a moment ago; L2 is asked for the others in one round trip.
        `known`: keys whose deps the caller knows. TOO_MANY, where there are more than MOST_DEPS."""
        whole = dict.fromkeys(deps)
        absent = []
        for dep in deps:
            if dep in known:
                continue
            # Also of an entry that was discarded, swept or replaced since it was read: this value was computed from that one.
            remembered, slot = self._tiers.lineage.of(dep), self._tiers.l1.slots.get(dep)
            if remembered is TOO_MANY or len(whole) > MOST_DEPS:
                return TOO_MANY
            whole |= dict.fromkeys(remembered)
            if slot is not None:
                whole |= dict.fromkeys(slot.deps)
            elif not remembered:
                absent.append(dep)
        if absent and self._tiers.l2 is not None:
            try:
                raws, _ = self._tiers.l2.read_many(absent)
            except SharedTierUnavailableError:
                raws = []  # nor can the entry be kept there
            for dep, raw in zip(absent, raws, strict=False):
                entry = self._tiers.l2.decode(dep, raw)
                if entry is not None:
                    whole |= dict.fromkeys(entry.deps)
        return tuple(whole) if len(whole) <= MOST_DEPS else TOO_MANY

    def remember(self, key: str, deps: tuple[str, ...]) -> None:
        """Remember what a value depends on that was computed, before it may be refused, discarded or gone: what is computed from
        it depends on the same."""
        self._tiers.lineage.note(key, deps)

    def store(
        self,
        key: str,
        carried: object,
        payload: bytes,
        ttl_s: float,
        deps: tuple[str, ...],
        codec: Codec[Any],
        as_of: AsOf,
        grace_s: float = 0.0,
        made_s: float = math.inf,
    ) -> None:
        """Keep a value in both tiers, unless it is known to be invalid by now. `carried`: as JSON carried it; `payload`: the
        JSON. `made_s`: see `Slot`."""
        entry = self._entry_of(key, carried, payload, ttl_s, deps, codec, as_of, grace_s, made_s)
        if entry is not None and self._tiers.l2 is not None:
            try:
                self._tiers.l2.write(key, entry, None if self._leases is None else self._leases.told_by(key))
            except SharedTierUnavailableError:
                self._counters.add("degraded")

    def store_many(
        self,
        values: Mapping[str, tuple[object, bytes, float]],
        deps: tuple[str, ...],
        codec: Codec[Any],
        as_of: AsOf,
        made_s: float = math.inf,
    ) -> None:
        """As `store`, of several: as JSON carried it, the JSON, and its time to live; in one round trip."""
        entries = []
        for key, (carried, payload, ttl_s) in values.items():
            others = tuple(dep for dep in deps if dep != key)
            entry = self._entry_of(key, carried, payload, ttl_s, others, codec, as_of, 0.0, made_s)
            if entry is not None:
                entries.append(entry)
        if entries and self._tiers.l2 is not None:
            try:
                self._tiers.l2.write_many(entries)
            except SharedTierUnavailableError:
                self._counters.add("degraded")

    def _entry_of(
        self,
        key: str,
        carried: object,
        payload: bytes,
        ttl_s: float,
        deps: tuple[str, ...],
        codec: Codec[Any],
        as_of: AsOf,
        grace_s: float,
        made_s: float,
    ) -> Entry | None:
        """Keep the value in L1, and make the entry for L2; None if it is not to be kept."""
        if ttl_s <= 0:
            return None
        beside = b"" if codec.shareable(carried) else payload
        if not self._tiers.keep_here(key, beside, carried, codec, as_of, deps, ttl_s, len(payload), made_s):
            self._counters.add("fills_discarded")
            return None
        created_ms = int(self._wall_clock() * 1000)
        raw = msgspec.Raw(payload)
        return Entry(key, as_of.epoch, as_of.seq, deps, created_ms, int(ttl_s * 1000), raw, int(grace_s * 1000))
