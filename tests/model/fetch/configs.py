"""How much there is of everything, and every event that may come next."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Final

import msgspec
from msgspec.structs import replace

from model.exploring import Found, Progress, explored
from model.fetch import promises, rules
from model.fetch.canon import canon
from model.fetch.rules import FAULTS, STEPS, TASK_STEPS, By, FetchModel
from model.fetch.state import NEVER, Name, Node, State


class FetchConfig(msgspec.Struct, frozen=True, kw_only=True):
    """`credit`: how many messages a node may have in hand. `deaths`: after so many a message is a dead letter. `ends`: nodes
    may be told to end. `faults`: how many of each at most. `short`: whether `make test` explores it."""

    name: str
    about: str
    messages: int = 1
    nodes: int = 2
    credit: int = 1
    deaths: int = 2
    ends: bool = False
    faults: Mapping[str, int] = {}
    short: bool = True


def initial(config: FetchConfig) -> State:
    zeros = (0,) * config.messages
    return State(
        queue=(),
        unsent=config.messages,
        names=(Name(),) * config.nodes,
        nodes=tuple(Node(number) for number in range(config.nodes)),
        outcomes=("",) * config.messages,
        taken=zeros,
        deaths=zeros,
        left=tuple(config.faults.get(name, 0) for name in FAULTS),
    )


def _own(model: FetchModel, state: State) -> Iterator[tuple[str, State]]:
    """What happens without a fault."""
    for number, node in enumerate(state.nodes):
        by = By(model, state, number)
        for place, task in enumerate(node.tasks):
            for after in TASK_STEPS[task.step](by, place):
                yield f"N{number} {task.step} {task.item.number}", after
        if node.name == NEVER:
            continue
        if node.returning is not None:
            for after in rules.give(by):
                yield f"N{number} give", after
            continue
        # A turn begins with the beat that is due. What the poller brings may come before it.
        for step in ("beat", "arrive") if state.names[node.name].silent else STEPS:
            for after in getattr(model, step)(by):
                yield f"N{number} {step}", after
    for name in range(len(state.names)):
        for after in rules.serve_wait(model, state, name):
            yield f"the broker answers the wait of {name}", after
    for after in rules.send(state):
        yield "a message is sent", after
    for after in rules.due(state):
        yield "what is aside is due", after


def successors(model: FetchModel, state: State) -> Iterator[tuple[str, State]]:
    """Every event that may come next, by name. One that changes nothing is none."""
    rests = True
    for name, after in _own(model, state):
        if after != state:
            rests = rests and name.endswith(" leave")
            yield name, after
    if rests and promises.at_rest(state):
        yield "nothing more happens", replace(state, broken=promises.at_rest(state))
    for place, name in enumerate(FAULTS):
        for number, node in enumerate(state.nodes):
            if state.left[place] and node.name != NEVER:
                for after in getattr(model, name)(By(model, state, number)):
                    left = rules.put(after.left, place, after.left[place] - 1)
                    yield f"N{number}: {name}", replace(after, left=left)


def explore(model: FetchModel, *, most_seconds: float = float("inf"), progress: Progress | None = None) -> Found:
    """Go through all states."""
    return explored(
        initial(model.config),
        lambda state: successors(model, state),
        promises.broken,
        canon=canon,
        most_seconds=most_seconds,
        progress=progress,
    )


_ALL: Final = (
    FetchConfig(
        name="fetch-deaths",
        about="two nodes, one message; one dies, one freezes until it counts as dead, and wakes",
        faults={"die": 1, "fall_silent": 1},
        short=False,
    ),
    FetchConfig(
        name="fetch-three",
        about="three nodes, of which two find that the third is silent; it may wake",
        nodes=3,
        faults={"fall_silent": 1},
        short=False,
    ),
    FetchConfig(
        name="fetch-waits",
        about="two nodes, one message; the connection of a wait breaks, a node falls silent",
        faults={"lose_wait": 1, "fall_silent": 1},
        short=False,
    ),
    FetchConfig(
        name="fetch-connections",
        about="two nodes, one message; connections break with or without the broker's answer, an outcome cannot be kept",
        faults={"lose_connection": 1, "refuse_outcome": 1},
        short=False,
    ),
    FetchConfig(
        name="fetch-aside",
        about="two nodes, one message; it waits aside, nodes are told to end, one dies",
        ends=True,
        faults={"postpone": 1, "die": 1},
    ),
    FetchConfig(
        name="fetch-two",
        about="two nodes, two messages; one node dies",
        messages=2,
        faults={"die": 1},
    ),
)
FETCH_CONFIGS: Final[dict[str, FetchConfig]] = {config.name: config for config in _ALL}
