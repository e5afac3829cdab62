"""Runs of the random workload, recorded: of each profile, and of the cache with a part taken out."""

from __future__ import annotations

import shutil
import tempfile
from pathlib import Path
from typing import Any, Final, NamedTuple

from coherence.checker import Report
from coherence.history import Fault, read_history
from coherence.workload import Workload

from traces.recorder import Trace, read_traces
from traces.replay import Outcome, replay

KEEPS_CLAIMS: Final = frozenset(
    {"freeze", "outlast", "freeze_server", "break_off", "cut", "evict_records", "evict_tail", "evict_entries", "trim", "fill_up"}
)
"""Faults that leave the claims as they are."""


class Run(NamedTuple):
    """What came of a recorded run. `report`: what the coherence checker says of its history."""

    outcome: Outcome
    report: Report
    bytes: int


def run_workload(options: dict[str, Any], keep: Path | None = None) -> Run:
    """Run a workload whose processes write down what they do, and replay that. `keep`: a place to keep its files."""
    directory = Path(tempfile.mkdtemp(prefix="traces-")) if keep is None else keep
    try:
        report = Workload(**options, program="traces.process").run(directory)
        written = sum(path.stat().st_size for path in directory.glob("*.trace"))
        return Run(replay_directory(directory), report, written)
    finally:
        if keep is None:
            shutil.rmtree(directory, ignore_errors=True)


def replay_directory(directory: Path) -> Outcome:
    """Replay what a run has left there."""
    traces: list[Trace] = read_traces(directory)
    faults = [record for record in read_history(directory) if isinstance(record, Fault)]
    return replay(traces, [fault.at_ns for fault in faults if fault.name not in KEEPS_CLAIMS])
