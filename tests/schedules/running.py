"""One schedule: a program, a plan, and what came of it."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from coherence.checker import check
from coherence.history import Record

from pipeline.cache.server import scripts
from schedules.acts import Acts
from schedules.points import Outer
from schedules.programs import Decisions, Doing, Program
from schedules.server.lua import compiled
from schedules.tasks import BrokenOffError, Run, StuckError, Task
from schedules.world import World

SCRIPTS = ("append", "read", "beat", "claim", "take", "tell", "exchange", "sweep", "probe")


@dataclass(frozen=True)
class Outcome:
    """`history`: what was noted. `broken`: the first promise that was broken, as text; nothing if none. `rule`: its rule in the
    checker, `stuck` (no task could go on) or `error` (the cache raised one)."""

    run: Run
    history: list[Record]
    rule: str = ""
    broken: str = ""


Execute = Callable[..., Outcome]


@contextmanager
def staged() -> Iterator[Execute]:
    """Within the block the cache's classes run in schedules alone: no other thread may use them. Gives `execute(program, plan,
    told=None)`; `told` is called at each step."""
    outer = Outer()
    known = [compiled(scripts._script(name).source.encode()) for name in SCRIPTS]
    by_digest = {script.digest: script for script in known}

    def execute(program: Program, plan: Decisions, told: Callable[[Run, str], None] | None = None) -> Outcome:
        world = World(program.options, by_digest)
        outer.world = world
        outer.begin()
        for process in sorted(program.processes - {"!", "n"}):
            world.cache(process)
        acts = Acts(world)
        for process, op in program.first:
            acts.do(process, op)
        ticks = any(op[0] == "tick" for doing in program.tasks for op in doing.ops)
        tasks = [_task(acts, doing, f"{number}", ticks=ticks) for number, doing in enumerate(program.tasks)]
        run = Run(tasks, dict(plan), clock=world.clock, told=told)
        try:
            run.go()
            _look_back(acts, program)
        except StuckError as error:
            return Outcome(run, world.history, "stuck", str(error))
        except Exception as error:  # noqa: BLE001 - whatever it was, the cache may not raise it
            return Outcome(run, world.history, "error", repr(error))
        report = check(world.history, program.options.bound)
        for violation in report.violations[:1]:
            return Outcome(run, world.history, violation.rule, f"{violation.rule}: {violation.what}")
        return Outcome(run, world.history)

    # What they log of servers that are away is told by the story.
    logger = logging.getLogger("pipeline")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with outer.exchanged():
            yield execute
    finally:
        logger.setLevel(level)


def _look_back(acts: Acts, program: Program) -> None:
    """In the end each process reads once more what was spoken of: at once, and when the bound has passed."""
    processes = sorted({doing.process for doing in program.tasks} - {"!", "n"})
    read = program.read
    for number in range(2):
        for process in processes:
            for key in read:
                acts.do(process, ("get" if number else "look", key))
        acts.do("!", ("tick", f"{1.1 * program.options.bound}"))
    for process in processes:
        for key in read:
            acts.do(process, ("look", key))


def _task(acts: Acts, doing: Doing, name: str, *, ticks: bool) -> Task:
    def act() -> None:
        for op in doing.ops:
            try:
                acts.do(doing.process, op)
            except BrokenOffError:
                continue

    process = doing.process if doing.process != "!" else "" if ticks else "!"
    return Task(name, process, doing.node, act, breakable=doing.breakable)
