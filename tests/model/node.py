"""A node's main process, the only writer of its bus: `coherence/node.py` and `coherence/bus.py`."""

from __future__ import annotations

from msgspec.structs import replace

from model.state import NEVER, Bus, Log, Notice, Numbers, Page
from model.stepping import AtNode, Model, Outcomes, put, rule, silent


@rule
def begin_beat(at: AtNode) -> Outcomes:
    """At any time (twice a bound; rarely, while no process reads): append what was heard, ask for the tail, and renew the lease
    for all children."""
    heard = ("node_append", "node_read", "bus_begin", "bus_end", "settle_begin", "settle_end") if any(at.node.pending) else ()
    begun = at.only(*heard, "beat", "?node_idle", asked=NEVER)
    at = AtNode(at.model, begun, at.number, at.index)
    outcomes: Outcomes = getattr(at.model, at.thread.steps[0])(at)
    return outcomes


@silent
def node_idle(at: AtNode) -> Outcomes:
    return (at.only(),)


@rule
def beat(at: AtNode) -> Outcomes:
    """One script: the tail. Where it is the bus's, that confirms the bus; else the log is read."""
    if not at.reachable:
        return (at.fails(),)
    bus, log = at.node.bus, at.server.log
    if bus.epoch and at.model.standing(at.model, at.server) and (log.epoch, log.seq) == (bus.epoch, bus.seq):
        page = at.model.page_of(at.model, bus, (0,) * at.model.config.patterns, bus.seq, restart=False)
        return (at.only("bus_begin", "bus_end", page=page, asked=at.now),)
    return (at.then("node_read", "bus_begin", "bus_end", asked=at.now),)


@rule
def node_read(at: AtNode) -> Outcomes:
    """Read the log from where the bus stands."""
    if not at.reachable:
        return (at.fails(),)
    bus = at.node.bus
    known = (bus.epoch, bus.seq) if bus.epoch else (0, 0)
    server, epochs, page = at.model.read(at.model, at.server, *known, at.state.epochs)
    asked = at.now if at.thread.asked == NEVER else at.thread.asked
    return (at.then(page=page, asked=asked, world={"server": server, "epochs": epochs}),)


@rule
def bus_begin(at: AtNode) -> Outcomes:
    """Nothing, where the page brings nothing; else from now on readers get nothing. One writer at a time."""
    if at.node.bus.busy:
        return ()
    if at.model.on_bus(at.model, at.node.bus, at.thread.page, at.thread.asked) == at.node.bus:
        return (at.only(*at.thread.steps[2:], page=None, asked=NEVER),)
    return (at.then(node={"bus": replace(at.node.bus, busy=True)}),)


@rule
def bus_end(at: AtNode) -> Outcomes:
    bus = at.model.on_bus(at.model, replace(at.node.bus, busy=False), at.thread.page, at.thread.asked)
    return (at.only(*at.thread.steps[1:], page=None, asked=NEVER, node={"bus": bus}),)


@rule
def on_bus(model: Model, bus: Bus, page: Page, asked: int) -> Bus:
    """The bus after this page. A page that came by a notice confirms nothing."""
    if page.restart:
        late = page.seq < bus.seq if page.epoch == bus.epoch else asked < bus.confirmed
        if bus.epoch and late:
            return bus
        return replace(bus, epoch=page.epoch, seq=page.seq, floor=page.floor, base=page.seq, ring=(), confirmed=asked)
    if not bus.epoch or page.epoch != bus.epoch or page.after > bus.seq:
        return bus
    fresh = sorted((seq, pattern) for pattern, seq in enumerate(page.records) if seq > bus.seq)
    ring = (*bus.ring, *fresh)
    lost, ring = ring[: -model.config.ring], ring[-model.config.ring :]
    base = max((seq for seq, _ in lost), default=bus.base)
    seq, floor = max(bus.seq, page.seq), max(bus.floor, page.floor)
    return replace(bus, seq=seq, floor=floor, base=max(base, bus.base), ring=ring, confirmed=max(bus.confirmed, asked))


