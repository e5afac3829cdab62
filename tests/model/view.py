"""One process's view: `coherence/view.py`. What its threads do to it under its lock, and what they judge by without one."""

from __future__ import annotations

from msgspec.structs import replace

from model.log import newer
from model.state import Numbers, Page, View
from model.stepping import At, Model, Outcomes, local, put, rule, silent


@rule
def valid(_: Model, view: View, epoch: int, seq: int, generation: int, deps: Numbers) -> bool:
    """Whether no known record, and nothing pending since that generation, speaks against what was computed by that knowledge."""
    if any(view.pending[dep] > generation for dep in deps):
        return False
    if epoch != view.epoch or not view.floor <= seq <= view.seq:
        return False
    return all(view.records[dep] <= seq for dep in deps)


@rule
def generation_of_reads(_: Model, view: View) -> int:
    """What is read from L2 from now on may be older than anything pending."""
    return 0 if any(view.pending) else view.revision


@rule
def taken(_: Model, view: View, page: Page, asked: int) -> tuple[View, bool, bool]:
    """The state that judges after this page; whether the page confirms it; and whether all of the page is known then."""
    if page.restart:
        late = page.seq < view.seq if page.epoch == view.epoch else asked < view.confirmed
        if late and view.known:
            return view, page.epoch == view.epoch, page.epoch == view.epoch
        epoch, seq, floor, records = page.epoch, page.seq, page.floor, (0,) * len(view.records)
    elif page.epoch != view.epoch or page.after > view.seq:
        return view, False, False
    else:
        epoch, seq, floor, records = view.epoch, max(view.seq, page.seq), max(view.floor, page.floor), view.records
    records = newer(tuple(map(max, records, page.records)), floor)
    known = view.known or page.restart
    return replace(view, epoch=epoch, seq=seq, floor=floor, known=known, records=records), True, True


def finished(view: View) -> View:
    """As each writer begins: a writer that was broken off may have left the generation behind."""
    return view if view.generation == view.revision else replace(view, generation=view.revision)


@local
def apply(at: At) -> Outcomes:
    """Take in the thread's page. First what judges; then the generation; then the moment of confirmation."""
    if at.process.locked:
        return ()
    view = finished(at.process.view)
    after, confirms, _ = at.model.taken(at.model, view, at.thread.page, at.thread.asked)
    return published(at, view, at.model.publication(at.model, changes=after != view, confirms=confirms))


def published(at: At, view: View, steps: tuple[str, ...]) -> Outcomes:
    """Begin to publish, under the lock: the first of these steps at once, the others as steps of their own."""
    at = At(at.model, at.then(*steps, "unlock", process={"view": view, "locked": True}), at.number, at.index)
    outcomes: Outcomes = getattr(at.model, at.thread.steps[0])(at)
    return outcomes


def changed(at: At, view: View) -> Outcomes:
    """Publish this state under the lock, and then its generation."""
    return (at.then("publish_generation", "unlock", process={"view": view, "locked": True}),)


@rule
def publication(_: Model, *, changes: bool, confirms: bool) -> tuple[str, ...]:
    """The order in which threads that read without the lock get to see it."""
    return ("publish_state", "publish_generation") * changes + ("publish_confirmed",) * confirms


@local
def publish_state(at: At) -> Outcomes:
    view = at.process.view
    after, _, _ = at.model.taken(at.model, view, at.thread.page, at.thread.asked)
    return (at.then(process={"view": replace(after, revision=view.revision + 1)}),)


@local
def publish_generation(at: At) -> Outcomes:
    return (at.then(process={"view": finished(at.process.view)}),)


@local
def publish_confirmed(at: At) -> Outcomes:
    view = at.process.view
    return (at.then(process={"view": replace(view, confirmed=max(view.confirmed, at.thread.asked))}),)


@silent
def unlock(at: At) -> Outcomes:
    """The connection that the log was read by becomes that of the last reading only now."""
    contacts = at.thread.contact or at.process.contacts
    return (at.then(process={"locked": False, "contacts": contacts}, page=None, contact=0),)


def pended(view: View, patterns: Numbers, table: str, *, count: int = 0) -> View:
    """Invalidate by these in this process only. `count`: of the bus's volatile patterns, when it heard of them."""
    view = finished(view)
    generation = view.revision + 1
    pending, why = view.pending, getattr(view, table)
    for pattern in patterns:
        pending, why = put(pending, pattern, generation), put(why, pattern, generation)
    return replace(view, pending=pending, revision=generation, heard_until=max(view.heard_until, count), **{table: why})


def settled(view: View, **tables: Numbers) -> View:
    """Forget what is pending for these reasons. Until all of it can be forgotten, more is refused than must be."""
    view = replace(finished(view), **tables)
    return view if any(view.own) or any(view.heard) else replace(view, pending=(0,) * len(view.pending))
