"""The definition of a benchmark. A new one needs one file in `benchmarks/measures/` with a `BENCHMARK` in it."""

from __future__ import annotations

from collections.abc import Callable
from typing import NamedTuple

from benchmarks.views.view import View

Figures = dict[str, float]
Progress = Callable[[str], None]


class Measured(NamedTuple):
    """The return value of a benchmark that has notes beside its figures: what was left out, and why."""

    figures: Figures
    notes: tuple[str, ...] = ()


class Benchmark(NamedTuple):
    """A benchmark that the registry finds.

    `measure(progress, quick=...)` reports its progress; `quick` makes it a test of itself. It returns flat figures with
    units in their names. It ends every process that it started, and raises BenchmarkFailedError when an answer was wrong. `place`
    orders the page. Without a `view` the figures are shown as a list. A `long` one, of many minutes, is run only by its name; the
    page keeps its last record. One with `rows` measures some of them only where `measure` is given `rows`.
    """

    name: str
    about: str
    place: int
    measure: Callable[..., Figures | Measured]
    view: Callable[[Figures], View] | None = None
    long: bool = False
    rows: tuple[str, ...] = ()
