"""A process's view and a node's bus: `coherence/view.py`, `bus.py`, `process.py`."""

from __future__ import annotations

from typing import Any

from z3 import And, BoolVal, If, IntVal, Not, Or

from model.proof.logic import NODE, PAGE, PATTERN, PROCESS, SEQ, TIME, State, larger, put
from model.proof.steps import Moment, rule


def published(s: State, u: Any, q: Any, answered: Any, epoch: Any, seq: Any, floor: Any, record: Any) -> State:
    """The state that judges is another one; its generation is not published yet, and the lock is held."""
    return s.but(
        v_epoch=put(s.v_epoch, q, epoch),
        v_seq=put(s.v_seq, q, seq),
        v_floor=put(s.v_floor, q, floor),
        v_record=lambda w, p: If(w == q, record(p), s.v_record(w, p)),
        v_answered=put(s.v_answered, q, answered),
        revision=put(s.revision, q, s.revision(q) + 1),
        locked=put(s.locked, q, BoolVal(True)),
        at=put(s.at, u, IntVal(3)),
    )


def writes(s: State, u: Any) -> Any:
    """A page is in hand, no other thread writes, and what a writer that was broken off left undone is done."""
    q = s.page_of(u)
    return And(s.at(u) == 2, Not(s.locked(q)), s.generation(q) == s.revision(q))


@rule
def finish(n: Moment, s: State) -> tuple[Any, State]:
    """The next writer publishes the generation for one that was broken off (`_finish`)."""
    q = n.any(PROCESS, "process")
    after = s.but(
        generation=put(s.generation, q, s.revision(q)),
        g_epoch=put(s.g_epoch, q, s.v_epoch(q)),
        g_seq=put(s.g_seq, q, s.v_seq(q)),
    )
    return Not(s.locked(q)), after


@rule
def apply_restart(n: Moment, s: State) -> tuple[Any, State]:
    """A page that is the whole log takes the view's place, unless the view is later: of the same log by its seq, of another by
    when the view's own log had answered."""
    u, answered = n.any(PAGE, "page"), n.any(TIME, "answered")
    q = s.page_of(u)
    same = s.p_epoch(u) == s.v_epoch(q)
    late = If(same, s.p_seq(u) < s.v_seq(q), s.p_asked(u) < s.v_answered(q))
    after = published(s, u, q, answered, s.p_epoch(u), s.p_seq(u), s.p_floor(u), lambda p: s.p_record(u, p)).but(
        v_known=put(s.v_known, q, BoolVal(True))
    )
    return And(writes(s, u), s.p_restart(u), Not(late), s.p_came(u) <= answered, answered <= n.time), after


@rule
def apply_late(n: Moment, s: State) -> tuple[Any, State]:
    """An older page of the same log changes nothing, and confirms."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    late = And(s.p_restart(u), s.p_epoch(u) == s.v_epoch(q), s.p_seq(u) < s.v_seq(q))
    return And(writes(s, u), late), s.but(at=put(s.at, u, IntVal(4)), locked=put(s.locked, q, BoolVal(True)))


@rule
def apply_next(n: Moment, s: State) -> tuple[Any, State]:
    """A page that continues the view's log, from where the view has been."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    after = published(
        s,
        u,
        q,
        s.v_answered(q),
        s.v_epoch(q),
        larger(s.v_seq(q), s.p_seq(u)),
        larger(s.v_floor(q), s.p_floor(u)),
        lambda p: larger(s.v_record(q, p), s.p_record(u, p)),
    )
    return And(writes(s, u), Not(s.p_restart(u)), s.p_epoch(u) == s.v_epoch(q), s.p_after(u) <= s.v_seq(q)), after


@rule
def apply_same(n: Moment, s: State) -> tuple[Any, State]:
    """A page that brings nothing new confirms what is known."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    same = And(s.p_epoch(u) == s.v_epoch(q), s.p_seq(u) <= s.v_seq(q), s.p_after(u) <= s.v_seq(q))
    return And(writes(s, u), same), s.but(at=put(s.at, u, IntVal(4)), locked=put(s.locked, q, BoolVal(True)))


@rule
def refuse_page(n: Moment, s: State) -> tuple[Any, State]:
    """A page that the view cannot take, or that is dropped with its thread."""
    u = n.any(PAGE, "page")
    return Or(s.at(u) == 1, s.at(u) == 2), s.but(at=put(s.at, u, IntVal(0)))


@rule
def publish_generation(n: Moment, s: State) -> tuple[Any, State]:
    """After the state, so that what was judged before is judged again."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    after = s.but(
        generation=put(s.generation, q, s.revision(q)),
        g_epoch=put(s.g_epoch, q, s.v_epoch(q)),
        g_seq=put(s.g_seq, q, s.v_seq(q)),
        at=put(s.at, u, IntVal(4)),
    )
    return s.at(u) == 3, after


