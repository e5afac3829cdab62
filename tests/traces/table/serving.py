"""The rows of the entries and claims: what is served, kept and computed."""

from __future__ import annotations

from bisect import bisect_left

from model import state as of_model

from traces import events
from traces.standing import MODEL, Process, Standing, Thread, View, at_view
from traces.table.rows import CLOCK_NS, ns, row, told_entry, told_states

# -- what is served


@row("served from L1", "look", "leased", "follows", "serve", "begin_read", "look_again", "degraded")
def served_from_l1(at: Process, view: View, event: events.Served, thread: Thread) -> str:
    """By the lease: less than the bound has passed since a confirmation; the view had followed the bus as it was when the read
    began; and by a state since then the entry is valid, and all known that had been appended a bound before. After a look at L2:
    by a state that knows all that had been appended when the read began."""
    asked = thread.tail is not None and thread.tail.began >= event.began and not thread.tail.failed
    if event.degraded:
        if view.strict:
            return "a strict cache serves nothing that it could not confirm"
        due, first = 0.0, 0
    elif asked:
        due, first = event.began, 0
    else:
        lease = at_view(of_model.View(confirmed=ns(view.moment)), elapsed=event.began - view.bound - CLOCK_NS)  # type: ignore[arg-type]
        if not MODEL.leased(lease):
            return f"the lease had run out {(event.began - ns(view.moment) - view.bound) / 1e6:.3f} ms before"
        due, first = event.began - view.bound - CLOCK_NS, 0
        if event.bus_since >= 0:
            version = event.bus_since & ~1
            place = bisect_left(view.followed, (version, 0))
            if place == len(view.followed):
                return f"the bus was at version {version}, and the view has not followed it"
            first = view.followed[place][1]
            if thread.followed[0] >= event.began:
                first = max(first, thread.followed[1])  # first the lease, then the judgement
    return by_a_state(at, view, event, due, first)


def by_a_state(at: Process, view: View, event: events.Served, due: float, first: int = 0) -> str:
    """The entry is valid by a state which knows all that had been appended by then."""
    states = list(view.between(event.since, event.until, first))
    knowing = [state for state in states if at.truth.returned(state.epoch, due) <= state.seq]
    if any(at.valid(state, event) for state in knowing):
        return ""
    if any(at.valid(state, event) for state in states):
        newest = max(at.truth.returned(state.epoch, due) for state in states)
        return f"{told_entry(event)} is valid only by a state that lacks {newest}, which had been appended by then"
    return f"{told_entry(event)} is not valid by {told_states(at, view, event)}"


@row("served from L2", "get_entry", "covers", "serve", "promote", "begin_stale", "catch_up", "ask", "generation_of_reads")
def served_from_l2(at: Process, view: View, event: events.Served, thread: Thread) -> str:
    """An entry from L2 was written so by a process, and is valid by a state that knows all that had been appended when it was
    asked for."""
    if (event.key, event.epoch, event.seq, event.deps) not in at.truth.written:
        return f"no process has written {told_entry(event)}"
    if thread.tail is None:
        return "the log's tail was not read with it"
    state = view.by_generation.get(event.generation)
    if event.generation and (state is None or as_of_reads(state) != event.generation):
        return f"it counts as newer than what was pending, by generation {event.generation}"
    began = thread.tail.began if event.by == "promote" else event.began
    return by_a_state(at, view, event, began)


def as_of_reads(state: Standing) -> int:
    """The generation by which the model judges what is read from L2 in this state."""
    pending = (state.generation,) if state.era is not None else (0,)
    return int(MODEL.generation_of_reads(MODEL, of_model.View(pending=pending, revision=state.generation)))


@row("joined", "board", "joinable", "ask_before_joining", "join_or_lead", "woken", "outcome_valid", "begin_fetch", "land")
def joined(at: Process, view: View, event: events.Served, thread: Thread) -> str:
    """Another's outcome was judged, by a state that knows all that had been appended when the caller asked; or, with the server
    away, by what is known."""
    if event.seq < 0 and not event.epoch:
        return "it was not judged"
    away = not view.strict and thread.failed >= event.began - CLOCK_NS
    return by_a_state(at, view, event, 0 if away else event.began - CLOCK_NS)


