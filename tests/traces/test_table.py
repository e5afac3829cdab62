"""The table by itself: traces written by hand, each with one step that no order of events allows, beside the same trace without
that. And the table beside the model: neither has a rule that the other does not account for."""

from __future__ import annotations

import pytest
from model.stepping import RULES

from traces import events
from traces.handmade import knowing, listening, serving  # noqa: F401 - they enter their cases
from traces.handmade.tape import CASES, E1, Case, Tape
from traces.recording.recorder import Trace
from traces.replay import Rejected, replay
from traces.story import AROUND, story
from traces.table import ROWS, UNOBSERVABLE


def replayed(tapes: list[Tape]) -> list[Rejected]:
    return replay([Trace(number, f"program{number}", tape.events) for number, tape in enumerate(tapes)]).rejected


@pytest.mark.parametrize(("row", "build"), CASES, ids=[build.__name__ for _, build in CASES])
def test_a_step_that_no_order_allows_is_rejected_by_its_row(row: str, build: Case) -> None:
    """And the same trace without that one thing is accepted: no row objects to what is right."""
    right = replayed(build(False))
    assert not right, [(one.row, one.why) for one in right]
    assert row in {one.row for one in replayed(build(True))}


def test_every_row_has_a_trace_that_it_rejects() -> None:
    """A row that never objects proves nothing. `settled` speaks through `published`, which asks it."""
    assert set(ROWS) - {row for row, _ in CASES} == {"settled"}


def test_what_a_row_names_is_a_rule_of_the_model() -> None:
    """A rule that the model has renamed, or given up, is thought over here, too."""
    named = {rule for row in ROWS.values() for rule in row.rules}
    assert named - set(RULES) == set()


def test_every_rule_of_the_model_is_held_or_cannot_be_seen() -> None:
    """A rule that the model gets is held against real runs, or says why it cannot be."""
    held = {rule for row in ROWS.values() for rule in row.rules}
    own = {name for name, rule in RULES.items() if rule.__module__ != "model.mutants"}  # which may be loaded, or not
    assert own - held == set(UNOBSERVABLE)
    assert all(UNOBSERVABLE.values())


def test_every_row_says_what_it_demands() -> None:
    assert [name for name, row in ROWS.items() if not row.about or not row.rules] == []


def test_a_rejected_step_is_told_with_what_was_around_it() -> None:
    """The process, the step, the rule, and the last 20 events in words."""
    tape = Tape(True)
    for _ in range(AROUND):
        tape.knows()
    tape.step(events.AsOfTaken, 1, E1, 3, 1)
    (rejected,) = replayed([tape])
    lines = list(story(rejected))
    assert lines[0].startswith("program0 (process 0, thread 1), step ")
    assert "took as_of epoch1:3" in lines[0]
    assert "'as_of'" in lines[1]
    assert "take_as_of" in lines[1]
    assert sum(line.startswith(("   ", "  >")) for line in lines[3:]) == AROUND
    assert sum(line.startswith("  >") for line in lines) == 1
