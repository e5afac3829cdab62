"""The failure of a benchmark."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class BenchmarkFailedError(Exception):
    """A measured answer is wrong: the figures are not to be used. `problems` are sentences.

    `figures`: those that were made. `document`: the whole record, once `run_benchmark` has put it together.
    """

    def __init__(self, problems: Sequence[str], figures: Mapping[str, float] | None = None) -> None:
        super().__init__("; ".join(problems))
        self.problems = tuple(problems)
        self.figures: dict[str, float] = dict(figures or {})
        self.document: dict[str, Any] = {}
