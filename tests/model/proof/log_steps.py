"""The log in the server: `lua/history.lua`, `append.lua`, and what may happen to a server."""

from __future__ import annotations

from typing import Any

from z3 import And, BoolVal, If, Implies, IntVal, Not, Or

from model.proof.invariants import exists
from model.proof.logic import BOOL, EPOCH, INT, PAGE, PATTERN, SEQ, TIME, State, larger, put
from model.proof.state import no
from model.proof.steps import Moment, rule


@rule
def begin_log(n: Moment, s: State) -> tuple[Any, State]:
    """A script finds no log, or one of another history, and begins one. It goes on with it at once; here others may come
    between."""
    epoch = s.epoch + 1
    after = s.but(
        epoch=epoch,
        stands=BoolVal(True),
        last=put(s.last, epoch, IntVal(0)),
        began=put(s.began, epoch, n.time),
        floor=IntVal(0),
        whole=IntVal(0),
        lost=BoolVal(False),
        record=no(IntVal(0)),
    )
    return Not(s.stands), after


@rule
def append(n: Moment, s: State) -> tuple[Any, State]:
    """One pattern more; an equal one replaces its older record. Its caller has the answer in hand, or has lost it."""
    pattern, called, page, asked = n.any(PATTERN, "pattern"), n.any(TIME, "called"), n.any(PAGE, "page"), n.any(TIME, "asked")
    seq = s.last(s.epoch) + 1
    after = s.but(
        last=put(s.last, s.epoch, seq),
        pattern=put(s.pattern, s.epoch, seq, pattern),
        called=put(s.called, s.epoch, seq, called),
        appended=put(s.appended, s.epoch, seq, n.time),
        done=put(s.done, s.epoch, seq, BoolVal(False)),
        record=put(s.record, pattern, seq),
        whole=If(s.lost, s.last(s.epoch), s.whole),
        lost=BoolVal(False),
        # `Coherence._learn_own`: the page that follows from the answer alone.
        at=put(s.at, page, IntVal(2)),
        p_epoch=put(s.p_epoch, page, s.epoch),
        p_seq=put(s.p_seq, page, seq),
        p_floor=put(s.p_floor, page, s.floor),
        p_after=put(s.p_after, page, seq - 1),
        p_record=lambda u, p: If(u == page, If(p == pattern, seq, 0), s.p_record(u, p)),
        p_restart=put(s.p_restart, page, BoolVal(False)),
        p_asked=put(s.p_asked, page, asked),
        p_came=put(s.p_came, page, n.time),
        p_contact=put(s.p_contact, page, IntVal(-1)),
        p_version=put(s.p_version, page, IntVal(-1)),
    )
    return And(s.stands, s.at(page) == 0, called >= 0, called <= n.time, asked <= n.time), after


@rule
def trim(n: Moment, s: State) -> tuple[Any, State]:
    """Old records go, and the floor rises. It does so with an append only; here at any time."""
    floor = n.any(SEQ, "new floor")
    after = s.but(floor=floor, whole=larger(s.whole, floor), record=lambda p: If(s.record(p) <= floor, 0, s.record(p)))
    return And(s.stands, s.floor <= floor, floor <= s.last(s.epoch)), after


@rule
def evict_records(_: Moment, s: State) -> tuple[Any, State]:
    """The server gives up the set of records, which has their beginning, too."""
    return BoolVal(True), s.but(lost=BoolVal(True), record=no(IntVal(0)))


@rule
def lose_tail(_: Moment, s: State) -> tuple[Any, State]:
    """The tail is evicted, or the database emptied."""
    return BoolVal(True), s.but(stands=BoolVal(False), bare=BoolVal(True))


@rule
def fail_over(n: Moment, s: State) -> tuple[Any, State]:
    """Another server, or the same one after a restart: of another history, with the tail of any former moment, or none.
    Connections break. What L2 had it may have, or not, as ever."""
    bare, epoch, seq = n.any(BOOL, "without a tail"), n.any(EPOCH, "epoch of its tail"), n.any(SEQ, "seq of its tail")
    after = s.but(stands=BoolVal(False), bare=bare, old_epoch=epoch, old_seq=seq, contact=s.contact + 1)
    return And(epoch >= 0, epoch <= s.epoch, seq >= 0), after


@rule
def invalidate_returns(n: Moment, s: State) -> tuple[Any, State]:
    """The answer came: from now on the promises hold."""
    epoch, seq = n.any(EPOCH, "epoch"), n.any(SEQ, "seq")
    after = s.but(done=put(s.done, epoch, seq, BoolVal(True)), returned=put(s.returned, epoch, seq, n.time))
    return And(exists(s, epoch, seq), Not(s.done(epoch, seq))), after


