"""The rows of the log, the view, and the node: how a process comes to know of invalidations."""

from __future__ import annotations

from model import state as of_model

from traces import events
from traces.standing import MODEL, Process, Standing, Thread, View, at_view
from traces.table.rows import CLOCK_NS, ns, row, told_entry, told_states
from traces.truth import tail_of

# -- the log


@row("numbered", "append", "append_new", "append_own", "node_append")
def numbered(_: Process, __: events.Event) -> str:
    """Each number of an epoch is given to one pattern, and numbers rise: `Truth.conflicts` finds what breaks it."""
    return ""


@row("one history", "standing", "begun")
def one_history(_: Process, __: events.Event) -> str:
    """An epoch that another has followed does not come back, in any process: `Truth.conflicts` finds what breaks it."""
    return ""


@row("read", "read", "read_log", "node_read", "refresh", "page_of")
def read(at: Process, event: events.LogRead) -> str:
    """A page has all that its reader lacks, and nothing else; all that had been appended before it was asked for; and it goes on
    from where the reader stands, or says that it is a new beginning."""
    page = at.pages[event.page]
    if not page.restart and (page.epoch, page.after) != (event.known_epoch, event.known_seq):
        return f"the page goes on from {page.epoch}:{page.after}, and the reader stands at {event.known_epoch}:{event.known_seq}"
    if at.truth.returned(page.epoch, event.began) > page.seq:
        return f"{at.truth.returned(page.epoch, event.began)} had been appended before it was asked for; the page says {page.seq}"
    return page_whole(at, page)


@row("page whole", "page_of", "read", "trimmed", "on_bus", "learn", "receive", "news")
def page_whole(at: Process, page: events.Page) -> str:
    """Whoever takes in a page knows every record up to its tail, but those below its floor."""
    missing = at.truth.missing(page)
    if missing:
        return f"the page up to {page.epoch}:{page.seq} lacks {missing}"
    newest = page.records[-1][1] if page.records else 0
    log = of_model.Log(1, 1, page.seq, page.floor)
    after = page.floor if page.restart else page.after
    expected = MODEL.page_of(MODEL, log, (newest,), after, restart=page.restart)
    if page.floor < expected.floor:
        return f"no record of the page has its last number, {page.seq}, and its floor is {page.floor}"
    return at.truth.foreign(page)


# -- the view


@row(
    "published",
    *(
        "apply",
        "apply_bus",
        "taken",
        "publish_state",
        "learn",
        "pend",
        "pend_too",
        "hear",
        "settle_own",
        "settle_heard",
        "unlock",
    ),
)
def published(at: Process, view: View, before: Standing, event: events.Published, thread: Thread) -> str:
    """The state that judges changes by what the call allows: a page that follows it, a beginning, what is pending."""
    call, tail = thread.call, (event.epoch, event.seq, event.floor, event.known)
    if call is None or call.view != event.view:
        return "nothing was called that changes it"
    if call.what == "apply":
        expected = taken_of(at, view, before, call)[0]
        got = (at.epochs(event.epoch), event.seq, event.known)
        if got != (expected.epoch, expected.seq, expected.known) or event.floor < expected.floor:
            return f"the page leads to {expected.seq}:{expected.floor}; it stands at {event.epoch}:{event.seq}:{event.floor}"
        return ""
    if call.what == "begin_at":
        told = tail_of(call.tail)
        right = not before.known and told is not None and tail == (told.epoch, told.seq, told.seq, False)
        return "" if right else f"it begins at {call.tail} with floor {event.floor}, and stood at {before.epoch}:{before.seq}"
    if tail != (before.epoch, before.seq, before.floor, before.known):
        return f"{call.what} does not move it from {before.epoch}:{before.seq} to {event.epoch}:{event.seq}"
    if call.what in ("settle", "settle_heard"):
        return settled(at, view, event, call)
    return "" if event.pending else f"{call.what} leaves nothing pending"


def taken_of(at: Process, view: View, before: Standing, call: events.Call) -> tuple[of_model.View, bool, bool]:
    """What the model makes of this page: the state after it, whether it confirms, whether all of it is known."""
    page = at.page_of(at.pages[call.page])
    outcome: tuple[of_model.View, bool, bool] = MODEL.taken(MODEL, at.view_of(before, view.moment), page, call.asked)
    return outcome


