"""Every event that may come next, fewer than there are: an order is left out where another one shows all that it shows.

What is left out, and why nothing is overlooked. `test_reduction` holds the search against one that leaves nothing out.

- **Local steps** touch nothing that another process sees. Where no other thread of their process looks on, they are taken with
  the
  step before them: to come later they would have to differ by what others did meanwhile, of which they see nothing. A time limit
  may still break a thread off before each.
- **Beginnings** are taken with the first exchange with the server that follows, where nothing but the thread has changed by then:
  to begin earlier only promises less (a read must not fall short of what had returned *when it began*), and the lease that a
  beginning looks at may have run out at any moment. Not on a node, whose bus a beginning looks at; nor where another thread may
  have something pending by then; nor in a cache that serves degraded; nor of a fetch, which notes when it was called.
- **A program that only invalidates** (`tell`) does so in one step, and has no state: its view judges nothing, and since it has
  never read the log it never asks for it. Its promise begins with the append, not with the return. Every read that the protocol
  owes something owes at least that here, so that each broken promise is still one; and a read that asks between the
  append and the return finds the record in the log. A notice may come at any moment after that, as before.
- **Like threads** that do nothing yet: one of them begins. Like processes and threads in other states: see `canon`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from msgspec.structs import replace

from model import flights, log, node, reading, view, writing  # noqa: F401 - they enter their rules
from model.canon import Canon
from model.configs import initial
from model.exploring import Found, Progress, explored
from model.faults import ALWAYS, FAULTS, broken_off, spent
from model.state import NEVER, State
from model.stepping import LOCAL, SILENT, At, AtNode, Model, put


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
    merges = model.reduced and len(process.threads) == 1
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
                name = f"P{number}.{index} {what} {argument}"
                if what in _LATE and _may_begin_late(model, state, after, number, index):
                    step = after.processes[number].threads[index].steps[0]
                    for later in getattr(model, step)(At(model, after, number, index)):
                        yield from _on(model, later, number, index, f"{name}, {step}", merges)
                else:
                    yield from _on(model, after, number, index, name, merges)


_LATE: Final = frozenset({"read", "compute", "stale", "refresh"})
_EXCHANGES: Final = frozenset({"get_entry", "read_log", "append_own"})


def _may_begin_late(model: Model, state: State, begun: State, number: int, index: int) -> bool:
    """Whether what has begun may as well have begun at its first exchange with the server, which comes next."""
    process, after = state.processes[number], begun.processes[number]
    steps = after.threads[index].steps
    if not model.reduced or not model.config.strict or process.node != NEVER or not steps or steps[0] not in _EXCHANGES:
        return False
    pends = model.config.answers_lost or model.config.faults.get("go_away")
    if pends and len(process.threads) > 1:
        return False
    return replace(begun, processes=put(begun.processes, number, replace(after, threads=process.threads))) == state


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
    if "tell" in words and at.state.invalidations_left:
        for pattern in model.config.invalidated:
            yield "tell", pattern, (model.begin_tell if model.reduced else model.begin_invalidate)(at, pattern)


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
    goes_on: bool = False,
    most_states: float = float("inf"),
    most_seconds: float = float("inf"),
    progress: Progress | None = None,
) -> Found:
    """Go through all states: see `exploring`. `goes_on`: also beyond broken promises."""
    return explored(
        initial(model.config),
        lambda state: successors(model, state),
        lambda state: state.broken,
        canon=Canon(model),
        forgive=(lambda state: replace(state, broken="")) if goes_on else None,
        most_states=most_states,
        most_seconds=most_seconds,
        progress=progress,
    )
