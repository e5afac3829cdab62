"""The figures of a run, from the source and the time of each answer. Pure: no clock, no I/O."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import Final, NamedTuple

import msgspec

COMPUTED: Final = "no"
SOURCES: Final = ("l1", "l2", "joined", "stale", COMPUTED)


class Sample(NamedTuple):
    """One answer: its `cached`, and its own time."""

    source: str
    ms: float


class Tier(msgspec.Struct, frozen=True):
    """The answers from one source. `share` is of all answers, 0.0-1.0."""

    source: str
    count: int
    share: float
    p50_ms: float
    p99_ms: float


class Figures(msgspec.Struct, frozen=True):
    """`hit_rate`: answers that were not computed, of all answers, 0.0-1.0. `estimated_saved_s` is an estimate: saved
    computations times the mean computation of this run; 0.0 if the run computed nothing, as there is nothing to estimate from.
    """

    requests: int
    answered: int
    failed: int
    hit_rate: float
    computed: int
    saved: int
    mean_computed_ms: float
    estimated_saved_s: float
    elapsed_s: float
    throughput_per_s: float
    tiers: tuple[Tier, ...]


def figures_of(samples: Iterable[Sample], *, failed: int, elapsed_s: float) -> Figures:
    """Failed requests count among `requests` and nowhere else. Tiers without answers are left out."""
    by_source: dict[str, list[float]] = {source: [] for source in SOURCES}
    for source, ms in samples:
        by_source[source].append(ms)
    answered = sum(map(len, by_source.values()))
    times = by_source[COMPUTED]
    saved = answered - len(times)
    mean_ms = math.fsum(times) / len(times) if times else 0.0
    return Figures(
        requests=answered + failed,
        answered=answered,
        failed=failed,
        hit_rate=saved / answered if answered else 0.0,
        computed=len(times),
        saved=saved,
        mean_computed_ms=mean_ms,
        estimated_saved_s=saved * mean_ms / 1000,
        elapsed_s=elapsed_s,
        throughput_per_s=answered / elapsed_s if elapsed_s > 0 else 0.0,
        tiers=tuple(_tier(source, ms, answered) for source, ms in by_source.items() if ms),
    )


def quantile(ordered: Sequence[float], share: float) -> float:
    """By nearest rank: the smallest value that at least `share` of all values do not exceed. Always one that occurred."""
    return ordered[max(1, math.ceil(share * len(ordered))) - 1]


def bar(share: float, width: int) -> str:
    """A share as a bar of `width` characters; any share above 0 shows at least one."""
    full = round(share * width)
    full = max(1, full) if share > 0 else 0
    return "█" * full + "░" * (width - full)


def _tier(source: str, ms: list[float], answered: int) -> Tier:
    ordered = sorted(ms)
    return Tier(source, len(ms), len(ms) / answered, quantile(ordered, 0.5), quantile(ordered, 0.99))
