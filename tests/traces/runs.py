"""Recorded runs: of the random workload, in any profile and with any part of the cache taken out, and of the benchmark."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final, NamedTuple

from coherence.checker import Violation
from coherence.history import Fault, read_history
from coherence.workload import Workload

from traces.recording.bench import measured
from traces.recording.mends import reproduced
from traces.recording.recorder import SUFFIX, read_traces
from traces.replay import Outcome, replay

KEEPS_CLAIMS: Final = frozenset(
    {"freeze", "outlast", "freeze_server", "break_off", "cut", "evict_records", "evict_tail", "evict_entries", "trim", "fill_up"}
)
"""Faults that leave the claims as they are."""


class Run(NamedTuple):
    """What came of a recorded run. `violations`: what the coherence checker says of its history. `bytes`: of its traces."""

    outcome: Outcome
    violations: list[Violation]
    bytes: int


def run_workload(options: dict[str, Any], keep: Path | None = None) -> Run:
    """Run a workload whose processes write down what they do, and replay that. `keep`: a place to keep its files."""
    with _place(keep) as directory:
        report = Workload(**options, program="traces.recording.process").run(directory)
        return Run(replay_directory(directory), report.violations, _written(directory))


def run_reproduced(letter: str, keep: Path | None = None, *, without: bool) -> Run:
    """The same of the test that reproduces a hole; without its mend, if that is wanted."""
    with _place(keep) as directory:
        reproduced(directory, letter, without=without)
        return Run(replay_directory(directory), [], _written(directory))


def run_bench(keep: Path | None = None, *, quick: bool = False) -> Run:
    """The same of the benchmark `coherence`."""
    with _place(keep) as directory:
        measured(directory, quick=quick)
        return Run(replay_directory(directory), [], _written(directory))


def replay_directory(directory: Path) -> Outcome:
    """Replay what a run has left there."""
    faults = [record for record in read_history(directory) if isinstance(record, Fault)]
    return replay(read_traces(directory), [fault.at_ns for fault in faults if fault.name not in KEEPS_CLAIMS])


@contextmanager
def _place(keep: Path | None) -> Iterator[Path]:
    if keep is not None:
        keep.mkdir(parents=True, exist_ok=True)
        yield keep
        return
    with tempfile.TemporaryDirectory(prefix="traces-", ignore_cleanup_errors=True) as made:
        yield Path(made)


def _written(directory: Path) -> int:
    return sum(path.stat().st_size for path in directory.glob(f"*{SUFFIX}"))
