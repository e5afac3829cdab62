"""A read: `Tiers.lookup`. L1 by the lease and one comparison, else L2 in its separate round trips, each confirming the view."""

from __future__ import annotations

from msgspec.structs import replace

from model.promises import broken, due
from model.state import NEVER, Bus, Entry, News, Numbers, Process, Slot
from model.stepping import At, Model, Outcomes, local, put, rule
from model.view import changed, finished, pended, published, settled

L2 = ("get_entry", "get_tail", "catch_up", "look_again", "promote", "?degraded")


@rule
def begin_read(at: At, key: int) -> Outcomes:
    """The read begins: what it must not fall short of is settled. Then it looks into L1."""
    deps = at.model.config.keys[key].all
    begun = at.only("look", key=key, elapsed=at.state.elapsed, **due(at.state, at.process, deps))
    return at.model.look(At(at.model, begun, at.number, at.index))


@local
def look(at: At) -> Outcomes:
    """L1, if the lease allows it. It may have run out at any moment."""
    if not at.model.follows(at):
        return at.model.follow(at)
    beyond = at.model.ask(at)
    if not at.model.leased(at):
        return beyond
    slot = at.process.slots[at.thread.key]
    if slot is None:
        return beyond
    if slot.generation == at.process.view.generation:
        return (*beyond, *at.model.serve(at, slot.value, "l1"))
    return (*beyond, at.then("judge", slot=slot, generation=at.process.view.generation))


@rule
def leased(at: At) -> bool:
    """Less than the bound has passed since the confirmation, by the clock at the beginning of the read."""
    return at.process.view.confirmed >= at.thread.elapsed


@rule
def ask(at: At) -> Outcomes:
    """On to L2; what is pending is appended first."""
    first = ("append_own", "read_log", "apply", "settle_own") if any(at.process.view.own) else ()
    rest = at.thread.steps[at.thread.steps.index("use") :] if at.thread.nested else ()
    return (at.only(*first, *L2, *rest, slot=None, generation=0, news=None, outdated=False, asked=NEVER, must_l1=(), elapsed=0),)


@rule
def unled(at: At) -> Outcomes:
    """The bus cannot tell what is new: the server is asked."""
    return at.model.refresh(at) if "know" in at.thread.steps else at.model.ask(at)


@local
def judge(at: At) -> Outcomes:
    """A slot that was judged by less than is known now. The generation was read before."""
    slot = at.thread.slot
    if at.model.slot_valid(at, slot):
        return at.model.serve(marked(at, slot), slot.value, "l1")
    return at.model.ask(discarding(at, slot))


@rule
def slot_valid(at: At, slot: Slot) -> bool:
    return at.model.valid(at.model, at.process.view, slot.epoch, slot.seq, slot.known, slot.deps)


def marked(at: At, slot: Slot) -> At:
    """The slot counts as judged at the generation that the thread has read."""
    if at.process.slots[at.thread.key] != slot:
        return at
    slots = put(at.process.slots, at.thread.key, replace(slot, generation=at.thread.generation))
    return At(at.model, at.only(*at.thread.steps, process={"slots": slots}), at.number, at.index)


def discarding(at: At, slot: Slot) -> At:
    if at.process.slots[at.thread.key] != slot:
        return at
    return At(
        at.model, at.only(*at.thread.steps, process={"slots": put(at.process.slots, at.thread.key, None)}), at.number, at.index
    )


@rule
def serve(at: At, value: Numbers, source: str) -> Outcomes:
    """Here the promises are held against it. A value that is an input of a computation goes there."""
    world = {"broken": broken(at, value, source)}
    if at.thread.nested:
        steps = at.thread.steps[at.thread.steps.index("use") :]
        return (at.only(*steps, value=value, nested=False, world=world, **_NOTHING),)
    return (at.only(world=world),)


@rule
def miss(at: At) -> Outcomes:
    if at.thread.nested:
        steps = at.thread.steps[at.thread.steps.index("use") :]
        return (at.only(*steps, value=(), nested=False, **_NOTHING),)
    return (at.only(),)


_NOTHING = {
    "must": (),
    "must_l1": (),
    "here": (),
    "elapsed": 0,
    "asked": NEVER,
    "generation": 0,
    "slot": None,
    "entry": None,
    "tail": None,
}

# -- L2


@rule
def get_entry(at: At) -> Outcomes:
    """The first half of the round trip. When it is sent, the moment and the generation are noted."""
    if not at.reachable:
        return (at.fails(),)
    generation = at.model.generation_of_reads(at.model, at.process.view)
    entry = at.server.entries[at.thread.key]
    contact = at.server.contact
    return (at.then(entry=entry, asked=at.now, generation=generation, contact=contact, process=at.contacted),)


