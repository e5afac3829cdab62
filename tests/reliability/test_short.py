"""The short form of the suite: no fault, and two that cost seconds. `make test-faults` has all rows, `make soak` a long run."""

from __future__ import annotations

import json

import pytest

from reliability.__main__ import main
from reliability.page import BEGIN, END, PAGE, RECORD, table, with_table
from reliability.registry import MUTANTS, ROWS

BY_NAME = {row.name: row for row in ROWS}


def quiet(_: str) -> None:
    """Nobody reads it."""


@pytest.mark.parametrize(("name", "trials"), [("garbage", 15), pytest.param("wrong-shape", 40, marks=pytest.mark.long)])
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
@pytest.mark.parametrize(
    "name",
    [
        "child-killed",
        "cache",
        "network",
        "broker-killed",
        "flapping",
        "chord-twice",
        "breaker",
        "flower-frozen",
        "memory",
        "interface",
    ],
)
def test_a_fault_costs_nothing(name: str) -> None:
    result = BY_NAME[name].run(2, quiet)
    if result.left_out:
        pytest.skip(result.left_out)
    assert result.right, result


def test_the_command_names_its_rows_and_refuses_others(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--list"]) == 0
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines()] == [row.name for row in ROWS]
    with pytest.raises(SystemExit) as refused:
        main(["--rows", "nope"])
    assert refused.value.code == 2
    assert "unknown: nope" in capsys.readouterr().err


def test_the_page_shows_what_is_recorded() -> None:
    """Each row that was run, as it went."""
    recorded = json.loads(RECORD.read_text(encoding="utf-8"))
    assert set(recorded) <= set(BY_NAME)
    assert table(recorded) in PAGE.read_text(encoding="utf-8")
    assert all(figures["right"] for figures in recorded.values())


def test_a_table_takes_the_place_of_the_one_before() -> None:
    first = with_table(f"before\n{BEGIN}{END}after\n", "| one |")
    assert with_table(first, "| two |") == with_table(f"before\n{BEGIN}{END}after\n", "| two |")
    assert "| two |" in with_table(first, "| two |")
