"""One computation a key: `flight/single.py` among threads, `flight/leases.py` and `claims.py` in the fleet; and reads past the
time to
live."""

from __future__ import annotations

from msgspec.structs import replace

from model.promises import due
from model.reading import L2
from model.state import NEVER, Claim, Flight, State, Thread
from model.stepping import At, Outcomes, local, put, rule

LEAD = ("take", "get_entry", "get_tail", "catch_up", "probe", "decide", "?lead_alone")
COMPUTE = ("know", "take_as_of", "mark", "keep", "write", "give_back", "land")


@rule
def begin_stale(at: At, key: int) -> Outcomes:
    """A read for which an entry past its time to live will do. L1 has none."""
    promised = due(at.state, at.process, at.model.config.keys[key].all)
    return (at.only(*L2, key=key, stale=True, **promised | {"must_l1": ()}),)


@rule
def begin_fetch(at: At, key: int) -> Outcomes:
    """A caller that has not looked into L2 (`least_s`, a refused `accept`): nothing else has asked the log for it."""
    promised = due(at.state, at.process, at.model.config.keys[key].all)
    begun = at.only("board", key=key, elapsed=0, asked=at.now, token=_unused(at.state), **promised | {"must_l1": (), "here": ()})
    return (begun,)


def _unused(state: State) -> int:
    used = {thread.token for process in state.processes for thread in process.threads}
    for server in (state.server, state.copy):
        used |= {claim.owner for claim in server.claims if claim is not None} if server is not None else set()
    return next(token for token in range(1, 99) if token not in used)


@local
def board(at: At) -> Outcomes:
    """Lead a flight, or see whether the one that is there may be joined: by the log, read since the caller asked."""
    view, key = at.process.view, at.thread.key
    knows = (view.epoch, view.seq, view.revision)
    flight = at.process.flights[key]
    if flight is None:
        flights = put(at.process.flights, key, Flight(at.thread.token, knows))
        return (at.only(*LEAD, as_of=knows, asked=NEVER, process={"flights": flights}),)
    begun = at.only("join_or_lead", as_of=flight.as_of, joins=flight.token)
    return at.model.ask_before_joining(At(at.model, begun, at.number, at.index))


@rule
def ask_before_joining(at: At) -> Outcomes:
    if at.process.view.confirmed <= at.thread.asked:
        return (at.then("read_log", "apply", "?go_on", "join_or_lead", needs=at.thread.asked, asked=NEVER),)
    return (at.then("join_or_lead", needs=at.thread.asked),)


@local
def join_or_lead(at: At) -> Outcomes:
    flight = at.process.flights[at.thread.key]
    if flight is None or flight.token != at.thread.joins:
        return (at.only("board", as_of=(), joins=0, asked=max(at.thread.needs, 0), needs=NEVER),)
    if at.model.joinable(at, flight):
        return (at.only("wait", as_of=(), asked=max(at.thread.needs, 0), needs=NEVER),)
    view = at.process.view
    knows = (view.epoch, view.seq, view.revision)
    flights = put(at.process.flights, at.thread.key, Flight(at.thread.token, knows))
    return (at.only(*LEAD, as_of=knows, joins=0, asked=NEVER, needs=NEVER, process={"flights": flights}),)


@rule
def joinable(at: At, flight: Flight) -> bool:
    """No invalidation that returned before the caller asked voids the outcome."""
    if at.process.view.confirmed < at.thread.needs:
        return False
    return at.model.valid(at.model, at.process.view, *flight.as_of, at.model.config.keys[at.thread.key].deps)


@rule
def wait(_: At) -> Outcomes:
    """`land` wakes it."""
    return ()


@local
def woken(at: At) -> Outcomes:
    """The outcome, judged once more; without one it tries again."""
    if at.thread.value and at.model.outcome_valid(at):
        return at.model.serve(at, at.thread.value, "joined")
    return (at.only("board", value=(), deps=(), as_of=(), joins=0),)


@rule
def outcome_valid(at: At) -> bool:
    return at.model.valid(at.model, at.process.view, *at.thread.as_of, at.thread.deps)


@local
def land(at: At) -> Outcomes:
    """The flight ends, and whoever waits for it has its outcome."""
    return (landed(at.only(), at.number, at.thread),)


def landed(state: State, number: int, thread: Thread) -> State:
    """The process after that thread's flight has ended."""
    process = state.processes[number]
    flights = tuple(None if flight is not None and flight.token == thread.token else flight for flight in process.flights)
    threads = tuple(
        replace(other, steps=("woken",), value=thread.value, deps=thread.deps, as_of=thread.as_of or (0, 0, 0))
        if other.steps == ("wait",) and other.joins == thread.token
        else other
        for other in process.threads
    )
    return replace(state, processes=put(state.processes, number, replace(process, flights=flights, threads=threads)))


