"""Tasks of which one runs at a time, and the choice at each step which. Deterministic: a plan gives the same run again.

A *step* is a place where the running task may be held: a round trip, an access to what others read without a lock, the taking
of a lock, a reading of the clock; and each place where a task cannot go on. At a step the running task goes on unless the plan
says otherwise. To take another one where it could go on is a *preemption*.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any, Final

from greenlet import GreenletExit, getcurrent, greenlet

ALWAYS, MEMORY, BUS, CLOCK = 1, 2, 4, 8
"""What a step is about: the server or the source; memory of one process; that of a node; time."""
WRITES: Final = 16
"""Besides that: the step comes before a write, and not a reading."""

BREAK_OFF: Final = -1
"""In a plan in place of a task: an exception is raised in the running one, as a time limit does."""
FORCED: Final = -1
"""In `Run.who` in place of a task: none could go on by itself."""
MOST_STEPS: Final = 20_000
TICK_S: Final = 1e-6
READY, BLOCKED, ASLEEP, WAITING, ENDED = range(5)

Plan = dict[int, int]


class BrokenOffError(BaseException):
    """Raised in the middle of a call, by the plan."""


class StuckError(BaseException):
    """No task can go on, or none comes to an end."""


class Task:
    """A thread of a process: `process` and `node` say whose memory it shares."""

    def __init__(self, name: str, process: str, node: str, act: Callable[[], None], *, breakable: bool = False) -> None:
        self.name, self.process, self.node, self.act, self.breakable = name, process, node, act, breakable
        self.index = 0
        self.sees = ALWAYS
        self.state = READY
        self.wakes_s = 0.0
        self.at = ""
        self.failure: BaseException | None = None
        self.greenlet: greenlet | None = None


def published(run: Run, place: int) -> bool:
    """Whether the task that is at this step has just written what others read without a lock: they see that, and nothing yet of
    what it writes next."""
    return place > 0 and bool(run.kinds[place - 1] & WRITES) and run.who[place - 1] == run.chosen[place - 1] == run.who[place]


def shared(task: Task, other: Task) -> int:
    """The kinds of steps of the one that the other sees, or that see it."""
    kinds = ALWAYS
    if other.process == task.process:
        kinds |= MEMORY
    if other.node == task.node:
        kinds |= BUS
    if other.process == "":
        kinds |= CLOCK
    return kinds


class Run:
    """One schedule. `who`: the task at each step, FORCED where none could go on; `free`: a bit for each task that could."""

    current: Run | None = None

    def __init__(self, tasks: list[Task], plan: Plan, *, clock: Clock, told: Callable[[Run, str], None] | None = None) -> None:
        self.tasks, self.plan, self.clock, self.told = tasks, plan, clock, told
        self.step = 0
        self.who: list[int] = []
        self.chosen: list[int] = []
        self.free: list[int] = []
        self.kinds: list[int] = []
        self.sleepers = 0
        self.sees = 0
        self.task = tasks[0]
        self._thread = threading.get_ident()
        self._free = 0
        self._next = self._following()
        self._target = 0
        for index, task in enumerate(tasks):
            task.index = index
            self._free |= 1 << index
        self._look_around()

    def _look_around(self) -> None:
        """Note of each task what the others that have not ended share with it."""
        living = [task for task in self.tasks if task.state != ENDED]
        for task in living:
            task.sees = ALWAYS
            for other in living:
                if other is not task:
                    task.sees |= shared(task, other)

    def _following(self) -> int:
        return min((step for step in self.plan if step > self.step), default=0)

    # -- in a task

    def arrive(self, at: str, kind: int) -> None:
        """The running task comes to a step of that kind."""
        if threading.get_ident() != self._thread:
            return  # what another test has left behind
        self.step += 1
        index = self.task.index
        self.who.append(index)
        self.free.append(self._free)
        self.kinds.append(kind)
        self.chosen.append(index)
        if self.told is not None:
            self.told(self, at)
        if self.step == self._next:
            self._depart()
        elif self.step > MOST_STEPS:
            raise StuckError("it does not come to an end")

    def _depart(self) -> None:
        target = self.plan[self.step]
        self._next = self._following()
        if target == BREAK_OFF:
            if self.task.breakable:
                raise BrokenOffError
        elif target != self.task.index and target < len(self.tasks) and self._free >> target & 1:
            self.chosen[-1] = self._target = target
            self._leave()

    def _leave(self) -> None:
        """Let another task go on; return when this one is chosen again."""
        parent = getcurrent().parent
        assert parent is not None
        parent.switch()

    def pause(self, state: int, *, wakes_s: float = 0.0) -> None:
        """The running task cannot go on until another one, or time, lets it."""
        task = self.task
        task.state, task.wakes_s = state, wakes_s
        if state == ASLEEP:
            self.sleepers |= 1 << task.index
        else:
            self._free &= ~(1 << task.index)
        self._target = FORCED
        self._leave()

    def wake(self, task: Task) -> None:
        task.state = READY
        self._free |= 1 << task.index
        self.sleepers &= ~(1 << task.index)

    # -- in between

    def go(self) -> None:
        """Run all tasks to their ends. A task that waits for what never comes ends nothing. Raises StuckError for a circle of
        locks, and what a task raises."""
        Run.current = self
        hub = getcurrent()
        for task in self.tasks:
            task.greenlet = greenlet(task.act, hub)
        self._target = FORCED
        try:
            while self._free:
                self._switch_to(self._forced() if self._target == FORCED else self._target)
            if any(task.state == BLOCKED for task in self.tasks):
                raise StuckError("a lock is never given back")
        finally:
            Run.current = None
            for task in self.tasks:
                if task.greenlet is not None and not task.greenlet.dead:
                    task.greenlet.throw(GreenletExit)

    def _forced(self) -> int:
        """The task to go on with, where the one before cannot: the first that is ready, or the first to wake."""
        self.step += 1
        ready = self._free & ~self.sleepers
        if ready:
            target = (ready & -ready).bit_length() - 1
        else:
            asleep = [task for task in self.tasks if self.sleepers >> task.index & 1]
            target = min(asleep, key=lambda task: task.wakes_s).index
        self.who.append(FORCED)
        self.free.append(self._free)
        self.kinds.append(ALWAYS)
        if self.step == self._next:
            planned = self.plan[self.step]
            self._next = self._following()
            if 0 <= planned < len(self.tasks) and self._free >> planned & 1:
                target = planned
        self.chosen.append(target)
        return target

    def _switch_to(self, index: int) -> None:
        task = self.task = self.tasks[index]
        if task.state == ASLEEP:
            self.clock.pass_to(task.wakes_s)
            self.wake(task)
        self.sees = task.sees
        assert task.greenlet is not None
        self._target = FORCED
        task.greenlet.switch()
        if task.greenlet.dead:
            task.state = ENDED
            self._free &= ~(1 << index)
            self._look_around()
            self._target = FORCED


class Clock:
    """Seconds that every reading moves on by a little, and that pass when told."""

    def __init__(self) -> None:
        self.now_s = 1_000.0

    def __call__(self) -> float:
        point(CLOCK, "clock", None)
        self.now_s += TICK_S
        return self.now_s

    def wall(self) -> float:
        return 1_700_000_000.0 + self()

    def now_ns(self) -> int:
        """The time of an event of the history, each of its own."""
        self.now_s += TICK_S
        return round(self.now_s * 1e9)

    def pass_to(self, moment_s: float) -> None:
        self.now_s = max(self.now_s, moment_s)

    def sleep(self, seconds: float) -> None:
        if Run.current is None:
            self.now_s += seconds
        else:
            Run.current.pause(ASLEEP, wakes_s=self.now_s + seconds)


def point(kind: int, at: str, thing: Any) -> Any:
    """Come to a step, if what happens there is seen by another task. Returns `thing`."""
    run = Run.current
    if run is not None and run.sees & kind:
        run.arrive(at, kind)
    return thing


class RLock:
    """In place of `threading.RLock`: a task that may not have it stands still, and another one goes on."""

    def __init__(self) -> None:
        self._owner: Task | None = None
        self._count = 0
        self._waiting: list[Task] = []

    def _is_owned(self) -> bool:
        run = Run.current
        return self._count > 0 and self._owner is (run.task if run is not None else None)

    def __enter__(self) -> bool:
        run = Run.current
        if run is None:
            self._count += 1
            return True
        task = run.task
        if self._count and self._owner is task:
            self._count += 1
            return True
        if run.sees & MEMORY:
            run.arrive("lock", MEMORY)
        while self._count:
            self._waiting.append(task)
            run.pause(BLOCKED)
        self._owner, self._count = task, 1
        return True

    def __exit__(self, *_: object) -> None:
        self._count -= 1
        if not self._count:
            self._owner = None
            run = Run.current
            if run is not None:
                while self._waiting:
                    run.wake(self._waiting.pop())


class Bell:
    """In place of `threading.Lock`, as a flight uses it: taken at once, and again when another task has given it back."""

    def __init__(self) -> None:
        self._taken = False
        self._waiting: Task | None = None

    def acquire(self, timeout: float = 0.0) -> bool:
        run = Run.current
        if not self._taken:
            self._taken = True
            return True
        assert run is not None, "nothing would ever ring"
        self._waiting = run.task
        run.pause(ASLEEP, wakes_s=run.clock.now_s + timeout)
        rung = self._waiting is None
        self._waiting = None
        return rung

    def release(self) -> None:
        run = Run.current
        if self._waiting is not None and run is not None:
            run.wake(self._waiting)
            self._waiting = None
        else:
            self._taken = False


def get_ident() -> int:
    """In place of `threading.get_ident`."""
    return 1 + Run.current.task.index if Run.current is not None else 0
