"""Which schedules of a program are run, and in which order: all without a preemption, then all with one, and so on, each once.

A schedule is known by its decisions. Its *children* have one decision more, at a later step: another task than the one that went
on there. To take another task where none could go on costs nothing; elsewhere it costs a preemption, and so does to break a call
off. Where there are more children than a budget allows, they are drawn at random, by the seed: half of them from those whose last
preemption comes between two writes of what is read without a lock, which are few of all, and where such code is wrong if it is.
"""

from __future__ import annotations

import random
from array import array
from collections.abc import Iterator
from typing import Final

from schedules.programs import Decisions, Program
from schedules.running import Execute, Outcome
from schedules.tasks import BREAK_OFF, FORCED, Run, published, shared

MOST_PREEMPTIONS: Final = 3
_MOST_KEPT: Final = 40_000
_BETWEEN: Final = 3
"""In place of the cost of a preemption, where it comes between two writes."""


class Family:
    """The children of a schedule that cost so many preemptions, in an order that chance decides."""

    __slots__ = ("_rest", "plan")

    def __init__(self, plan: Decisions, steps: list[int], tasks: list[int]) -> None:
        self.plan = plan
        self._rest = array("l", [(step << 8) | (task - BREAK_OFF) for step, task in zip(steps, tasks, strict=True)])

    def __len__(self) -> int:
        return len(self._rest)

    def draw(self, rng: random.Random) -> Decisions:
        rest = self._rest
        place = rng.randrange(len(rest))
        rest[place], rest[-1] = rest[-1], rest[place]
        drawn = rest.pop()
        return (*self.plan, (drawn >> 8, (drawn & 0xFF) + BREAK_OFF))


class Explorer:
    """The schedules of one program. `levels[n]`: what is to be run yet with n preemptions; `between[n]`: of those, what has its
    last one between two writes."""

    def __init__(self, program: Program, execute: Execute, *, seed: int = 0, most: int = MOST_PREEMPTIONS) -> None:
        self.program = program
        self._execute = execute
        self._rng = random.Random(seed)
        self._most = most
        self.levels: list[list[Family]] = [[] for _ in range(most + 1)]
        self.between: list[list[Family]] = [[] for _ in range(most + 1)]
        self._kept = 0
        self.ran = [0] * (most + 1)
        """How many were run, by their preemptions."""
        self.dropped = False
        """Whether there were more than could be kept, so that not all are going to be run."""

    @property
    def whole(self) -> int:
        """The most preemptions so that every schedule with no more was run; -1 for none."""
        left = self._next()
        return (len(self.levels) if left is None else left) - 1 if self.ran[0] else -1

    def _next(self) -> int | None:
        """The fewest preemptions of what is to be run yet; None if nothing is."""
        return next((level for level in range(len(self.levels)) if self.levels[level] or self.between[level]), None)

    def schedules(self) -> Iterator[tuple[Decisions, Outcome]]:
        """Run them, one after another, until there are none, or one breaks a promise."""
        yield self._ran((), 0)
        while True:
            level = self._next()
            if level is None:
                return
            # One of four has a preemption more: else a program of many steps would never come to those.
            more = level + 1
            if 0 < level < self._most and (self.levels[more] or self.between[more]) and self._rng.random() < 0.25:
                level = more
            families = self.levels[level]
            if not families or (self.between[level] and self._rng.random() < 0.5):
                families = self.between[level]
            place = self._rng.randrange(len(families))
            family = families[place]
            plan = family.draw(self._rng)
            self._kept -= 1
            if not len(family):
                families[place] = families[-1]
                families.pop()
            yield self._ran(plan, level)

    def _ran(self, plan: Decisions, level: int) -> tuple[Decisions, Outcome]:
        outcome = self._execute(self.program, plan)
        self.ran[level] += 1
        for levels, more, steps, tasks in self._children(outcome.run, plan):
            if level + more <= self._most and steps:
                if self._kept + len(steps) > _MOST_KEPT and level + more > 1:
                    self.dropped = True
                    continue
                self._kept += len(steps)
                levels[level + more].append(Family(plan, steps, tasks))
        return plan, outcome

    def _children(self, run: Run, plan: Decisions) -> Iterator[tuple[list[list[Family]], int, list[int], list[int]]]:
        """The children's steps and tasks, by where they belong and what their last decision costs."""
        steps: tuple[list[int], ...] = ([], [], [], [])
        tasks: tuple[list[int], ...] = ([], [], [], [])
        count = range(len(run.tasks))
        seen = [[shared(task, other) for other in run.tasks] for task in run.tasks]
        begun = plan[-1][0] if plan else 0
        breaks = any(task.breakable for task in run.tasks) and all(task != BREAK_OFF for _, task in plan)
        for place in range(begun, len(run.who)):
            mask, chosen, who = run.free[place], run.chosen[place], run.who[place]
            for task in count:
                if task != chosen and mask >> task & 1:
                    cost = 0 if who == FORCED else 1 if seen[who][task] & run.kinds[place] else 2
                    if cost == 1 and published(run, place):
                        cost = _BETWEEN
                    steps[cost].append(place + 1)
                    tasks[cost].append(task)
            if breaks and who != FORCED and run.tasks[who].breakable:
                cost = _BETWEEN if published(run, place) else 1
                steps[cost].append(place + 1)
                tasks[cost].append(BREAK_OFF)
        places = (self.levels, self.levels, self.levels, self.between)
        return zip(places, (0, 1, 2, 1), steps, tasks, strict=True)
