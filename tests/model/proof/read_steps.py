"""Reads and computations: `tiers.py`."""

from __future__ import annotations

from typing import Any

from z3 import And, BoolVal, If, Implies, IntVal, Not, Or

from model.proof.logic import BOOL, ENTRY, KEY, PATTERN, PROCESS, READ, State, larger, put
from model.proof.steps import Moment, part, rule


@part
def judges_by(_: Moment, s: State, x: Any, k: Any) -> Any:
    """Whether the entry is judged by that key: its own and its deps."""
    return s.names(x, k)


@part
def valid(n: Moment, s: State, q: Any, x: Any) -> Any:
    """`InvalidationView.valid`, by the state that judges."""

    @n.scope.all(KEY, PATTERN)
    def no_record(k: Any, p: Any) -> Any:
        return Implies(And(n.part("judges_by", s, x, k), s.means(p, k)), s.v_record(q, p) <= s.as_seq(x))

    same = s.as_epoch(x) == s.v_epoch(q)
    within = And(s.v_floor(q) <= s.as_seq(x), s.as_seq(x) <= s.v_seq(q))
    return And(same, Or(s.as_seq(x) == s.v_seq(q), And(within, no_record)))


# -- L1


@rule
def begin_read(n: Moment, s: State) -> tuple[Any, State]:
    """The clock is read; what is promised to this read is settled."""
    r = n.any(READ, "read")
    return BoolVal(True), s.but(step=put(s.step, r, IntVal(1)), begun=put(s.begun, r, n.time))


@rule
def grant_lease(n: Moment, s: State) -> tuple[Any, State]:
    """The bus has nothing that the view has not, and the bound has not passed since the confirmation when the read began."""
    r = n.any(READ, "read")
    q = s.reader(r)
    b = s.home(q)
    after = s.but(
        step=put(s.step, r, IntVal(2)),
        lease=put(s.lease, r, s.confirmed(q)),
        b_epoch=put(s.b_epoch, r, s.n_epoch(b)),
        b_seq=put(s.b_seq, r, s.n_seq(b)),
    )
    return And(s.step(r) == 1, s.followed(q) == s.n_version(b), s.begun(r) < s.confirmed(q) + s.bound), after


@rule
def hit(n: Moment, s: State) -> tuple[Any, State]:
    """A slot of the published generation is served at once."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    q = s.reader(r)
    after = s.but(step=put(s.step, r, IntVal(0)))
    return And(s.step(r) == 2, s.slot(q, x), s.judged(q, x) == s.generation(q)), after


@rule
def look_at_generation(n: Moment, s: State) -> tuple[Any, State]:
    """A slot of an older generation must be judged. First the generation is read."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    q = s.reader(r)
    after = s.but(step=put(s.step, r, IntVal(7)), entry=put(s.entry, r, x), r_generation=put(s.r_generation, r, s.generation(q)))
    return And(s.step(r) == 2, s.slot(q, x)), after


@rule
def judge_slot(n: Moment, s: State) -> tuple[Any, State]:
    """Found valid it is served."""
    r = n.any(READ, "read")
    return And(s.step(r) == 7, n.part("valid", s, s.reader(r), s.entry(r))), s.but(step=put(s.step, r, IntVal(8)))


@rule
def mark_slot(n: Moment, s: State) -> tuple[Any, State]:
    """The slot counts as judged at the generation that was read before."""
    r = n.any(READ, "read")
    q, x = s.reader(r), s.entry(r)
    after = s.but(step=put(s.step, r, IntVal(0)), judged=put(s.judged, q, x, s.r_generation(r)))
    return And(s.step(r) == 8, s.slot(q, x)), after


@rule
def drop_slot(n: Moment, s: State) -> tuple[Any, State]:
    """A slot goes: it was found invalid, or is evicted, or its time to live has passed."""
    q, x = n.any(PROCESS, "process"), n.any(ENTRY, "entry")
    return BoolVal(True), s.but(slot=put(s.slot, q, x, BoolVal(False)))


# -- L2


@rule
def ask(n: Moment, s: State) -> tuple[Any, State]:
    """The moment is noted, before anything is asked."""
    r = n.any(READ, "read")
    after = s.but(step=put(s.step, r, IntVal(3)), asked=put(s.asked, r, n.time))
    return Or(s.step(r) == 1, s.step(r) == 2, s.step(r) == 7), after


@rule
def get_entry(n: Moment, s: State) -> tuple[Any, State]:
    """L2 gives any entry that was ever written there, or none."""
    r, x, found = n.any(READ, "read"), n.any(ENTRY, "entry"), n.any(BOOL, "found")
    after = s.but(
        step=put(s.step, r, IntVal(4)),
        entry=put(s.entry, r, x),
        found=put(s.found, r, found),
        got_at=put(s.got_at, r, n.time),
        r_contact=put(s.r_contact, r, s.contact),
        made=put(s.made, s.reader(r), s.contact),
    )
    return And(s.step(r) == 3, Implies(found, s.stored(x))), after


