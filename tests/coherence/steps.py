"""The steps that each thread of a workload takes, in an order that its seed decides."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Callable, Mapping
from typing import Any, Final

from coherence.desk import Desk
from coherence.history import Ended, Made, Read, now_ns
from coherence.interruptions import Interruptions, is_broken_off
from coherence.mutants import STAGE_MUTANT
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
    any_pattern,
    meant_by,
    padding,
)

from pipeline.cache import MISS, AsOf, Found, Invalidation, Kind

TTL_S: Final = 300.0
_KIND: Final = Kind(ttl=TTL_S)
_PAUSES_S: Final = (0.0, 0.0, 0.0, 0.001, 0.005, 0.03)
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
}
"""How often each step is taken; `flood` and `chain` besides, where the settings say so, and `forget_leaves`."""


class Worker:
    """One thread's steps."""

    def __init__(self, desk: Desk, seed: int, number: int = 0) -> None:
        """To be made in the thread that is to run it."""
        settings = desk.settings
        self._desk = desk
        self._cache = desk.cache
        self._source = desk.source
        self._loose = settings.loose
        self._pause_s = settings.pauses_s[number % len(settings.pauses_s)]
        self._stage_mutant = settings.mutant == STAGE_MUTANT
        self._rng = random.Random(seed)
        self._seen: dict[str, str] = {}
        self._interruptions = Interruptions(settings.break_off_s, self._rng)
        self._do = self._interruptions.allowed
        self._steps = 0
        self._misses = 0
        self._broken_off = 0

    def run(self, steps: int, seconds: float) -> None:
        """Take `steps` steps, and go on until `seconds` have passed."""
        settings = self._desk.settings
        began_s = time.monotonic()
        weights: Mapping[str, int] = (
            WEIGHTS | {"flood": 2 * bool(settings.flood), "chain": 6 * settings.chains} | settings.weights
        )
        kinds: list[Callable[[], None]] = [getattr(self, f"_{name}") for name in weights]
        chances = list(weights.values())
        while self._steps < steps or time.monotonic() - began_s < seconds:
            try:
                self._rng.choices(kinds, chances)[0]()
                if settings.burst and (here := list(self._cache.l1.slots)):
                    self._burst(self._rng.choices(here, k=settings.burst))
            except BaseException as error:
                if not is_broken_off(error):
                    raise
                self._broken_off += 1
            self._steps += 1
            time.sleep(self._rng.choice(_SLEEPS) * self._pause_s)
        self._interruptions.end()
        self._desk.audit.turn()
        self._desk.journal.note(Ended(os.getpid(), self._steps, self._misses, self._broken_off))
        self._desk.journal.flush()

    # -- reading

    def _respond(self) -> None:
        """As the pipeline answers: an answer that is computed from a routing and a template, all through the cache."""
        persona, resonance, variant = self._rng.choice(PERSONAS), self._rng.choice(RESONANCES), self._rng.choice(VARIANTS)
        key, routing, info = f"persona:{persona}:{resonance}:{variant}", f"routing:{resonance}", f"persona:{persona}:info"
        template = f"prompt:{persona}:{resonance}"
        users = (f"user:{persona}",) if variant == "d1" else ()
        operation_ns = now_ns()
        as_of = self._do(self._cache.as_of)
        routed = self._fetch(routing, as_of=as_of, operation_ns=operation_ns)

        def inputs() -> dict[str, int]:
            info_found = self._fetch(info, as_of=as_of, operation_ns=operation_ns)
            composed = self._fetch(
                template, deps=(info,), as_of=as_of, operation_ns=operation_ns, inputs=lambda: dict(info_found["versions"])
            )
            return _oldest(routed["versions"], composed["versions"], info_found["versions"])

        self._fetch(
            key,
            deps=(routing, template, info, *users),
            as_of=None if self._stage_mutant else as_of,
            operation_ns=operation_ns,
            inputs=inputs,
            own=users,
        )

    def _read_routing(self) -> None:
        self._fetch(self._rng.choice(ROUTINGS))

    def _read_info(self) -> None:
        self._fetch(self._rng.choice(INFOS))

    def _read_item(self) -> None:
        self._fetch(self._rng.choice(ITEMS))

    def _burst(self, keys: list[str]) -> None:
        """Not in the history: only the auditor is told of these."""
        get = self._cache.get
        self._do(lambda: [get(key) for key in keys])

    def _look(self) -> None:
        key = self._rng.choice(CACHED)
        began_ns, trouble = now_ns(), self._desk.trouble()
        found = self._do(lambda: self._cache.lookup(key))
        self._found(key, found, began_ns, trouble)

    def _get(self) -> None:
        """The fast path, which does not say where the value came from: judged as what L1 may serve."""
        key = self._rng.choice(CACHED)
        began_ns, trouble = now_ns(), self._desk.trouble()
        value = self._do(lambda: self._cache.get(key))
        self._found(key, MISS if value is MISS else Found(value, "l1"), began_ns, trouble)

    def _leaves(self) -> None:
        """Many in one go; and the readers that miss compute the missing ones, for nothing."""
        for key in self._scan(self._cache.lookup, self._rng.choice((5, 30))):
            self._fill(key)

    def _forget_leaves(self) -> None:
        """All of them, made misses at once; and then a look at the entries that are left here."""
        for key in self._scan(self._cache.peek, len(LEAVES)):
            self._fill(key)
        self._invalidate_these(["leaf:*"], ["leaf:*"])
        self._scan(self._cache.peek, len(LEAVES))

    def _scan(self, look: Callable[[str], Any], count: int) -> list[str]:
        """So many leaves, beginning anywhere; those that are missing."""
        first = self._rng.randrange(len(LEAVES))
        missing = []
        for key in (LEAVES + LEAVES)[first : first + count]:
            began_ns, trouble = now_ns(), self._desk.trouble()
            found = self._do(lambda key=key: look(key))
            self._found(key, found, began_ns, trouble)
            if found is MISS:
                missing.append(key)
        return missing

    def _ahead(self) -> None:
        """What must be good for so long that L2 never has it, or always: the former without a look at L2 before computing."""
        self._fetch(self._rng.choice(ROUTINGS), least_s=self._rng.choice((TTL_S, TTL_S, 1.0)))

    def _another(self) -> None:
        """A value that it has seen last will not do."""
        key = self._rng.choice(ROUTINGS)
        seen = self._seen.get(key)
        self._seen[key] = self._fetch(key, accept=lambda value: value["made"] != seen)["made"]

    def _chain(self) -> None:
        """A value computed from one that was computed from an invalidated key; each names its own input alone."""
        c = self._rng.choice([key for key in CHAINS if key.endswith("c")])
        b, a = c[:-1] + "b", c[:-1] + "a"
        operation_ns = now_ns()

        def of_a() -> dict[str, int]:
            return dict(self._fetch(a, operation_ns=operation_ns)["versions"])

        def of_b() -> dict[str, int]:
            return dict(self._fetch(b, deps=(a,), operation_ns=operation_ns, inputs=of_a)["versions"])

        self._fetch(c, deps=(b,), operation_ns=operation_ns, inputs=of_b)

    def _fetch(
        self,
        key: str,
        *,
        deps: tuple[str, ...] = (),
        as_of: AsOf | None = None,
        operation_ns: int | None = None,
        inputs: Callable[[], dict[str, int]] = dict,
        own: tuple[str, ...] = (),
        pauses_s: tuple[float, ...] = _PAUSES_S,
        **options: Any,
    ) -> dict[str, Any]:
        """The value of `key`, computed if need be from its own version at the source, those of `own`, and `inputs`."""
        direct = (key, *own)
        began_ns, trouble = now_ns(), self._desk.trouble()

        def compute() -> dict[str, Any]:
            return self._computed(key, direct, inputs, self._rng.choice(pauses_s))

        found = self._do(lambda: self._cache.fetch(key, compute, _KIND, deps=deps, as_of=as_of, **options))
        self._served(key, found, began_ns, operation_ns or began_ns, direct, trouble)
        value: dict[str, Any] = found.value
        return value

    def _fill(self, key: str) -> None:
        """As a caller that has missed the key, and neither asks who else computes it nor waits."""
        as_of = self._do(self._cache.as_of)
        value = self._computed(key, (key,), dict, 0.0)
        self._do(lambda: self._cache.fill(key, value, _KIND, as_of=as_of))

    def _computed(
        self, key: str, direct: tuple[str, ...], inputs: Callable[[], dict[str, int]], pause_s: float
    ) -> dict[str, Any]:
        shielded = self._interruptions.shielded
        with shielded():
            made, began_ns = self._desk.new_id(), now_ns()
            versions = {name: self._source.version(name) for name in direct}
            versions = _oldest(versions, inputs())
        time.sleep(pause_s)
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
            )
        )

    # -- writing

    def _invalidate(self) -> None:
        patterns = [any_pattern(self._rng) for _ in range(self._rng.choice((1, 1, 1, 2, 3)))]
        self._invalidate_these(patterns, patterns)

    def _change(self) -> None:
        """Something that it has just read, or computed."""
        keys = self._rng.sample(ROUTINGS + INFOS, self._rng.choice((1, 3)))
        for key in keys:
            self._fetch(key, pauses_s=(0.0,))
        self._invalidate_these(keys, keys)

    def _flood(self) -> None:
        """So many patterns at once that it takes a while to take them in. Those that mean something are anywhere among them."""
        most = max(1, self._desk.settings.flood)
        patterns = padding(self._rng, self._rng.randint(max(1, most // 4), most))
        meaning = [any_pattern(self._rng) for _ in range(3)]
        for pattern in meaning:
            patterns.insert(self._rng.choice((0, len(patterns), self._rng.randrange(len(patterns)))), pattern)
        self._invalidate_these(patterns, meaning)

    def _invalidate_these(self, patterns: list[str], meaning: list[str]) -> None:
        keys = tuple(dict.fromkeys(key for pattern in meaning for key in meant_by(pattern)))

        def act(_: dict[str, int]) -> Invalidation:
            return self._do(lambda: self._cache.invalidate(*patterns))

        if set(ITEMS).isdisjoint(keys):
            self._desk.write(tuple(meaning), keys, act)
            return
        with self._source.writing_items() as mine:
            if mine:
                self._desk.write(tuple(meaning), keys, act)

    def _set(self) -> None:
        key = self._rng.choice(ITEMS)

        def act(versions: dict[str, int]) -> Invalidation:
            made = self._desk.new_id()
            self._desk.journal.note(Made(made, key, versions, now_ns()))
            return self._do(lambda: self._cache.set(key, {"made": made, "versions": versions}, TTL_S))

        with self._source.writing_items() as mine:
            if mine:
                self._desk.write((key,), (key,), act)

    def _delete(self) -> None:
        key = self._rng.choice(ITEMS)

        def act(_: dict[str, int]) -> None:
            self._do(lambda: self._cache.delete(key))

        with self._source.writing_items() as mine:
            if mine:
                self._desk.write((key,), (key,), act)

    def _refresh(self) -> None:
        self._do(self._cache.refresh)


def _oldest(*parts: dict[str, int]) -> dict[str, int]:
    """All versions of all parts; of a key that several have, the oldest."""
    merged: dict[str, int] = {}
    for part in parts:
        for key, version in part.items():
            merged[key] = min(version, merged.get(key, version))
    return merged
