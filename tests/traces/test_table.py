"""The table by itself: traces written by hand, each with one step that no order of events allows, beside the same trace without
that. And the table beside the model: neither has a rule that the other does not account for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from model.stepping import RULES

from traces import events
from traces.recording.recorder import Trace
from traces.replay import Rejected, replay
from traces.story import AROUND, story
from traces.table import ROWS, UNOBSERVABLE

S = 1_000_000_000
E1, E2 = "epoch1", "epoch2"
NEVER = float("-inf")
BUS = "1.1"


class Tape:
    """A trace that is written step by step; each step takes a millisecond. `bad`: the test's one wrong thing is to be done."""

    def __init__(self, bad: bool, *, bus: str = "", bound_s: float = 1.0, strict: bool = True, view: bool = True) -> None:
        self.bad = bad
        self.events: list[Any] = []
        self.now = 10 * S
        self.thread = 1
        self._numbers = 0
        self._stands = ("", 0, 0, False, False)
        self._generation = 0
        if view:
            self.step(events.ViewMade, 1, bus, round(bound_s * S), strict)
            self.step(events.Published, 1, *self._stands, 0)
            self.step(events.Generation, 1, 0)
            self.step(events.Confirmed, 1, NEVER)

    def step(self, kind: type, *fields: Any, length_s: float = 0.0005) -> Any:
        began, self.now = self.now, self.now + round(length_s * S)
        event = kind(self.thread, began, self.now, *fields)
        self.events.append(event)
        self.now += S // 2000
        return event

    def call(self, what: str, **given: Any) -> None:
        fields = {"view": 1, "bus": "", "page": 0, "asked": NEVER, "tail": "", "patterns": [], "count": 0} | given
        self.step(events.Call, what, *fields.values())

    def back(self, what: str, outcome: bool | None = True, view: int = 1) -> None:
        self.step(events.Return, what, view, outcome)

    def append(self, *patterns: str, seq: int, epoch: str = E1, floor: int = 0) -> events.Appended:
        appended: events.Appended = self.step(events.Appended, list(patterns), epoch, seq, floor)
        return appended

    def page(
        self, origin: str, seq: int, *records: tuple[str, int], after: int = 0, epoch: str = E1, restart: bool = False
    ) -> int:
        self._numbers += 1
        self.step(events.Page, self._numbers, origin, epoch, seq, 0, after, list(records), restart)
        return self._numbers

    def read(self, seq: int, *records: tuple[str, int], known: tuple[str, int] = ("", 0), epoch: str = E1) -> tuple[int, float]:
        """Read the log. Returns the page, and when it was asked for."""
        asked_s = self.now / S
        restart = known[0] != epoch
        page = self.page("log", seq, *records, after=0 if restart else known[1], epoch=epoch, restart=restart)
        self.events.insert(-1, self.events.pop())
        began = round(asked_s * S)
        self.events.append(events.LogRead(self.thread, began, self.now, page, *known, False))
        return page, asked_s

    def publish(self, epoch: str, seq: int, *, floor: int = 0, pending: bool = False, known: bool = True) -> None:
        self._stands = (epoch, seq, floor, known, pending)
        self._generation += 1
        self.step(events.Published, 1, *self._stands, self._generation)

    def generation(self) -> None:
        self.step(events.Generation, 1, self._generation)

    def apply(self, page: int, asked_s: float, epoch: str, seq: int) -> None:
        self.call("apply", page=page, asked=asked_s)
        self.publish(epoch, seq)
        self.generation()
        self.step(events.Confirmed, 1, asked_s)
        self.back("apply")

    def knows(self, seq: int = 0, *records: tuple[str, int]) -> None:
        """Read the log as it is, and take it in."""
        known = self._stands[:2] if self._stands[3] else ("", 0)
        page, asked_s = self.read(seq, *records, known=known)
        self.apply(page, asked_s, E1, seq)

    def served(self, seq: int, source: str, by: str = "lookup", *, generation: int | None = None, **given: Any) -> None:
        fields = {"deps": (), "epoch": E1, "seq": seq, "generation": self._generation if generation is None else generation}
        fields |= {"since": self._generation, "until": self._generation, "bus_since": -1, "degraded": False} | given
        self.step(events.Served, by, 1, source, "k", *fields.values())

    def judged(self, seq: int, *deps: str, valid: bool = True) -> None:
        told = (E1, seq, self._generation, self._generation, self._generation, valid)
        self.step(events.Judged, 1, "k", deps, *told)

    def filled(self, seq: int, *deps: str, by: str = "compute", generation: int | None = None) -> None:
        generation = self._generation if generation is None else generation
        self.step(events.Filled, by, 1, "k", deps, E1, seq, generation, self._generation)

    def computing(self, *deps: str) -> None:
        self.step(events.Computing, 1, "k", deps, self._generation)

    def pend(self, what: str = "pend", *patterns: str, count: int = 0) -> None:
        self.call(what, patterns=list(patterns), count=count)
        self.publish(*self._stands[:2], pending=True, known=self._stands[3])
        self.generation()
        self.back(what)

    def written(
        self, version: int, seq: int, confirmed: float = NEVER, *, volatile: int = 0, settled: int = 0, epoch: str = E1
    ) -> None:
        self.step(events.BusWritten, BUS, version, epoch, seq, 0, 0, volatile, settled, confirmed)

    def bus(self, seq: int = 0) -> float:
        """A bus that its main process has brought to the log. Returns its moment."""
        self.step(events.BusWritten, BUS, 0, "", 0, 0, 0, 0, 0, NEVER)
        page, asked_s = self.read(seq)
        self.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
        self.step(events.BusWritten, BUS, 2, E1, seq, 0, seq, 0, 0, asked_s)
        self.back("publish", view=0)
        return asked_s

    def bus_read(
        self, version: int, *, page: int = 0, empty: bool = False, volatile: tuple[str, ...] = (), confirmed: float
    ) -> None:
        known = self._stands[:2]
        told = (page, empty, list(volatile), len(volatile), 0, confirmed)
        self.step(events.BusRead, BUS, *known, 0, version, *told)

    def claim(self, what: str, owner: str, held: str = "", *, by: tuple[str, int] = (E1, 0), done: bool = True) -> None:
        self.step(events.Claimed, what, "lease:k", owner, held, *by, done, 5 * S)


