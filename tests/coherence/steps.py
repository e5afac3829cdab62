"""The steps that each worker of a workload takes, a thread or a task, in an order that its seed decides."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Awaitable, Callable, Mapping, Sequence
from typing import Any, Final

from coherence.desk import Desk
from coherence.history import Ended, Made, Read, now_ns
from coherence.interruptions import is_broken_off
from coherence.manners import ByTask, ByThread, Manner
from coherence.mutants import STAGE_MUTANT
from coherence.steps_of_writers import Writing
from coherence.universe import (
    CACHED,
    CHAINS,
    INFOS,
    ITEMS,
    LEAVES,
    PERSONAS,
    RESONANCES,
    ROUTINGS,
    VARIANTS,
)

from pipeline.cache import MISS, AsOf, Found, Kind

TTL_S: Final = 300.0
_KIND: Final = Kind(ttl=TTL_S)
_PAUSES_S: Final = (0.0, 0.0, 0.0, 0.001, 0.005, 0.03)
Inputs = Callable[[], Awaitable[dict[str, int]]]
_SLEEPS: Final = (0.0, 0.25, 0.5, 1.0)

WEIGHTS: Final = {
    "respond": 30,
    "read_routing": 8,
    "read_info": 8,
    "read_item": 8,
    "look": 14,
    "get": 8,
    "leaves": 1,
    "ahead": 3,
    "another": 3,
    "invalidate": 6,
    "set": 2,
    "delete": 1,
    "change": 2,
    "refresh": 1,
    "many": 3,
    "compute_many": 2,
    "set_many": 1,
}
"""How often each step is taken; `flood` and `chain` besides, where the settings say so, and `forget_leaves`."""


class Worker(Writing):
    """One worker's steps: a thread's, or a task's."""

    def __init__(self, desk: Desk, seed: int, number: int = 0, *, awaits: bool = False) -> None:
        """To be made in the thread that is to run it, or whose loop is."""
        settings = desk.settings
        self._desk = desk
        self._source = desk.source
        self._loose = settings.loose
        self._pause_s = settings.pauses_s[number % len(settings.pauses_s)]
        self._stage_mutant = settings.mutant == STAGE_MUTANT
        self._rng = random.Random(seed)
        self._seen: dict[str, str] = {}
        kind = ByTask if awaits else ByThread
        self._manner: Manner = kind(desk.cache, settings.break_off_s, self._rng)
        self._cache, self._do = self._manner.cache, self._manner.do
        self._steps = 0
        self._misses = 0
        self._broken_off = 0

    async def run(self, steps: int, seconds: float) -> None:
        """Take `steps` steps, and go on until `seconds` have passed."""
        settings = self._desk.settings
        began_s = time.monotonic()
        weights: Mapping[str, int] = (
            WEIGHTS | {"flood": 2 * bool(settings.flood), "chain": 6 * settings.chains} | settings.weights
        )
        kinds: list[Callable[[], Awaitable[None]]] = [getattr(self, f"_{name}") for name in weights]
        chances = list(weights.values())
        while self._steps < steps or time.monotonic() - began_s < seconds:
            try:
                await self._rng.choices(kinds, chances)[0]()
                if settings.burst and (here := list(self._desk.cache.l1.slots)):
                    await self._burst(self._rng.choices(here, k=settings.burst))
            except BaseException as error:
                if not is_broken_off(error):
                    raise
                self._broken_off += 1
            self._steps += 1
            await self._manner.sleep(self._rng.choice(_SLEEPS) * self._pause_s)
        self._manner.end()
        self._desk.audit.turn()
        self._desk.journal.note(Ended(os.getpid(), self._steps, self._misses, self._broken_off))
        self._desk.journal.flush()

    # -- reading

    async def _respond(self) -> None:
        """As the pipeline answers: an answer that is computed from a routing and a template, all through the cache."""
        persona, resonance, variant = self._rng.choice(PERSONAS), self._rng.choice(RESONANCES), self._rng.choice(VARIANTS)
        key, routing, info = f"persona:{persona}:{resonance}:{variant}", f"routing:{resonance}", f"persona:{persona}:info"
        template = f"prompt:{persona}:{resonance}"
        users = (f"user:{persona}",) if variant == "d1" else ()
        operation_ns = now_ns()
        as_of = await self._do(self._cache.as_of)
        routed = await self._fetch(routing, as_of=as_of, operation_ns=operation_ns)

        async def inputs() -> dict[str, int]:
            info_found = await self._fetch(info, as_of=as_of, operation_ns=operation_ns)

            async def known() -> dict[str, int]:
                return dict(info_found["versions"])

            composed = await self._fetch(template, deps=(info,), as_of=as_of, operation_ns=operation_ns, inputs=known)
            return _oldest(routed["versions"], composed["versions"], info_found["versions"])

        await self._fetch(
            key,
            deps=(routing, template, info, *users),
            as_of=None if self._stage_mutant else as_of,
            operation_ns=operation_ns,
            inputs=inputs,
            own=users,
        )

    async def _read_routing(self) -> None:
        await self._fetch(self._rng.choice(ROUTINGS))

    async def _read_info(self) -> None:
        await self._fetch(self._rng.choice(INFOS))

    async def _read_item(self) -> None:
        await self._fetch(self._rng.choice(ITEMS))

    async def _burst(self, keys: list[str]) -> None:
        """Not in the history: only the auditor is told of these."""
        for key in keys:
            await self._do(lambda key=key: self._cache.get(key))

    async def _look(self) -> None:
        key = self._rng.choice(CACHED)
        began_ns, trouble = now_ns(), self._desk.trouble()
        found = await self._do(lambda: self._cache.lookup(key))
        self._found(key, found, began_ns, trouble)

    async def _get(self) -> None:
        """The fast path, which does not say where the value came from: judged as what L1 may serve."""
        key = self._rng.choice(CACHED)
        began_ns, trouble = now_ns(), self._desk.trouble()
        value = await self._do(lambda: self._cache.get(key))
        self._found(key, MISS if value is MISS else Found(value, "l1"), began_ns, trouble)

    async def _leaves(self) -> None:
        """Many in one go; and the readers that miss compute the missing ones, for nothing."""
        for key in await self._scan(self._cache.lookup, self._rng.choice((5, 30))):
            await self._fill(key)

    async def _forget_leaves(self) -> None:
        """All of them, made misses at once; and then a look at the entries that are left here."""
        for key in await self._scan(self._cache.peek, len(LEAVES)):
            await self._fill(key)
        await self._invalidate_these(["leaf:*"], ["leaf:*"])
        await self._scan(self._cache.peek, len(LEAVES))

    async def _scan(self, look: Callable[[str], Any], count: int) -> list[str]:
        """So many leaves, beginning anywhere; those that are missing."""
        first = self._rng.randrange(len(LEAVES))
        missing = []
        for key in (LEAVES + LEAVES)[first : first + count]:
            began_ns, trouble = now_ns(), self._desk.trouble()
            found = await self._do(lambda key=key: look(key))
            self._found(key, found, began_ns, trouble)
            if found is MISS:
                missing.append(key)
        return missing

    async def _many(self) -> None:
        """In one round trip."""
        keys = self._rng.sample(CACHED, self._rng.choice((2, 5)))
        began_ns, trouble = now_ns(), self._desk.trouble()
        found = await self._do(lambda: self._cache.lookup_many(keys))
        for key in keys:
            self._found(key, found.get(key, MISS), began_ns, trouble)

    async def _compute_many(self) -> None:
        """Leaves that are computed together, from a routing, on which they depend without saying so. It is not told where the
        others came from: they are judged as what L1 may serve."""
        keys, routing = self._rng.sample(LEAVES[:12], 3), self._rng.choice(ROUTINGS)
        began_ns, trouble = now_ns(), self._desk.trouble()
        made: dict[str, str] = {}

        async def compute(absent: Sequence[str]) -> dict[str, Any]:
            routed = await self._fetch(routing, operation_ns=began_ns)

            async def known() -> dict[str, int]:
                return dict(routed["versions"])

            values = {key: await self._computed(key, (key,), known, self._rng.choice(_PAUSES_S)) for key in absent}
            made.update((key, value["made"]) for key, value in values.items())
            return values

        computing = self._manner.computing(compute)
        values = await self._do(lambda: self._cache.get_or_compute_many(keys, computing, ttl=TTL_S))
        for key, value in values.items():
            source = "no" if made.get(key) == value["made"] else "l1"
            self._served(key, Found(value, source), began_ns, began_ns, (key,), trouble)

    async def _ahead(self) -> None:
        """What must be good for so long that L2 never has it, or always: the former without a look at L2 before computing."""
        await self._fetch(self._rng.choice(ROUTINGS), least_s=self._rng.choice((TTL_S, TTL_S, 1.0)))

    async def _another(self) -> None:
        """A value that it has seen last will not do."""
        key = self._rng.choice(ROUTINGS)
        seen = self._seen.get(key)
        self._seen[key] = (await self._fetch(key, accept=lambda value: value["made"] != seen))["made"]

    async def _chain(self) -> None:
        """A value computed from one that was computed from an invalidated key; each names its own input alone."""
        c = self._rng.choice([key for key in CHAINS if key.endswith("c")])
        b, a = c[:-1] + "b", c[:-1] + "a"
        operation_ns = now_ns()

        async def of_a() -> dict[str, int]:
            return dict((await self._fetch(a, operation_ns=operation_ns))["versions"])

        async def of_b() -> dict[str, int]:
            return dict((await self._fetch(b, deps=(a,), operation_ns=operation_ns, inputs=of_a))["versions"])

        await self._fetch(c, deps=(b,), operation_ns=operation_ns, inputs=of_b)

    async def _fetch(
        self,
        key: str,
        *,
        deps: tuple[str, ...] = (),
        as_of: AsOf | None = None,
        operation_ns: int | None = None,
        inputs: Inputs | None = None,
        own: tuple[str, ...] = (),
        pauses_s: tuple[float, ...] = _PAUSES_S,
        **options: Any,
    ) -> dict[str, Any]:
        """The value of `key`, computed if need be from its own version at the source, those of `own`, and `inputs`."""
        direct = (key, *own)
        began_ns, trouble = now_ns(), self._desk.trouble()

        async def compute() -> dict[str, Any]:
            return await self._computed(key, direct, inputs, self._rng.choice(pauses_s))

        computing = self._manner.computing(compute)
        found = await self._do(lambda: self._cache.fetch(key, computing, _KIND, deps=deps, as_of=as_of, **options))
        self._served(key, found, began_ns, operation_ns or began_ns, direct, trouble)
        value: dict[str, Any] = found.value
        return value

    async def _fill(self, key: str) -> None:
        """As a caller that has missed the key, and neither asks who else computes it nor waits."""
        as_of = await self._do(self._cache.as_of)
        value = await self._computed(key, (key,), None, 0.0)
        await self._do(lambda: self._cache.fill(key, value, _KIND, as_of=as_of))

    async def _computed(self, key: str, direct: tuple[str, ...], inputs: Inputs | None, pause_s: float) -> dict[str, Any]:
        shielded = self._manner.shielded
        with shielded():
            made, began_ns = self._desk.new_id(), now_ns()
            versions = {name: self._source.version(name) for name in direct}
            versions = _oldest(versions, await inputs() if inputs is not None else {})
        await self._manner.sleep(pause_s)
        with shielded():
            self._desk.journal.note(Made(made, key, versions, began_ns))
        return {"made": made, "versions": versions}

    def _found(self, key: str, found: Any, began_ns: int, trouble: tuple[bool, int]) -> None:
        if found is MISS:
            self._misses += 1
        else:
            self._served(key, found, began_ns, began_ns, (), trouble)

    def _served(
        self, key: str, found: Found, began_ns: int, operation_ns: int, direct: tuple[str, ...], trouble: tuple[bool, int]
    ) -> None:
        unconfirmed = self._loose and (trouble[0] or trouble != self._desk.trouble())
        self._desk.journal.note(
            Read(
                pid=os.getpid(),
                node=self._desk.node,
                key=key,
                made=found.value["made"],
                versions=found.value["versions"],
                source=found.source,
                began_ns=began_ns,
                ended_ns=now_ns(),
                operation_ns=operation_ns,
                direct=direct if found.source == "no" else (),
                degraded=found.degraded or unconfirmed,
                strict=not self._loose,
                awaited=self._manner.awaits,
            )
        )


def _oldest(*parts: dict[str, int]) -> dict[str, int]:
    """All versions of all parts; of a key that several have, the oldest."""
    merged: dict[str, int] = {}
    for part in parts:
        for key, version in part.items():
            merged[key] = min(version, merged.get(key, version))
    return merged