@rule
def publish_confirmed(n: Moment, s: State) -> tuple[Any, State]:
    """Last: what it vouches for can be seen by then."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    after = s.but(
        confirmed=put(s.confirmed, q, larger(s.confirmed(q), s.p_asked(u))),
        locked=put(s.locked, q, BoolVal(False)),
        at=put(s.at, u, IntVal(5)),
    )
    return s.at(u) == 4, after


@rule
def break_off(n: Moment, s: State) -> tuple[Any, State]:
    """A writer is broken off between two steps, by a time limit say. It gives the lock back, and confirms nothing."""
    u = n.any(PAGE, "page")
    after = s.but(locked=put(s.locked, s.page_of(u), BoolVal(False)), at=put(s.at, u, IntVal(0)))
    return Or(s.at(u) == 3, s.at(u) == 4), after


@rule
def note_contact(n: Moment, s: State) -> tuple[Any, State]:
    """The page was taken: its connection is that of the last reading of the log."""
    u = n.any(PAGE, "page")
    after = s.but(contacts=put(s.contacts, s.page_of(u), s.p_contact(u)), at=put(s.at, u, IntVal(0)))
    return And(s.at(u) == 5, s.p_contact(u) >= 0), after


@rule
def stand_at_own_tail(n: Moment, s: State) -> tuple[Any, State]:
    """A process that has not read the log stands where its own invalidation's answer says, knowing nothing of before
    (`begin_at`)."""
    u, answered = n.any(PAGE, "page"), n.any(TIME, "answered")
    q = s.page_of(u)
    same = s.p_epoch(u) == s.v_epoch(q)
    late = If(same, s.p_seq(u) < s.v_seq(q), s.p_asked(u) < s.v_answered(q))
    after = published(s, u, q, answered, s.p_epoch(u), s.p_seq(u), s.p_seq(u), lambda _: IntVal(0))
    own = And(s.p_contact(u) < 0, s.p_asked(u) >= 0, s.p_version(u) < 0)
    return And(writes(s, u), own, Not(s.v_known(q)), Not(late), s.p_came(u) <= answered, answered <= n.time), after


@rule
def forget_records(n: Moment, s: State) -> tuple[Any, State]:
    """Too many globs: the oldest go, and the view's floor rises."""
    q, floor = n.any(PROCESS, "process"), n.any(SEQ, "new floor")
    after = s.but(
        v_floor=put(s.v_floor, q, floor),
        v_record=lambda w, p: If(And(w == q, s.v_record(w, p) <= floor), 0, s.v_record(w, p)),
    )
    return s.v_floor(q) <= floor, after


@rule
def note_record_early(n: Moment, s: State) -> tuple[Any, State]:
    """A writer adds records in place before it publishes the state to which they belong, and may be broken off then."""
    q, pattern, seq = n.any(PROCESS, "process"), n.any(PATTERN, "pattern"), n.any(SEQ, "seq")
    return seq >= s.v_record(q, pattern), s.but(v_record=put(s.v_record, q, pattern, seq))


# -- the bus


@rule
def bus_restart(n: Moment, s: State) -> tuple[Any, State]:
    """A page that is the whole log begins the bus anew, unless the bus is later."""
    u, b = n.any(PAGE, "page"), n.any(NODE, "node")
    same = s.p_epoch(u) == s.n_epoch(b)
    late = And(s.n_epoch(b) >= 0, If(same, s.p_seq(u) < s.n_seq(b), s.p_asked(u) < s.n_confirmed(b)))
    after = s.but(
        n_epoch=put(s.n_epoch, b, s.p_epoch(u)),
        n_seq=put(s.n_seq, b, s.p_seq(u)),
        n_base=put(s.n_base, b, s.p_seq(u)),
        n_floor=put(s.n_floor, b, s.p_floor(u)),
        n_record=lambda c, p: If(c == b, 0, s.n_record(c, p)),
        n_confirmed=put(s.n_confirmed, b, s.p_asked(u)),
        n_version=put(s.n_version, b, s.n_version(b) + 1),
    )
    return And(s.at(u) == 2, s.p_restart(u), Not(late)), after


