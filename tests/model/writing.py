"""A computation and its fill, `TwoTierCache.fill`; an invalidation, `Coherence.invalidate`."""

from __future__ import annotations

from typing import Any

from msgspec.structs import replace

from model.promises import due
from model.state import NEVER, NONE, Entry, Notice, Numbers, Slot
from model.stepping import At, Outcomes, local, put, rule, silent
from model.view import changed, finished, pended

REFRESH = ("read_log", "apply")


@rule
def begin_compute(at: At, key: int) -> Outcomes:
    """What is known is noted before the first input is read."""
    through = at.model.config.keys[key].through
    inputs = ("input", "use", "their_deps") if through >= 0 else ()
    begun = at.only("know", "take_as_of", *inputs, "mark", "keep", "write", key=key, elapsed=at.state.elapsed)
    return at.model.know(At(at.model, begun, at.number, at.index))


@rule
def begin_refresh(at: At, _: int) -> Outcomes:
    """A look at the log alone: what a computation of something else begins with."""
    begun = at.only("know", elapsed=at.state.elapsed)
    return at.model.refresh(At(at.model, begun, at.number, at.index))


@local
def know(at: At) -> Outcomes:
    """The view as it is, if the lease allows it; else the log is read."""
    if not at.model.follows(at):
        return at.model.follow(at)
    refreshed = at.model.refresh(at)
    return (*refreshed, at.then(elapsed=0)) if at.model.leased(at) else refreshed


@rule
def refresh(at: At) -> Outcomes:
    """Read the log; what is pending is appended first. Without the server it goes on with what is known."""
    steps = at.thread.steps
    rest = steps[steps.index("know") + 1 :] if "know" in steps else steps[1:]
    pending = ("append_own", "read_log", "apply", "settle_own") if any(at.process.view.own) else ()
    return (at.only(*pending, *REFRESH, "?go_on", *rest, news=None, outdated=False, page=None, asked=NEVER, elapsed=0),)


@silent
def go_on(at: At) -> Outcomes:
    return (at.then(asked=NEVER, tail=None, pending=()),)


@local
def take_as_of(at: At) -> Outcomes:
    """What is known; and then, at once, the sources as they are: later they could only be newer. Not of
    a state whose generation is not published: L1 serves what was judged by less."""
    if at.process.view.revision != at.process.view.generation:
        if at.process.locked:
            return ()
        at = At(at.model, at.only(*at.thread.steps, process={"view": finished(at.process.view)}), at.number, at.index)
    return at.model.taken_as_of(at)


@rule
def taken_as_of(at: At) -> Outcomes:
    view, key = at.process.view, at.model.config.keys[at.thread.key]
    as_of = (view.epoch, view.seq, view.revision)
    flights = tuple(
        replace(flight, as_of=as_of) if flight is not None and flight.token == at.thread.token else flight
        for flight in at.process.flights
    )
    value = read_sources(at.state.versions, key.direct)
    return (at.then(as_of=as_of, value=value, deps=key.deps, asked=NEVER, elapsed=0, process={"flights": flights}),)


def read_sources(versions: Numbers, sources: Numbers) -> Numbers:
    return tuple(version if source in sources else NONE for source, version in enumerate(versions))


@rule
def write(at: At) -> Outcomes:
    """`SET`, without a look at the log. If the server is away, only L1 has it."""
    if not at.reachable:
        return (at.then(process={"at_old": False}),)
    epoch, seq, _ = at.thread.as_of
    entry = Entry(epoch, seq, at.thread.deps, at.thread.value)
    server = replace(at.server, entries=put(at.server.entries, at.thread.key, entry))
    return (at.only(*at.thread.steps[1:], process=at.contacted, world={"server": server}),)


# -- a computation from another entry


@rule
def input(at: At) -> Outcomes:  # noqa: A001 - the step's name in a trace
    """Read the other entry through the cache, as any read does."""
    through = at.model.config.keys[at.thread.key].through
    promised = due(at.state, at.process, at.model.config.keys[through].all)
    begun = at.then("look", key=through, nested=True, elapsed=at.state.elapsed, value=(), **promised)
    return at.model.look(At(at.model, begun, at.number, at.index))


@rule
def use(at: At) -> Outcomes:
    """The input that was read; or, where there was none, computed and kept, by the knowledge from before."""
    keys = at.model.config.keys
    outer = next(number for number, key in enumerate(keys) if key.through == at.thread.key)
    inner, value = keys[at.thread.key], at.thread.value
    process, world = {}, {}
    if not value:
        value = read_sources(at.state.versions, inner.direct)
        epoch, seq, known = at.thread.as_of
        if at.model.valid(at.model, at.process.view, epoch, seq, known, inner.deps):
            generation = at.process.view.generation
            slot = Slot(epoch, seq, generation, inner.deps, value, generation)
            process = {"slots": put(at.process.slots, at.thread.key, slot)}
            if at.reachable:
                entries = put(at.server.entries, at.thread.key, Entry(epoch, seq, inner.deps, value))
                world = {"server": replace(at.server, entries=entries)}
    own = read_sources(at.state.versions, keys[outer].direct)
    return (at.then(key=outer, value=tuple(map(min, own, value)), process=process, world=world),)


@local
def their_deps(at: At) -> Outcomes:
    """To its deps come those of the entry that it was computed from, as this process has seen it."""
    through = at.model.config.keys[at.thread.key].through
    return (at.then(deps=tuple(sorted({*at.thread.deps, *at.model.config.keys[through].deps}))),)


