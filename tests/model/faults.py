"""What befalls the server, the network and the threads, between any two steps. How many times in all, a configuration says.

A frozen process needs no rule: any thread may take no step for as long as the others like. Nor does a lost, late or doubled
notice:
it stays on its way for ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from msgspec.structs import replace

from model.flights import landed
from model.state import IDLE, NEVER, Server, State, Thread
from model.stepping import Model, Outcomes, bus_moved, put

Fault = Callable[[Model, State], Outcomes]
FAULTS: Final[dict[str, Fault]] = {}


def fault(function: Fault) -> Fault:
    FAULTS[function.__name__] = function
    return function


def _emptied(model: Model, server: Server) -> Server:
    keys = len(model.config.keys)
    log = replace(server.log, epoch=0, history=0, seq=0, floor=0, records=(0,) * model.config.patterns, whole=NEVER)
    return replace(server, log=log, entries=(None,) * keys, claims=(None,) * keys)


@fault
def flush(model: Model, state: State) -> Outcomes:
    """The server loses all it has, and lives on."""
    return (replace(state, server=_emptied(model, state.server)),)


@fault
def evict_tail(_: Model, state: State) -> Outcomes:
    """The server gives up the tail for space. The entries stay."""
    if state.server.log.epoch:
        log = replace(state.server.log, epoch=0, history=0, seq=0, floor=0)
        yield replace(state, server=replace(state.server, log=log))


@fault
def evict_records(_: Model, state: State) -> Outcomes:
    log = state.server.log
    if log.whole != NEVER:
        lost = replace(log, records=(0,) * len(log.records), whole=NEVER)
        yield replace(state, server=replace(state.server, log=lost))


@fault
def evict_entry(_: Model, state: State) -> Outcomes:
    """An entry expires, is evicted or swept."""
    for key, entry in enumerate(state.server.entries):
        if entry is not None:
            yield replace(state, server=replace(state.server, entries=put(state.server.entries, key, None)))


@fault
def age_entry(_: Model, state: State) -> Outcomes:
    """An entry passes its time to live, and is kept for its grace."""
    for key, entry in enumerate(state.server.entries):
        if entry is not None and not entry.old:
            entries = put(state.server.entries, key, replace(entry, old=True))
            yield replace(state, server=replace(state.server, entries=entries))


@fault
def drop_slot(_: Model, state: State) -> Outcomes:
    """A slot of L1 expires or is evicted."""
    for number, process in enumerate(state.processes):
        for key, slot in enumerate(process.slots):
            if slot is not None:
                changed = replace(process, slots=put(process.slots, key, None))
                yield replace(state, processes=put(state.processes, number, changed))


@fault
def end_claim(_: Model, state: State) -> Outcomes:
    """A key's lease runs out: its owner was held up, or died."""
    for key, claim in enumerate(state.server.claims):
        if claim is not None:
            yield replace(state, server=replace(state.server, claims=put(state.server.claims, key, None)))


@fault
def take_copy(_: Model, state: State) -> Outcomes:
    """A replica, or a snapshot, has all that there is now. From here on it may lag."""
    if state.copy is None:
        yield replace(state, copy=state.server)


@fault
def fail_over(_: Model, state: State) -> Outcomes:
    """The server is gone, and the copy takes its place: another history, and connections that lead nowhere."""
    if state.copy is not None:
        yield replace(state, server=_successor(state), copy=None)


@fault
def demote(_: Model, state: State) -> Outcomes:
    """As `fail_over`, but the old server lives on as a replica, and connections to it live on as well."""
    if state.copy is not None and state.demoted is None:
        processes = tuple(
            replace(process, at_old=True) if process.made == state.server.contact else process for process in state.processes
        )
        yield replace(state, server=_successor(state), copy=None, demoted=state.server, processes=processes)


def _successor(state: State) -> Server:
    assert state.copy is not None
    return replace(state.copy, history=state.server.history + 1, contact=state.server.contact + 1)


@fault
def restart(_: Model, state: State) -> Outcomes:
    """The server loses nothing, and has another replication id."""
    server = state.server
    yield replace(state, server=replace(server, history=server.history + 1, contact=server.contact + 1))


@fault
def go_away(_: Model, state: State) -> Outcomes:
    if state.up:
        yield replace(state, up=False)


@fault
def break_off(_: Model, state: State) -> Outcomes:
    """A time limit ends what a thread does, between any two steps. Its lock is given back."""
    for number, process in enumerate(state.processes):
        for index, thread in enumerate(process.threads):
            if thread.steps:
                yield broken_off(state, number, index)


def broken_off(state: State, number: int, index: int) -> State:
    """`finally` ends its flight and gives its claim back."""
    process = state.processes[number]
    steps = process.threads[index].steps
    changed = replace(
        process,
        threads=put(process.threads, index, IDLE),
        locked=process.locked and "unlock" not in steps,
    )
    after = replace(state, processes=put(state.processes, number, changed))
    if not process.threads[index].token:
        return after
    claims = tuple(
        None if claim is not None and claim.owner == process.threads[index].token else claim for claim in state.server.claims
    )
    after = replace(after, server=replace(state.server, claims=claims))
    return landed(after, number, Thread(token=process.threads[index].token))


@fault
def break_off_main(model: Model, state: State) -> Outcomes:
    """The same to a node's main process. In the middle of a write it leaves a bus of no log."""
    for number, node in enumerate(state.nodes):
        for index, thread in enumerate(node.threads):
            if not thread.steps:
                continue
            bus = node.bus
            writing = thread.steps[0] in ("bus_end", "volatile_end", "settle_end")
            if writing:
                bus = model.left_by_a_writer(model, bus)
            changed = replace(node, bus=bus, threads=put(node.threads, index, IDLE))
            state_after = replace(state, nodes=put(state.nodes, number, changed))
            yield bus_moved(state_after, number) if writing else state_after


# -- what may happen at any time, and costs nothing


def tick(_: Model, state: State) -> Outcomes:
    """The bound passes since the return of one more invalidation."""
    if state.elapsed < len(state.returned):
        now = replace(state, elapsed=state.elapsed + 1)
        pattern, version = state.returned[state.elapsed]
        # What all promise by now, no process needs to promise by itself.
        processes = tuple(
            replace(process, own=put(process.own, pattern, 0)) if 0 < process.own[pattern] <= version else process
            for process in state.processes
        )
        nodes = tuple(
            replace(node, applied=put(node.applied, pattern, 0)) if 0 < node.applied[pattern] <= version else node
            for node in state.nodes
        )
        yield replace(now, processes=processes, nodes=nodes)


def spent(state: State, place: int) -> tuple[int, ...] | None:
    """How many faults are left after this one; None if there may not be any."""
    left = state.left
    if not left[place] or not left[-1]:
        return None
    return (*left[:place], left[place] - 1, *left[place + 1 : -1], left[-1] - 1)


def come_back(model: Model, state: State) -> Outcomes:
    if not state.up and model.config.comes_back:
        yield replace(state, up=True)


ALWAYS: Final[dict[str, Fault]] = {"tick": tick, "come_back": come_back}
