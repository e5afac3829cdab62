"""The steps of a worker that change something: the source, and then what the cache has of it."""

from __future__ import annotations

import random
from typing import Any

from coherence.desk import Desk
from coherence.history import Made, now_ns
from coherence.manners import Manner
from coherence.source import Source
from coherence.universe import INFOS, ITEMS, ROUTINGS, any_pattern, meant_by, padding

from pipeline.cache import Invalidation

TTL_S = 300.0


class Writing:
    """The part of a Worker that writes. What it is made of is the worker's."""

    _desk: Desk
    _cache: Any
    _do: Any
    _manner: Manner
    _source: Source
    _rng: random.Random

    async def _fetch(self, key: str, *, pauses_s: tuple[float, ...]) -> dict[str, Any]:
        raise NotImplementedError

    async def _invalidate(self) -> None:
        patterns = [any_pattern(self._rng) for _ in range(self._rng.choice((1, 1, 1, 2, 3)))]
        await self._invalidate_these(patterns, patterns)

    async def _change(self) -> None:
        """Something that it has just read, or computed."""
        keys = self._rng.sample(ROUTINGS + INFOS, self._rng.choice((1, 3)))
        for key in keys:
            await self._fetch(key, pauses_s=(0.0,))
        await self._invalidate_these(keys, keys)

    async def _flood(self) -> None:
        """So many patterns at once that it takes a while to take them in. Those that mean something are anywhere among them."""
        most = max(1, self._desk.settings.flood)
        patterns = padding(self._rng, self._rng.randint(max(1, most // 4), most))
        meaning = [any_pattern(self._rng) for _ in range(3)]
        for pattern in meaning:
            patterns.insert(self._rng.choice((0, len(patterns), self._rng.randrange(len(patterns)))), pattern)
        await self._invalidate_these(patterns, meaning)

    async def _invalidate_these(self, patterns: list[str], meaning: list[str]) -> None:
        keys = tuple(dict.fromkeys(key for pattern in meaning for key in meant_by(pattern)))

        async def act(_: dict[str, int]) -> Invalidation:
            done: Invalidation = await self._do(lambda: self._cache.invalidate(*patterns))
            return done

        if set(ITEMS).isdisjoint(keys):
            await self._desk.write(tuple(meaning), keys, act)
            return
        with self._source.writing_items() as mine:
            if mine:
                await self._desk.write(tuple(meaning), keys, act)

    async def _set(self) -> None:
        key = self._rng.choice(ITEMS)

        async def act(versions: dict[str, int]) -> Invalidation:
            made = self._desk.new_id()
            self._desk.journal.note(Made(made, key, versions, now_ns()))
            done: Invalidation = await self._do(lambda: self._cache.set(key, {"made": made, "versions": versions}, TTL_S))
            return done

        with self._source.writing_items() as mine:
            if mine:
                await self._desk.write((key,), (key,), act)

    async def _set_many(self) -> None:
        keys = tuple(self._rng.sample(ITEMS, 2))

        async def act(versions: dict[str, int]) -> Invalidation:
            values = {key: {"made": self._desk.new_id(), "versions": {key: versions[key]}} for key in keys}
            for key, value in values.items():
                self._desk.journal.note(Made(str(value["made"]), key, {key: versions[key]}, now_ns()))
            done: Invalidation = await self._do(lambda: self._cache.set_many(values, TTL_S))
            return done

        with self._source.writing_items() as mine:
            if mine:
                await self._desk.write(keys, keys, act)

    async def _delete(self) -> None:
        key = self._rng.choice(ITEMS)

        async def act(_: dict[str, int]) -> None:
            await self._do(lambda: self._cache.delete(key))

        with self._source.writing_items() as mine:
            if mine:
                await self._desk.write((key,), (key,), act)

    async def _refresh(self) -> None:
        await self._do(self._cache.refresh)
