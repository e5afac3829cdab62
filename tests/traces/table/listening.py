"""The rows of what is heard from the cache's server; of the log that a view is taken to, and the server that it is at; and of
what a writer leaves that was broken off."""

from __future__ import annotations

from typing import Final

from model import state as of_model

from traces import events
from traces.standing import MODEL, Process, Standing, Thread, View
from traces.table.knowing import page_whole
from traces.table.rows import CLOCK_NS, ns, row

NEVER: Final = float("-inf")


@row("heard", "page_of", "append", "learn")
def heard(at: Process, page: events.Page) -> str:
    """A notice that was heard has the records of one append: each with its number, from the place where the log stood before."""
    numbers = [seq for _, seq in page.records]
    if page.restart or not numbers or numbers != list(range(page.after + 1, page.seq + 1)):
        return f"it leads from {page.after} to {page.seq}, and has the records {numbers[:5]}"
    return page_whole(at, page)


@row("listened", "taken", "apply", "read_log", "node_read", "on_bus")
def listened(at: Process, event: events.Heard, thread: Thread) -> str:
    """What was heard is taken in as a page that confirms nothing, or is known already; where it does not follow what is known,
    the log is read. A process that has read no log yet has nothing to judge."""
    call, read, page = thread.call, thread.read, at.pages.get(event.page)
    if read is not None and read.began >= event.began:
        return ""
    if event.view:
        if any(not state.known for state in at.views[event.view].later(event.began)):
            return ""
        taken = page is not None and thread.applied == (event.page, True)
    else:
        taken = page is not None and on_bus(at, event, page)
    if call is not None and call.began >= event.began and call.page and (call.page != event.page or call.asked != NEVER):
        return f"page {call.page} was taken in for it, as one that was asked for at {call.asked:.6f} s"
    return "" if taken else "it was not taken in, nor was the log read"


def on_bus(at: Process, event: events.Heard, page: events.Page) -> bool:
    """Whether the page was on the bus meanwhile, or another thread had taken the bus to another log."""
    states = list(at.truth.bus_since(event.bus, event.began, event.ended))
    moved = len({state.epoch for state in states}) > 1
    return moved or any(state.epoch == page.epoch and state.seq >= page.seq for state in states)


@row("later log", "taken", "apply", "append_own", "begun")
def later_log(at: Process, before: Standing, event: events.Published, call: events.Call) -> str:
    """A view never goes back to a former log: a page of another one was asked for after the view's own had answered."""
    if at.truth.follows(before.epoch, event.epoch):
        return f"the log was at {event.epoch} before it was at {before.epoch}"
    early = before.answered - ns(call.asked)
    if early > CLOCK_NS:
        return f"it was asked for {early / 1e6:.3f} ms before the log {before.epoch} had answered"
    return ""


@row("met", "read_log", "same_server", "taken")
def met(event: events.Met, thread: Thread) -> str:
    """The log of a server counts as asked when a page was read from it, and taken in: by one that was refused nothing is learned
    of the server that gave it."""
    read = thread.read
    if read is None or read.failed:
        return "the log was not read"
    return "" if thread.applied == (read.page, True) else f"page {read.page} was not taken in"


@row("same server", "same_server", "get_tail", "catch_up")
def same_server(view: View, call: events.Call) -> str:
    """A tail confirms only if the log itself was asked on a connection so new: the server may lack what another acknowledged."""
    if view.contacts is None or view.contacts >= call.count:
        return ""
    return f"there are {call.count} connections by now, and the log was asked on number {view.contacts}"


@row("bus left", "left_by_a_writer", "bus_end")
def bus_left(at: Process, before: events.BusWritten, event: events.BusWritten) -> str:
    """A writer that was broken off leaves a bus of no log, unless it was empty: readers have to ask. It vouches for nothing."""
    if event.version == before.version:
        return ""  # it had not begun
    left = MODEL.left_by_a_writer(MODEL, at.bus_of(before))
    if event.epoch in at.truth.epochs and event.epoch:
        return f"it is still of the log {event.epoch}"
    if bool(event.epoch) != (left.epoch == of_model.NEVER):
        return f"it was of {before.epoch or 'no log'}, and is {'not ' * bool(event.epoch)}empty"
    return "" if event.confirmed == NEVER else f"it is confirmed as of {event.confirmed:.6f} s"
