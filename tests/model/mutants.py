"""The model with one of its rules changed, to show that it would see the hole: each breaks a promise within the named
configuration.

The first group are the twins of `tests/coherence/mutants.py`, under the same names. Where one is also a hole of an earlier
version
(docs/coherence.md, "Faults of earlier versions"), its letter stands there.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from model import log, node, reading, view, writing
from model.log import newer
from model.state import NEVER, Bus, Flight, Log, News, Notice, Numbers, Page, Process, Server, Slot, View
from model.stepping import At, AtNode, Model, Outcomes, local, put, rule


class Mutant(msgspec.Struct, frozen=True):
    """`config`: the configuration within which a promise breaks. `hole`: its letter among the faults of earlier versions."""

    about: str
    config: str
    rules: Mapping[str, Callable[..., Any]]
    twin: bool = False
    hole: str = ""


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(config: str, *, twin: bool = False, hole: str = "") -> Callable[[Callable[[], dict[str, Any]]], None]:
    """Enter what the function returns, the changed rules by name, under its own name and docstring."""

    def enter(function: Callable[[], dict[str, Any]]) -> None:
        about = " ".join((function.__doc__ or "").split())
        MUTANTS[function.__name__] = Mutant(about, config, function(), twin, hole)

    return enter


# -- the code's mutants


@mutant("tiers", twin=True)
def no_lease() -> dict[str, Any]:
    """L1 serves its entries until it hears of an invalidation."""
    return {"leased": lambda _: True}


@mutant("tiers", twin=True)
def no_validation() -> dict[str, Any]:
    """A tier's entries are served without being judged."""
    return {"valid": lambda *_: True}


@mutant("threads", twin=True)
def as_of_after_the_computation() -> dict[str, Any]:
    """An entry counts as new as the moment at which it was stored."""

    def mark(at: At) -> Outcomes:
        view = at.process.view
        now = (view.epoch, view.seq, view.revision) if "write" in at.thread.steps else at.thread.as_of
        return (at.then(generation=view.generation, as_of=now),)

    return {"mark": mark}


@mutant("joins", twin=True)
def joined_unjudged() -> dict[str, Any]:
    """The flight of a key is joined, whatever was invalidated since it began."""
    return {"joinable": lambda *_: True, "outcome_valid": lambda _: True}


@mutant("records", twin=True)
def skipped_record() -> dict[str, Any]:
    """A record that a process reads from the log is lost; the number is taken as seen."""

    def page_of(_: Model, log: Log, records: Numbers, after: int, *, restart: bool) -> Page:
        floor = max(log.floor, after) if restart else log.floor
        return Page(log.epoch, log.seq, floor, 0 if restart else after, (0,) * len(records), restart)

    return {"page_of": page_of}


@mutant("records", twin=True)
def deps_ignored() -> dict[str, Any]:
    """An entry is judged by its own key alone."""
    return {"valid": lambda model, *given: view.valid(model, *given[:-1], given[-1][:1])}


@mutant("node", twin=True)
def bus_never_followed() -> dict[str, Any]:
    """A child takes the node's word that all is confirmed, and never looks what there was."""
    return {"follows": lambda _: True}


@mutant("beginnings", twin=True)
def epoch_ignored() -> dict[str, Any]:
    """A log that begins anew is taken for the one before."""

    def valid(model: Model, known: View, _: int, seq: int, generation: int, deps: Numbers) -> bool:
        return view.valid(model, known, known.epoch, min(seq, known.seq), generation, deps)

    return {"valid": valid}


@mutant("records", twin=True)
def floor_ignored() -> dict[str, Any]:
    """An entry that is older than the log remembers is judged by the records that remain."""

    def valid(model: Model, known: View, epoch: int, seq: int, generation: int, deps: Numbers) -> bool:
        return view.valid(model, known, epoch, max(seq, known.floor), generation, deps)

    return {"valid": valid}


@mutant("away", twin=True)
def pending_ignored() -> dict[str, Any]:
    """What could not be appended is not remembered."""
    return {"pend": lambda at: (at.then(),), "hear": lambda at: (at.then(),)}


@rule
def begin_log(at: At) -> Outcomes:
    """The second step of a reader that found no log: it begins one, or takes the one that has begun for one without records."""
    server, epochs = at.server, at.state.epochs
    if not at.model.standing(at.model, server):
        server, epochs = at.model.begun(at.model, server, epochs)
    page = Page(server.log.epoch, server.log.seq, 0, 0, (0,) * at.model.config.patterns, True)
    asked = at.now if at.thread.asked == NEVER else at.thread.asked
    return (at.then(page=page, asked=asked, contact=server.contact, world={"server": server, "epochs": epochs}),)


