"""What a row comes to."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, NamedTuple

Say = Callable[[str], None]
SEED: Final = 20_26


@dataclass(frozen=True)
class Result:
    """`tasks`: those that were sent and accepted, or the reads that were judged. `wrong`: an answer that is another's, or stale
    beyond the bound. `twice`: a second outcome of one task. `back_s`: for each trial, from the fault's end to the answer of the
    first task that was sent after it. `more`: further figures, by names with their units. `problems`: what else is not as it
    must be, as sentences."""

    trials: int
    tasks: int
    lost: int = 0
    wrong: int = 0
    twice: int = 0
    back_s: tuple[float, ...] = ()
    more: Mapping[str, float] = field(default_factory=dict)
    problems: tuple[str, ...] = ()
    left_out: str = ""
    """Why it was not run, where this machine does not let it."""

    @property
    def right(self) -> bool:
        return not (self.lost or self.wrong or self.twice or self.problems) and self.trials > 0

    @property
    def longest_back_s(self) -> float | None:
        return max(self.back_s, default=None)


class Row(NamedTuple):
    """`numbers`: of the plan. `run(trials, say)` makes so many trials, or a few more."""

    name: str
    numbers: tuple[int, ...]
    title: str
    run: Callable[[int, Say], Result]
    trials: int = 30
    stock: str = ""
    """What stock Celery does there, in a few words; empty: the same, or it was not looked at."""
