"""The requests of the benchmarks, and how long a model takes for one."""

from __future__ import annotations

import itertools
from typing import Final

from pipeline.models import PersonaRequest

MODEL_DELAY_MS: Final = 95.0
RESONANCES: Final = (
    "calm-flowing-planning",
    "frustrated-burst-seek_advice",
    "curious-medium-learning",
    "anxious-flowing-validation",
)


def spread_over(count: int, kinds: int) -> list[PersonaRequest]:
    """`count` requests of `kinds` kinds, in turn: the first of each kind, then the second of each."""
    made = [PersonaRequest.create(f"Question number {kind}: how do I begin?", RESONANCES[kind % 4]) for kind in range(kinds)]
    return list(itertools.islice(itertools.cycle(made), count))