@row("pended", "pend", "pend_too", "hear")
def pended(call: events.Call, thread: Thread) -> str:
    """What is pending counts from when the call returns."""
    return "" if "publish_state" in thread.done else f"{call.what} has published nothing"


@row("settled", "settle_own", "may_settle", "settle_heard", "append_own")
def settled(at: Process, view: View, event: events.Published, call: events.Call) -> str:
    """Nothing is pending any more only when the log has each pattern, and the view knows it from there."""
    if call.what == "settle_heard" and call.count < view.heard_until:
        return f"{call.count} volatile patterns were settled, and {view.heard_until} were heard of"
    era = view.now.era
    for pattern, moment in era.moments.items() if era is not None else ():
        if not at.truth.in_log_since(pattern, moment, event.epoch, event.seq):
            return f"{pattern!r} was not appended since it was called for, or is not known from the log"
    return ""


@row("settling", "may_settle", "settle_own")
def settling(at: Process, view: View, call: events.Call, thread: Thread) -> str:
    """What was pending is forgotten after it was appended and then known from the log."""
    append = thread.append
    if append is None or not append.epoch or not set(call.patterns) <= set(append.patterns):
        return "they were not appended before"
    tail = (at.epochs(append.epoch), append.seq)
    if any(MODEL.may_settle(at_view(at.view_of(state)), tail) for state in view.later(append.ended)):
        return ""
    return f"the view was never at {append.epoch}:{append.seq}, where they are"


@row("generation", "publish_generation", "publication")
def generation(_: Process, view: View, event: events.Generation) -> str:
    """The generation is that of the state, and comes after it."""
    newest = view.now.generation
    return "" if event.generation == newest else f"generation {event.generation} is published with a state of {newest}"


@row("confirmed", "publish_confirmed", "publication", "catch_up", "get_tail", "taken")
def confirmed(at: Process, view: View, event: events.Confirmed, thread: Thread) -> str:
    """A moment is published after all that had been appended before it is known, and its generation; the log was asked then, or
    later, and by the very thread."""
    call, now, moment = thread.call, view.now, ns(event.moment)
    if call is None or call.view != event.view or call.what not in ("apply", "confirm"):
        return "nothing was called that confirms it"
    if event.moment > call.asked:
        return f"the log was asked at {call.asked:.6f} s, and it counts from {event.moment:.6f} s"
    order = MODEL.publication(MODEL, changes="publish_state" in thread.done, confirms=True)
    before = order[: order.index("publish_confirmed")]
    if view.generation != now.generation or not set(before) <= set(thread.done):
        return f"it is confirmed before {', '.join(before) or 'the generation'} (of state {now.generation})"
    if call.what == "confirm":
        tail = tail_of(call.tail)
        if thread.tail is None or thread.tail.failed or thread.tail.tail != call.tail or tail is None:
            return f"the log's tail was not read as {call.tail!r}"
        if not now.known or (tail.epoch, tail.seq) != (now.epoch, now.seq):
            return f"the tail was {call.tail}, and the view stands at {now.epoch}:{now.seq}"
        asked: float | None = thread.tail.began
    else:
        page = at.pages[call.page]
        if page.epoch != now.epoch or page.seq > now.seq:
            return f"the page leads to {page.epoch}:{page.seq}, and the view stands at {now.epoch}:{now.seq}"
        asked = asked_at(at, thread, call.page)
    if asked is None:
        return f"nothing asked the log for page {call.page}: it confirms nothing"
    if moment > asked + CLOCK_NS:
        return f"the log was asked {(moment - asked) / 1e6:.3f} ms before that moment"
    newest = at.truth.returned(now.epoch, moment - CLOCK_NS)
    return "" if newest <= now.seq else f"{newest} had been appended before that moment, and the view stands at {now.seq}"


def asked_at(at: Process, thread: Thread, number: int) -> float | None:
    """When the log was asked for this page; of one from the bus, the moment that the bus told. None if nothing asked for it."""
    page, append, bus = at.pages[number], thread.append, thread.bus
    if number in at.asked:
        return at.asked[number].began
    if page.origin == "bus" and bus is not None and bus.page == number:
        return ns(bus.confirmed)
    if page.origin == "made" and append is not None and (append.epoch, append.seq) == (page.epoch, page.seq):
        return append.began
    return None