# -- an invalidation


@rule
def begin_invalidate(at: At, pattern: int) -> Outcomes:
    """The source was changed; now it is called."""
    versions = put(at.state.versions, pattern, at.state.versions[pattern] + 1)
    world = {"versions": versions, "invalidations_left": at.state.invalidations_left - 1}
    pending = ("append_own", "read_log", "apply", "settle_own") if any(at.process.view.own) else ()
    steps = ("append_new", "tell", "learn", "returns", "?pend", "tell_volatile", "returns_volatile")
    begun = at.only(*pending, *steps, pattern=pattern, version=versions[pattern], world=world)
    return (begun,) if pending else at.model.append_new(At(at.model, begun, at.number, at.index))


@rule
def begin_tell(at: At, pattern: int) -> Outcomes:
    """The same by a program that only invalidates, whose view judges nothing: all in one step. That promises more than the
    protocol does, from the append on instead of from the return on (`search` says why nothing is overlooked by it)."""
    version = at.state.versions[pattern] + 1
    left = at.state.invalidations_left - 1
    world = {"versions": put(at.state.versions, pattern, version), "invalidations_left": left}
    begun = At(at.model, at.only("append_new", "returns", pattern=pattern, version=version, world=world), at.number, at.index)
    for after in at.model.append_new(begun):
        done = At(at.model, after, at.number, at.index)
        durable = done.thread.steps == ("returns",)  # else the server is away, or its answer was lost
        notice = _notice(done if durable else begun, *(done.thread.tail or (0, 0)) if durable else (0, 0))
        returned = {"returned": (*at.state.returned, (pattern, version))} if durable else {}
        program = replace(at.process, at_old=done.process.at_old)
        yield replace(after, processes=put(at.state.processes, at.number, program), **returned, **notice)


@rule
def append_new(at: At) -> Outcomes:
    """From here on it holds for every read from L2. Its answer may be lost; and old records may be trimmed."""
    if not at.reachable:
        return (at.fails(),)
    outcomes = []
    for trims in (False, True) if at.model.config.trims else (False,):
        server, epochs = at.model.append(at.model, at.server, (at.thread.pattern,), at.state.epochs, trims=trims)
        world = {"server": server, "epochs": epochs}
        tail = (server.log.epoch, server.log.seq)
        done = at.then(tail=tail, asked=at.now, floor=server.log.floor, process=at.contacted, world=world)
        outcomes.append(done)
        if at.model.config.answers_lost:
            lost = At(at.model, replace(at.state, **world), at.number, at.index)
            outcomes.append(lost.fails())
    return outcomes


@rule
def tell(at: At) -> Outcomes:
    epoch, seq = at.thread.tail or (0, 0)
    return (at.then(world=_notice(at, epoch, seq)),)


def _notice(at: At, epoch: int, seq: int) -> dict[str, Any]:
    if not at.state.nodes:
        return {}
    notice = Notice(epoch, seq, at.thread.pattern, at.thread.version)
    return {"notices": tuple(sorted({*at.state.notices, notice}))}


@local
def learn(at: At) -> Outcomes:
    """It holds here, too: by the answer alone where no other process has appended meanwhile; else by the log."""
    if at.process.locked:
        return ()
    view = at.process.view
    epoch, seq = at.thread.tail or (0, 0)
    floor = at.thread.floor
    if (view.epoch, view.seq) == (epoch, seq - 1):
        records = put((0,) * len(view.records), at.thread.pattern, seq)
        log = replace(at.server.log, epoch=epoch, seq=seq, floor=floor)
        page = at.model.page_of(at.model, log, records, view.seq, restart=False)
        return (at.then("apply", page=page, tail=None, floor=0),)
    if not view.known:
        begun = replace(view, epoch=epoch, seq=seq, floor=seq, records=(0,) * len(view.records), revision=view.revision + 1)
        return changed(At(at.model, at.only(*at.thread.steps, tail=None, floor=0), at.number, at.index), begun)
    rest = tuple(step for step in at.thread.steps[1:] if step == "returns")
    own = ("append_own", "read_log", "apply", "settle_own") if any(view.own) else ()
    return (at.only(*own, *REFRESH, "?pend_too", *rest, tail=None, floor=0, asked=NEVER),)


@rule
def returns(at: At) -> Outcomes:
    """The caller goes on: from now on the promises hold."""
    returned = (*at.state.returned, (at.thread.pattern, at.thread.version))
    return (at.only(process=_own(at), world={"returned": returned}),)


def _own(at: At) -> dict[str, object]:
    own = at.process.own
    return {"own": put(own, at.thread.pattern, max(own[at.thread.pattern], at.thread.version))}


@local
def pend(at: At) -> Outcomes:
    """It holds here until it can be appended."""
    if at.process.locked:
        return ()
    return changed(at, pended(at.process.view, (at.thread.pattern,), "own"))


@local
def pend_too(at: At) -> Outcomes:
    return pend(at)


@rule
def tell_volatile(at: At) -> Outcomes:
    return (at.then(world=_notice(at, 0, 0)),)


@rule
def returns_volatile(at: At) -> Outcomes:
    """Not durable: it is promised to this process alone, and to the nodes that have applied it."""
    return (at.only(process=_own(at)),)
