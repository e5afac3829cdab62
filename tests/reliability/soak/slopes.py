"""Whether something grows: pure, over samples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import combinations, pairwise
from statistics import mean, median, stdev
from typing import Final, NamedTuple

from reliability.soak.sampling import Sample

WARM: Final = 0.3
"""The first part of a run is none of the slope, nor so long a time of a process that began later."""
FEWEST: Final = 12
"""Samples; a process that lived for fewer has no slope."""
MOST_POINTS: Final = 120
_Z: Final = 1.96
"""95 %."""
_STUDENT: Final = {4: 4.303, 8: 2.447}
"""The same, of the mean of the steps between so many parts."""

_MOST_A_HOUR: Final = {"rss_mb": 1.0, "descriptors": 1.0, "connections": 2.0, "keys": 20.0}
_NOISE: Final = {"rss_mb": 0.3, "descriptors": 4.0, "connections": 12.0, "keys": 40.0}
"""What a figure may move within a run however short: a page that is touched once, a connection that is being made, the results of
the tasks of a moment."""
_NOISE_SHARE: Final = {"connections": 0.15, "keys": 0.15}
"""The same as a share: what follows the load moves with it."""
_SHORT_S: Final = 900.0
"""After a shorter span a process is still warm at best: its memory may move by more."""
_NOISE_SHORT: Final = {"rss_mb": 3.0}


class Slope(NamedTuple):
    """`grown`: over the span of the samples. `low`, `high`: where the growth in an hour lies, with 95 % confidence."""

    name: str
    samples: int
    span_s: float
    first: float
    last: float
    an_hour: float
    low: float
    high: float

    @property
    def grown(self) -> float:
        return self.an_hour * self.span_s / 3600

    @property
    def told(self) -> str:
        """What it tells of the growth that is allowed; empty where none is a matter of concern. What is counted is flat, or grows
        by more than noise: so few of something that comes and goes tell of no hour."""
        most = _MOST_A_HOUR.get(self.kind)
        if most is None:
            return ""
        if self.kind != "rss_mb":
            return "flat" if self.last - self.first <= self.noise else "more than noise"
        if self.high <= most:
            return f"at most {most:g}"
        return f"more than {most:g}" if self.low > most else f"cannot tell {most:g} from none"

    @property
    def noise(self) -> float:
        """What it may move by within its span."""
        least = (_NOISE_SHORT if self.span_s < _SHORT_S else _NOISE).get(self.kind, _NOISE[self.kind])
        return max(least, _NOISE_SHARE.get(self.kind, 0.0) * self.first)

    @property
    def kind(self) -> str:
        return self.name.partition(" ")[0]


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """Of each figure that was there often enough after the warm-up. The median of the slopes between all pairs: what a fault
    does to some samples does not move it."""
    if not samples:
        return []
    warm_s = WARM * (samples[-1].at_s - samples[0].at_s)
    found = []
    for name in sorted({name for each in samples for name in each.values}):
        points = [(each.at_s, each.values[name]) for each in samples if name in each.values]
        points = [point for point in points if point[0] >= points[0][0] + warm_s]
        if len(points) >= FEWEST:
            points = points[:: -(-len(points) // MOST_POINTS)]
            an_s, low_s, high_s = slope_of(points)
            part = max(1, len(points) // 4)
            first, last = median(value for _, value in points[:part]), median(value for _, value in points[-part:])
            span_s = points[-1][0] - points[0][0]
            found.append(Slope(name, len(points), span_s, first, last, an_s * 3600, low_s * 3600, high_s * 3600))
    return found


def slope_of(points: Sequence[tuple[float, float]]) -> tuple[float, float, float]:
    """Theil's and Sen's slope of points in their order, and its bounds of 95 %. Sen's interval takes points to be independent of
    each other: it is widened by what the residuals' ranks have in common with those before them (Hamed and Rao). Memory moves
    in steps that stay, which looks like growth, so that the interval also holds what the steps between parts of the run make
    likely."""
    n = len(points)
    all_of = sorted((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in combinations(points, 2))
    middle = median(all_of)
    residuals = [value - middle * at_s for at_s, value in points]
    variance = n * (n - 1) * (2 * n + 5) / 18 * _repeated(_ranks(residuals))
    half = _Z * math.sqrt(variance) / 2
    centre = (len(all_of) - 1) / 2
    low, high = math.floor(centre - half), math.ceil(centre + half)
    # Beyond all pairs: then these points tell nothing.
    bounds = all_of[low] if low >= 0 else -math.inf, all_of[high] if high < len(all_of) else math.inf
    step_low, step_high = _by_steps(points)
    return middle, min(bounds[0], step_low), max(bounds[1], step_high)


def _by_steps(points: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """The same bounds if the steps from one part of the run to the next are independent of each other."""
    parts = max(each for each in _STUDENT if each * 3 <= len(points))
    size = len(points) / parts
    cut = [points[round(part * size) : round((part + 1) * size)] for part in range(parts)]
    middles = [(mean(at_s for at_s, _ in part), median(value for _, value in part)) for part in cut]
    steps = [(later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in pairwise(middles)]
    half = _STUDENT[parts] * stdev(steps) / math.sqrt(len(steps))
    return mean(steps) - half, mean(steps) + half


def _repeated(ranks: Sequence[float]) -> float:
    """How many points say what one does."""
    n = len(ranks)
    mean = sum(ranks) / n
    away = [rank - mean for rank in ranks]
    whole = sum(each * each for each in away)
    if not whole:
        return 1.0
    total = 0.0
    for lag in range(1, n - 2):
        common = sum(a * b for a, b in zip(away, away[lag:], strict=False)) / whole
        if common <= _Z / math.sqrt(n):
            break
        total += (n - lag) * (n - lag - 1) * (n - lag - 2) * common
    return 1 + 2 * total / (n * (n - 1) * (n - 2))


def _ranks(values: Sequence[float]) -> list[float]:
    """Equal ones share the mean of theirs."""
    order = sorted(values)
    first = {value: at for at, value in reversed(list(enumerate(order)))}
    last = {value: at for at, value in enumerate(order)}
    return [(first[value] + last[value]) / 2 for value in values]


def breaches(found: Sequence[Slope]) -> list[str]:
    """What grows by more than it may, an hour, and in all by more than noise; memory: beyond doubt."""
    problems = []
    for slope in found:
        most = _MOST_A_HOUR.get(slope.kind)
        if most is None:
            continue
        least = slope.low if slope.kind == "rss_mb" else slope.an_hour
        if least > most and min(slope.grown, slope.last - slope.first) > slope.noise:
            problems.append(
                f"{slope.name} grows by {slope.an_hour:.1f} an hour (from {slope.first:.1f} to {slope.last:.1f}; "
                f"{slope.low:.1f} to {slope.high:.1f} with 95 % confidence); {most:g} are allowed, {slope.noise:.1f} are noise"
            )
    return problems
