"""The cost of each tier, operation by operation, beside what a program might use in its place.

L1: hits of one key, which is the whole cost of a hit, since a value is handed out and not moved. A document, which the caller may
change, is copied for each; the other caches hand out the one they keep, beside which stands the cost of copying it.
L2: keys that L1 does not hold, so that each read goes to the server, is judged, and is kept in L1, where another goes for it.
"""

from __future__ import annotations

import asyncio
import copy
import itertools
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack, closing
from functools import lru_cache, partial
from typing import Any, Final, NamedTuple

import redis

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Measured, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.turns import WARM_UP_ROUNDS, Batch, batch_of, in_turn
from benchmarks.peers.caches_l1 import L1_PEERS, MISSING_NOTE, L1Peer, make_peers
from benchmarks.peers.caches_l2 import make_l2_peers
from benchmarks.views.tiers_view import view_tiers
from pipeline.cache import LocalCache, RedisCache, TwoTierCache, cached
from pipeline.settings import Settings

SIZES: Final = {"100b": 100, "1kb": 1_000, "10kb": 10_000, "100kb": 100_000}
USUAL: Final = "1kb"
"""The size of the figures whose names give none."""
ENTRIES: Final = 1_000
TTL_S: Final = 300
L1_ENTRIES_OF_L2: Final = 1  # L1's room while L2 is measured: so small that no key, nor its ghost, is there when its turn comes


class Size(NamedTuple):
    """The size of the measurement."""

    rounds: int
    hits: int
    documents: int
    keys: int


FULL: Final = Size(rounds=30, hits=1_000, documents=50, keys=150)
QUICK: Final = Size(rounds=3, hits=100, documents=3, keys=120)


def measure_tiers(progress: Progress, *, quick: bool = False) -> Measured:
    """The figures. Raises BenchmarkFailedError when a call gave another value, or another tier gave it."""
    size = QUICK if quick else FULL
    with Fleet(progress, nodes=0, children=0) as fleet:
        first = _L1Bench(size)
        progress("tiers: L1, and what might stand in its place")
        figures = first.measure()
        progress("tiers: L2, and what might stand in its place")
        second = _L2Bench(size, fleet.settings)
        figures |= second.measure()
    named = {
        "l1_hit_ns": figures[f"l1_hit_{USUAL}_ns"],
        "l2_hit_us": figures[f"l2_hit_{USUAL}_us"],
        "redis_get_us": figures[f"redis_get_{USUAL}_us"],
    }
    if f"cachetools_ttl_hit_{USUAL}_ns" in figures:
        named["cachetools_ttl_hit_ns"] = figures[f"cachetools_ttl_hit_{USUAL}_ns"]
    return Measured(named | figures, tuple(MISSING_NOTE.format(name) for name in (*first.missing, *second.missing)))


