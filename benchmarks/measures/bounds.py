"""The cost that one caller can put on all others, at the edge of each bound of docs/coherence.md: many globs, many invalidations
while Redis is away, a long log, evicted records, a frozen broker."""

from __future__ import annotations

import os
import signal
import statistics
import threading
import time
from collections.abc import Callable, Sequence
from typing import Final

from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.keys import KeySpace
from pipeline.cache.patterns.globs import MAX_IN_A_PLACE
from pipeline.settings import Settings
from workers.client import PersonaClient

KEY: Final = "persona:lua:calm-medium-planning:0123456789abcdef"
AT_ONCE: Final = 1_000
THREADS: Final = 24
HOT: Final = 200
SETTLING_S: Final = 60.0


def measure_bounds(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError where an invalidated entry was served, or a bounded step did not end."""
    scale = 10 if quick else 1
    with Fleet(progress, nodes=0, children=1) as fleet:
        figures: Figures = {}
        figures |= _globs(fleet.settings, 5_000 // scale, progress)
        figures |= _log(fleet.settings, 90_000 // scale, progress)  # a longer one is cut, and the entry with it
        figures |= _eviction(fleet.settings, progress)
        figures |= _pending(fleet, 100_000 // scale, progress)
        figures |= _frozen_broker(fleet, progress)
    return figures


def _cache(settings: Settings, namespace: str) -> TwoTierCache:
    return TwoTierCache(LocalCache(), RedisCache(url=settings.cache_url, namespace=namespace, timeout_s=2.0))


def _l2(cache: TwoTierCache) -> RedisCache:
    if cache.l2 is None:
        raise BenchmarkFailedError(["there is no server for the cache"])
    return cache.l2


def _connect(cache: TwoTierCache) -> None:
    """Open the connection, which is not part of the measurement."""
    _l2(cache).connection.call(lambda client: client.ping())


def _median_us(call: Callable[[], object], before: Callable[[], object], times: int = 50) -> float:
    taken = []
    for _ in range(times):
        before()
        began_s = time.perf_counter()
        call()
        taken.append(time.perf_counter() - began_s)
    return statistics.median(taken) * 1e6


def _globs(settings: Settings, count: int, progress: Progress) -> Figures:
    """An L2 hit of an entry that is older than many globs: of another shape than its key, and of its own, of which fewer are
    remembered. `first`: the first hit after them, which has to look at each."""
    figures: Figures = {"foreign_globs": count, "near_globs": min(count, MAX_IN_A_PLACE * 9 // 10)}
    for name, shape, newer in (
        ("no", "", 0),
        ("foreign", "session:*:user-{}", count),
        ("near", "persona:*:z{}*", figures["near_globs"]),
    ):
        progress(f"an L2 hit behind {newer} globs ({name})")
        cache, other = _cache(settings, f"globs-{name}"), _cache(settings, f"globs-{name}")
        globs = [shape.format(number) for number in range(count if shape else 0)]
        _invalidate_all(other, globs[: len(globs) - int(newer)])
        other.get_or_compute(KEY, lambda: "value", ttl=600)
        _invalidate_all(other, globs[len(globs) - int(newer) :])
        cache.refresh()
        began_s = time.perf_counter()
        found = cache.get(KEY)
        figures[f"l2_hit_{name}_globs_first_us"] = (time.perf_counter() - began_s) * 1e6
        if found != "value":
            raise BenchmarkFailedError([f"{name} globs ended an entry that they do not mean"], figures)
        figures[f"l2_hit_{name}_globs_us"] = _median_us(lambda: cache.get(KEY), cache.l1.clear)  # noqa: B023 - called at once
        cache.close()
        other.close()
    return figures


def _invalidate_all(cache: TwoTierCache, patterns: Sequence[str]) -> None:
    for first in range(0, len(patterns), AT_ONCE):
        cache.invalidate(*patterns[first : first + AT_ONCE])


def _log(settings: Settings, count: int, progress: Progress) -> Figures:
    """The first `invalidate` and the first read of a program that has just begun, by the length of the log."""
    figures: Figures = {"log_records": count}
    other = _cache(settings, "log")
    other.get_or_compute(KEY, lambda: "value", ttl=600)
    for name, records in (("short", 0), ("long", count)):
        progress(f"a new process and a log of {records} records")
        _invalidate_all(other, [f"user:u-{number}" for number in range(records)])
        invalidating, reading = [], []
        for _ in range(5):
            fresh = _cache(settings, "log")
            _connect(fresh)
            began_s = time.perf_counter()
            fresh.invalidate("another")
            invalidating.append(time.perf_counter() - began_s)
            fresh.close()
            fresh = _cache(settings, "log")
            _connect(fresh)
            began_s = time.perf_counter()
            found = fresh.get(KEY)
            reading.append(time.perf_counter() - began_s)
            fresh.close()
            if found != "value":
                raise BenchmarkFailedError(["a new process missed what nothing had invalidated"])
        figures[f"first_invalidate_{name}_log_ms"] = statistics.median(invalidating) * 1e3
        figures[f"first_read_{name}_log_ms"] = statistics.median(reading) * 1e3
    other.close()
    return figures


def _eviction(settings: Settings, progress: Progress) -> Figures:
    """The hit ratio of a running process when the server has evicted the log's records, after one unrelated invalidation; and
    that of a process that begins then."""
    progress("the log's records are evicted")
    cache, other = _cache(settings, "evicted"), _cache(settings, "evicted")
    keys = [f"hot:{number}" for number in range(HOT)]
    other.invalidate("before")
    for key in keys:
        cache.get_or_compute(key, lambda: "value", ttl=600)
    other.invalidate("something:else")
    cache.refresh()
    _l2(cache).connection.call(lambda client: client.unlink(KeySpace("evicted").records))
    other.invalidate("unrelated")
    cache.l1.clear()
    newcomer = _cache(settings, "evicted")
    figures = {
        "hit_ratio_after_eviction": sum(cache.get(key) == "value" for key in keys) / HOT,
        "hit_ratio_after_eviction_newcomer": sum(newcomer.get(key) == "value" for key in keys) / HOT,
    }
    for each in (cache, other, newcomer):
        each.close()
    if figures["hit_ratio_after_eviction"] < 1:
        raise BenchmarkFailedError(["an eviction of the log's records made misses of what a process knew"], figures)
    return figures


def _pending(fleet: Fleet, count: int, progress: Progress) -> Figures:
    """Many invalidations while Redis is away: the cost of a read from L1 meanwhile, and the time until all are in the log."""
    progress(f"{count} invalidations while Redis is away")
    cache = _cache(fleet.settings, "pending")
    cache.get_or_compute(KEY, lambda: "value", ttl=600)
    cache.get_or_compute("user:u-0", lambda: "value", ttl=600)
    server = fleet.servers["cache"]
    l2 = _l2(cache)
    before_us = _median_us(lambda: cache.lookup(KEY), lambda: None)
    os.kill(server, signal.SIGSTOP)
    try:
        l2.connection.breaker.failed()
        for first in range(0, count, AT_ONCE):
            cache.invalidate(*[f"user:u-{number}" for number in range(first, first + AT_ONCE)])
            l2.connection.breaker.failed()  # no probe in between: it would wait for the server
        while_away_us = _median_us(lambda: cache.lookup(KEY), l2.connection.breaker.failed)
        served = cache.get("user:u-0") == "value"
    finally:
        os.kill(server, signal.SIGCONT)
    began_s = time.monotonic()
    longest_s, reads = 0.0, 0
    while cache._view.pending_first(1) and time.monotonic() < began_s + SETTLING_S:  # noqa: SLF001 - nothing else tells
        at_s = time.monotonic()
        cache.get("something")
        if l2.connection.breaker.closed:
            reads += 1
            longest_s = max(longest_s, time.monotonic() - at_s)
        else:
            time.sleep(0.01)
    figures: Figures = {
        "pending": count,
        "l1_read_us": before_us,
        "l1_read_away_us": while_away_us,
        "pending_settled_s": time.monotonic() - began_s,
        "pending_settling_reads": reads,
        "pending_longest_read_ms": longest_s * 1e3,
    }
    problems = ["what was pending was served"] if served else []
    if cache._view.pending_first(1):  # noqa: SLF001 - as above
        problems.append(f"what was pending was not appended within {SETTLING_S:g} s")
    cache.close()
    if problems:
        raise BenchmarkFailedError(problems, figures)
    return figures


def _frozen_broker(fleet: Fleet, progress: Progress) -> Figures:
    """How long `invalidate` takes for each of many threads while the broker takes bytes and answers nothing."""
    progress("the broker is frozen")
    taken: list[float] = []
    durable: list[bool] = []
    with PersonaClient(fleet.settings) as client:
        client.invalidate("user:warm")

        def invalidate(number: int) -> None:
            began_s = time.monotonic()
            durable.append(client.invalidate(f"user:{number}").durable)
            taken.append(time.monotonic() - began_s)

        broker = fleet.servers["broker"]
        os.kill(broker, signal.SIGSTOP)
        try:
            threads = [threading.Thread(target=invalidate, args=(number,)) for number in range(THREADS)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
        finally:
            os.kill(broker, signal.SIGCONT)
    figures: Figures = {"frozen_broker_threads": THREADS, "invalidate_frozen_broker_max_ms": max(taken) * 1e3}
    if not all(durable) or len(durable) < THREADS:
        raise BenchmarkFailedError(["an invalidation was not durable while the broker was frozen"], figures)
    return figures


BENCHMARK: Final = Benchmark(
    "bounds",
    "What one caller may cost all others: many globs, a long log, an eviction, invalidations in an outage, a frozen broker.",
    3,
    measure_bounds,
)