# -- reading the log: `lua/read.lua`, `RedisInvalidationLog.read_since`


@rule
def begin_reading(n: Moment, s: State) -> tuple[Any, State]:
    """A thread notes the moment, the connection and where it stands, or asks for an earlier moment."""
    page, asked, contact = n.any(PAGE, "page"), n.any(TIME, "asked"), n.any(INT, "contact")
    epoch, seq = n.any(EPOCH, "epoch known"), n.any(SEQ, "seq known")
    after = s.but(
        at=put(s.at, page, IntVal(1)),
        p_epoch=put(s.p_epoch, page, epoch),
        p_seq=put(s.p_seq, page, seq),
        p_floor=put(s.p_floor, page, IntVal(0)),
        p_after=put(s.p_after, page, seq),
        p_record=lambda u, p: If(u == page, 0, s.p_record(u, p)),
        p_restart=put(s.p_restart, page, BoolVal(False)),
        p_asked=put(s.p_asked, page, asked),
        p_came=put(s.p_came, page, n.time),
        p_contact=put(s.p_contact, page, contact),
        p_version=put(s.p_version, page, IntVal(-1)),
    )
    known = And(epoch >= 0, epoch <= s.epoch, seq >= 0, seq <= s.last(epoch))
    return And(s.at(page) == 0, known, asked >= 0, asked <= n.time, contact >= 0, contact <= s.made(s.page_of(page))), after


@rule
def read_portion(n: Moment, s: State) -> tuple[Any, State]:
    """One script: the records from where the reader stands, as many as it wants; else all that there are. With the last portion
    the reader makes a page of them (`page_of`)."""
    page, upto, final = n.any(PAGE, "page"), n.any(SEQ, "upto"), n.any(BOOL, "is the last portion")
    last = s.last(s.epoch)
    whole = If(s.lost, last, s.whole)
    goes_on = And(s.p_epoch(page) == s.epoch, s.p_seq(page) >= larger(whole, s.floor))
    base, start = If(goes_on, s.p_seq(page), whole), If(goes_on, s.p_after(page), whole)
    restart = Or(s.p_restart(page), Not(goes_on))

    def read(p: Any) -> Any:
        return If(And(s.record(p) > base, s.record(p) <= upto), s.record(p), If(goes_on, s.p_record(page, p), 0))

    floor = If(restart, larger(s.floor, start), s.floor)
    gap = And(last > larger(start, floor), read(s.pattern(s.epoch, last)) != last)
    after = s.but(
        at=put(s.at, page, If(final, IntVal(2), IntVal(1))),
        p_epoch=put(s.p_epoch, page, s.epoch),
        p_seq=put(s.p_seq, page, upto),
        p_floor=put(s.p_floor, page, If(final, If(gap, last, floor), 0)),
        p_after=put(s.p_after, page, If(And(final, restart), 0, start)),
        p_record=lambda u, p: If(u == page, If(And(final, gap), 0, read(p)), s.p_record(u, p)),
        p_restart=put(s.p_restart, page, restart),
        p_came=put(s.p_came, page, n.time),
    )
    return And(s.stands, s.at(page) == 1, base <= upto, upto <= last, Implies(final, upto == last)), after


# -- a notice, or the bus: pages that come by other ways


@rule
def hear_notice(n: Moment, s: State) -> tuple[Any, State]:
    """A notice of any record, late, twice or never. It confirms nothing."""
    page, epoch, seq, floor = n.any(PAGE, "page"), n.any(EPOCH, "epoch"), n.any(SEQ, "seq"), n.any(SEQ, "floor")
    after = s.but(
        at=put(s.at, page, IntVal(2)),
        p_epoch=put(s.p_epoch, page, epoch),
        p_seq=put(s.p_seq, page, seq),
        p_floor=put(s.p_floor, page, floor),
        p_after=put(s.p_after, page, seq - 1),
        p_record=lambda u, p: If(u == page, If(p == s.pattern(epoch, seq), seq, 0), s.p_record(u, p)),
        p_restart=put(s.p_restart, page, BoolVal(False)),
        p_asked=put(s.p_asked, page, IntVal(-1)),
        p_came=put(s.p_came, page, n.time),
        p_contact=put(s.p_contact, page, IntVal(-1)),
        p_version=put(s.p_version, page, IntVal(-1)),
    )
    return And(s.at(page) == 0, exists(s, epoch, seq), floor >= 0), after
