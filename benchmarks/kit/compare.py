"""Comparisons that a busy machine cannot distort: both sides measured in turn, medians, and the spread of the rounds."""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from typing import NamedTuple


class Ratio(NamedTuple):
    """`ratio` of the medians; `low` and `high`: the smallest and the largest ratio of any one round."""

    ratio: float
    low: float
    high: float

    def figures(self, name: str) -> dict[str, float]:
        """As flat figures: `name`, `name_low`, `name_high`."""
        return {name: self.ratio, f"{name}_low": self.low, f"{name}_high": self.high}


def ratio_of_medians(ours: Sequence[float], theirs: Sequence[float]) -> Ratio:
    """Item n of both was measured in round n, one right after the other. Raises ValueError if they do not match in number."""
    if len(ours) != len(theirs) or not ours:
        raise ValueError(f"{len(ours)} and {len(theirs)} rounds: expected as many of both, and at least one")
    by_round = [mine / other for mine, other in zip(ours, theirs, strict=True)]
    return Ratio(statistics.median(ours) / statistics.median(theirs), min(by_round), max(by_round))


def quantile(values: Sequence[float], share: float) -> float:
    """The value below which that share of them lies, linear between two. Raises ValueError of none."""
    if not values:
        raise ValueError("a quantile of no values")
    ordered = sorted(values)
    at = share * (len(ordered) - 1)
    below = math.floor(at)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (ordered[above] - ordered[below]) * (at - below)


def slope(points: Sequence[tuple[float, float]]) -> float:
    """The slope of the straight line that fits the points best (least squares): y's growth for each 1 of x. 0 for a single x."""
    mean_x = statistics.fmean(x for x, _ in points)
    mean_y = statistics.fmean(y for _, y in points)
    spread = math.fsum((x - mean_x) ** 2 for x, _ in points)
    return math.fsum((x - mean_x) * (y - mean_y) for x, y in points) / spread if spread else 0.0


def scaling(points: Sequence[tuple[float, float]]) -> float:
    """The exponent that fits best: 1 if twice the x gives twice the y, 0 if y does not depend on x. All must be above 0."""
    return slope([(math.log(x), math.log(y)) for x, y in points])