@rule
def get_tail(n: Moment, s: State) -> tuple[Any, State]:
    """On the same connection, then. Whether the tail is of a log that stands, the reader cannot tell."""
    r = n.any(READ, "read")
    after = s.but(
        step=put(s.step, r, IntVal(5)),
        no_tail=put(s.no_tail, r, And(Not(s.stands), s.bare)),
        t_epoch=put(s.t_epoch, r, If(s.stands, s.epoch, s.old_epoch)),
        t_seq=put(s.t_seq, r, If(s.stands, s.last(s.epoch), s.old_seq)),
        t_latest=put(s.t_latest, r, s.epoch),
        stood=put(s.stood, r, s.stands),
    )
    return And(s.step(r) == 4, s.r_contact(r) == s.contact), after


@rule
def fail_to_read(n: Moment, s: State) -> tuple[Any, State]:
    """The connection broke, or the caller was broken off."""
    r = n.any(READ, "read")
    return BoolVal(True), s.but(step=put(s.step, r, IntVal(0)))


@rule
def confirm(n: Moment, s: State) -> tuple[Any, State]:
    """The tail is where the view stands, and no connection is newer than the last reading of the log: nothing is new."""
    r = n.any(READ, "read")
    q = s.reader(r)
    same = And(Not(s.no_tail(r)), s.v_known(q), s.t_epoch(r) == s.v_epoch(q), s.t_seq(r) == s.v_seq(q))
    free = And(Not(s.locked(q)), s.generation(q) == s.revision(q), s.made(q) == s.contacts(q))
    after = s.but(step=put(s.step, r, IntVal(6)), confirmed=put(s.confirmed, q, larger(s.confirmed(q), s.asked(r))))
    return And(s.step(r) == 5, same, free), after


@rule
def caught_up(n: Moment, s: State) -> tuple[Any, State]:
    """The log was read, by this thread or another: the view is confirmed as of the read's own question, and covers its tail."""
    r = n.any(READ, "read")
    q = s.reader(r)
    covers = Or(s.no_tail(r), And(s.t_epoch(r) == s.v_epoch(q), s.t_seq(r) <= s.v_seq(q)))
    return And(s.step(r) == 5, s.confirmed(q) >= s.asked(r), covers), s.but(step=put(s.step, r, IntVal(6)))


@rule
def serve_from_l2(n: Moment, s: State) -> tuple[Any, State]:
    """The entry is judged by what is known now, and served."""
    r = n.any(READ, "read")
    found = And(s.step(r) == 6, s.found(r), n.part("valid", s, s.reader(r), s.entry(r)))
    return found, s.but(step=put(s.step, r, IntVal(0)))


@rule
def serve_l1_after_l2(n: Moment, s: State) -> tuple[Any, State]:
    """Or L1's slot is, by what the read has taught."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    q = s.reader(r)
    return And(s.step(r) == 6, s.slot(q, x), n.part("valid", s, q, x)), s.but(
        step=put(s.step, r, IntVal(0)), entry=put(s.entry, r, x)
    )


@rule
def hit_after_l2(n: Moment, s: State) -> tuple[Any, State]:
    """Or a slot of the published generation, by one comparison."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    q = s.reader(r)
    after = s.but(step=put(s.step, r, IntVal(0)), entry=put(s.entry, r, x))
    return And(s.step(r) == 6, s.slot(q, x), s.judged(q, x) == s.generation(q)), after


@rule
def join(n: Moment, s: State) -> tuple[Any, State]:
    """A caller takes what another thread computes, once the view is confirmed as of its own question. It judges the outcome as an
    entry from L2."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    after = s.but(
        step=put(s.step, r, IntVal(6)),
        entry=put(s.entry, r, x),
        found=put(s.found, r, BoolVal(True)),
        got_at=put(s.got_at, r, n.time),
        stood=put(s.stood, r, BoolVal(False)),
        no_tail=put(s.no_tail, r, BoolVal(True)),
    )
    return And(s.step(r) == 3, s.stage(x) == 2, s.maker(x) == s.reader(r), s.confirmed(s.reader(r)) >= s.asked(r)), after


@rule
def look_before_keeping(n: Moment, s: State) -> tuple[Any, State]:
    """A thread that has an entry in hand, from L2 or computed, reads the generation; it judges, and keeps it (`keep_here`)."""
    r, x = n.any(READ, "read"), n.any(ENTRY, "entry")
    q = s.reader(r)
    after = s.but(step=put(s.step, r, IntVal(9)), entry=put(s.entry, r, x), r_generation=put(s.r_generation, r, s.generation(q)))
    return And(s.step(r) == 0, s.stage(x) == 2), after


@rule
def judge_before_keeping(n: Moment, s: State) -> tuple[Any, State]:
    """Only what is valid by now is kept."""
    r = n.any(READ, "read")
    return And(s.step(r) == 9, n.part("valid", s, s.reader(r), s.entry(r))), s.but(step=put(s.step, r, IntVal(10)))


@rule
def keep(n: Moment, s: State) -> tuple[Any, State]:
    """Into L1, marked with the generation from before the judgement."""
    r = n.any(READ, "read")
    q, x = s.reader(r), s.entry(r)
    after = s.but(
        step=put(s.step, r, IntVal(0)),
        slot=put(s.slot, q, x, BoolVal(True)),
        judged=put(s.judged, q, x, s.r_generation(r)),
    )
    return s.step(r) == 10, after