def text_of(size_bytes: int) -> str:
    """An answer's text of that many bytes."""
    return ("An answer is made of words, and of spaces between them. " * (size_bytes // 56 + 1))[:size_bytes]


def document_of(size_bytes: int) -> list[dict[str, Any]]:
    """A JSON document of about that many bytes."""
    records = max(1, size_bytes // 100)
    return [
        {"name": f"record {number:06}", "score": 0.25 + number, "tags": ["a", "b"], "text": text_of(30)}
        for number in range(records)
    ]


def _same(got: object, expected: object, what: str) -> None:
    if got != expected:
        raise BenchmarkFailedError([f"{what}: another value than was kept"])


class _L1Bench:
    """L1 alone: without a server the path of a hit is the same, and nothing else is on it."""

    def __init__(self, size: Size) -> None:
        self._size = size
        self._cache = TwoTierCache(LocalCache(ENTRIES))
        self._local = LocalCache(ENTRIES)
        self._peers, self.missing = make_peers(L1_PEERS, ENTRIES, TTL_S)

    def measure(self) -> Figures:
        figures: Figures = {}
        try:
            for label, size_bytes in SIZES.items():
                figures |= self._hits(label, text_of(size_bytes))
                figures |= self._documents(label, document_of(size_bytes))
                figures |= self._sets(label, text_of(size_bytes))
            figures |= self._misses()
            figures |= self._faces(text_of(SIZES[USUAL]))
        finally:
            for peer in self._peers.values():
                peer.close()
        return figures

    def _hits(self, label: str, value: str) -> Figures:
        key = f"hit:{label}"
        compute = partial(str, value)
        decorated = cached(TTL_S, f"cached:{label}", cache=self._cache)(_echo(value))
        memoized = lru_cache(ENTRIES)(_echo(value))
        calls: dict[str, Callable[[str], Any]] = {
            "l1_hit": self._cache.get,
            "local_hit": self._local.get,
            "l1_get_or_compute": partial(self._cache.get_or_compute, compute=compute),
            "l1_cached": decorated,
            "lru_cache_hit": memoized,
        }
        self._cache.set(key, value, TTL_S)
        self._local.set(key, value, TTL_S)
        for name, peer in self._peers.items():
            peer.set(key, value)
            _same(peer.value(peer.get(key)), value, name)
            calls[f"{name}_hit"] = peer.get
        for name, call in list(calls.items())[:5]:
            _same(call(key), value, name)
        tiers_hits = self._l1_hits()
        took = in_turn({name: batch_of(call, (key,) * self._size.hits) for name, call in calls.items()}, self._size.rounds)
        self._check_hits(tiers_hits, calls_each=3)
        figures = {f"{name}_{label}_ns": statistics.median(ns) for name, ns in took.items()}
        if label == USUAL:
            for name in ("lru_cache", *self._peers):
                figures |= ratio_of_medians(took["l1_hit"], took[f"{name}_hit"]).figures(f"l1_to_{name}_hit_ratio")
            figures |= ratio_of_medians(took["l1_cached"], took["lru_cache_hit"]).figures("l1_cached_to_lru_cache_ratio")
        return figures

    def _documents(self, label: str, value: list[dict[str, Any]]) -> Figures:
        """Hits whose value the caller may change: no other caller may see that."""
        key = f"document:{label}"
        calls: dict[str, Callable[[str], Any]] = {"l1_document": self._cache.get}
        self._cache.set(key, value, TTL_S)
        kept = {"cachetools_ttl": self._peers["cachetools_ttl"]} if "cachetools_ttl" in self._peers else {}
        for name, peer in kept.items():
            peer.set(key, value)
            calls[f"{name}_document"] = _copying(peer)
        for name, call in calls.items():
            call(key)[0]["name"] = "changed"
            _same(call(key), value, name)
        count = max(1, self._size.documents * 1_000 // max(1_000, SIZES[label]))
        took = in_turn({name: batch_of(call, (key,) * count) for name, call in calls.items()}, max(3, self._size.rounds // 3))
        figures = {f"{name}_{label}_us": statistics.median(ns) / 1_000 for name, ns in took.items()}
        for name in kept:
            figures |= ratio_of_medians(took["l1_document"], took[f"{name}_document"]).figures(
                f"l1_to_{name}_document_{label}_ratio"
            )
        return figures

    def _sets(self, label: str, value: str) -> Figures:
        """New keys, in a cache that is full: each evicts another one."""
        setters: dict[str, Callable[[str], Any]] = {"local_set": lambda key: self._local.set(key, value, TTL_S)}
        for name, peer in self._peers.items():
            setters[f"{name}_set"] = _setting(peer, value)
        keys = [f"set:{label}:{number}" for number in range(4 * ENTRIES)]
        for call in setters.values():
            for key in keys:
                call(key)
        some = keys[:: len(keys) // self._size.keys]
        took = in_turn({name: batch_of(call, some) for name, call in setters.items()}, max(3, self._size.rounds // 3))
        _same(self._local.get(some[-1]), value, "local_set")
        if len(self._local) != ENTRIES:
            raise BenchmarkFailedError([f"L1 holds {len(self._local)} entries of {ENTRIES}"])
        return {f"{name}_{label}_us": statistics.median(ns) / 1_000 for name, ns in took.items()}

    def _misses(self) -> Figures:
        calls: dict[str, Callable[[str], Any]] = {"l1_miss": partial(self._cache.get, default=None)}
        for name, peer in self._peers.items():
            _same(peer.value(peer.get("absent")), None, name)
            calls[f"{name}_miss"] = peer.get
        _same(self._cache.get("absent", None), None, "l1_miss")
        took = in_turn(
            {name: batch_of(call, ("absent",) * self._size.hits) for name, call in calls.items()}, max(3, self._size.rounds // 3)
        )
        return {f"{name}_ns": statistics.median(ns) for name, ns in took.items()}

    def _faces(self, value: str) -> Figures:
        """A hit, beside one that a computation reads, which is noted among its deps, and one that a coroutine awaits."""
        key, aio, loop = f"face:{USUAL}", self._cache.aio, asyncio.new_event_loop()
        self._cache.set(key, value, TTL_S)
        plain = batch_of(self._cache.get, (key,) * self._size.hits)
        numbers = itertools.count()

        def nested() -> float:
            return self._cache.get_or_compute(f"outer:{next(numbers)}", plain)

        async def awaited() -> float:
            began_ns = time.perf_counter_ns()
            for _ in range(self._size.hits):
                await aio.get(key)
            return (time.perf_counter_ns() - began_ns) / self._size.hits

        try:
            _same(loop.run_until_complete(aio.get(key)), value, "aio_hit")
            batches: dict[str, Batch] = {
                "plain": plain,
                "l1_nested_hit": nested,
                "aio_hit": lambda: loop.run_until_complete(awaited()),
            }
            took = in_turn(batches, self._size.rounds)
        finally:
            loop.close()
        figures = {f"{name}_{USUAL}_ns": statistics.median(ns) for name, ns in took.items() if name != "plain"}
        more = [nested_ns - plain_ns for nested_ns, plain_ns in zip(took["l1_nested_hit"], took["plain"], strict=True)]
        return figures | {"l1_recorded_read_ns": statistics.median(more)}

    def _l1_hits(self) -> int:
        return int(self._cache.l1.get_stats()["hits"])

    def _check_hits(self, before: int, calls_each: int) -> None:
        """Every call of the two-tier cache was a hit, and was counted."""
        expected = calls_each * self._size.hits * (self._size.rounds + WARM_UP_ROUNDS)
        if (hits := self._l1_hits() - before) != expected:
            raise BenchmarkFailedError([f"{hits} of {expected} lookups were L1 hits"])


class _L2Bench:
    """L2 beside a bare GET of the client library on the same kind of connection, and beside other caches in Redis."""

    def __init__(self, size: Size, settings: Settings) -> None:
        self._size = size
        self._url = settings.cache_url
        self._peers, self.missing = make_l2_peers(self._url, TTL_S)

    def measure(self) -> Figures:
        figures: Figures = {}
        with ExitStack() as resources:
            for peer in self._peers.values():
                resources.callback(peer.close)
            # The options that this project's own connection has.
            self._bare = resources.enter_context(
                redis.Redis.from_url(self._url, socket_timeout=0.25, socket_connect_timeout=0.25, socket_keepalive=True)
            )
            shared = RedisCache(url=self._url, namespace="bench")
            self._cache = resources.enter_context(closing(TwoTierCache(LocalCache(L1_ENTRIES_OF_L2), shared)))
            for label, size_bytes in SIZES.items():
                figures |= self._hits(label, text_of(size_bytes))
            figures |= self._misses()
            figures |= self._writes(text_of(SIZES[USUAL]))
        return figures

    def _hits(self, label: str, value: str) -> Figures:
        keys = [f"hit:{label}:{number}" for number in range(self._size.keys)]
        for key in keys:
            self._cache.get_or_compute(key, partial(str, value), ttl=TTL_S)
            self._bare.set(key, value)
        batches: dict[str, Batch] = {
            "l2_hit": batch_of(self._cache.get, keys),
            "redis_get": batch_of(self._bare.get, keys),
            "l2_get_or_compute": batch_of(partial(self._cache.get_or_compute, compute=_forbidden), keys),
            "l2_cached": self._decorated(label, value),
        }
        for name, peer in self._peers.items():
            for key in keys:
                peer.set(key, value)
            _same(peer.get(keys[0]), value, name)
            batches[f"{name}_hit"] = peer.getting(keys)
        _same(self._cache.get(keys[0]), value, "l2_hit")
        self._cache.l1.clear()
        before = self._cache.get_stats()["l2"]["hits"]
        took = in_turn(batches, self._size.rounds)
        expected = 3 * len(keys) * (self._size.rounds + WARM_UP_ROUNDS)
        if (hits := self._cache.get_stats()["l2"]["hits"] - before) != expected:
            raise BenchmarkFailedError([f"{hits} of {expected} lookups were L2 hits"])
        figures = {f"{name}_{label}_us": statistics.median(ns) / 1_000 for name, ns in took.items()}
        figures |= ratio_of_medians(took["l2_hit"], took["redis_get"]).figures(f"l2_to_redis_get_{label}_ratio")
        if label == USUAL:
            for name in self._peers:
                figures |= ratio_of_medians(took["l2_hit"], took[f"{name}_hit"]).figures(f"l2_to_{name}_hit_ratio")
        return figures

    def _decorated(self, label: str, value: str) -> Batch:
        function = cached(TTL_S, f"cached:{label}", cache=self._cache)(_echo(value))
        arguments = [str(number) for number in range(self._size.keys)]
        for argument in arguments:
            _same(function(argument), value, "l2_cached")
        return batch_of(function, arguments)

    def _misses(self) -> Figures:
        keys = [f"absent:{number}" for number in range(self._size.keys)]
        batches = {
            "l2_miss": batch_of(partial(self._cache.get, default=None), keys),
            "redis_miss": batch_of(self._bare.get, keys),
        }
        batches |= {f"{name}_miss": peer.getting(keys) for name, peer in self._peers.items()}
        return {
            f"{name}_us": statistics.median(ns) / 1_000 for name, ns in in_turn(batches, max(3, self._size.rounds // 3)).items()
        }

    def _writes(self, value: str) -> Figures:
        keys = [f"set:{number}" for number in range(min(100, self._size.keys))]
        numbers = itertools.count()

        def fill(_: str) -> object:
            return self._cache.get_or_compute(f"fill:{next(numbers)}", partial(str, value), ttl=TTL_S)

        batches = {
            "l2_set": batch_of(lambda key: self._cache.set(key, value, TTL_S), keys),
            "l2_fill": batch_of(fill, keys),
            "redis_set": batch_of(lambda key: self._bare.set(key, value, ex=TTL_S), keys),
        }
        batches |= {f"{name}_set": peer.setting(keys, value) for name, peer in self._peers.items()}
        took = in_turn(batches, max(3, self._size.rounds // 3))
        _same(self._cache.get(keys[-1]), value, "l2_set")
        _same(self._cache.get("fill:0"), value, "l2_fill")
        return {f"{name}_us": statistics.median(ns) / 1_000 for name, ns in took.items()}


def _echo(value: str) -> Callable[[str], str]:
    def answer(question: str) -> str:
        return value if question else ""

    return answer


def _copying(peer: L1Peer) -> Callable[[str], Any]:
    return lambda key: copy.deepcopy(peer.get(key))


def _setting(peer: L1Peer, value: str) -> Callable[[str], Any]:
    return lambda key: peer.set(key, value)


def _forbidden() -> str:
    raise BenchmarkFailedError(["a value that L2 has was computed"])


BENCHMARK: Final = Benchmark(
    "tiers",
    "What each operation of each tier costs, beside what a program might use in its place.",
    6,
    measure_tiers,
    view_tiers,
)