@mutant("beginners", twin=True, hole="a")
def log_begun_in_two_steps() -> dict[str, Any]:
    """A reader that finds no log asks to begin one, and takes a log that has begun by then for one without records."""

    def read_log(at: At) -> Outcomes:
        if at.reachable and not at.model.standing(at.model, at.server):
            asked = at.now if at.thread.asked == NEVER else at.thread.asked
            return (at.then("begin_log", asked=asked, process=at.contacted),)
        return reading.read_log(at)

    return {"read_log": read_log}


@mutant("threads", twin=True, hole="b")
def confirmed_before_it_is_known() -> dict[str, Any]:
    """The lease is granted first, and then the records that it vouches for are taken in."""

    def publication(_: Model, *, changes: bool, confirms: bool) -> tuple[str, ...]:
        return ("publish_confirmed",) * confirms + ("publish_state", "publish_generation") * changes

    return {"publication": publication}


@mutant("succession", twin=True, hole="c")
def history_ignored() -> dict[str, Any]:
    """A log that lost its newest records goes on, with the numbers that these had."""
    return {"standing": lambda _, server: server.log.epoch != 0}


@rule
def judge_pending(at: At) -> Outcomes:
    """The second half of a judgement in two steps."""
    slot = at.thread.slot
    if any(at.process.view.pending[dep] > slot.known for dep in slot.deps):
        return at.model.ask(reading.discarding(at, slot))
    return at.model.serve(reading.marked(at, slot), slot.value, "l1")


@mutant("away-threads", twin=True, hole="d")
def judged_in_two_steps() -> dict[str, Any]:
    """Records known from the log are looked at first, and then the pending ones; an append changes the log's, then the
    pending."""

    def judge(at: At) -> Outcomes:
        slot, zeros = at.thread.slot, (0,) * at.model.config.patterns
        known = replace(at.process.view, pending=zeros)
        if at.model.valid(at.model, known, slot.epoch, slot.seq, slot.known, slot.deps):
            return (at.then("judge_pending"),)
        return at.model.ask(reading.discarding(at, slot))

    return {"judge": judge}


@rule
def serve_by_lease(at: At) -> Outcomes:
    """What was judged is served, if the lease allows it; the bus may bring in more before that."""
    if not at.model.follows(at):
        return at.model.follow(at)
    if at.model.leased(at) and at.process.slots[at.thread.key] is not None:
        return at.model.serve(at, at.process.slots[at.thread.key].value, "l1")
    return at.model.ask(at)


@mutant("node", twin=True, hole="h")
def judged_before_the_lease() -> dict[str, Any]:
    """A slot of L1 is judged first, and then the lease is asked for, which may bring in what the slot was not judged by."""

    def look(at: At) -> Outcomes:
        slot = at.process.slots[at.thread.key]
        if slot is not None and at.model.slot_valid(at, slot):
            return (at.then("serve_by_lease"),)
        return reading.look(at)

    return {"look": look}


@mutant("joins", twin=True, hole="e")
def joined_unasked() -> dict[str, Any]:
    """The flight of a key is joined, if nothing that this process knows is against it; the caller has not read the log."""

    def joinable(at: At, flight: Flight) -> bool:
        return at.model.valid(at.model, at.process.view, *flight.as_of, at.model.config.keys[at.thread.key].deps)

    return {"ask_before_joining": lambda at: (at.then("join_or_lead", needs=NEVER),), "joinable": joinable}


@mutant("chain", twin=True, hole="f")
def deps_of_deps_ignored() -> dict[str, Any]:
    """An entry depends on what it names, and not on what that was computed from."""
    return {"their_deps": lambda at: (at.then(),)}


@mutant("demotion", twin=True, hole="f")
def replica_believed() -> dict[str, Any]:
    """A master that was demoted says what is new in the log."""

    def read_log(at: At) -> Outcomes:
        old = at.state.demoted
        if not at.process.at_old or old is None:
            return reading.read_log(at)
        known = (at.process.view.epoch, at.process.view.seq) if at.process.view.known else (0, 0)
        _, _, page = at.model.read(at.model, old, *known, at.state.epochs)
        return (at.then(page=page, asked=at.now if at.thread.asked == NEVER else at.thread.asked, contact=old.contact),)

    return {"read_log": read_log}


@mutant("chain", twin=True)
def as_of_of_the_last_stage() -> dict[str, Any]:
    """What a value is computed from is read, and then it is noted what is known."""

    def use(at: At) -> Outcomes:
        for after in writing.use(at):
            late = At(at.model, after, at.number, at.index)
            yield late.only("know", "note_late", *late.thread.steps, elapsed=at.state.elapsed)

    return {"use": use}


