"""For the rows of the log, the view, and the node."""

from __future__ import annotations

from traces import events
from traces.handmade.tape import BUS, E1, E2, S, Tape, case, child

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
