"""What is done in a run, as a line of text, so that a run that failed can be put into a test.

    bound=1, a.fetch k | a: get k, get k | b: inv k | !: tick 1.5 @ 12>1 30>0

Before the first `|` stand the options and what happens first, one after another; then the tasks, each with its process and its
operations; after `@` the plan: at step 12 task 1 goes on, at step 30 task 0. `41!` breaks the running task off there. A star
behind a process (`a*:`) says that its calls may be broken off.

Processes: `a`, `b`, ... have no bus; `n1`, `n2` are pool children of the node `n`, whose main process is `n`; `!` is the world.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Final

from schedules.tasks import BREAK_OFF

DEPS: Final[dict[str, tuple[str, ...]]] = {"k": (), "s": (), "d": ("u",), "a": (), "b": ("a",), "c": ("b",), "g": (), "r": ("g",)}
"""What each key is computed from. `u` is never cached; `s` alone is set and deleted; `r` is computed by `respond`."""
KEYS: Final = (*DEPS, "u", "z")
"""`z` means nothing to any other."""

Op = tuple[str, ...]
Decisions = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Options:
    """`bound`: the staleness bound (s). `records`: the longest log. `slots`: records on a bus. `ttl`, `grace`: of entries (s).
    `loose`: L1 serves unconfirmed while the server is away. `stage`: a value is computed without the `as_of` of its inputs."""

    bound: float = 1.0
    records: int = 100_000
    slots: int = 4
    ttl: float = 300.0
    grace: float = 0.0
    loose: bool = False
    stage: bool = False


@dataclass(frozen=True)
class Doing:
    """The operations of one task."""

    process: str
    ops: tuple[Op, ...]
    breakable: bool = False

    @property
    def node(self) -> str:
        return self.process.rstrip("0123456789") if self.process.startswith("n") else self.process

    def __str__(self) -> str:
        return f"{self.process}{'*' * self.breakable}: {', '.join(map(' '.join, self.ops))}"


@dataclass(frozen=True)
class Program:
    """What happens first, and then in any order of steps."""

    first: tuple[tuple[str, Op], ...]
    tasks: tuple[Doing, ...]
    options: Options = field(default_factory=Options)

    @property
    def size(self) -> int:
        return len(self.first) + sum(len(task.ops) for task in self.tasks)

    @property
    def read(self) -> tuple[str, ...]:
        """The keys that are spoken of and may have a value."""
        ops = [op for _, op in self.first] + [op for task in self.tasks for op in task.ops]
        return tuple(key for key in DEPS if any(key in op for op in ops))

    @property
    def processes(self) -> set[str]:
        return {process for process, _ in self.first} | {task.process for task in self.tasks}

    def __str__(self) -> str:
        default = Options()
        said = [
            name if value is True else f"{name}={value:g}"
            for name, value in vars(self.options).items()
            if value != getattr(default, name)
        ]
        said += [f"{process}.{' '.join(op)}" for process, op in self.first]
        return " | ".join([", ".join(said), *map(str, self.tasks)])

    def smaller(self) -> list[Program]:
        """The programs with one operation less, those that lack more first."""
        found = [
            replace(self, tasks=self.tasks[:at] + self.tasks[at + 1 :]) for at in range(len(self.tasks)) if len(self.tasks) > 1
        ]
        found += [replace(self, first=self.first[:at] + self.first[at + 1 :]) for at in range(len(self.first))]
        for at, task in enumerate(self.tasks):
            for number in range(len(task.ops)):
                if len(task.ops) > 1:
                    less = replace(task, ops=task.ops[:number] + task.ops[number + 1 :])
                    found.append(replace(self, tasks=(*self.tasks[:at], less, *self.tasks[at + 1 :])))
        return found


def parse(text: str) -> tuple[Program, Decisions]:
    """The program of a line, and the plan behind it."""
    said, _, planned = text.partition("@")
    beginning, *tasks = [part.strip() for part in said.split("|")]
    options, first = {}, []
    for part in filter(None, (part.strip() for part in beginning.split(","))):
        name, equals, value = part.partition("=")
        if equals:
            options[name] = type(getattr(Options(), name))(float(value))
        elif part in ("loose", "stage"):
            options[part] = True
        else:
            process, _, op = part.partition(".")
            first.append((process, tuple(op.split())))
    doings = []
    for task in tasks:
        process, _, ops = task.partition(":")
        doings.append(Doing(process.rstrip("*"), tuple(tuple(op.split()) for op in ops.split(",")), "*" in process))
    return Program(tuple(first), tuple(doings), Options(**options)), decisions(planned)


def decisions(planned: str) -> Decisions:
    """A plan as numbers."""
    return tuple(
        (int(part[:-1]), BREAK_OFF) if part.endswith("!") else (int(part.split(">")[0]), int(part.split(">")[1]))
        for part in planned.split()
    )


def line(program: Program, plan: Decisions) -> str:
    """The line that `parse` reads."""
    planned = " ".join(f"{step}!" if task == BREAK_OFF else f"{step}>{task}" for step, task in plan)
    return f"{program} @ {planned}".strip()