@local
def note_late(at: At) -> Outcomes:
    known = at.process.view
    return (at.then(as_of=(known.epoch, known.seq, known.revision)),)


# -- what the model has found


@rule
def their_deps_in_the_tiers(at: At) -> Outcomes:
    through = at.model.config.keys[at.thread.key].through
    slot = at.process.slots[through]
    entry = at.server.entries[through] if at.reachable else None
    theirs = slot.deps if slot is not None else entry.deps if entry is not None else ()
    return (at.then(deps=tuple(sorted({*at.thread.deps, *theirs}))),)


@mutant("chain", twin=True, hole="i")
def deps_of_deps_looked_for_afterwards() -> dict[str, Any]:
    """The deps of an entry's deps are looked for in the tiers when it is stored: by then one may be gone, or was never kept
    since it
    was invalidated while it was computed."""
    return {"their_deps": their_deps_in_the_tiers}


@rule
def forget_heard(at: At) -> Outcomes:
    if at.process.locked:
        return ()
    return (at.then(process={"view": view.settled(at.process.view, heard=(0,) * at.model.config.patterns)}),)


@mutant("volatile-settled", twin=True, hole="j")
def settled_by_an_older_look() -> dict[str, Any]:
    """A thread that finds everything appended forgets also what another thread has heard of meanwhile."""

    def settle_heard(at: At) -> Outcomes:
        news = at.thread.news
        settles = news.page is not None and news.settled >= at.process.volatile_seen and any(at.process.view.heard)
        return (at.then(*("forget_heard",) * settles, asked=NEVER),)

    return {"settle_heard": settle_heard}


@mutant("node-broken", twin=True, hole="k")
def broken_off_taken_for_no_news() -> dict[str, Any]:
    """A writer that is broken off leaves an empty bus, which children take for one without news."""

    def left_by_a_writer(model: Model, bus: Bus) -> Bus:
        return replace(node.left_by_a_writer(model, bus), epoch=0)

    return {"left_by_a_writer": left_by_a_writer}


@mutant("chain-threads", hole="m")
def as_of_before_its_generation() -> dict[str, Any]:
    """What is known is noted as soon as it is published, while L1 serves what was judged by less."""
    return {"take_as_of": lambda at: at.model.taken_as_of(at)}


def _unconfirming(_: Model, known: View, page: Page, asked: int) -> tuple[View, bool, bool]:
    after, confirms, whole = view.taken(_, known, page, asked)
    late = page.restart and known.known and page.epoch == known.epoch and page.seq < known.seq
    return (known, False, True) if late else (after, confirms, whole)


def _covers_by_the_tail(at: At) -> Outcomes:
    known, tail = at.process.view, at.thread.tail
    if tail is None or (tail[0] == known.epoch and tail[1] <= known.seq):
        return (at.then(tail=None),)
    return at.model.miss(at)


@mutant("loading", hole="l")
def judged_by_an_unconfirmed_view() -> dict[str, Any]:
    """An older page of the log that the view is of confirms nothing, and a read is judged by any view that covers its tail."""
    return {"taken": _unconfirming, "covers": _covers_by_the_tail}


# -- others


@mutant("records")
def deps_not_kept() -> dict[str, Any]:
    """An entry goes to L2 without its deps."""

    def write(at: At) -> Outcomes:
        bare = At(at.model, at.only(*at.thread.steps, deps=at.thread.deps[:1]), at.number, at.index)
        return writing.write(bare)

    return {"write": write}


@mutant("records")
def floor_not_raised() -> dict[str, Any]:
    """A page that lacks records says nothing of it."""

    def page_of(_: Model, log: Log, records: Numbers, after: int, *, restart: bool) -> Page:
        return Page(log.epoch, log.seq, log.floor, 0 if restart else after, records, restart)

    return {"page_of": page_of}


@mutant("records")
def trim_unnoticed() -> dict[str, Any]:
    """Old records go, and the floor stays."""

    def append(model: Model, server: Server, patterns: Numbers, epochs: int, *, trims: bool = False) -> tuple[Server, int]:
        before, epochs = log.append(model, server, patterns, epochs)
        if not trims:
            return before, epochs
        records = newer(before.log.records, before.log.seq - len(patterns))
        return replace(before, log=replace(before.log, records=records)), epochs

    return {"append": append}