@rule
def get_tail(at: At) -> Outcomes:
    """The second half. A replica refuses it."""
    if not at.reachable or at.thread.contact != at.server.contact:
        return (at.fails(),)
    log = at.server.log
    return (at.then(tail=(log.epoch, log.seq) if log.epoch else None, contact=0),)


@local
def catch_up(at: At) -> Outcomes:
    """Nothing is new, which confirms the view; else the log is read. After a new connection it always is."""
    if at.process.locked:
        return ()
    view, tail = finished(at.process.view), at.thread.tail
    if at.model.same_server(at) and view.known and tail == (view.epoch, view.seq):
        return (at.then(process={"view": replace(view, confirmed=max(view.confirmed, at.thread.asked))}, tail=None),)
    return (at.then("read_log", "apply", "covers", process={"view": view}),)


@rule
def same_server(at: At) -> bool:
    return at.process.made == at.process.contacts


@rule
def read_log(at: At) -> Outcomes:
    """One script; a page of what the view lacks. The moment is that of the first question."""
    if not at.reachable:
        return (at.fails(),)
    view = at.process.view
    epoch, known = (view.epoch, view.seq) if view.known else (0, 0)
    contact = at.process.made or at.server.contact  # from before: a connection may be made for this reading
    server, epochs, page = at.model.read(at.model, at.server, epoch, known, at.state.epochs)
    asked = at.now if at.thread.asked == NEVER else at.thread.asked
    world = {"server": server, "epochs": epochs}
    return (at.then(page=page, asked=asked, contact=contact, process=at.contacted, world=world),)


@local
def covers(at: At) -> Outcomes:
    """Another thread may have taken the view to another epoch: then it cannot judge what was read. Nor can it without being
    confirmed, since another thread could take it there yet."""
    view, tail = at.process.view, at.thread.tail
    if view.confirmed >= at.thread.asked and (tail is None or (tail[0] == view.epoch and tail[1] <= view.seq)):
        return (at.then(tail=None),)
    return at.model.miss(at)


@local
def look_again(at: At) -> Outcomes:
    """L1 once more, by what the read has taught."""
    slot = at.process.slots[at.thread.key]
    if slot is None:
        return (at.then(asked=NEVER, here=()),)
    generation = at.process.view.generation
    if slot.generation == generation:
        return at.model.serve(at, slot.value, "l1 after l2")
    return (at.then("judge_again", asked=NEVER, here=(), slot=slot, generation=generation),)


@local
def judge_again(at: At) -> Outcomes:
    slot = at.thread.slot
    if at.model.slot_valid(at, slot):
        return at.model.serve(marked(at, slot), slot.value, "l1 after l2")
    at = discarding(at, slot)
    return (at.then(slot=None, generation=0),)


@local
def promote(at: At) -> Outcomes:
    """What L2 had, judged; then kept in L1, if it is fresh."""
    entry = at.thread.entry
    if entry is None or (entry.old and not at.thread.stale) or not at.model.entry_valid(at, entry):
        return at.model.miss(at)
    served = at.model.serve(at, entry.value, "l2")
    if entry.old or at.thread.nested:
        return served
    (state,) = served
    # The promises are judged already: what is left is to keep it.
    return (
        at.only(
            "mark",
            "keep",
            key=at.thread.key,
            as_of=(entry.epoch, entry.seq, at.thread.generation),
            deps=entry.deps,
            value=entry.value,
            world={"broken": state.broken},
        ),
    )


@rule
def entry_valid(at: At, entry: Entry) -> bool:
    return at.model.valid(at.model, at.process.view, entry.epoch, entry.seq, at.thread.generation, entry.deps)


@local
def mark(at: At) -> Outcomes:
    """The generation, before the judgement: what is invalidated in between is found at the next read."""
    return (at.then(generation=at.process.view.generation),)


@local
def keep(at: At) -> Outcomes:
    """Judge, and put into L1. What was computed here goes to L2 then (`write`)."""
    thread = at.thread
    epoch, seq, known = thread.as_of
    if not at.model.valid(at.model, at.process.view, epoch, seq, known, thread.deps):
        return at.model.discarded(at)
    slot = Slot(epoch, seq, thread.generation, thread.deps, thread.value, thread.generation)
    return (at.then(process={"slots": put(at.process.slots, thread.key, slot)}, generation=0),)


@rule
def discarded(at: At) -> Outcomes:
    """A fill that is known to be invalid is kept nowhere."""
    steps = tuple(step for step in at.thread.steps[1:] if step != "write")
    return (at.only(*steps, generation=0),)


