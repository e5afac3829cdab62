"""Mutants of the log and of the bus: as `mutants`, which it adds to."""

from __future__ import annotations

from typing import Any

from z3 import And, BoolVal, If, IntVal, Not

from model.proof import log_steps, view_steps
from model.proof.logic import PAGE, PROCESS, SEQ, State, put
from model.proof.mutants import MUTANTS, Changed, mutant
from model.proof.steps import Moment

__all__ = ["MUTANTS"]

# -- the log


@mutant("trim", "log_is_whole")
def floor_not_raised() -> Changed:
    """Records are trimmed, and the tail does not say so."""

    def trim(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = log_steps.trim(n, s)
        return condition, after.but(floor=s.floor, whole=s.whole)

    return {"trim": trim}


@mutant("append", "log_is_whole")
def eviction_unnoticed() -> Changed:
    """The first record after the set was evicted is taken for one of all."""

    def append(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = log_steps.append(n, s)
        return condition, after.but(whole=s.whole)

    return {"append": append}


@mutant("begin_log", "page_positions")
def epoch_kept() -> Changed:
    """A log that lost its tail begins anew under the epoch that it had."""

    def begin_log(n: Moment, s: State) -> tuple[Any, State]:
        _, after = log_steps.begin_log(n, s)
        return And(Not(s.stands), s.epoch >= 1), after.but(epoch=s.epoch, began=s.began, last=put(s.last, s.epoch, IntVal(0)))

    return {"begin_log": begin_log}


@mutant("fail_over", "view_positions")
def history_ignored() -> Changed:
    """A server that lost the newest records goes on with its log, and gives their numbers out again (hole c)."""

    def fail_over(n: Moment, s: State) -> tuple[Any, State]:
        seq = n.any(SEQ, "seq of its tail")
        kept = If(s.floor <= seq, seq, s.floor)
        after = s.but(
            last=put(s.last, s.epoch, kept), contact=s.contact + 1, record=lambda p: If(s.record(p) <= kept, s.record(p), 0)
        )
        return And(s.stands, seq >= 0, seq < s.last(s.epoch), s.whole <= kept), after

    return {"fail_over": fail_over}


@mutant("read_portion", "page_is_whole")
def log_begun_in_two_steps() -> Changed:
    """A reader that found no log takes the one that another has begun meanwhile for a log without records (hole a)."""

    def read_portion(n: Moment, s: State) -> tuple[Any, State]:
        page = n.any(PAGE, "page")
        after = s.but(
            at=put(s.at, page, IntVal(2)),
            p_epoch=put(s.p_epoch, page, s.epoch),
            p_seq=put(s.p_seq, page, s.last(s.epoch)),
            p_floor=put(s.p_floor, page, IntVal(0)),
            p_after=put(s.p_after, page, IntVal(0)),
            p_record=lambda u, p: If(u == page, 0, s.p_record(u, p)),
            p_restart=put(s.p_restart, page, BoolVal(True)),
            p_came=put(s.p_came, page, n.time),
        )
        return And(s.stands, s.at(page) == 1), after

    return {"read_portion": read_portion}


@mutant("read_portion", "portion_is_whole")
def portion_goes_on_over_a_gap() -> Changed:
    """A reader that is behind what was trimmed meanwhile goes on from where it stood."""

    def read_portion(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = log_steps.read_portion(n, s.but(floor=IntVal(0), whole=IntVal(0)))
        return condition, after.but(floor=s.floor, whole=s.whole)

    return {"read_portion": read_portion}


# -- the bus


@mutant("bus_next", "bus_is_whole")
def bus_base_not_raised() -> Changed:
    """A record on the bus is written over, and the bus counts as whole from before it on."""

    def bus_next(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = view_steps.bus_next(n, s)
        return condition, after.but(n_base=s.n_base)

    return {"bus_next": bus_next}


@mutant("follow_empty_bus", "bus_is_followed")
def broken_off_bus_has_no_news() -> Changed:
    """A bus whose writer was broken off in the middle of a write counts as one that has nothing new (hole k)."""

    def follow_empty_bus(n: Moment, s: State) -> tuple[Any, State]:
        q = n.any(PROCESS, "process")
        return s.n_epoch(s.home(q)) < 0, s.but(followed=put(s.followed, q, s.n_version(s.home(q)) + 1))

    return {"follow_empty_bus": follow_empty_bus}


@mutant("bus_next", "bus_has_seen_all")
def bus_confirms_by_a_notice() -> Changed:
    """A page that came by a notice renews the lease of all children."""

    def bus_next(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = view_steps.bus_next(n, s)
        return condition, after.but(n_confirmed=put(s.n_confirmed, n.chosen["node"], n.time))

    return {"bus_next": bus_next}