@mutant("records")
def eviction_unnoticed() -> dict[str, Any]:
    """After an eviction of the records the next one is taken for all that there are."""

    def append(model: Model, server: Server, patterns: Numbers, epochs: int, *, trims: bool = False) -> tuple[Server, int]:
        lost = server.log.whole == NEVER and server.log.epoch != 0
        after, epochs = log.append(model, server, patterns, epochs, trims=trims)
        return (replace(after, log=replace(after.log, whole=0)) if lost else after), epochs

    return {"append": append}


@mutant("beginnings")
def epoch_kept() -> dict[str, Any]:
    """A log that begins anew has the epoch of the one before."""

    def begun(model: Model, server: Server, epochs: int) -> tuple[Server, int]:
        after, _ = log.begun(model, server, epochs)
        return replace(after, log=replace(after.log, epoch=1)), epochs

    return {"begun": begun}


@mutant("succession")
def new_connection_trusted() -> dict[str, Any]:
    """After a new connection an equal tail is taken for the same log."""
    return {"same_server": lambda _: True}


@mutant("beginnings")
def confirmed_by_the_seq_alone() -> dict[str, Any]:
    """A tail with the view's number confirms it, whatever its epoch."""

    def catch_up(at: At) -> Outcomes:
        known, tail = at.process.view, at.thread.tail
        if known.known and tail is not None and tail[1] == known.seq:
            return (at.then(process={"view": replace(known, confirmed=max(known.confirmed, at.thread.asked))}, tail=None),)
        return reading.catch_up(at)

    return {"catch_up": catch_up}


@mutant("tiers")
def confirmed_by_the_answer() -> dict[str, Any]:
    """The moment of a confirmation is that of the answer's arrival, and the log stood there before."""

    def catch_up(at: At) -> Outcomes:
        late = At(at.model, at.only(*at.thread.steps, asked=at.now), at.number, at.index)
        return reading.catch_up(late)

    return {"catch_up": catch_up, "get_tail": lambda at: _unmerged(reading.get_tail(at), at)}


def _unmerged(outcomes: Outcomes, at: At) -> Outcomes:
    """The answer is on its way for a while."""
    for after in outcomes:
        yield At(at.model, after, at.number, at.index).only("arrives", *after.processes[at.number].threads[at.index].steps)


@rule
def arrives(at: At) -> Outcomes:
    return (at.then(),)


@mutant("threads")
def generation_before_the_state() -> dict[str, Any]:
    """The generation is published first, and then what it is of."""

    def publication(_: Model, *, changes: bool, confirms: bool) -> tuple[str, ...]:
        return ("publish_next_generation", "publish_state") * changes + ("publish_confirmed",) * confirms

    return {"publication": publication}


@local
def publish_next_generation(at: At) -> Outcomes:
    known = at.process.view
    return (at.then(process={"view": replace(known, generation=known.revision + 1)}),)


@mutant("threads")
def generation_after_the_judgement() -> dict[str, Any]:
    """A fill judges, and then reads the generation that it has judged by."""

    def keep(at: At) -> Outcomes:
        thread = at.thread
        epoch, seq, known = thread.as_of
        if not at.model.valid(at.model, at.process.view, epoch, seq, known, thread.deps):
            return at.model.discarded(at)
        return (at.then("put_marked"),)

    return {"keep": keep, "mark": lambda at: (at.then(),)}


@local
def put_marked(at: At) -> Outcomes:
    generation = at.process.view.generation
    epoch, seq, _ = at.thread.as_of
    slot = Slot(epoch, seq, generation, at.thread.deps, at.thread.value, generation)
    return (at.then(process={"slots": put(at.process.slots, at.thread.key, slot)}),)


@mutant("threads-broken")
def generation_left_behind() -> dict[str, Any]:
    """A writer that finds that another was broken off goes on from there, and leaves its generation unpublished."""

    def publication(_: Model, *, changes: bool, confirms: bool) -> tuple[str, ...]:
        return ("publish_state", "publish_confirmed", "publish_generation") if changes else ("publish_confirmed",) * confirms

    return {"publication": publication}


@mutant("records-own")
def own_record_alone() -> dict[str, Any]:
    """A process takes its own record in, whatever others have appended before it."""

    def learn(at: At) -> Outcomes:
        known, tail = at.process.view, at.thread.tail
        if not at.process.locked and tail is not None and known.epoch == tail[0] and known.known:
            records = put((0,) * len(known.records), at.thread.pattern, tail[1])
            page = Page(*tail, 0, known.seq, records, False)
            return (at.then("apply", page=page, tail=None, floor=0),)
        return writing.learn(at)

    return {"learn": learn}