# -- what is kept


@row("filled", "begin_compute", "take_as_of", "input", "use", "their_deps", "keep", "mark", "discarded")
def filled(at: Process, view: View, event: events.Filled, thread: Thread) -> str:
    """A value is judged by what was known before its first input was read, and has the deps of all its inputs."""
    if event.by == "set":
        append = thread.append
        told = append is not None and (append.epoch, append.seq) == (event.epoch, event.seq)
        state = view.by_generation.get(event.generation)
        known = state is not None and (state.epoch, state.seq) == (event.epoch, event.seq)
        return "" if told or known else f"it is judged by {event.epoch}:{event.seq}, which is not its own invalidation"
    state = view.by_generation.get(event.generation)
    if state is None or (state.epoch, state.seq) != (event.epoch, event.seq):
        return f"the view never stood at {event.epoch}:{event.seq} with generation {event.generation}"
    if event.by != "compute":
        return ""
    computing, begun = thread.computing.get(event.key, (None, 0))
    if computing is None:
        return "it was not computed here"
    if event.generation > computing.until:
        return f"it is judged by state {event.generation}; when it was begun, {computing.until} was the newest"
    for dep in computing.deps:
        deps, until, place = thread.seen.get(dep, ((), event.generation, 0))
        if event.generation > until:
            return f"it is judged by state {event.generation}; when {dep!r} was read, {until} was the newest"
        if place > begun and not set(deps) <= {*event.deps, event.key}:
            return f"it has not the deps of {dep!r}, from which it was computed: {sorted(set(deps) - set(event.deps))}"
    whole = {*event.deps, event.key}
    beside = {key for key, other in thread.filled.items() if other.began == event.began}  # computed together, and kept at once
    for key, (deps, _, place) in thread.seen.items():
        if place > begun and key not in beside and not {key, *deps} <= whole:
            return f"its computation has read {key!r}, and it has not {sorted({key, *deps} - whole)} as deps"
    return ""


@row("wrote", "write")
def wrote(event: events.Wrote, thread: Thread) -> str:
    """What goes to L2 is what was filled."""
    filled = thread.filled.get(event.key)
    if filled is None or (filled.deps, filled.epoch, filled.seq) != (event.deps, event.epoch, event.seq):
        return "it is not what was filled"
    return ""


@row("invalidated", "begin_invalidate", "begin_tell", "returns", "returns_volatile", "pend", "pend_too", "learn")
def invalidated(at: Process, view: View, event: events.Invalidated, thread: Thread) -> str:
    """When it returns it holds in this process: known from the log, or pending."""
    era, now = view.now.era, view.now
    if era is not None and all(era.moments.get(pattern, -1) >= event.began for pattern in event.patterns):
        return ""
    if not event.durable:
        known = all(at.truth.in_log_since(pattern, event.began, now.epoch, now.seq) for pattern in event.patterns)
        return "" if known else "it is in no log, and not pending"
    reached = [state for state in view.later(event.began) if state.epoch == event.epoch]
    if view.now.epoch != event.epoch or any(state.seq >= event.seq for state in reached):
        return ""
    return f"it is {event.epoch}:{event.seq}, and the view stands at {view.now.epoch}:{view.now.seq}"


@row("taken over", "decide", "take_over")
def taken_over(event: events.Claimed, thread: Thread) -> str:
    """A claim is taken from an owner that is no longer at work, or whose knowledge is not valid for the key by now."""
    refused = thread.refused
    if not event.done or event.held == "-" or not event.epoch:
        return ""
    if refused is None or (refused.epoch, refused.seq) != (event.epoch, event.seq):
        return f"nothing says that the owner's knowledge, {event.epoch}:{event.seq}, is not valid"
    return ""


@row("claimed", "take", "take_over", "give_back", "gives_back")
def claimed(_: Process, __: events.Event) -> str:
    """One owner a key at a time, and only an owner ends its claim: `claims` finds what breaks it."""
    return ""
