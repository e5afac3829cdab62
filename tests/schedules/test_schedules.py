"""The short form of `python -m schedules`: the real classes of the cache in orders of steps that are chosen."""

from __future__ import annotations

import ast
import json
import os
import subprocess
import sys
from importlib import import_module
from itertools import islice
from pathlib import Path

import pytest
from coherence.mutants import STAGE_MUTANT
from hypothesis import given, settings
from hypothesis import strategies as st

from pipeline.cache.coherence.view import InvalidationView
from pipeline.cache.tiers import Tiers
from schedules.campaign import run
from schedules.explore import Explorer
from schedules.generate import program as generated
from schedules.mutants import KEPT, MUTANTS
from schedules.points import SHARED, _codes
from schedules.programs import Decisions, Program, line, parse
from schedules.running import Execute, staged
from schedules.scenarios import SCENARIOS
from schedules.shrink import shrunk
from schedules.story import told
from schedules.tasks import BREAK_OFF, Bell, Clock, RLock, Run, StuckError, Task, point

QUICK = {
    "confirmed_before_it_is_known": "lease-threads",
    "judged_before_the_lease": "threads-asking",
    "joined_unasked": "joins",
    "broken_off_bus_is_empty": "node-broken",
}
"""Mutants whose hole is open between two steps of a thread, each with a scenario that shows it; `--mutants` runs all."""


def replay(text: str) -> str:
    """The promise that a line's schedule breaks; nothing if none."""
    with staged() as execute:
        return execute(*parse(text)).broken


@pytest.mark.timeout(300)
def test_no_promise_is_broken_in_any_order_of_steps() -> None:
    """Each program of the table, in every order without a preemption and many with; and programs by chance."""
    with staged() as execute:
        campaign = run(execute, 2_000, seed=20_250)
        told_of = ["\n".join(told(program, plan, execute)[1]) for program, plan, _ in campaign.found.values()]
    assert not told_of, "\n\n".join(told_of)
    assert campaign.schedules >= 2_000
    assert set(campaign.explorers) == set(SCENARIOS)
    assert all(campaign.by_preemptions[:3])
    assert campaign.programs > len(SCENARIOS) + 10


@settings(max_examples=100, database=None)
@given(st.data())
def test_no_promise_is_broken_whatever_is_done_in_whatever_order(data: st.DataObject) -> None:
    """Programs and plans that Hypothesis makes, and makes smaller where one breaks a promise."""
    program = generated(lambda among: data.draw(st.sampled_from(among)))
    gaps = data.draw(st.lists(st.tuples(st.integers(1, 60), st.integers(BREAK_OFF, len(program.tasks) - 1)), max_size=6))
    steps = [sum(gap for gap, _ in gaps[: at + 1]) for at in range(len(gaps))]
    plan = tuple(zip(steps, (task for _, task in gaps), strict=True))
    with staged() as execute:
        outcome = execute(program, plan)
    assert not outcome.broken, line(program, plan)


# Schedules that broke a promise, each the smallest, with what was mended.
FOUND = {
    "a sweep confirmed the view by another clock than the cache's": "a.fetch k | a: sweep | b: inv k",
}


@pytest.mark.parametrize("fault", FOUND)
def test_a_schedule_that_broke_a_promise_breaks_none(fault: str) -> None:
    assert not replay(FOUND[fault])


@pytest.mark.parametrize("mutant", QUICK)
def test_a_protocol_with_a_part_taken_out_is_seen_to_break_its_promise(mutant: str) -> None:
    """In a process of its own, which a mutant changes. The schedule that shows it breaks nothing in the cache as it is."""
    done = _schedules("--mutant", mutant, "--scenario", QUICK[mutant], "--as-found", "--json", "--seed", "1")
    assert done.returncode == 1, done.stderr
    found = json.loads(done.stdout)["found"][QUICK[mutant]]
    assert found["preemptions"] <= 3
    assert not replay(found["line"])


@pytest.mark.parametrize("mutant", KEPT)
def test_a_schedule_of_many_preemptions_shows_the_hole_for_which_it_is_kept(mutant: str) -> None:
    """A search would take too long to come to it. The cache as it is keeps its promises there."""
    assert not replay(KEPT[mutant])
    done = _schedules("--mutant", mutant, "--replay", KEPT[mutant])
    assert done.returncode == 1, done.stdout + done.stderr


def _schedules(*given: str) -> subprocess.CompletedProcess[str]:
    root = Path(__file__).parents[2]
    environment = {**os.environ, "PYTHONPATH": f"{root}{os.pathsep}{root / 'tests'}"}
    command = [sys.executable, "-m", "schedules", *given]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment)


def test_every_mutant_of_the_checker_is_run_here() -> None:
    assert STAGE_MUTANT in MUTANTS
    assert set(import_module("coherence.mutants").MUTANTS) < set(MUTANTS)


