"""For the rows of what is heard, of former logs, and of the server that the log was asked at."""

from __future__ import annotations

from traces import events
from traces.handmade.tape import BUS, E1, E2, NEVER, S, Tape, case

# -- what is heard


def hears(tape: Tape, *records: tuple[str, int], after: int = 0, asked_s: float = NEVER) -> None:
    """A page that is heard and taken in; `asked_s`: as one that was asked for at that moment."""
    began, seq = tape.now, records[-1][1]
    page = tape.page("heard", seq, *records, after=after)
    tape.call("apply", page=page, asked=asked_s)
    tape.publish(E1, seq)
    tape.generation()
    if asked_s != NEVER:
        tape.step(events.Confirmed, 1, asked_s)
    tape.back("apply")
    tape.events.append(events.Heard(1, began, tape.now, 1, "", page))


@case("heard")
def a_notice_has_not_all_records_of_its_append(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", "other", seq=2)
    tape.page("heard", 2, *([] if bad else [("k", 1)]), ("other", 2))
    return [tape]


@case("heard")
def a_notice_is_taken_for_all_that_was_appended_before(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.append("other", seq=2)
    tape.page("heard", 2, ("other", 2), after=0 if bad else 1)
    return [tape]


@case("heard")
def a_notice_tells_another_pattern_than_the_log_has(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.append("k", seq=1)
    tape.page("heard", 1, ("other" if bad else "k", 1))
    return [tape]


@case("published")
def a_view_takes_a_notice_over_a_gap(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.append("k", seq=1)
    tape.append("other", seq=2)
    if not bad:
        hears(tape, ("k", 1))
    hears(tape, ("other", 2), after=1)
    return [tape]


@case("confirmed")
def a_notice_confirms(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    asked_s = tape.now / S
    tape.append("k", seq=1)
    hears(tape, ("k", 1), asked_s=asked_s if bad else NEVER)
    return [tape]


@case("listened")
def another_page_is_made_of_what_was_heard(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    tape.append("k", seq=1)
    began, heard = tape.now, tape.page("heard", 1, ("k", 1))
    tape.call("apply", page=tape.page("made", 1, ("k", 1)) if bad else heard)
    tape.publish(E1, 1)
    tape.generation()
    tape.back("apply")
    tape.events.append(events.Heard(1, began, tape.now, 1, "", heard))
    return [tape]


@case("listened")
def what_was_heard_is_neither_known_nor_asked_for(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.knows()
    began = tape.now
    if not bad:
        tape.knows()
    tape.events.append(events.Heard(1, began, tape.now, 1, "", 0))
    return [tape]


@case("listened")
def a_node_hears_and_its_bus_stands_still(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    confirmed = tape.bus()
    tape.append("k", seq=1)
    began, page = tape.now, tape.page("heard", 1, ("k", 1))
    if not bad:
        tape.call("publish", view=0, bus=BUS, page=page)
        tape.written(4, 1, confirmed)
        tape.back("publish", view=0)
    tape.events.append(events.Heard(1, began, tape.now, 0, BUS, page))
    return [tape]


@case("bus written")
def what_a_node_hears_confirms_its_bus(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    confirmed = tape.bus()
    tape.step(events.TailRead, "beat", "node", f"{E1}:1:0", False)
    asked_s = tape.events[-1].began / S if bad else NEVER
    tape.append("k", seq=1)
    page = tape.page("heard", 1, ("k", 1))
    tape.call("publish", view=0, bus=BUS, page=page, asked=asked_s)
    tape.written(4, 1, max(confirmed, asked_s))
    return [tape]


@case("bus left")
def a_write_that_was_broken_off_leaves_an_empty_bus(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    tape.bus()
    left = ("" if bad else "?", 0, 0, 0, 0, 0, NEVER, True)
    tape.step(events.BusWritten, BUS, 4, *left)
    return [tape]


@case("bus left")
def a_write_that_was_broken_off_is_taken_for_the_log(bad: bool) -> list[Tape]:
    tape = Tape(bad, view=False)
    tape.bus()
    tape.step(events.BusWritten, BUS, 4, E1 if bad else "?", 0, 0, 0, 0, 0, NEVER, True)
    return [tape]


# -- the mends that the proof brought


@case("as_of")
def it_is_ahead_of_the_published_generation(bad: bool) -> list[Tape]:
    """A computation that begins now is given inputs by what L1 judges by, the generation before."""
    tape = Tape(bad)
    tape.knows()
    tape.append("k", seq=1)
    page, asked_s = tape.read(1, ("k", 1), known=(E1, 0))
    tape.call("apply", page=page, asked=asked_s)
    tape.publish(E1, 1)
    if not bad:
        tape.generation()
    tape.step(events.AsOfTaken, 1, E1, 1, tape._generation)
    tape.back("apply", outcome=None)
    return [tape]


def two_logs(bad: bool, *, late_s: float) -> list[Tape]:
    """One thread asks for the log and gets the later one; another has asked so much later, for the former, and is late."""
    tape = Tape(bad)
    began = tape.now
    tape.now += round(late_s * S)
    late, late_asked_s = tape.read(0)
    tape.now = max(tape.now, began + S // 20)
    page = tape.page("log", 0, epoch=E2, restart=True)
    tape.events.append(events.LogRead(1, began, tape.now, page, "", 0, False))
    tape.apply(page, began / S, E2, 0)
    tape.call("apply", page=late, asked=late_asked_s)
    if bad:
        tape.publish(E1, 0)
        tape.generation()
        tape.step(events.Confirmed, 1, late_asked_s)
    tape.back("apply", outcome=bad)
    return [tape]


@case("later log")
def a_page_of_another_log_was_asked_for_before_the_own_had_answered(bad: bool) -> list[Tape]:
    return two_logs(bad, late_s=0.01)


@case("later log")
def a_view_goes_back_to_a_former_log(bad: bool) -> list[Tape]:
    """Whatever the moments say that the process has noted."""
    tape = Tape(bad)
    former, later = (E1, E2) if bad else (E2, E1)
    other = Tape(bad, view=False)
    other.step(events.TailRead, "beat", "node", f"{former}:0:0", False)
    tape.now = other.now
    page, asked_s = tape.read(0, epoch=E2)
    tape.apply(page, asked_s, E2, 0)
    page, asked_s = tape.read(0, epoch=E1)
    tape.apply(page, asked_s, E1, 0)
    other.now = tape.now
    other.step(events.TailRead, "beat", "node", f"{later}:0:0", False)
    return [tape, other]


@case("met")
def a_page_that_was_refused_counts_as_a_reading(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.step(events.Met, 1, 1)
    tape.read(0)
    late = tape.events[-1]
    tape.append("k", seq=1)
    tape.knows(1, ("k", 1))
    tape.step(events.Met, 1, 2)
    tape.events.append(late)
    tape.call("apply", page=late.page, asked=late.began / S)
    tape.back("apply", outcome=not bad)
    tape.step(events.Met, 1, 3)
    return [tape]


@case("same server")
def a_tail_confirms_on_a_connection_on_which_the_log_was_not_asked(bad: bool) -> list[Tape]:
    tape = Tape(bad)
    tape.step(events.Met, 1, 1)
    tape.knows()
    tail, asked_s = f"{E1}:0:0", tape.now / S
    tape.step(events.TailRead, "entry", "k", tail, False)
    tape.call("confirm", tail=tail, asked=asked_s, count=2 if bad else 1)
    tape.step(events.Confirmed, 1, asked_s)
    tape.back("confirm")
    return [tape]
