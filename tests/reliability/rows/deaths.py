"""The rows that the benchmark `deaths` has: its faults, its load and its judgement."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Final

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.measures.deaths import Size, measure_deaths
from reliability.result import Result, Say

FROZEN_S: Final = 12.0
"""A node's claims are another's after 10 s."""
AWAY_S: Final = 3.0
_NAMES: Final = {"killed": ("kills", "", "returned_max_s"), "frozen": ("freezes", "frozen_", "frozen_returned_max_s")}
_NAMES_OF_OTHERS: Final = {
    "broken": ("breaks", "broken_", ""),
    "restarted": ("restarts", "restart_", "restart_back_max_s"),
}


def of_deaths(row: str) -> Callable[[int, Say], Result]:
    """The row of the suite that is this row of the benchmark."""

    def run(trials: int, say: Say) -> Result:
        size = Size(
            kills=trials,
            stock_kills=0,
            stock_s=0,
            freezes=trials,
            frozen_s=FROZEN_S,
            breaks=trials,
            restarts=trials,
            outages=trials,
            away_s=AWAY_S,
        )
        try:
            figures: Mapping[str, float] = measure_deaths(say, rows=(row,), size=size)
            problems: tuple[str, ...] = ()
        except BenchmarkFailedError as error:
            figures, problems = error.figures, tuple(error.problems)
        return converted(row, figures, problems)

    return run


def converted(row: str, figures: Mapping[str, float], problems: tuple[str, ...]) -> Result:
    times, prefix, back = (_NAMES | _NAMES_OF_OTHERS).get(row, (f"{row}_times", f"{row}_", f"{row}_back_max_s"))
    return Result(
        int(figures.get(times, 0)),
        int(figures.get(f"{prefix}sent", 0)),
        lost=int(figures.get(f"{prefix}lost", 0)),
        wrong=int(figures.get(f"{prefix}wrong", 0)),
        twice=int(figures.get(f"{prefix}committed_twice", 0)),
        back_s=(figures[back],) if back in figures else (),
        more={"failed": figures.get(f"{prefix}failed", 0), "exits": figures.get(f"{prefix}exits", 0)},
        problems=problems,
    )