Case = Callable[[bool], list[Tape]]
CASES: list[tuple[str, Case]] = []


def case(row: str) -> Callable[[Case], Case]:
    def enter(build: Case) -> Case:
        CASES.append((row, build))
        return build

    return enter


# -- the log


@case("numbered")
def a_number_is_given_out_twice(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.append("other", seq=1 if bad else 2)
    return [tape]


@case("one history")
def an_epoch_comes_back(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.append("k", seq=1, epoch=E2)
    tape.append("k", seq=2, epoch=E1 if bad else E2)
    return [tape]


@case("read")
def a_page_is_older_than_what_had_been_appended(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.read(0 if bad else 1, *([] if bad else [("k", 1)]))
    return [tape]


@case("read")
def a_page_goes_on_from_where_its_reader_does_not_stand(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.append("k", seq=1)
    page = tape.page("log", 1, ("k", 1), after=0)
    tape.events.append(events.LogRead(1, tape.now - 10, tape.now, page, E2 if bad else E1, 0, False))
    return [tape]


@case("page whole")
def a_page_lacks_a_record(bad: bool) -> list[Tape]:
    """As a notice that is applied although another before it has not come."""
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.append("other", seq=2)
    tape.page("made", 2, ("other", 2), after=0 if bad else 1)
    return [tape]


@case("page whole")
def a_page_without_its_last_record_does_not_raise_its_floor(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.page("made", 3, *([] if bad else [("k", 3)]), after=2)
    return [tape]


# -- the view


@case("published")
def a_view_goes_beyond_its_page(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    page, asked_s = tape.read(0)
    tape.apply(page, asked_s, E1, 5 if bad else 0)
    return [tape]


@case("published")
def a_late_page_takes_the_view_back(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    late = tape.read(0)
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    tape.call("apply", page=late[0], asked=late[1])
    if bad:
        tape.publish(E1, 0)
    tape.back("apply", outcome=not bad)
    return [tape]


@case("pended")
def what_is_pended_is_not_published(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    if not bad:
        tape.pend("pend", "k")
    else:
        tape.call("pend", patterns=["k"])
        tape.back("pend")
    return [tape]


def settling(bad: bool, *, appends: bool, knows: bool) -> list[Tape]:
    """What was pending is appended, read from the log, and no longer pending; or not so."""
    tape = Tape(bad)
    tape.knows()
    tape.pend("pend", "k")
    if appends:
        tape.append("k", seq=1)
    if knows:
        page, asked_s = tape.read(1, ("k", 1), known=(E1, 0))
        tape.call("apply", page=page, asked=asked_s)
        tape.publish(E1, 1, pending=True)
        tape.generation()
        tape.step(events.Confirmed, 1, asked_s)
        tape.back("apply")
    tape.call("settle", patterns=["k"])
    stands = (E1, 1 if knows else 0, 0, True, False)
    tape.step(events.Published, 1, *stands, tape._generation)
    tape.back("settle")
    return [tape]


@case("settling")
def what_is_pending_is_forgotten_before_it_is_known(bad: bool) -> list[Tape]:
    return settling(bad, appends=True, knows=not bad)


@case("published")
def what_is_pending_is_forgotten_before_it_is_appended(bad: bool) -> list[Tape]:
    return settling(bad, appends=not bad, knows=not bad)


@case("generation")
def a_generation_comes_before_its_state(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    page, asked_s = tape.read(0)
    tape.call("apply", page=page, asked=asked_s)
    if bad:
        tape.step(events.Generation, 1, 1)
    tape.publish(E1, 0)
    tape.generation()
    tape.step(events.Confirmed, 1, asked_s)
    tape.back("apply")
    return [tape]


@case("confirmed")
def a_moment_comes_before_the_generation(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    page, asked_s = tape.read(0)
    tape.call("apply", page=page, asked=asked_s)
    tape.publish(E1, 0)
    if not bad:
        tape.generation()
    tape.step(events.Confirmed, 1, asked_s)
    return [tape]


@case("confirmed")
def a_moment_is_that_of_the_answer(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    page, asked_s = tape.read(0)
    tape.apply(page, asked_s + (0.0007 if bad else 0), E1, 0)
    return [tape]


@case("confirmed")
def a_tail_of_another_epoch_confirms(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tail, asked_s = f"{E2 if bad else E1}:0:0", tape.now / S
    tape.step(events.TailRead, "entry", "k", tail, False)
    tape.call("confirm", tail=tail, asked=asked_s)
    tape.step(events.Confirmed, 1, asked_s)
    tape.back("confirm")
    return [tape]


@case("applied")
def a_page_of_another_log_is_said_to_be_known(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    late = tape.read(0, epoch=E2)
    tape.knows()
    tape.call("apply", page=late[0], asked=late[1])
    tape.back("apply", outcome=bad)
    return [tape]


@case("judged")
def an_entry_is_judged_without_its_dep(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("dep:*", seq=1)
    tape.knows(1, ("dep:*", 1))
    tape.judged(0, "dep:a" if bad else "other:a")
    return [tape]


@case("judged")
def an_entry_is_older_than_what_is_pending(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.pend("pend", "k")
    told = (E1, 0, 1 if bad else 2, 2, 2, True)
    tape.step(events.Judged, 1, "k", (), *told)
    return [tape]


@case("refused")
def what_nothing_speaks_against_is_refused(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    tape.judged(1 if bad else 0, valid=False)
    return [tape]


@case("as_of")
def it_is_no_state_of_the_view(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.step(events.AsOfTaken, 1, E1, 3 if bad else 0, 1)
    return [tape]


@case("as_of")
def it_is_older_than_the_lease_allows(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.append("k", seq=1)
    tape.now += 2 * S if bad else 0
    tape.step(events.AsOfTaken, 1, E1, 0, 1)
    return [tape]


# -- the node


@case("bus written")
def the_bus_goes_beyond_its_page(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    tape.bus()
    tape.append("k", seq=1)
    page, asked_s = tape.read(1, ("k", 1), known=(E1, 0))
    tape.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
    tape.written(4, 2 if bad else 1, asked_s)
    return [tape]


@case("bus written")
def the_moment_of_the_bus_is_later_than_the_question(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    tape.bus()
    page, asked_s = tape.read(0, known=(E1, 0))
    asked_s += 0.001 if bad else 0
    tape.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
    tape.written(4, 0, asked_s)
    return [tape]


@case("bus settled")
def children_are_told_before_the_log_has_it(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    confirmed = tape.bus()
    tape.call("publish_volatile", view=0, bus=BUS, patterns=["k"])
    tape.written(4, 0, confirmed, volatile=1)
    if not bad:
        tape.append("k", seq=1)
        page, confirmed = tape.read(1, ("k", 1), known=(E1, 0))
        tape.call("publish", view=0, bus=BUS, page=page, asked=confirmed)
        tape.written(6, 1, confirmed, volatile=1)
    tape.call("settle_volatile", view=0, bus=BUS, count=1)
    tape.written(8, 0 if bad else 1, confirmed, volatile=1, settled=1)
    return [tape]


def child(bad: bool) -> tuple[Tape, Tape, float]:
    """A main process whose bus has one record, and a child that has read the log before."""
    main, tape = Tape(bad, view=False), Tape(bad, bus=BUS)
    tape.knows()
    main.now = tape.now
    main.bus()
    main.append("k", seq=1)
    page, asked_s = main.read(1, ("k", 1), known=(E1, 0))
    main.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
    main.written(4, 1, asked_s)
    tape.now = main.now
    return main, tape, asked_s


@case("bus read")
def the_bus_is_read_in_the_middle_of_a_write(bad: bool) -> list[Tape]:
    main, tape, asked_s = child(bad)
    page = tape.page("bus", 1, ("k", 1))
    tape.bus_read(4, page=page, confirmed=asked_s + bad)
    return [main, tape]


@case("followed")
def a_version_is_followed_and_its_page_not_taken_in(bad: bool) -> list[Tape]:
    main, tape, asked_s = child(bad)
    page = tape.page("bus", 1, ("k", 1))
    tape.bus_read(4, page=page, confirmed=asked_s)
    if not bad:
        tape.apply(page, asked_s, E1, 1)
    tape.step(events.Followed, 1, 4)
    return [main, tape]


@case("received")
def a_notice_is_taken_in_and_not_on_the_bus(bad: bool) -> list[Tape]:
    main, _, _ = child(bad)
    main.step(events.Received, BUS, ["k"], E1, 2 if bad else 1)
    return [main]


# -- what is served


@case("served from L1")
def the_lease_has_run_out(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.now += 2 * S if bad else 0
    tape.served(0, "l1", "get")
    return [tape]


@case("served from L1")
def an_invalidated_entry_is_served_by_the_lease(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    tape.served(0 if bad else 1, "l1")
    return [tape]


@case("served from L1")
def the_bus_was_not_followed(bad: bool) -> list[Tape]:
    main, tape, asked_s = child(bad)
    if not bad:
        page = tape.page("bus", 1, ("k", 1))
        tape.bus_read(4, page=page, confirmed=asked_s)
        tape.apply(page, asked_s, E1, 1)
        tape.step(events.Followed, 1, 4)
    tape.served(0 if bad else 1, "l1", bus_since=4)
    return [main, tape]


@case("served from L1")
def a_slot_is_judged_before_the_lease_brings_more(bad: bool) -> list[Tape]:
    main, tape, asked_s = child(bad)
    began, since = tape.now, tape._generation
    page = tape.page("bus", 1, ("k", 1))
    tape.bus_read(4, page=page, confirmed=asked_s)
    tape.apply(page, asked_s, E1, 1)
    tape.step(events.Followed, 1, 4)
    told = ("lookup", 1, "l1", "k", (), E1, 0 if bad else 1, since, since, tape._generation, 0, False)
    tape.events.append(events.Served(1, began, tape.now, *told))
    return [main, tape]


@case("served from L1")
def a_strict_cache_serves_unconfirmed(bad: bool) -> list[Tape]:
    tape = Tape(bad, strict=bad)
    tape.knows()
    tape.served(0, "l1", degraded=True)
    return [tape]


def from_l2(bad: bool, *, written: int, read: int, generation: int | None = None, pends: bool = False) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.filled(written, by="set")
    tape.step(events.Wrote, "k", (), E1, written)
    if pends:
        tape.pend("pend", "other")
    tape.step(events.TailRead, "entry", "k", f"{E1}:0:0", False)
    tape.served(read, "l2", generation=generation)
    return [tape]


@case("served from L2")
def nobody_has_written_it(bad: bool) -> list[Tape]:
    return from_l2(bad, written=3 if bad else 0, read=0)


@case("served from L2")
def it_counts_as_newer_than_what_is_pending(bad: bool) -> list[Tape]:
    return from_l2(bad, written=0, read=0, generation=2 if bad else 0, pends=True)


@case("served from L2")
def an_append_is_not_known_that_had_returned(bad: bool) -> list[Tape]:
    tape = from_l2(bad, written=0, read=0)[0]
    other = Tape(bad, view=False)
    other.now = tape.events[-1].began - 2 * S // 1000 if bad else tape.now
    other.append("k", seq=1)
    return [tape, other]


@case("joined")
def an_outcome_is_not_judged(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.served(-1 if bad else 0, "joined", "join", epoch="" if bad else E1)
    return [tape]


@case("joined")
def a_caller_joins_without_having_read_the_log(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.append("other", seq=1)
    if not bad:
        tape.knows(1, ("other", 1))
    tape.served(0, "joined", "join")
    return [tape]


# -- what is kept


@case("filled")
def as_of_is_taken_after_the_computation(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.computing()
    tape.append("other", seq=1)
    tape.knows(1, ("other", 1))
    tape.filled(1 if bad else 0, generation=2 if bad else 1)
    return [tape]


@case("filled")
def as_of_is_taken_after_an_input_was_read(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.step(events.Served, "get", 1, "l1", "dep", (), E1, 0, 1, 1, 1, -1, False)
    tape.append("other", seq=1)
    tape.knows(1, ("other", 1))
    tape.computing("dep")
    tape.filled(1 if bad else 0, "dep", generation=2 if bad else 1)
    return [tape]


@case("filled")
def the_deps_of_a_dep_are_lost(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.computing("b")
    tape.step(events.Served, "get", 1, "l1", "b", ("a",), E1, 0, 1, 1, 1, -1, False)
    tape.filled(0, "b", *([] if bad else ["a"]))
    return [tape]


@case("wrote")
def something_else_is_written(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.computing("dep")
    tape.filled(0, "dep")
    tape.step(events.Wrote, "k", () if bad else ("dep",), E1, 0)
    return [tape]


@case("invalidated")
def it_does_not_hold_here(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    began = tape.now
    tape.append("k", seq=1)
    if not bad:
        tape.knows(1, ("k", 1))
    tape.events.append(events.Invalidated(1, began, tape.now, 1, ["k"], E1, 1, True, tape._generation))
    return [tape]


# -- claims


@case("taken over")
def a_claim_is_taken_from_an_owner_that_knows_enough(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    if not bad:
        tape.judged(0, valid=False)
    tape.claim("replace", "b", "a")
    return [tape]


@case("claimed")
def two_have_the_same_claim(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.claim("take", "a")
    if not bad:
        tape.claim("release?", "a", "a", done=False)
        tape.claim("release", "a", "a")
    tape.claim("take", "b")
    return [tape]


@case("claimed")
def a_claim_is_given_back_that_another_has_taken_over(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    tape.claim("replace?", "b", "-", done=False)
    tape.claim("replace", "b", "-")
    tape.judged(0, valid=False)
    tape.claim("replace?", "c", "b", done=False)
    tape.claim("replace", "c", "b")
    tape.claim("release", "b" if bad else "c", "b" if bad else "c")
    return [tape]


# -- the tests


def replayed(tapes: list[Tape]) -> list[Rejected]:
    return replay([Trace(number, f"program{number}", tape.events) for number, tape in enumerate(tapes)]).rejected


@pytest.mark.parametrize(("row", "build"), CASES, ids=[build.__name__ for _, build in CASES])
def test_a_step_that_no_order_allows_is_rejected_by_its_row(row: str, build: Case) -> None:
    """And the same trace without that one thing is accepted: no row objects to what is right."""
    right = replayed(build(False))
    assert not right, [(one.row, one.why) for one in right]
    assert row in {one.row for one in replayed(build(True))}


def test_every_row_has_a_trace_that_it_rejects() -> None:
    """A row that never objects proves nothing. `settled` speaks through `published`, which asks it."""
    assert set(ROWS) - {row for row, _ in CASES} == {"settled"}


def test_what_a_row_names_is_a_rule_of_the_model() -> None:
    """A rule that the model has renamed, or given up, is thought over here, too."""
    named = {rule for row in ROWS.values() for rule in row.rules}
    assert named - set(RULES) == set()


def test_every_rule_of_the_model_is_held_or_cannot_be_seen() -> None:
    """A rule that the model gets is held against real runs, or says why it cannot be."""
    held = {rule for row in ROWS.values() for rule in row.rules}
    assert set(RULES) - held == set(UNOBSERVABLE)
    assert all(UNOBSERVABLE.values())


def test_every_row_says_what_it_demands() -> None:
    assert [name for name, row in ROWS.items() if not row.about or not row.rules] == []


def test_a_rejected_step_is_told_with_what_was_around_it() -> None:
    """The process, the step, the rule, and the last 20 events in words."""
    tape = Tape(True)
    for _ in range(AROUND):
        tape.knows()
    tape.step(events.AsOfTaken, 1, E1, 3, 1)
    (rejected,) = replayed([tape])
    lines = list(story(rejected))
    assert lines[0].startswith("program0 (process 0, thread 1), step ")
    assert "took as_of epoch1:3" in lines[0]
    assert "'as_of'" in lines[1]
    assert "take_as_of" in lines[1]
    assert sum(line.startswith(("   ", "  >")) for line in lines[3:]) == AROUND
    assert sum(line.startswith("  >") for line in lines) == 1
