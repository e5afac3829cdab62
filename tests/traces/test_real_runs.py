"""The short form of `python -m traces`: a run of the random workload is accepted, and with a part of the cache taken out it is
rejected. `make check-model` is the long form."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
from coherence.mutants import MUTANTS as MUTANTS_OF_THE_CODE
from coherence.profiles import PROFILES

from traces.mutants import MUTANTS
from traces.recording.recorder import read_traces
from traces.runs import run_workload
from traces.story import story, told
from traces.table import ROWS

TESTS = Path(__file__).parents[1]
ROUNDS = 4
RUN_S = 2.5
MUTANT_S = 0.7


def test_a_real_run_is_accepted_step_by_step(tmp_path: Path) -> None:
    """Under every fault of the loopback's profile. It must also have come near the edges: each kind of step is there."""
    run = run_workload(dict(PROFILES["loopback"]) | {"seed": 12, "seconds": RUN_S}, tmp_path)
    assert not run.violations
    assert not run.outcome.rejected, "\n".join(story(run.outcome.rejected[0]))
    assert run.outcome.steps.total() > 3_000, run.outcome.steps
    assert min(run.outcome.steps.values()) > 5, run.outcome.steps
    traces = read_traces(tmp_path)
    assert {trace.name for trace in traces} >= {"prefork", "threads", "far", "small", "loose"}
    assert all(told(event) for trace in traces for event in trace.events[:300])
    again = subprocess.run(
        [sys.executable, "-m", "traces", "--replay", tmp_path, "--json"],
        env=os.environ | {"PYTHONPATH": os.pathsep.join((str(TESTS.parent), str(TESTS)))},
        capture_output=True,
        timeout=60,
        check=False,
    )
    assert again.returncode == 0, again.stderr
    assert json.loads(again.stdout)["events"] == run.outcome.steps.total()


def test_a_run_of_programs_that_listen_is_accepted() -> None:
    """They have heard something, and taken it in. Every second worker is a task over `cache.aio`."""
    run = run_workload(dict(PROFILES["listening"]) | {"seed": 12, "seconds": RUN_S / 2, "awaits": "some"})
    assert not run.violations
    assert not run.outcome.rejected, "\n".join(story(run.outcome.rejected[0]))
    assert run.outcome.steps["Heard"] > 20, run.outcome.steps


@pytest.mark.parametrize(
    "mutant",
    [
        "no_validation",
        "notice_believed",
        *(pytest.param(each, marks=pytest.mark.long) for each in ("deps_of_deps_ignored", "bus_never_followed")),
    ],
)
def test_a_run_with_a_part_taken_out_is_rejected(mutant: str) -> None:
    """A checker that never objects proves nothing. The others are rejected by `python -m traces --mutants`."""
    brought = MUTANTS[mutant]
    for seed in range(ROUNDS):
        outcome = run_workload(dict(brought.options) | {"seed": seed, "seconds": MUTANT_S, "mutant": mutant}).outcome
        if brought.rows & {one.row for one in outcome.rejected}:
            return
    pytest.fail(f"{ROUNDS} runs did not show {mutant}")


def test_every_mutant_of_the_code_is_run_and_rejected_by_a_row_that_there_is() -> None:
    assert set(MUTANTS) == set(MUTANTS_OF_THE_CODE)
    assert {row for brought in MUTANTS.values() for row in brought.rows} - set(ROWS) == set()
