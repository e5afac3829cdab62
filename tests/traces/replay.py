"""Walks through the traces of a run, and rejects each step that the table does not allow."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from typing import Any, Final, NamedTuple

from traces import events
from traces.claims import broken
from traces.recording.recorder import Trace
from traces.standing import Era, Process, Standing, Thread, View
from traces.table import ROWS
from traces.truth import Truth

UNCOUNTED: Final = (events.Return, events.Page, events.ViewMade, events.Branched, events.Brought)
"""What belongs to another step, and is no step of its own."""


class Rejected(NamedTuple):
    """A step that no order of events allows. `row`: of the table; `why`: what forbids it."""

    trace: Trace
    place: int
    row: str
    why: str


class Outcome(NamedTuple):
    """`steps`: how many were replayed, by kind."""

    steps: Counter[str]
    rejected: list[Rejected]


def replay(traces: list[Trace], faults: Iterable[int] = ()) -> Outcome:
    """Replay a run. `faults`: moments at which the server may have lost what it held beside the log."""
    truth = Truth(traces)
    steps: Counter[str] = Counter()
    rejected = [Rejected(*conflict) for conflict in truth.conflicts]
    lost = tuple(faults)
    for told in truth.claims.values():
        rejected += [Rejected(trace, place, "claimed", why) for trace, place, why in broken(told, lost)]
    for trace in traces:
        steps.update(type(event).__name__ for event in trace.events if not isinstance(event, UNCOUNTED))
        rejected += _Replay(trace, truth).run()
    return Outcome(steps, rejected)


class _Replay:
    """The walk through one trace."""

    def __init__(self, trace: Trace, truth: Truth) -> None:
        self._trace = trace
        self._at = Process(trace, truth)
        self._rejected: list[Rejected] = []

    def run(self) -> list[Rejected]:
        steps = {
            kind: getattr(self, f"_{kind.__name__.lower()}", None) for kind in vars(events).values() if isinstance(kind, type)
        }
        for place, event in enumerate(self._trace.events):
            self._at.place = place
            step = steps[type(event)]
            if step is not None:
                step(event, self._at.threads[event.thread])
        return self._rejected

    def _hold(self, row: str, *given: Any) -> None:
        why = ROWS[row].allows(*given)
        if why:
            self._rejected.append(Rejected(self._trace, self._at.place, row, why))

    def _view(self, event: Any) -> View:
        return self._at.views[event.view]

    # -- the log

    def _appended(self, event: events.Appended, thread: Thread) -> None:
        thread.append = event
        if not event.epoch:
            thread.failed = event.ended

    def _logread(self, event: events.LogRead, thread: Thread) -> None:
        thread.read = event
        if event.failed:
            thread.failed = event.ended
            return
        self._at.asked[event.page] = event
        self._hold("read", self._at, event)

    def _page(self, event: events.Page, _: Thread) -> None:
        self._at.pages[event.number] = event
        if event.origin in ("made", "heard"):
            self._hold("page whole" if event.origin == "made" else "heard", self._at, event)

    def _tailread(self, event: events.TailRead, thread: Thread) -> None:
        if event.failed:
            thread.failed = event.ended
        thread.tail = event

    # -- the view

    def _viewmade(self, event: events.ViewMade, _: Thread) -> None:
        self._at.views[event.view] = View(event)

    def _call(self, event: events.Call, thread: Thread) -> None:
        thread.call, thread.done = event, []
        thread.call_place = len(self._view(event).states) - 1 if event.view else 0
        if event.view:
            self._view(event).open += 1
        if event.what == "settle":
            self._hold("settling", self._at, self._view(event), event, thread)
        elif event.what == "settle_volatile":
            self._hold("bus settled", self._at, event)
        elif event.what == "hear":
            self._view(event).heard_until = max(self._view(event).heard_until, event.count)

    def _return(self, event: events.Return, thread: Thread) -> None:
        call = thread.call
        if event.view:
            view = self._view(event)
            view.open, view.ended = view.open - 1, event.ended
            view.broken_off = view.broken_off or event.outcome is None
            if event.outcome is not None and call is not None and call.what in ("pend", "hear"):
                self._hold("pended", call, thread)
            if event.what == "apply" and call is not None and event.outcome is not None:
                self._hold("applied", self._at, view, call, event, thread)
                thread.applied = (call.page, event.outcome)
            if event.what == "confirm" and call is not None and event.outcome:
                self._hold("same server", view, call)
            thread.heard = thread.heard or event.what == "hear"

    def _published(self, event: events.Published, thread: Thread) -> None:
        view = self._view(event)
        if not view.states:  # as it was when it was entered
            era = Era() if event.pending else None
            view.add(Standing(event.began, event.epoch, event.seq, event.floor, event.known, event.generation, era))
            return
        before, call = view.now, thread.call
        settles = call is not None and call.what in ("settle", "settle_heard")
        if event.generation == before.generation and not settles and len(view.states) > 1:
            before = view.states[-2]  # a call that was broken off has not published what it was about to
        if event.generation != before.generation + (not settles):
            self._reject("published", f"the state before was {before.generation}, and this one is {event.generation}")
        self._hold("published", self._at, view, before, event, thread)
        if call is not None and before.epoch not in ("", event.epoch):
            self._hold("later log", self._at, before, event, call)
        era = before.era
        if not event.pending:
            era = None
        elif call is not None and call.what in ("pend", "hear"):
            era = Era() if era is None else era
            era.note(call.patterns, event.generation)
            era.date(self._moments(view, call, thread))
        answered = self._answered(before, call, thread)
        view.add(Standing(event.began, event.epoch, event.seq, event.floor, event.known, event.generation, era, answered))
        thread.done.append("publish_state")

    def _answered(self, before: Standing, call: events.Call | None, thread: Thread) -> float:
        """A moment at which the log that the view now stands in had answered."""
        if call is not None and call.what == "begin_at":
            return call.asked * 1e9 if thread.append is None else thread.append.ended
        if call is not None and call.what == "apply" and self._at.pages[call.page].restart:
            return self._at.asked[call.page].ended if call.page in self._at.asked else call.asked * 1e9
        return before.answered

    def _moments(self, view: View, call: events.Call, thread: Thread) -> list[tuple[str, int]]:
        """Since when each pattern is to be in the log: since the call; or, for one that was heard of, since it was on the bus, as
        its main process may have appended it by now. Who was too late for some hears "everything", which stands for them all."""
        if call.what == "pend":
            return [(pattern, call.began) for pattern in call.patterns]
        seen = thread.bus.seen if thread.bus is not None else call.count
        return self._at.truth.volatile[view.bus][seen : call.count]

    def _reject(self, row: str, why: str) -> None:
        self._rejected.append(Rejected(self._trace, self._at.place, row, why))

    def _generation(self, event: events.Generation, thread: Thread) -> None:
        view = self._view(event)
        if view.entered:
            self._hold("generation", self._at, view, event)
        view.generation = event.generation
        thread.done.append("publish_generation")

    def _confirmed(self, event: events.Confirmed, thread: Thread) -> None:
        view = self._view(event)
        if view.entered:
            self._hold("confirmed", self._at, view, event, thread)
        view.moment, view.entered = max(view.moment, event.moment), True

    def _judged(self, event: events.Judged, thread: Thread) -> None:
        self._hold("judged" if event.valid else "refused", self._at, self._view(event), event)
        if not event.valid:
            thread.refused = event

    def _asoftaken(self, event: events.AsOfTaken, thread: Thread) -> None:
        self._hold("as_of", self._at, self._view(event), event, thread)

    # -- the node

    def _buswritten(self, event: events.BusWritten, thread: Thread) -> None:
        before = self._at.buses.get(event.bus)
        self._at.buses[event.bus] = event
        if event.broken_off and before is not None:
            self._hold("bus left", self._at, before, event)
        elif before is not None:
            self._hold("bus written", self._at, before, event, thread)

    def _busread(self, event: events.BusRead, thread: Thread) -> None:
        thread.bus, thread.heard, thread.applied = event, False, (0, False)
        self._hold("bus read", self._at, event)

    def _followed(self, event: events.Followed, thread: Thread) -> None:
        view = self._view(event)
        self._hold("followed", view, event, thread)
        thread.followed = (event.began, len(view.states) - 1)
        if not view.followed or event.version > view.followed[-1][0]:
            view.followed.append((event.version, len(view.states) - 1))

    def _received(self, event: events.Received, thread: Thread) -> None:
        self._hold("received", self._at, event, thread)

    def _heard(self, event: events.Heard, thread: Thread) -> None:
        self._hold("listened", self._at, event, thread)

    def _met(self, event: events.Met, thread: Thread) -> None:
        view = self._view(event)
        if view.contacts is not None:  # else as it was when it was entered
            self._hold("met", event, thread)
        view.contacts = max(event.contacts, view.contacts or 0)  # a slow reader may note an older one, which asks once too often

    # -- entries

    def _served(self, event: events.Served, thread: Thread) -> None:
        view = self._view(event)
        row = {"l1": "served from L1", "joined": "joined"}.get(event.source)
        if row is not None:
            self._hold(row, self._at, view, event, thread)
        elif event.source != "no":
            self._hold("served from L2", self._at, view, event, thread)
        thread.seen[event.key] = (event.deps, event.until, self._at.place)

    def _computing(self, event: events.Computing, thread: Thread) -> None:
        thread.computing[event.key] = (event, self._at.place)

    def _filled(self, event: events.Filled, thread: Thread) -> None:
        self._hold("filled", self._at, self._view(event), event, thread)
        thread.filled[event.key] = event
        thread.seen[event.key] = (event.deps, event.until, self._at.place)

    def _branched(self, event: events.Branched, thread: Thread) -> None:
        thread.seen = dict(self._at.threads[event.parent].seen)

    def _brought(self, event: events.Brought, thread: Thread) -> None:
        seen = self._at.threads[event.by].seen.get(event.key)
        if seen is not None:
            thread.seen[event.key] = (*seen[:2], self._at.place)

    def _wrote(self, event: events.Wrote, thread: Thread) -> None:
        self._hold("wrote", event, thread)

    def _invalidated(self, event: events.Invalidated, thread: Thread) -> None:
        self._hold("invalidated", self._at, self._view(event), event, thread)

    def _claimed(self, event: events.Claimed, thread: Thread) -> None:
        if event.what == "replace":
            self._hold("taken over", event, thread)
