"""The calls of a cache, awaited."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple, Protocol, TypeVar, Unpack

import msgspec

from pipeline.cache.aio.desk import Desk, Sharing
from pipeline.cache.aio.leading import Brought, Leader
from pipeline.cache.coherence.process import Coherence, Invalidation
from pipeline.cache.entry import MISS, AsOf, MissType
from pipeline.cache.flight.asking import Asking, Keeper, Many
from pipeline.cache.flight.computation import LIVE, computing, note
from pipeline.cache.flight.single import SingleFlight
from pipeline.cache.grace import Grace
from pipeline.cache.keys import check_deps, check_key
from pipeline.cache.kind import PLAIN, Kind, KindOptions
from pipeline.cache.seconds import Duration
from pipeline.cache.tiers import Found, Tiers

T = TypeVar("T")


class Blocking(Protocol):
    """The cache as threads use it: the calls that are awaited here as they are."""

    def lookup_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Found]: ...
    def set(self, key: str, value: object, ttl: Duration = 300, *, type: Any = Any) -> Invalidation: ...
    def set_many(self, values: Mapping[str, object], ttl: Duration = 300, *, type: Any = Any) -> Invalidation: ...
    def delete(self, key: str) -> bool: ...
    def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation: ...
    def delete_pattern(self, pattern: str) -> int: ...
    def clear(self) -> int: ...
    def refresh(self) -> bool: ...
    def as_of(self) -> AsOf: ...
    def get_stats(self) -> dict[str, Any]: ...


class Parts(NamedTuple):
    """What the awaited calls work with."""

    tiers: Tiers
    keeper: Keeper
    single: SingleFlight
    coherence: Coherence
    desk: Desk
    leader: Callable[..., Leader] = Leader


class AsyncCache:
    """A cache's calls for asyncio, under the same names and with the same promises; see TwoTierCache. A hit of L1 touches no
    thread; whatever may wait for the server is done in one of a few threads, so that the event loop goes on. Any number of event
    loops may use one cache, at once or one after another.

    Of tasks and threads that miss a key at the same time one computes. It does so in a task of its own: a caller that is
    cancelled, or waits no longer, leaves it at work, for the others and for the cache. What its coroutine reads through the
    cache is noted as in a thread, also in tasks that it begins. Tasks whose computations need each other's get a
    CyclicComputationError.
    """

    __slots__ = ("_cache", "_parts")

    def __init__(self, cache: Blocking, parts: Parts) -> None:
        self._cache = cache
        self._parts = parts

    # -- reading

    async def get(self, key: str, default: Any = MISS, type: Any = Any) -> Any:
        """See TwoTierCache.get."""
        found = self._parts.tiers.peek(key, type=type)
        if found is MISS:
            found = await self.lookup(key, type=type)
        elif LIVE:
            note(key, found.deps)
        return default if found is MISS else found.value

    async def lookup(self, key: str, *, type: Any = Any, stale_age_s: float = 0.0) -> Found | MissType:
        """See TwoTierCache.lookup."""
        tiers = self._parts.tiers
        found = tiers.peek(key, type=type)
        if found is MISS:
            found = await self._run(partial(tiers.lookup, key, type=type, stale_age_s=stale_age_s))
        if LIVE:
            note(key, () if found is MISS else found.deps)
        return found

    async def get_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Any]:
        """See TwoTierCache.get_many."""
        found = await self.lookup_many(keys, type=type)
        return {key: each.value for key, each in found.items()}

    async def lookup_many(self, keys: Iterable[str], *, type: Any = Any) -> dict[str, Found]:
        """See TwoTierCache.lookup_many."""
        asked = tuple(keys)
        found = await self._run(partial(self._parts.tiers.lookup_many, asked, type=type))
        for key in asked if LIVE else ():
            note(key, found[key].deps if key in found else ())
        return found

    # -- computing

    async def get_or_compute(
        self,
        key: str,
        compute: Callable[[], Awaitable[T]],
        *,
        deps: Iterable[str] = (),
        as_of: AsOf | None = None,
        accept: Callable[[T], bool] | None = None,
        grace: Grace | None = None,
        **kept: Unpack[KindOptions],
    ) -> T:
        """See TwoTierCache.get_or_compute. `compute` is called and awaited."""
        kind = Kind(**kept) if kept else PLAIN
        value: T = (await self.fetch(key, compute, kind, deps=deps, as_of=as_of, accept=accept, grace=grace)).value
        return value

    async def fetch(
        self,
        key: str,
        compute: Callable[[], Awaitable[object]],
        kind: Kind = PLAIN,
        *,
        deps: Iterable[str] | Callable[[], Iterable[str]] = (),
        as_of: AsOf | None = None,
        accept: Callable[[Any], bool] | None = None,
        grace: Grace | None = None,
        least_s: float = 0.0,
        **kept: Unpack[KindOptions],
    ) -> Found:
        """See TwoTierCache.fetch. `compute` is called and awaited; `accept`, a `deps` that is a function, and what `grace` has
        are called, sometimes in another thread, and must not wait."""
        if kept:
            kind = msgspec.structs.replace(kind, **kept)
        tiers, keeper, *_ = self._parts
        check_key(key)
        kind.lifetimes_s(keeper.max_ttl_s, grace)
        if least_s <= 0:
            found = tiers.peek(key, type=kind.type)
            if found is not MISS and (accept is None or accept(found.value)):
                if LIVE:
                    note(key, found.deps)
                return found
        given = check_deps(deps() if callable(deps) else deps)
        running = computing()
        plain = not (running or given or accept or as_of or grace or least_s > 0) and kind.single_flight
        if plain and (shared := self._shared(key, kind)) is not None:
            if (found := self._own(await asyncio.shield(shared.task), shared.asking, kind)) is not MISS:
                return found
            plain = False  # it brought what is its first caller's alone
        asking = Asking(keeper, key, compute, kind, given, accept=accept, grace=grace, least_s=least_s)
        try:
            brought = await asyncio.shield(self._begin(asking, kind, as_of, grace, least_s, shared=plain))
        except Exception as error:
            last: Found | MissType = MISS
            if grace is not None and grace.forgives(error):
                last = await self._run(partial(asking.look, grace.longest_age_s))
            if last is MISS:
                note(key, asking.computation.deps())  # as in TwoTierCache.fetch
                raise
            brought = Brought(last, None)
        found = brought.found
        if found.source == "stale" and grace is not None and grace.refresh is not None:
            grace.refresh()
        note(key, found.deps)
        return found

    def _begin(
        self, asking: Asking, kind: Kind, as_of: AsOf | None, grace: Grace | None, least_s: float, *, shared: bool
    ) -> asyncio.Task[Brought]:
        """The task that looks for the value; `shared`: others may join it until it begins."""
        _, _, single, coherence, desk, leader_of = self._parts
        stale_age_s: float | None = 0.0 if grace is None or grace.refresh is None else grace.longest_age_s
        leader = leader_of(desk, single, coherence, asking, as_of, None if least_s > 0 else stale_age_s)
        task = desk.begin(leader.lead() if kind.single_flight else leader.apart())
        if shared:
            place = (asking.key, kind)
            desk.sharing[place] = Sharing(asyncio.get_running_loop(), task, asking)
            leader.begins = partial(desk.sharing.pop, place, None)
        return task

    def _shared(self, key: str, kind: Kind) -> Sharing | None:
        """A look of this loop for the key that has not begun: what it brings is as new as what this caller would find."""
        shared = self._parts.desk.sharing.get((key, kind))
        return shared if shared is not None and shared.loop is asyncio.get_running_loop() else None

    def _own(self, brought: Brought, asking: Asking, kind: Kind) -> Found | MissType:
        """What another caller's look has brought, that caller's asking, as a value of this one's own."""
        found, outcome = brought
        if outcome is None:
            return self._parts.tiers.peek(asking.key, type=kind.type)
        if outcome.codec is None:
            return MISS
        self._parts.single.count_joined()
        source = "joined" if found.source == "no" else found.source
        own = Found(outcome.codec.decode(outcome.payload), source, found.degraded, found.deps)
        asking.note_joined(own, outcome)
        return own

    async def get_or_compute_many(
        self,
        keys: Iterable[str],
        compute: Callable[[Sequence[str]], Awaitable[Mapping[str, T]]],
        *,
        deps: Iterable[str] = (),
        **kept: Unpack[KindOptions],
    ) -> dict[str, T]:
        """See TwoTierCache.get_or_compute_many."""
        kind = Kind(**kept) if kept else PLAIN
        _, keeper, _, coherence, *_ = self._parts
        asked, given = tuple(dict.fromkeys(map(check_key, keys))), check_deps(deps)
        as_of = await self._run(coherence.as_of)
        found = await self.lookup_many(asked, type=kind.type)
        absent = tuple(key for key in asked if key not in found)
        if not absent:
            return {key: found[key].value for key in asked}
        many = Many(keeper, absent)
        with many:
            values = await compute(absent)
        made = await self._run(partial(many.keep, values, kind, given, as_of))
        many.noted()
        return {key: found[key].value if key in found else made[key] for key in asked if key in found or key in made}

    def renew(self, key: str, name: str, compute: Callable[[], Coroutine[Any, Any, object]]) -> None:
        """Have a task of the running loop do that, which computes the key anew, unless one does already; see
        TwoTierCache.renew."""
        self._parts.desk.renew_in_loop(key, name, compute)

    # -- changing

    async def set(self, key: str, value: object, ttl: Duration = 300, *, type: Any = Any) -> Invalidation:
        """See TwoTierCache.set."""
        return await self._run(partial(self._cache.set, key, value, ttl, type=type))

    async def set_many(self, values: Mapping[str, object], ttl: Duration = 300, *, type: Any = Any) -> Invalidation:
        """See TwoTierCache.set_many."""
        return await self._run(partial(self._cache.set_many, values, ttl, type=type))

    async def delete(self, key: str) -> bool:
        """See TwoTierCache.delete."""
        return await self._run(partial(self._cache.delete, key))

    async def invalidate(self, *patterns: str, wait_s: float = 0.0) -> Invalidation:
        """See TwoTierCache.invalidate."""
        return await self._run(partial(self._cache.invalidate, *patterns, wait_s=wait_s))

    async def delete_pattern(self, pattern: str) -> int:
        """See TwoTierCache.delete_pattern."""
        return await self._run(partial(self._cache.delete_pattern, pattern))

    async def clear(self) -> int:
        """See TwoTierCache.clear."""
        return await self._run(self._cache.clear)

    async def refresh(self) -> bool:
        """See TwoTierCache.refresh."""
        return await self._run(self._cache.refresh)

    async def as_of(self) -> AsOf:
        """See TwoTierCache.as_of."""
        return await self._run(self._cache.as_of)

    async def get_stats(self) -> dict[str, Any]:
        """See TwoTierCache.get_stats."""
        return await self._run(self._cache.get_stats)

    async def _run(self, call: Callable[[], T]) -> T:
        return await self._parts.desk.run(call)
