"""For the rows of the entries and claims."""

from __future__ import annotations

from traces import events
from traces.handmade.tape import E1, S, Tape, case, child

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


@case("filled")
def a_read_is_not_recorded(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.computing()
    tape.step(events.Served, "get", 1, "l1", "b", (), E1, 0, 1, 1, 1, -1, False)
    tape.filled(0, *([] if bad else ["b"]))
    return [tape]


@case("filled")
def a_task_has_seen_what_its_caller_saw(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.step(events.Served, "get", 1, "l1", "dep", (), E1, 0, 1, 1, 1, -1, False)
    tape.append("other", seq=1)
    tape.knows(1, ("other", 1))
    caller, tape.thread = tape.thread, -1
    tape.step(events.Branched, caller)
    tape.computing("dep")
    tape.filled(1 if bad else 0, "dep", generation=2 if bad else 1)
    return [tape]


@case("wrote")
def one_of_several_is_not_what_was_filled(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    for key in ("a", "b"):
        tape.step(events.Filled, "set", 1, key, (), E1, 0, 1, 1)
    for key, seq in (("a", 0), ("b", 1 if bad else 0)):
        tape.step(events.Wrote, key, (), E1, seq)
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