# -- in the fleet


@rule
def take(at: At) -> Outcomes:
    """`SET NX`, and `GET` of the claim; the entry and the tail come after it."""
    if not at.reachable:
        return (at.fails(),)
    held = at.server.claims[at.thread.key]
    if held is None:
        epoch, seq, _ = at.thread.as_of
        held = Claim(at.thread.token, epoch, seq)
        server = replace(at.server, claims=put(at.server.claims, at.thread.key, held))
        return (at.then(claim=held, process=at.contacted, world={"server": server}),)
    return (at.then(claim=held, process=at.contacted),)


@local
def probe(at: At) -> Outcomes:
    """The entry that came with the claim will do, if it is valid: its owner writes it before it lets go."""
    entry = at.thread.entry
    if entry is None or entry.old or not at.model.entry_valid(at, entry):
        return (at.then(entry=None, generation=0),)
    (judged,) = at.model.serve(at, entry.value, "l2")
    mine = at.thread.claim is not None and at.thread.claim.owner == at.thread.token
    steps = ("give_back", "land") if mine else ("land",)
    as_of = (entry.epoch, entry.seq, 0)
    return (
        at.only(
            *steps,
            entry=None,
            must=(),
            asked=NEVER,
            value=entry.value,
            deps=entry.deps,
            as_of=as_of,
            world={"broken": judged.broken},
        ),
    )


@rule
def decide(at: At) -> Outcomes:
    """Compute by the lease; or take it over from an owner that knew too little; or wait, and ask again."""
    view, claim = at.process.view, at.thread.claim
    assert claim is not None
    useful = claim.owner and at.model.valid(at.model, view, claim.epoch, claim.seq, 0, at.model.config.keys[at.thread.key].deps)
    if useful and claim.owner == at.thread.token:
        return (at.only(*COMPUTE, claim=None, as_of=(), asked=NEVER, elapsed=at.state.elapsed),)
    again = (view.epoch, view.seq, view.revision)
    if useful:
        return (at.only("told", "still_there", "probe", *LEAD, claim=None, as_of=again, asked=NEVER),)
    return (at.only("take_over", *LEAD, as_of=again, asked=NEVER),)


@rule
def told(at: At) -> Outcomes:
    """An owner that is done tells those that wait: the entry, and where the log stood. Or nothing is told in time."""
    log = at.server.log
    nothing = at.only(*LEAD)
    entry = at.server.entries[at.thread.key]
    if not at.reachable or entry is None or not log.epoch:
        return (nothing,)
    generation = at.model.generation_of_reads(at.model, at.process.view)
    return (nothing, at.then(entry=entry, tail=(log.epoch, log.seq), generation=generation))


@local
def still_there(at: At) -> Outcomes:
    """By what the look before has read of the log. If the log has gone on since, there is another look."""
    view, tail = at.process.view, at.thread.tail
    assert tail is not None
    if tail[0] != view.epoch or tail[1] > view.seq:
        return (at.only(*LEAD, entry=None, tail=None, generation=0),)
    return (at.then(tail=None),)


@rule
def take_over(at: At) -> Outcomes:
    """Of several callers one succeeds."""
    if not at.reachable:
        return (at.fails(),)
    claim, held = at.thread.claim, at.server.claims[at.thread.key]
    assert claim is not None
    if held is None or held.owner != claim.owner:
        return (at.then(claim=None),)
    epoch, seq, _ = at.thread.as_of
    claims = put(at.server.claims, at.thread.key, Claim(at.thread.token, epoch, seq))
    return (
        at.only(*COMPUTE, claim=None, as_of=(), elapsed=at.state.elapsed, world={"server": replace(at.server, claims=claims)}),
    )


@local
def lead_alone(at: At) -> Outcomes:
    """Without the server each process computes for itself."""
    return (at.only(*COMPUTE, claim=None, tail=None, entry=None, as_of=(), asked=NEVER, elapsed=at.state.elapsed),)


@rule
def give_back(at: At) -> Outcomes:
    """After the entry was written."""
    held = at.server.claims[at.thread.key]
    if not at.reachable or held is None or not at.model.gives_back(at, held):
        return (at.then(),)
    server = replace(at.server, claims=put(at.server.claims, at.thread.key, None))
    others = held.owner != at.thread.token
    broken = "one computation a key: a claim is ended by a thread that does not own it" if others else at.state.broken
    return (at.then(world={"server": server, "broken": broken}),)


@rule
def gives_back(at: At, held: Claim) -> bool:
    return held.owner == at.thread.token
