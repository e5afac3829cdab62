"""What the auditor costs: hits through the queue with it on and with it off, a hit of L1, and a round of judgements.

Two nodes of two processes, each with servers of its own, which differ in `PERSONA_AUDIT_PER_S` alone. Each works off the same
full queue, in turn, so that the machine's other load meets both.
"""

from __future__ import annotations

import gc
import itertools
import statistics
import time
from contextlib import closing
from typing import Final

from benchmarks.kit.compare import ratio_of_medians
from benchmarks.kit.contract import Benchmark, Figures, Progress
from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.fleet import Fleet
from benchmarks.kit.requests import spread_over
from benchmarks.measures.overhead import FULL, KINDS, PROCESSES, QUICK, REPORTED_TIMEOUT_S, Side
from pipeline.cache import LocalCache, RedisCache, TwoTierCache
from pipeline.cache.audit.auditor import Auditor
from pipeline.cache.audit.sampler import Sampler
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.connection import RedisConnection
from pipeline.figures import FigureKeys, read_figures
from pipeline.figures.fleet import Audit
from pipeline.settings import Settings, load_settings

NAMESPACE: Final = "audit-bench"
HITS_A_ROUND: Final = 100_000
TIERS: Final = 2
"""How many tiers' samples a round judges at most in a process that answers hits: those of L1 and of L2."""


def measure_audit(progress: Progress, *, quick: bool = False) -> Figures:
    """The figures. Raises BenchmarkFailedError when an answer was no hit, or when something was called stale."""
    size = QUICK if quick else FULL
    wires = [request.to_wire() for request in spread_over(KINDS, KINDS)]
    with (
        Fleet(progress, nodes=1, children=PROCESSES) as audited,
        Fleet(progress, nodes=1, children=PROCESSES, environ={"PERSONA_AUDIT_PER_S": "0"}) as unaudited,
    ):
        progress("audit: hits through the queue, with the auditor on and off, in turn")
        with Side(audited, wires, size) as on, Side(unaudited, wires, size) as off:
            for number in range(size.rounds):
                for side in (on, off) if number % 2 == 0 else (off, on):
                    side.work_off(size.tasks)
        audit = _audit_of(audited)
        if audit.stale or _audit_of(unaudited).checks:
            raise BenchmarkFailedError([f"the auditors say {audit}, and {_audit_of(unaudited)} where they are off"])
        figures = {"audited_per_s": statistics.median(on.per_s), "unaudited_per_s": statistics.median(off.per_s)}
        figures |= ratio_of_medians(on.per_s, off.per_s).figures("throughput_ratio")
        figures |= {"checks": audit.checks, "undecided": audit.undecided}
        audited.stop_nodes()
        unaudited.stop_nodes()
        progress("audit: a hit of L1 with a sampler, and a round of the auditor")
        return figures | _measure_hit(audited.settings, size.hit_rounds) | _measure_round(audited.settings, size.hit_rounds)


def _audit_of(fleet: Fleet) -> Audit:
    with closing(RedisConnection(fleet.settings.cache_url, timeout_s=5)) as connection:
        keys = FigureKeys(fleet.settings.cache_namespace)
        if fleet.settings.audit_per_s:
            fleet.await_(
                lambda: read_figures(connection, keys).ever.audit.checks > 0, "checks are told", timeout_s=REPORTED_TIMEOUT_S
            )
        return read_figures(connection, keys).ever.audit


def _cache(settings: Settings, sampler: Sampler) -> TwoTierCache:
    """With a lease that lasts: no hit is to leave L1."""
    l2 = RedisCache(url=settings.cache_url, namespace=NAMESPACE)
    return TwoTierCache(LocalCache(1000), l2, staleness_bound_s=60.0, sampler=sampler)


def _measure_hit(settings: Settings, rounds: int) -> Figures:
    """A `get` that L1 answers, in a process whose sampler takes samples at the default rate, and in one whose sampler is off."""
    per_s = load_settings({}).audit_per_s
    sampled_ns, unsampled_ns = [], []
    with closing(_cache(settings, Sampler(per_s))) as sampled, closing(_cache(settings, Sampler(0))) as unsampled:
        for cache in (sampled, unsampled):
            cache.set("key", "value")
        collecting = gc.isenabled()
        gc.disable()
        try:
            for _ in range(rounds):
                sampled_ns.append(_mean_get_ns(sampled))
                unsampled_ns.append(_mean_get_ns(unsampled))
        finally:
            if collecting:
                gc.enable()
    return {"sampled_get_ns": statistics.median(sampled_ns), "unsampled_get_ns": statistics.median(unsampled_ns)}


def _mean_get_ns(cache: TwoTierCache) -> float:
    cache.refresh()
    get, turns = cache.get, itertools.repeat(None, HITS_A_ROUND)
    began_ns = time.thread_time_ns()
    for _ in turns:
        get("key")
    return (time.thread_time_ns() - began_ns) / HITS_A_ROUND


def _measure_round(settings: Settings, rounds: int) -> Figures:
    """A second's judgements in a process that is asked without a pause: the processor's time of the thread, in ms."""
    count = round(TIERS * load_settings({}).audit_per_s)
    said: list[tuple[int, int, int]] = []
    spent_ms = []
    sampler = Sampler(float("inf"))
    with closing(_cache(settings, sampler)) as cache, closing(RedisConnection(settings.cache_url, timeout_s=5)) as connection:
        auditor = Auditor(sampler, KeySpace(NAMESPACE), bound_s=60.0, told=lambda *counts: said.append(counts))
        cache.set("key", "value")
        for number in range(rounds + 1):
            for _ in range(count):
                cache.get("key")
            cache.invalidate(f"other:{number}")
            began_ns = time.thread_time_ns()
            auditor.audit(connection)
            spent_ms.append((time.thread_time_ns() - began_ns) / 1e6)
    if sum(checks for checks, *_ in said) != (rounds + 1) * count:
        raise BenchmarkFailedError([f"{said[0]} of {count} samples were judged"])
    return {"round_ms": statistics.median(spent_ms[1:])}  # the first reads the script and the whole log


BENCHMARK: Final = Benchmark(
    "audit",
    "What the auditor costs: throughput with it on beside that with it off, a hit's own share, and a second's judgements.",
    16,
    measure_audit,
)
