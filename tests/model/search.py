"""Every order of events, breadth first: so the first broken promise that is found has a shortest trace."""

from __future__ import annotations

from collections.abc import Iterator

from msgspec.structs import replace

from model import flights, log, node, reading, view, writing  # noqa: F401 - they enter their rules
from model.canon import Canon
from model.configs import initial
from model.exploring import Found, Progress, explored
from model.faults import ALWAYS, FAULTS, broken_off, spent
from model.state import State
from model.stepping import LOCAL, SILENT, At, AtNode, Model


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
    most_states: float = float("inf"),
    most_seconds: float = float("inf"),
    progress: Progress | None = None,
) -> Found:
    """Go through all states: see `exploring`."""
    return explored(
        initial(model.config),
        lambda state: successors(model, state),
        lambda state: state.broken,
        canon=Canon(model),
        most_states=most_states,
        most_seconds=most_seconds,
        progress=progress,
    )
