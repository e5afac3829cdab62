"""Of a schedule that broke a promise a smaller one: the fewest preemptions, then the fewest operations."""

from __future__ import annotations

from itertools import islice
from typing import Final

from schedules.explore import Explorer
from schedules.programs import Decisions, Program
from schedules.running import Execute, Outcome
from schedules.tasks import FORCED

_TRIES: Final = 300
"""Schedules of one smaller program: what takes more is not looked for."""

Found = tuple[Program, Decisions, Outcome]


def preemptions(plan: Decisions, outcome: Outcome) -> int:
    """How many tasks were stopped where they could have gone on, or broken off."""
    who = outcome.run.who
    return sum(step <= len(who) and who[step - 1] != FORCED for step, _ in plan)


def shrunk(found: Found, execute: Execute) -> Found:
    """A schedule that breaks the same rule, and is no larger in either."""
    program, plan, outcome = found
    while (most := preemptions(plan, outcome)) and (fewer := _search(program, execute, outcome.rule, most - 1)) is not None:
        program, plan, outcome = fewer
    while True:
        most = preemptions(plan, outcome)
        smaller = (_search(less, execute, outcome.rule, most) for less in program.smaller())
        best = next((each for each in smaller if each is not None), None)
        if best is None:
            return program, plan, outcome
        program, plan, outcome = best


def _search(program: Program, execute: Execute, rule: str, most: int) -> Found | None:
    explorer = Explorer(program, execute, most=most)
    for plan, outcome in islice(explorer.schedules(), _TRIES):
        if outcome.rule == rule:
            return program, plan, outcome
    return None
