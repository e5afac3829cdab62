"""Programs by chance: what a table does not think of. A choice is an argument, so that Hypothesis may make and shrink them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, Final

from schedules.programs import Doing, Op, Options, Program

Choose = Callable[[Sequence[Any]], Any]

_READS: Final = ("get k", "look k", "look k", "fetch k", "fetch k", "fetch d", "fetch c", "look c", "fetch b", "look d", "look z")
_OTHERS: Final = ("ahead k", "fill k", "peek k", "fetch s", "look s", "respond r", "look r", "warm k c", "stale k", "refresh")
_WRITES: Final = ("inv k", "inv k", "inv u", "inv a", "inv *", "inv z", "inv ?", "inv k z", "inv g", "set s", "del s", "sweep")
_RARE: Final = ("forget", "anew")
_MAIN: Final = ("hear", "hear", "hear 0", "hear 1", "beat", "beat")
_WORLD: Final = (
    *("tick 1.1", "tick 0.6", "tick 6", "evict tail", "evict records", "evict k", "empty", "failover", "demote", "snapshot"),
    *("lose", "away", "full", "evict marks"),
)
_AFTER: Final = {"away": "back", "full": "room", "snapshot": "failover"}
_SHAPES: Final = (
    *(("a", "b"), ("a", "b", "c"), ("a", "a", "b"), ("a", "a")),
    *(("n1", "n", "b"), ("n1", "n1", "n", "b"), ("n1", "n2", "n")),
)


def program(choose: Choose) -> Program:
    """A program of two to five tasks, of one to three operations each."""
    shape = choose(_SHAPES)
    options = Options(
        bound=choose((1.0, 1.0, 1e-9)),
        records=choose((100_000, 100_000, 1, 2)),
        slots=choose((4, 1)),
        ttl=choose((300.0, 300.0, 1.0)),
        grace=choose((0.0, 0.0, 300.0)),
        loose=choose((False, False, True)),
    )
    first = [(choose(shape), _op(choose, _READS)) for _ in range(choose((1, 2, 3)))]
    first = [(process, op) for process, op in first if process != "n"]
    first += [("!", ("snapshot",))] * choose((0, 0, 1))
    tasks = [_doing(process, choose) for process in shape]
    if choose((True, True, False)):
        event = choose(_WORLD)
        ops = [tuple(event.split())]
        if event in _AFTER:
            ops.append((_AFTER[event],))
        tasks.append(Doing("!", tuple(ops)))
    return Program(tuple(first), tuple(tasks), options)


def _doing(process: str, choose: Choose) -> Doing:
    if process == "n":
        ops = tuple(_op(choose, _MAIN) for _ in range(choose((1, 2, 3))))
    else:
        kinds = (_READS, _READS, _OTHERS, _WRITES, _WRITES, _RARE)
        ops = tuple(_op(choose, choose(kinds)) for _ in range(choose((1, 2, 3))))
    return Doing(process, ops, breakable=choose((False, False, False, True)))


def _op(choose: Choose, among: Sequence[str]) -> Op:
    return tuple(choose(among).split())
