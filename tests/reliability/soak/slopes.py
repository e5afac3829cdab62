"""Whether something grows: pure, over samples."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations
from statistics import median
from typing import Final, NamedTuple

from reliability.soak.sampling import Sample

WARM: Final = 0.3
"""The first part of a run is none of the slope."""
FEWEST: Final = 12
"""Samples; a process that lived for fewer has no slope."""
MOST_POINTS: Final = 120

_MOST_A_HOUR: Final = {"rss_mb": 1.0, "descriptors": 1.0, "connections": 2.0, "keys": 20.0}
_NOISE: Final = {"rss_mb": 3.0, "descriptors": 4.0, "connections": 12.0, "keys": 40.0}
"""What a figure may move within a run however short: a page that is touched once, a connection that is being made, the results of
the tasks of a moment."""
_NOISE_SHARE: Final = {"connections": 0.15, "keys": 0.15}
"""The same as a share: what follows the load moves with it."""


class Slope(NamedTuple):
    """`grown`: over the span of the samples."""

    name: str
    samples: int
    span_s: float
    first: float
    last: float
    an_hour: float

    @property
    def grown(self) -> float:
        return self.an_hour * self.span_s / 3600


def slopes(samples: Sequence[Sample]) -> list[Slope]:
    """Of each figure that was there often enough after the warm-up. The median of the slopes between all pairs: what a fault
    does to some samples does not move it."""
    if not samples:
        return []
    warm_s = samples[0].at_s + WARM * (samples[-1].at_s - samples[0].at_s)
    found = []
    for name in sorted({name for each in samples for name in each.values}):
        points = [(each.at_s, each.values[name]) for each in samples if each.at_s >= warm_s and name in each.values]
        if len(points) >= FEWEST:
            points = points[:: -(-len(points) // MOST_POINTS)]
            an_s = median((later[1] - earlier[1]) / (later[0] - earlier[0]) for earlier, later in combinations(points, 2))
            part = max(1, len(points) // 4)
            first, last = median(value for _, value in points[:part]), median(value for _, value in points[-part:])
            found.append(Slope(name, len(points), points[-1][0] - points[0][0], first, last, an_s * 3600))
    return found


def breaches(found: Sequence[Slope]) -> list[str]:
    """What grows by more than it may: an hour, and in all more than noise."""
    problems = []
    for slope in found:
        kind = slope.name.partition(" ")[0]
        most = _MOST_A_HOUR.get(kind)
        if most is None:
            continue
        noise = max(_NOISE[kind], _NOISE_SHARE.get(kind, 0.0) * slope.first)
        if slope.an_hour > most and min(slope.grown, slope.last - slope.first) > noise:
            problems.append(
                f"{slope.name} grows by {slope.an_hour:.1f} an hour (from {slope.first:.1f} to {slope.last:.1f}); "
                f"{most:g} an hour are allowed, {noise:.0f} are noise"
            )
    return problems
