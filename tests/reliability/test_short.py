"""The short form of the suite: no fault, and two that cost seconds. `make test-faults` has all rows, `make soak` a long run."""

from __future__ import annotations

import subprocess
import sys
from typing import Any

import pytest
from fleet import ROOT

from reliability.registry import MUTANTS, ROWS

ARGUMENTS: dict[str, Any] = {"cwd": ROOT / "tests", "capture_output": True, "text": True}
BY_NAME = {row.name: row for row in ROWS}


def quiet(_: str) -> None:
    """Nobody reads it."""


@pytest.mark.parametrize(("name", "trials"), [("garbage", 15), ("wrong-shape", 20)])
def test_what_is_no_message_costs_nothing_else(name: str, trials: int) -> None:
    result = BY_NAME[name].run(trials, quiet)
    assert result.right, result
    assert result.trials == trials


def test_without_a_fault_nothing_is_reported() -> None:
    result = BY_NAME["control"].run(1, quiet)
    assert result.right, result
    assert result.tasks > 0


@pytest.mark.long
@pytest.mark.parametrize("mutant", MUTANTS, ids=lambda row: row.name)
def test_what_is_spoiled_behind_its_back_is_reported(mutant: object) -> None:
    assert not mutant.run(1, quiet).right  # type: ignore[attr-defined]


@pytest.mark.long
@pytest.mark.parametrize("name", ["child-killed", "cache", "network", "broker-killed"])
def test_a_fault_costs_nothing(name: str) -> None:
    result = BY_NAME[name].run(2, quiet)
    assert result.right, result


def test_the_command_names_its_rows_and_refuses_others() -> None:
    listed = subprocess.run([sys.executable, "-m", "reliability", "--list"], check=False, **ARGUMENTS)
    assert [line.split()[0] for line in listed.stdout.splitlines()] == [row.name for row in ROWS]
    wrong = subprocess.run([sys.executable, "-m", "reliability", "--rows", "nope"], check=False, **ARGUMENTS)
    assert wrong.returncode == 2
    assert "unknown: nope" in wrong.stderr


def test_each_row_of_the_plan_is_there_or_named_as_missing() -> None:
    numbers = {number for row in ROWS for number in row.numbers}
    page = (ROOT / "docs" / "reliability.md").read_text(encoding="utf-8")
    for row in ROWS:
        assert f"`{row.name}`" in page, row.name
    assert numbers <= set(range(31))