@local
def degraded(at: At) -> Outcomes:
    """The server is away. Unless the cache is strict, L1 serves what is not known to be invalid."""
    slot = at.process.slots[at.thread.key]
    if at.model.config.strict or slot is None or not at.model.slot_valid(at, slot):
        return at.model.miss(at)
    return at.model.serve(at, slot.value, "degraded")


# -- the bus


@rule
def follows(at: At) -> bool:
    """Whether the bus has nothing that the view has not."""
    return at.process.node == NEVER or at.process.followed


@rule
def follow(at: At) -> Outcomes:
    """Read the bus, which is one moment's state. While its writer is at work there is none: the server is asked."""
    bus = at.bus
    if bus.busy:
        return at.model.unled(at)
    news = at.model.news(at.model, bus, at.process)
    steps = ("hear", "heard_so_far", "apply_bus", "settle_heard", "followed", *at.thread.steps[:1])
    return (at.then(*(steps if news.volatile else steps[1:]), news=news, outdated=False),)


@rule
def news(model: Model, bus: Bus, process: Process) -> News:
    view, seen = process.view, process.volatile_seen
    page = None
    if bus.epoch and view.known and view.epoch == bus.epoch and view.seq >= bus.base:
        records = [0] * model.config.patterns
        for seq, pattern in bus.ring:
            if seq > view.seq:
                records[pattern] = seq
        page = model.page_of(model, bus, tuple(records), view.seq, restart=False)
    volatile = bus.volatile[seen:]
    return News(page, bus.epoch == 0, volatile, len(bus.volatile), bus.settled, bus.confirmed)


@local
def hear(at: At) -> Outcomes:
    """What another process is to append counts here from now on."""
    if at.process.locked:
        return ()
    return changed(at, pended(at.process.view, at.thread.news.volatile, "heard", count=at.thread.news.count))


@local
def heard_so_far(at: At) -> Outcomes:
    return (at.then(process={"volatile_seen": max(at.process.volatile_seen, at.thread.news.count)}),)


@local
def apply_bus(at: At) -> Outcomes:
    """The bus's page and its moment, if the view stands where the page begins. Else the server is asked."""
    if at.process.locked:
        return ()
    news = at.thread.news
    if news.page is None:
        return (at.then(),) if news.empty else at.model.unled(at)
    view = finished(at.process.view)
    after, confirms, whole = at.model.taken(at.model, view, news.page, news.confirmed)
    if not whole:
        return at.model.unled(at)
    begun = At(at.model, at.only(*at.thread.steps, page=news.page, asked=news.confirmed), at.number, at.index)
    return published(begun, view, at.model.publication(at.model, changes=after != view, confirms=confirms))


@local
def settle_heard(at: At) -> Outcomes:
    """Forget what was heard, if the node's main process has appended all of it; the page has brought it."""
    if at.process.locked:
        return ()
    view, news = at.process.view, at.thread.news
    if news.page is not None and news.settled >= view.heard_until and any(view.heard):
        view = settled(view, heard=(0,) * len(view.heard))
    return (at.then(asked=NEVER, process={"view": view}),)


@local
def followed(at: At) -> Outcomes:
    """The version that was read, which may be an old one by now."""
    process = {} if at.thread.outdated else {"followed": True}
    return (at.then(news=None, outdated=False, process=process),)


# -- what could not be appended


@rule
def append_own(at: At) -> Outcomes:
    """Append what is pending here. Then it is read from the log, and settled if it is known from there."""
    pending = at.process.view.own
    if not any(pending):
        return (at.only(*at.thread.steps[at.thread.steps.index("settle_own") + 1 :]),)
    if not at.reachable:
        return (at.fails(),)
    patterns = tuple(sorted((p for p, since in enumerate(pending) if since), key=lambda p: pending[p]))
    server, epochs = at.model.append(at.model, at.server, patterns, at.state.epochs)
    tail = (server.log.epoch, server.log.seq)
    return (at.then(pending=pending, tail=tail, process=at.contacted, world={"server": server, "epochs": epochs}),)


@local
def settle_own(at: At) -> Outcomes:
    """Forget what was appended, unless it was invalidated once more since."""
    if at.process.locked:
        return ()
    view, tail, appended = at.process.view, at.thread.tail, at.thread.pending
    if at.model.may_settle(at, tail):
        own = tuple(0 if mine == theirs else mine for mine, theirs in zip(view.own, appended, strict=True))
        view = settled(view, own=own)
    return (at.then(process={"view": view}, tail=None, pending=(), asked=NEVER),)


@rule
def may_settle(at: At, tail: tuple[int, int]) -> bool:
    """First known from the log, and then no longer pending."""
    return tail[0] == at.process.view.epoch and tail[1] <= at.process.view.seq