@row("applied", "taken", "apply", "apply_bus", "covers")
def applied(at: Process, view: View, call: events.Call, event: events.Return, thread: Thread) -> str:
    """After a page was applied all of it is known, in a state from then on; else the caller is told."""
    page = at.pages[call.page]
    states = view.states[max(0, thread.call_place) :]
    if not event.outcome or any(state.epoch == page.epoch and state.seq >= page.seq for state in states):
        return ""
    return f"the page up to {page.epoch}:{page.seq} is said to be known, and the view stands at {view.now.epoch}:{view.now.seq}"


@row(
    "judged",
    "valid",
    "slot_valid",
    "entry_valid",
    "judge",
    "judge_again",
    "probe",
    "told",
    "still_there",
    "generation_of_reads",
    "outcome_valid",
)
def judged(at: Process, view: View, event: events.Judged) -> str:
    """An entry is valid by one of the states that the thread may have seen: by the records of the log, and what is pending."""
    if any(at.valid(state, event) for state in view.between(event.since, event.until)):
        return ""
    return f"{told_entry(event)} is not valid by {told_states(at, view, event)}"


@row("refused", "valid", "slot_valid", "entry_valid", "judge", "judge_again", "outcome_valid")
def refused(at: Process, view: View, event: events.Judged) -> str:
    """An entry is refused only if one of the states that the thread may have seen refuses it. A call that is about to change the
    view may have noted its records already, and one that was broken off has left them there: these refuse more, which is safe."""
    if view.open or view.broken_off or view.ended >= event.began:
        return ""
    if all(at.valid(state, event) for state in view.between(event.since, event.until)):
        return f"{told_entry(event)} is valid by {told_states(at, view, event)}"
    return ""


@row("as_of", "know", "take_as_of", "taken_as_of", "publish_generation")
def as_of(at: Process, view: View, event: events.AsOfTaken, thread: Thread) -> str:
    """It is a state of the view, whose generation is published; not older than the lease allows, unless the server is away."""
    state = view.by_generation.get(event.generation)
    if state is None or (state.epoch, state.seq) != (event.epoch, event.seq):
        return f"the view never stood at {event.epoch}:{event.seq} with generation {event.generation}"
    if event.generation > view.generation:
        return f"it knows by generation {event.generation}; L1 judges by {view.generation}, which is the last published"
    due = at.truth.returned(event.epoch, event.began - view.bound)
    if due > event.seq and thread.failed < event.began:
        return f"{due} had been appended a staleness bound before, and it stands at {event.seq}"
    return ""


# -- the node


@row("bus written", "bus_begin", "bus_end", "on_bus", "volatile_begin", "volatile_end", "settle_begin", "settle_end", "beat")
def bus_written(at: Process, before: events.BusWritten, event: events.BusWritten, thread: Thread) -> str:
    """The bus changes by a page, by volatile patterns, or by their being settled; its moment is one at which the log was asked,
    and all that had been appended by then is on the bus."""
    call = thread.call
    if call is None or call.bus != event.bus:
        return "nothing was called that changes it"
    expected, volatile, settled = at.bus_of(before), before.volatile, before.settled
    if call.what == "publish":
        expected = MODEL.on_bus(MODEL, expected, at.page_of(at.pages[call.page]), call.asked)
    elif call.what == "publish_volatile":
        volatile += len(call.patterns)
    else:
        settled = max(settled, call.count)
    got = (at.epochs(event.epoch), event.seq, event.floor, event.confirmed, event.volatile, event.settled)
    wanted = (expected.epoch, expected.seq, expected.floor, expected.confirmed)
    # A write of many patterns is one write, seen at its end.
    if got != (*wanted, volatile, settled):
        return f"{call.what} leads to {(*wanted, volatile, settled)}; the bus is at {got}"
    if event.confirmed > before.confirmed or (event.epoch != before.epoch and event.epoch):
        return bus_confirmed(at, event, thread, call)
    return ""


