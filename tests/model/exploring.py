"""Every order of events of any model, breadth first: so the first broken promise that is found has a shortest trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

import msgspec

S = TypeVar("S")
Progress = Callable[[int, int, int, int, float], None]


class Found(msgspec.Struct, frozen=True):
    """The outcome of an exploration. `whole`: all reachable states were seen. `depth`: events of the longest shortest way to a
    state. `broken`: the promise that was broken, with the shortest way there. `kinds`: the names of all that are, if it went
    on."""

    states: int
    transitions: int
    depth: int
    seconds: float
    whole: bool
    broken: str = ""
    trace: tuple[tuple[str, Any], ...] = ()
    kinds: frozenset[str] = frozenset()


def explored(
    first: S,
    successors: Callable[[S], Iterable[tuple[str, S]]],
    broken: Callable[[S], str],
    *,
    canon: Callable[[S], S] = lambda state: state,
    forgive: Callable[[S], S] | None = None,
    most_states: float = float("inf"),
    most_seconds: float = float("inf"),
    progress: Progress | None = None,
) -> Found:
    """Go through all states from `first` on. Ends at the first broken promise, or where it has been given no more to do. With
    `forgive`, which gives the state without the broken promise, it goes on from there, and says which they were.

    Of a state that was seen only the hash is kept, of 64 bits, with that of the state before it.
    """
    began_s = told_s = time.monotonic()
    before: dict[int, int] = {hash(canon(first)): 0}
    level, depth, transitions = [canon(first)], 0, 0
    kinds: set[str] = set()
    while level:
        following: list[S] = []
        for state in level:
            came_from = hash(state)
            for _, after in successors(state):
                transitions += 1
                reached = canon(after)
                why = broken(reached)
                if why and forgive is not None:
                    kinds.add(why.split(":")[0])
                    reached = forgive(reached)
                number = hash(reached)
                if number in before:
                    continue
                before[number] = came_from
                if why and forgive is None:
                    trace = _trace(first, successors, canon, before, number)
                    return Found(len(before), transitions, depth + 1, time.monotonic() - began_s, False, why, trace)
                following.append(reached)
            now_s = time.monotonic()
            if progress is not None and now_s - told_s > 2:
                told_s = now_s
                progress(len(before), transitions, depth, len(level), now_s - began_s)
            if len(before) > most_states or now_s - began_s > most_seconds:
                return Found(len(before), transitions, depth, now_s - began_s, False)
        level = following
        depth += 1
    return Found(len(before), transitions, depth - 1, time.monotonic() - began_s, True, kinds=frozenset(kinds))


def _trace(
    first: S,
    successors: Callable[[S], Iterable[tuple[str, S]]],
    canon: Callable[[S], S],
    before: dict[int, int],
    last: int,
) -> tuple[tuple[str, S], ...]:
    """The events on the way, replayed from the first state: with the processes' own names."""
    numbers = [last]
    while before[numbers[-1]]:
        numbers.append(before[numbers[-1]])
    state = first
    trace = [("at first", state)]
    for number in numbers[-2::-1]:
        name, state = next((name, after) for name, after in successors(state) if hash(canon(after)) == number)
        trace.append((name, state))
    return tuple(trace)