@rule
def bus_next(n: Moment, s: State) -> tuple[Any, State]:
    """A page that continues the bus's log. The ring has no room for all: from `base` on the bus is whole."""
    u, b, base = n.any(PAGE, "page"), n.any(NODE, "node"), n.any(SEQ, "base")
    seq = larger(s.n_seq(b), s.p_seq(u))
    after = s.but(
        n_seq=put(s.n_seq, b, seq),
        n_base=put(s.n_base, b, base),
        n_floor=put(s.n_floor, b, larger(s.n_floor(b), s.p_floor(u))),
        n_record=lambda c, p: If(
            c == b,
            If(
                And(s.p_record(u, p) > s.n_seq(b), s.p_record(u, p) > base),
                s.p_record(u, p),
                If(s.n_record(b, p) > base, s.n_record(b, p), 0),
            ),
            s.n_record(c, p),
        ),
        n_confirmed=put(s.n_confirmed, b, larger(s.n_confirmed(b), s.p_asked(u))),
        n_version=put(s.n_version, b, s.n_version(b) + 1),
    )
    goes_on = And(s.n_epoch(b) == s.p_epoch(u), s.p_after(u) <= s.n_seq(b))
    return And(s.at(u) == 2, Not(s.p_restart(u)), goes_on, s.n_base(b) <= base), after


@rule
def bus_broken_off(n: Moment, s: State) -> tuple[Any, State]:
    """Its writer was broken off in the middle of a write: it is of no log's epoch."""
    b = n.any(NODE, "node")
    after = s.but(
        n_epoch=put(s.n_epoch, b, IntVal(-1)),
        n_confirmed=put(s.n_confirmed, b, IntVal(-1)),
        n_version=put(s.n_version, b, s.n_version(b) + 1),
    )
    return BoolVal(True), after


@rule
def read_bus(n: Moment, s: State) -> tuple[Any, State]:
    """A process reads one moment's state of its bus, from where its view stood when it looked: a page like another."""
    page, seq = n.any(PAGE, "page"), n.any(SEQ, "seq known")
    b = s.home(s.page_of(page))

    def newer(p: Any) -> Any:
        return If(s.n_record(b, p) > seq, s.n_record(b, p), 0)

    gap = And(s.n_seq(b) > larger(seq, s.n_floor(b)), newer(s.pattern(s.n_epoch(b), s.n_seq(b))) != s.n_seq(b))
    after = s.but(
        at=put(s.at, page, IntVal(2)),
        p_epoch=put(s.p_epoch, page, s.n_epoch(b)),
        p_seq=put(s.p_seq, page, s.n_seq(b)),
        p_floor=put(s.p_floor, page, If(gap, s.n_seq(b), s.n_floor(b))),
        p_after=put(s.p_after, page, seq),
        p_record=lambda u, p: If(u == page, If(gap, 0, newer(p)), s.p_record(u, p)),
        p_restart=put(s.p_restart, page, BoolVal(False)),
        p_asked=put(s.p_asked, page, s.n_confirmed(b)),
        p_came=put(s.p_came, page, n.time),
        p_contact=put(s.p_contact, page, IntVal(-1)),
        p_version=put(s.p_version, page, s.n_version(b)),
    )
    return And(s.at(page) == 0, s.n_epoch(b) >= 0, seq >= s.n_base(b)), after


@rule
def follow_bus(n: Moment, s: State) -> tuple[Any, State]:
    """The bus's page was taken: its version is followed."""
    u = n.any(PAGE, "page")
    q = s.page_of(u)
    after = s.but(followed=put(s.followed, q, s.p_version(u)), at=put(s.at, u, IntVal(0)))
    return And(s.at(u) == 5, s.p_version(u) >= 0), after


@rule
def follow_empty_bus(n: Moment, s: State) -> tuple[Any, State]:
    """A bus that never had anything has no news; so a process without a bus."""
    q = n.any(PROCESS, "process")
    b = s.home(q)
    return And(s.n_epoch(b) < 0, s.n_version(b) == 0), s.but(followed=put(s.followed, q, s.n_version(b)))