def test_a_schedule_that_breaks_a_promise_is_made_smaller_told_and_kept_as_a_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """With as few preemptions and operations as it needs; its line gives the same again."""
    monkeypatch.setattr(InvalidationView, "valid", lambda *_: True)
    program, _ = parse("b.look z, a.fetch k, a.look z | a: get z, look k | b: look z, inv k, look k, look z | c: look z")
    with staged() as execute:
        found = next((program, plan, outcome) for plan, outcome in Explorer(program, execute).schedules() if outcome.broken)
        smaller, plan, _ = shrunk(found, execute)
        _, story = told(smaller, plan, execute)
    assert smaller.size <= 3
    assert story[-1].startswith("replay(")
    assert replay(line(smaller, plan)).startswith(("l2", "process"))


# -- the schedules themselves


@pytest.fixture
def program() -> Program:
    return parse(SCENARIOS["threads"])[0]


def _ran(execute: Execute, program: Program, plan: Decisions) -> tuple[object, ...]:
    steps: list[str] = []
    outcome = execute(program, plan, lambda run, at: steps.append(f"{run.step} {run.task.index} {at}"))
    return steps, outcome.run.who, outcome.run.chosen, outcome.history


def test_a_plan_gives_the_same_run_again(program: Program) -> None:
    """To the step: no chance, no clock and no order of a set has a part in it."""
    with staged() as execute:
        plans = [plan for plan, _ in islice(Explorer(program, execute, seed=3).schedules(), 40)]
        assert all(_ran(execute, program, plan) == _ran(execute, program, plan) for plan in plans)


def test_no_schedule_is_run_twice_and_all_are_run(program: Program) -> None:
    """All of a small program, with any number of preemptions up to the most."""
    small, _ = parse("a.look z, b.look z | a: look k | b: inv k")
    with staged() as execute:
        explorer = Explorer(small, execute, most=2)
        ran = [(plan, tuple(outcome.run.chosen)) for plan, outcome in explorer.schedules()]
    assert len({plan for plan, _ in ran}) == len({chosen for _, chosen in ran}) == len(ran) == sum(explorer.ran)
    assert explorer.whole == 2
    assert not explorer.dropped


def test_a_line_is_what_it_says() -> None:
    for text in SCENARIOS.values():
        program, _ = parse(text)
        assert parse(str(program)) == (program, ())
        assert parse(line(program, ((3, 1), (9, BREAK_OFF)))) == (program, ((3, 1), (9, BREAK_OFF)))


def test_threads_that_hold_a_lock_and_want_the_others_are_stuck() -> None:
    """A deadlock fails the schedule that leads to it, and no other."""
    first, second = RLock(), RLock()

    def take(one: RLock, other: RLock) -> None:
        with one:
            point(1, "between", None)
            with other:
                pass

    def tasks() -> list[Task]:
        return [Task("0", "a", "a", lambda: take(first, second)), Task("1", "a", "a", lambda: take(second, first))]

    Run(tasks(), {}, clock=Clock()).go()
    with pytest.raises(StuckError):
        Run(tasks(), {3: 1}, clock=Clock()).go()


def test_a_bell_rings_or_its_time_is_up() -> None:
    clock, bell, rang = Clock(), Bell(), []
    assert bell.acquire()

    def wait() -> None:
        rang.append(bell.acquire(timeout=5.0))

    Run([Task("0", "a", "a", wait), Task("1", "a", "a", bell.release)], {}, clock=clock).go()
    Run([Task("0", "a", "a", wait)], {}, clock=clock).go()
    assert rang == [True, False]
    assert clock.now_s >= 1_005.0


@pytest.mark.parametrize("module", SHARED)
def test_a_thread_may_be_held_where_others_look(module: str) -> None:
    """Each name that the points are put before is still one of the module's: else they would be nowhere, and say nothing."""
    source = Path(import_module(module).__file__ or "").read_text(encoding="utf-8")
    used = {node.attr for node in ast.walk(ast.parse(source)) if isinstance(node, ast.Attribute)}
    if module.startswith("pipeline."):
        assert used >= SHARED[module]
    assert _codes(module)


def test_a_function_with_overloads_gets_its_own_code() -> None:
    places = Tiers.lookup.__code__.co_varnames
    with staged():
        assert "__point__" in Tiers.lookup.__code__.co_names
        assert Tiers.lookup.__code__.co_varnames == places


def test_the_cache_is_as_before_when_the_schedules_are_over() -> None:
    before = InvalidationView.valid.__code__, import_module("pipeline.cache.locks").threading
    with staged():
        assert InvalidationView.valid.__code__ is not before[0]
    assert (InvalidationView.valid.__code__, import_module("pipeline.cache.locks").threading) == before