# -- a notice


@rule
def receive(at: AtNode, notice: Notice) -> Outcomes:
    """It is a hint: applied if it follows the bus, else the log is read."""
    bus = at.node.bus
    told = {"pattern": notice.pattern, "version": notice.version}
    if not notice.epoch:
        if at.node.told[notice.pattern] >= notice.version:
            return ()  # it comes once only: the list would grow without end
        return (at.only("volatile_begin", "volatile_end", "applied", **told),)
    if notice.epoch == bus.epoch and notice.seq <= bus.seq:
        applied = at.model.promised(at, notice.pattern, notice.version)
        return (at.only(node={"applied": applied}),) if applied != at.node.applied else ()
    if notice.epoch == bus.epoch and notice.seq - 1 == bus.seq:
        records = put((0,) * at.model.config.patterns, notice.pattern, notice.seq)
        log = Log(bus.epoch, 0, notice.seq, bus.floor)
        page = at.model.page_of(at.model, log, records, bus.seq, restart=False)
        return (at.only("bus_begin", "bus_end", "applied", page=page, **told),)
    return (at.only("node_read", "bus_begin", "bus_end", "applied", "?volatile_begin", "volatile_end", "applied", **told),)


@silent
def applied(at: AtNode) -> Outcomes:
    """`receive` returns: from now on no child serves what it means."""
    return (at.only(node={"applied": at.model.promised(at, at.thread.pattern, at.thread.version)}),)


@rule
def promised(at: AtNode, pattern: int, version: int) -> Numbers:
    """Unless all promise it by now."""
    done = at.state.returned[: at.state.elapsed]
    if any(source == pattern and version <= known for source, known in done):
        return at.node.applied
    return put(at.node.applied, pattern, max(at.node.applied[pattern], version))


@rule
def volatile_begin(at: AtNode) -> Outcomes:
    if at.node.bus.busy:
        return ()
    return (at.then(node={"bus": replace(at.node.bus, busy=True)}),)


@rule
def volatile_end(at: AtNode) -> Outcomes:
    """Its maker may be gone when the server is back: the main process is to append it."""
    bus = at.node.bus
    bus = replace(bus, busy=False, volatile=(*bus.volatile, at.thread.pattern))
    pending = put(at.node.pending, at.thread.pattern, len(bus.volatile))
    told = put(at.node.told, at.thread.pattern, at.thread.version)
    return (at.then(node={"bus": bus, "pending": pending, "told": told}),)


@rule
def node_append(at: AtNode) -> Outcomes:
    if not at.reachable:
        return (at.fails(),)
    pending = at.node.pending
    patterns = tuple(sorted((p for p, count in enumerate(pending) if count), key=lambda p: pending[p]))
    server, epochs = at.model.append(at.model, at.server, patterns, at.state.epochs)
    return (at.then(pending=pending, world={"server": server, "epochs": epochs}),)


@rule
def settle_begin(at: AtNode) -> Outcomes:
    """The children are told after the log has brought it to the bus."""
    if at.node.bus.busy:
        return ()
    return (at.then(node={"bus": replace(at.node.bus, busy=True)}),)


@rule
def settle_end(at: AtNode) -> Outcomes:
    bus, appended = at.node.bus, at.thread.pending
    bus = replace(bus, busy=False, settled=max(bus.settled, *appended))
    pending = tuple(0 if mine == theirs else mine for mine, theirs in zip(at.node.pending, appended, strict=True))
    return (at.then(pending=(), asked=NEVER, node={"bus": bus, "pending": pending}),)


@rule
def left_by_a_writer(_: Model, bus: Bus) -> Bus:
    """What a writer leaves that is broken off: of no log's epoch, unless it was empty. Readers ask the server."""
    epoch = NEVER if bus.epoch else 0
    return replace(bus, busy=False, epoch=epoch, seq=0, floor=0, base=0, ring=(), confirmed=NEVER)
