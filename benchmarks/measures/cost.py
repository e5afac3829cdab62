"""The cost of coherence: a call of `invalidate` with few and with many cached keys, and the check within an L1 hit."""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any, Final

import msgspec
import redis

from benchmarks.kit.contract import Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from pipeline.assembly import Equipment, build_cache
from pipeline.cache import MISS, LocalCache, TwoTierCache
from pipeline.cache.coherence.bus import NodeBus
from pipeline.cache.entry import Entry, encode_entry
from pipeline.cache.keys import KeySpace
from pipeline.cache.memory.local import COPY
from pipeline.settings import Settings
from workers.client import PersonaClient
from workers.install.step import follower_and_log

FEW: Final = 1_000
MANY: Final = 1_000_000
PATTERN: Final = "cost:x:*"
KEY_PREFIX: Final = "cost:x:"
TTL_S: Final = 600
GETS_A_ROUND: Final = 1_000
_BATCH: Final = 5_000


def measure_invalidate(settings: Settings, rounds: int, progress: Progress) -> Figures:
    """`invalidate` of a prefix that every key has, in turn with few keys (a database of their own) and with many."""
    many = settings
    few = settings.model_copy(update={"cache_url": _beside(settings.cache_url)})
    progress(f"coherence: filling the cache with {FEW} and with {MANY} keys")
    took_ms: dict[int, list[float]] = {FEW: [], MANY: []}
    with ExitStack() as resources:
        clients = {
            FEW: resources.enter_context(PersonaClient(few)),
            MANY: resources.enter_context(PersonaClient(many)),
        }
        for count, client in clients.items():
            _fill(client, count)
        for _ in range(rounds):
            for count, client in clients.items():
                began_ns = time.perf_counter_ns()
                made = client.invalidate(PATTERN)
                took_ms[count].append((time.perf_counter_ns() - began_ns) / 1e6)
                if not made.durable:
                    raise BenchmarkFailedError([f"an invalidation with {count} keys was not durable"])
        for client in clients.values():
            _check_gone(client)
    few_ms, many_ms = (statistics.median(took_ms[count]) for count in (FEW, MANY))
    return {
        "invalidate_1k_ms": few_ms,
        "invalidate_1m_ms": many_ms,
        "invalidate_1m_to_1k_ratio": many_ms / few_ms,
    }


class _Unchecked(TwoTierCache):
    """The same `get`, letter by letter except for the check: the other side of the comparison."""

    def get(self, key: str, default: Any = MISS, type: Any = Any) -> Any:
        slot = self._slots.get(key)
        if slot is not None and slot.type is type:
            now_s = self._clock()
            if now_s < slot.expires_at and slot.generation == self.generation:
                slot.used = True
                self._count_hit()
                return slot.shared if slot.shared is not COPY else slot.value(type)
        return default

    generation = 0


def measure_get(settings: Settings, rounds: int, progress: Progress) -> Figures:
    """An L1 hit in a pool child, through the coherence check; in turn with the same call without the check, and with the same hit
    of a LocalCache alone.

    All times contain the loop around the call, some 10 ns.
    """
    progress("coherence: L1 hits with and without the check")
    bus = NodeBus()
    follower, _ = follower_and_log("bench", bus, settings)
    cache = build_cache(settings, Equipment(bus=bus))
    key, value = "bench:hit", "an answer of no great length"
    cache.set(key, value, TTL_S)
    local = LocalCache(settings.l1_max_entries)
    local.set(key, value, TTL_S)
    unchecked = _Unchecked(LocalCache(settings.l1_max_entries))
    unchecked.set(key, value, TTL_S)
    unchecked.generation = unchecked.as_of().generation
    calls: dict[str, Callable[[str], Any]] = {"local": local.get, "unchecked": unchecked.get, "two_tier": cache.get}
    took_ns: dict[str, list[float]] = {name: [] for name in calls}
    collecting = gc.isenabled()
    gc.disable()
    try:
        for _ in range(rounds):
            follower.beat()  # as a node's main process does: the lease holds for this round
            for name, call in calls.items():
                if call(key) != value:
                    raise BenchmarkFailedError([f"{name}: an L1 hit gave another value"])
                took_ns[name].append(_mean_ns(call, key))
    finally:
        if collecting:
            gc.enable()
    hits = sum(tier.get_stats()["hits"] for tier in (local, unchecked.l1, cache.l1))
    cache.close()
    if hits != (expected := rounds * len(calls) * (GETS_A_ROUND + 1)):
        raise BenchmarkFailedError([f"only {hits} of {expected} lookups were L1 hits"])
    local_ns, unchecked_ns, two_tier_ns = (statistics.median(took_ns[name]) for name in calls)
    return {
        "local_get_ns": local_ns,
        "unchecked_get_ns": unchecked_ns,
        "two_tier_get_ns": two_tier_ns,
        "check_ns": two_tier_ns - unchecked_ns,
        "get_overhead_ns": two_tier_ns - local_ns,
    }


def _mean_ns(call: Callable[[str], Any], key: str) -> float:
    turns = itertools.repeat(None, GETS_A_ROUND)
    began_ns = time.perf_counter_ns()
    for _ in turns:
        call(key)
    return (time.perf_counter_ns() - began_ns) / GETS_A_ROUND


def _fill(client: PersonaClient, count: int) -> None:
    """Small entries, as the cache itself writes them, and valid."""
    keys = KeySpace(client.settings.cache_namespace)
    as_of = client.cache.as_of()
    value = msgspec.Raw(b'"an answer"')
    made_ms = int(time.time() * 1000)
    with redis.Redis.from_url(client.settings.cache_url) as server:
        for first in range(0, count, _BATCH):
            with server.pipeline(transaction=False) as pipe:
                for number in range(first, min(first + _BATCH, count)):
                    key = f"{KEY_PREFIX}{number}"
                    payload = encode_entry(Entry(key, as_of.epoch, as_of.seq, (), made_ms, TTL_S * 1000, value))
                    pipe.execute_command("SET", keys.entry(key), payload, "PX", TTL_S * 1000)
                pipe.execute()
        held = int(server.dbsize())
    if held < count:
        raise BenchmarkFailedError([f"the cache's server holds {held} of {count} keys"])
    if client.cache.get(f"{KEY_PREFIX}1", None) is None:
        raise BenchmarkFailedError(["a key that was just written is not served"])


def _check_gone(client: PersonaClient) -> None:
    """The bytes are still there, and none of them is served."""
    with redis.Redis.from_url(client.settings.cache_url) as server:
        held = server.exists(KeySpace(client.settings.cache_namespace).entry(f"{KEY_PREFIX}1"))
    if not held or client.cache.get(f"{KEY_PREFIX}1", None) is not None:
        raise BenchmarkFailedError(["a key that was invalidated is still served, or was not there to be served"])


def _beside(cache_url: str) -> str:
    """Database 1 of the same server."""
    return cache_url.rpartition("/")[0] + "/1"