@mutant("node-two")
def notice_after_a_gap() -> dict[str, Any]:
    """A notice is applied although others before it have not come."""

    def receive(at: AtNode, notice: Notice) -> Outcomes:
        bus = at.node.bus
        if notice.epoch and notice.epoch == bus.epoch and notice.seq > bus.seq:
            records = put((0,) * at.model.config.patterns, notice.pattern, notice.seq)
            page = Page(bus.epoch, notice.seq, bus.floor, bus.seq, records, False)
            return (at.only("bus_begin", "bus_end", "applied", page=page, pattern=notice.pattern, version=notice.version),)
        return node.receive(at, notice)

    return {"receive": receive}


@mutant("node-two")
def ring_overflow_unnoticed() -> dict[str, Any]:
    """A child that fell behind the ring takes what is left of it for all."""

    def news(model: Model, bus: Bus, process: Process) -> News:
        return reading.news(model, replace(bus, base=0), process)

    return {"news": news}


@mutant("node")
def bus_confirmed_first() -> dict[str, Any]:
    """The bus's moment is written before its records, and readers see it."""

    def bus_begin(at: AtNode) -> Outcomes:
        bus = at.node.bus
        after = at.model.on_bus(at.model, bus, at.thread.page, at.thread.asked)
        if after == bus or not bus.epoch:
            return node.bus_begin(at)
        return (at.then(node={"bus": replace(bus, confirmed=after.confirmed)}),)

    return {"bus_begin": bus_begin}


@mutant("volatile")
def settled_before_it_is_known() -> dict[str, Any]:
    """The children are told that the log has it, and then the bus gets it from the log."""

    def begin_beat(at: AtNode) -> Outcomes:
        if not any(at.node.pending):
            return node.begin_beat(at)
        begun = at.only("node_append", "settle_begin", "settle_end", "node_read", "bus_begin", "bus_end", "beat", "?node_idle")
        return at.model.node_append(AtNode(at.model, begun, at.number, at.index))

    return {"begin_beat": begin_beat}


@mutant("volatile")
def heard_and_not_passed_on() -> dict[str, Any]:
    """The main process keeps for itself what it hears while the log is out of reach."""

    def volatile_end(at: AtNode) -> Outcomes:
        told = put(at.node.told, at.thread.pattern, at.thread.version)
        return (at.then(node={"bus": replace(at.node.bus, busy=False), "told": told}),)

    return {"volatile_end": volatile_end}


@mutant("away-threads")
def read_as_if_new() -> dict[str, Any]:
    """What comes from L2 counts as newer than what is pending here, and is read before that is appended."""

    def ask(at: At) -> Outcomes:
        return tuple(
            At(at.model, after, at.number, at.index).only(*after.processes[at.number].threads[at.index].steps[-len(reading.L2) :])
            for after in reading.ask(at)
        )

    return {"generation_of_reads": lambda _, known: known.revision, "ask": ask}


@mutant("away-threads")
def settled_before_it_is_read() -> dict[str, Any]:
    """What was pending is forgotten as soon as it is appended, and then read from the log."""

    def append_own(at: At) -> Outcomes:
        if not any(at.process.view.own) or not at.reachable:
            return reading.append_own(at)
        steps = tuple(step for step in at.thread.steps if step not in ("append_own", "settle_own"))
        return tuple(At(at.model, after, at.number, at.index).only("settle_own", *steps) for after in reading.append_own(at))

    return {"append_own": append_own, "may_settle": lambda *_: True}


@mutant("away")
def unconfirmed_served() -> dict[str, Any]:
    """A strict cache serves from L1 while the server is away."""

    def degraded(at: At) -> Outcomes:
        slot = at.process.slots[at.thread.key]
        return at.model.miss(at) if slot is None else at.model.serve(at, slot.value, "degraded")

    return {"degraded": degraded}


@mutant("stale")
def stale_unjudged() -> dict[str, Any]:
    """An entry past its time to live is served whatever was invalidated."""
    return {"entry_valid": lambda at, entry: at.thread.stale or reading.entry_valid(at, entry)}


@mutant("leases")
def lease_not_compared_at_release() -> dict[str, Any]:
    """An owner that was held up gives back the lease of the next one."""
    return {"gives_back": lambda _, __: True}


@mutant("tiers")
def l1_after_l2_unjudged() -> dict[str, Any]:
    """After a look into L2 a slot of L1 is served as it was judged before."""

    def look_again(at: At) -> Outcomes:
        slot = at.process.slots[at.thread.key]
        return reading.look_again(at) if slot is None else at.model.serve(at, slot.value, "l1 after l2")

    return {"look_again": look_again}