def bus_confirmed(at: Process, event: events.BusWritten, thread: Thread, call: events.Call) -> str:
    moment = ns(event.confirmed)
    asked = at.asked[call.page].began if call.page in at.asked else None
    page = at.pages.get(call.page)
    beaten = page is not None and page.origin == "made" and not page.records
    if asked is None and beaten and thread.tail is not None and thread.tail.by == "beat":
        tail = tail_of(thread.tail.tail)
        asked = thread.tail.began if tail is not None and (tail.epoch, tail.seq) == (event.epoch, event.seq) else None
    if asked is None:
        return "the log was not asked for it"
    if moment > asked + CLOCK_NS:
        return f"the log was asked {(moment - asked) / 1e6:.3f} ms before that moment"
    newest = at.truth.returned(event.epoch, moment - CLOCK_NS)
    return "" if newest <= event.seq else f"{newest} had been appended before that moment, and the bus is at {event.seq}"


@row("bus settled", "settle_begin", "settle_end", "node_append", "begin_beat")
def bus_settled(at: Process, call: events.Call) -> str:
    """The children are told that volatile patterns are settled after the log has brought them to the bus."""
    bus = at.buses[call.bus]
    for pattern, moment in at.truth.volatile[call.bus][: call.count]:
        if not at.truth.in_log_since(pattern, moment, bus.epoch, bus.seq):
            return f"{pattern!r} was not appended since it was heard, or is not on the bus"
    return ""


@row("bus read", "news", "follow")
def bus_read(at: Process, event: events.BusRead) -> str:
    """What is read from the bus is the whole of one moment's state."""
    bus = at.truth.buses[event.bus].get(event.version)
    if event.version < 0 or bus is None:
        return ""  # nothing was read; or its writer was killed before it had written that down
    page = at.pages.get(event.page)
    newest = page.records[-1][1] if page is not None and page.records else 0
    stands = at.epochs(event.known_epoch)
    view = of_model.View(epoch=stands, seq=event.known_seq, known=stands != 0)
    model_bus = of_model.Bus(
        epoch=at.epochs(bus.epoch), seq=bus.seq, floor=bus.floor, base=bus.base, ring=((newest, 0),) * bool(newest)
    )
    process = of_model.Process(0, view, (), (), volatile_seen=event.seen)
    news = MODEL.news(MODEL, model_bus, process)
    got = (page is not None, event.empty, event.volatile_count, event.settled, event.confirmed)
    wanted = (news.page is not None, news.empty, bus.volatile, bus.settled, bus.confirmed)
    if got != wanted:
        return f"the bus had {wanted} at version {event.version}, and {got} was read"
    if page is None or news.page is None:
        return ""
    if (page.seq, page.floor, page.after) != (news.page.seq, news.page.floor, news.page.after):
        return f"the bus leads from {page.after} to {news.page.seq}:{news.page.floor}; the page says {page.seq}:{page.floor}"
    return page_whole(at, page)


@row("followed", "followed", "heard_so_far", "follows", "hear", "apply_bus", "unled")
def followed(view: View, event: events.Followed, thread: Thread) -> str:
    """A version counts as followed after all that the bus had then was taken in."""
    if view.followed and event.version <= view.followed[-1][0]:
        return ""  # another thread has
    read = thread.bus
    if read is None or read.version != event.version:
        return f"the bus was not read at version {event.version}"
    if read.page and thread.applied != (read.page, True):
        return "the bus's page was not taken in"
    if not read.page and not read.empty:
        return "the bus could not tell what is new, and was not asked for more"
    return "its volatile patterns were not taken in" if read.volatile and not thread.heard else ""


@row("received", "receive", "applied", "promised")
def received(at: Process, event: events.Received, thread: Thread) -> str:
    """A notice is taken in when the bus has it: from the notice, from the log, or as volatile."""
    bus, call = at.buses[event.bus], thread.call
    if event.epoch == bus.epoch and event.epoch and bus.seq >= event.seq:
        return ""
    told = call is not None and call.began >= event.began
    if told and call is not None and call.what == "publish_volatile" and set(event.patterns) <= set(call.patterns):
        return ""
    if event.epoch and told and call is not None and call.page in at.asked:
        return ""  # of another epoch, which the log was asked for
    return f"the bus is at {bus.epoch}:{bus.seq}, the notice at {event.epoch}:{event.seq}"
