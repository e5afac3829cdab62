"""Of a schedule that broke a promise a smaller one: the fewest preemptions, then the fewest operations."""

from __future__ import annotations

import time
from itertools import islice, takewhile
from typing import Final

from schedules.explore import Explorer
from schedules.programs import Decisions, Program
from schedules.running import Execute, Outcome
from schedules.tasks import FORCED

_TRIES: Final = 300
"""Schedules of one smaller program: what takes more is not looked for."""
LONGEST_S: Final = 20.0

Found = tuple[Program, Decisions, Outcome]


def preemptions(plan: Decisions, outcome: Outcome) -> int:
    """How many tasks were stopped where they could have gone on, or broken off."""
    who = outcome.run.who
    return sum(step <= len(who) and who[step - 1] != FORCED for step, _ in plan)


def shrunk(found: Found, execute: Execute, longest_s: float = LONGEST_S) -> Found:
    """A schedule that breaks the same rule, and is no larger in either; the smallest that was found in that time."""
    program, plan, outcome = found
    ends_at_s = time.monotonic() + longest_s
    while (most := preemptions(plan, outcome)) and (fewer := _search(program, execute, outcome.rule, most - 1)) is not None:
        program, plan, outcome = fewer
    while time.monotonic() < ends_at_s:
        most = preemptions(plan, outcome)
        in_time = takewhile(lambda _: time.monotonic() < ends_at_s, program.smaller())
        smaller = (_search(less, execute, outcome.rule, most) for less in in_time)
        best = next((each for each in smaller if each is not None), None)
        if best is None:
            break
        program, plan, outcome = best
    return program, plan, outcome


def _search(program: Program, execute: Execute, rule: str, most: int) -> Found | None:
    explorer = Explorer(program, execute, most=most)
    for plan, outcome in islice(explorer.schedules(), _TRIES):
        if outcome.rule == rule:
            return program, plan, outcome
    return None
