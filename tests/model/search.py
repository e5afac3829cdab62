"""Every order of events, breadth first: so the first broken promise that is found has a shortest trace."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import msgspec
from msgspec.structs import replace

from model import flights, log, node, reading, view, writing  # noqa: F401 - they enter their rules
from model.canon import Canon
from model.configs import initial
from model.faults import ALWAYS, FAULTS, broken_off, spent
from model.state import State
from model.stepping import LOCAL, SILENT, At, AtNode, Model


class Found(msgspec.Struct, frozen=True):
    """The outcome of an exploration. `whole`: all reachable states were seen. `depth`: events of the longest shortest way to a
    state. `broken`: the promise that was broken, with the shortest way there."""

    states: int
    transitions: int
    depth: int
    seconds: float
    whole: bool
    broken: str = ""
    trace: tuple[tuple[str, State], ...] = ()


def successors(model: Model, state: State) -> Iterator[tuple[str, State]]:
    """Every event that may come next, by name."""
    for number in range(len(state.processes)):
        yield from _of_process(model, state, number)
    for number, main in enumerate(state.nodes):
        for index in range(len(main.threads)):
            yield from _of_main(model, state, number, index)
    for name, happen in ALWAYS.items():
        for after in happen(model, state):
            yield name, after
    for place, (name, happen) in enumerate(FAULTS.items()):
        left = spent(state, place)
        if left is not None:
            for after in happen(model, state):
                yield name, replace(after, left=left)


def _of_process(model: Model, state: State, number: int) -> Iterator[tuple[str, State]]:
    process = state.processes[number]
    merges = len(process.threads) == 1
    for index, thread in enumerate(process.threads):
        at = At(model, state, number, index)
        if thread.steps:
            step = thread.steps[0]
            for after in getattr(model, step)(at):
                yield from _on(model, after, number, index, f"P{number}.{index} {step}", merges)
            continue
        if index and thread == process.threads[index - 1] and _same(model, number, index):
            continue  # threads that may do the same, and do nothing yet: it is enough that one of them begins
        may = model.config.processes[number][1][index]
        for what, argument, outcomes in _beginnings(model, at, may):
            for after in outcomes:
                yield from _on(model, after, number, index, f"P{number}.{index} {what} {argument}", merges)


def _same(model: Model, number: int, index: int) -> bool:
    does = model.config.processes[number][1]
    return does[index] == does[index - 1]


def _beginnings(model: Model, at: At, may: str) -> Iterator[tuple[str, int, object]]:
    words = may.split()
    for key in range(len(model.config.keys)):
        for word in ("read", "compute", "fetch", "stale", "refresh"):
            if word in words:
                yield word, key, getattr(model, f"begin_{word}")(at, key)
    if "invalidate" in words and at.state.invalidations_left:
        for pattern in model.config.invalidated:
            yield "invalidate", pattern, model.begin_invalidate(at, pattern)


def _of_main(model: Model, state: State, number: int, index: int) -> Iterator[tuple[str, State]]:
    at = AtNode(model, state, number, index)
    name = f"N{number}.{index}"
    if at.thread.steps:
        step = at.thread.steps[0]
        for after in getattr(model, step)(at):
            yield f"{name} {step}", _silent(model, after, number, index, main=True)
        return
    alone = len(at.node.threads) == 1
    if alone or index == 0:
        for after in model.begin_beat(at):
            yield f"{name} beat", _silent(model, after, number, index, main=True)
    if alone or index == 1:
        for notice in state.notices:
            for after in model.receive(at, notice):
                yield (
                    f"{name} receive {notice.epoch}:{notice.seq} {notice.pattern}",
                    _silent(model, after, number, index, main=True),
                )


def _on(model: Model, state: State, number: int, index: int, name: str, merges: bool) -> Iterator[tuple[str, State]]:
    """The state after an event: silent steps belong to it; and local ones, where no other thread looks on."""
    place = _BREAK_OFF
    while True:
        thread = state.processes[number].threads[index]
        if not thread.steps or state.broken:
            break
        step = thread.steps[0]
        if step[0] == "?":
            state = At(model, state, number, index).then()
        elif step in SILENT:
            (state,) = getattr(model, step)(At(model, state, number, index))
        elif merges and step in LOCAL:
            left = spent(state, place)
            if left is not None:
                yield f"{name}, broken off before {step}", replace(broken_off(state, number, index), left=left)
            outcomes = tuple(getattr(model, step)(At(model, state, number, index)))
            for other in outcomes[1:]:
                yield from _on(model, other, number, index, f"{name}, {step}", merges)
            if not outcomes:
                break
            state, name = outcomes[0], f"{name}, {step}"
        else:
            break
    yield name, state


_BREAK_OFF = list(FAULTS).index("break_off")


def _silent(model: Model, state: State, number: int, index: int, *, main: bool) -> State:
    while (thread := state.nodes[number].threads[index]).steps and main:
        step = thread.steps[0]
        if step[0] == "?":
            state = AtNode(model, state, number, index).then()
        elif step in SILENT:
            (state,) = getattr(model, step)(AtNode(model, state, number, index))
        else:
            break
    return state


def explore(
    model: Model,
    *,
    most_states: int = 10**9,
    most_seconds: float = float("inf"),
    progress: Callable[[int, int, int, int, float], None] | None = None,
) -> Found:
    """Go through all states. Ends at the first broken promise, or where it has been given no more to do.

    Of a state that was seen only the hash is kept, of 64 bits, with that of the state before it.
    """
    began_s = time.monotonic()
    canon = Canon(model)
    first = canon(initial(model.config))
    before: dict[int, int] = {hash(first): 0}
    level, depth, transitions = [first], 0, 0
    told_s = began_s
    while level:
        following: list[State] = []
        for state in level:
            for _, after in successors(model, state):
                transitions += 1
                reached = canon(after)
                number = hash(reached)
                if number in before:
                    continue
                before[number] = hash(state)
                if reached.broken:
                    trace = _trace(model, canon, before, number)
                    return Found(len(before), transitions, depth + 1, time.monotonic() - began_s, False, reached.broken, trace)
                following.append(reached)
            now_s = time.monotonic()
            if progress is not None and now_s - told_s > 2:
                told_s = now_s
                progress(len(before), transitions, depth, len(level), now_s - began_s)
            if len(before) > most_states or now_s - began_s > most_seconds:
                return Found(len(before), transitions, depth, now_s - began_s, False)
        level = following
        depth += 1
    return Found(len(before), transitions, depth - 1, time.monotonic() - began_s, True)


def _trace(model: Model, canon: Canon, before: dict[int, int], last: int) -> tuple[tuple[str, State], ...]:
    """The events on the way, replayed from the first state: with the processes' own names."""
    numbers = [last]
    while before[numbers[-1]]:
        numbers.append(before[numbers[-1]])
    state = initial(model.config)
    trace = [("at first", state)]
    for number in numbers[-2::-1]:
        name, state = next((name, after) for name, after in successors(model, state) if hash(canon(after)) == number)
        trace.append((name, state))
    return tuple(trace)
