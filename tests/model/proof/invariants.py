"""What holds in every state, of the log, pages and views. `invariants_reads` has the rest. Each step keeps all of it, by
itself; together they imply the promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from z3 import And, Implies, Not, Or

from model.proof.logic import EPOCH, PAGE, PATTERN, PROCESS, SEQ, Scope, State, larger, not_beyond

Invariant = Callable[[Scope, State], Any]
INVARIANTS: Final[dict[str, Invariant]] = {}


def invariant(function: Invariant) -> Invariant:
    """Enter it under its own name. Its docstring says it in words."""
    INVARIANTS[function.__name__] = function
    return function


def exists(s: State, epoch: Any, seq: Any) -> Any:
    """Whether there was such a record."""
    return And(epoch >= 0, epoch <= s.epoch, seq >= 1, seq <= s.last(epoch))


def seen_all(scope: Scope, s: State, epoch: Any, seq: Any, asked: Any) -> Any:
    """Whether a log of that epoch and seq has all that was appended by that moment, or is later than what has."""

    @scope.all(EPOCH, SEQ)
    def records(e: Any, m: Any) -> Any:
        return Implies(And(exists(s, e, m), s.appended(e, m) <= asked), not_beyond(e, m, epoch, seq))

    @scope.all(EPOCH)
    def epochs(e: Any) -> Any:
        return Implies(And(e >= 0, e <= s.epoch, s.began(e) <= asked), e <= epoch)

    return And(records, epochs)


def fresh_at(s: State, x: Any, k: Any, e: Any, m: Any) -> Any:
    """Whether the entry does not speak against this record by this key: it was called before that source was read."""
    against = And(exists(s, e, m), s.of(x, k), s.means(s.pattern(e, m), k))
    return Implies(against, s.called(e, m) < s.read_at(x, k))


# -- the log


@invariant
def numbers(scope: Scope, s: State) -> Any:
    """Positions are within the history; a log that stands has an epoch of its own."""

    @scope.all(EPOCH)
    def lasts(e: Any) -> Any:
        return Implies(And(e >= 0, e <= s.epoch), s.last(e) >= 0)

    @scope.all(PATTERN)
    def records(p: Any) -> Any:
        return And(s.record(p) >= 0, s.record(p) <= s.last(s.epoch))

    here = And(s.epoch >= 0, Implies(s.stands, s.epoch >= 1), s.last(0) == 0, s.bound > 0, s.now >= 0, s.began(0) <= 0)
    tail = And(s.floor >= 0, s.floor <= s.whole, s.whole <= s.last(s.epoch))
    old = And(s.old_epoch >= 0, s.old_epoch <= s.epoch, s.old_seq >= 0)
    return And(here, tail, old, s.contact >= 1, lasts, records)


@invariant
def times(scope: Scope, s: State) -> Any:
    """An invalidation is called, then appended, then returns."""

    @scope.all(EPOCH, SEQ)
    def records(e: Any, m: Any) -> Any:
        order = And(s.called(e, m) <= s.appended(e, m), s.appended(e, m) >= 0, s.appended(e, m) <= s.now)
        return Implies(exists(s, e, m), And(order, Implies(s.done(e, m), s.appended(e, m) <= s.returned(e, m))))

    @scope.all(EPOCH)
    def epochs(e: Any) -> Any:
        return Implies(And(e >= 0, e <= s.epoch), And(s.began(e) >= 0, s.began(e) <= s.now))

    return And(records, epochs)


@invariant
def log_is_whole(scope: Scope, s: State) -> Any:
    """Above floor and `whole` the log has each record, or a newer one of the same pattern."""

    @scope.all(SEQ)
    def records(m: Any) -> Any:
        above = And(larger(s.floor, s.whole) < m, m <= s.last(s.epoch), Not(s.lost))
        return Implies(above, s.record(s.pattern(s.epoch, m)) >= m)

    return records


# -- pages


@invariant
def page_positions(scope: Scope, s: State) -> Any:
    """A page is of a log that there was, and was answered after that log began."""

    @scope.all(PAGE)
    def pages(u: Any) -> Any:
        position = And(s.p_epoch(u) >= 0, s.p_epoch(u) <= s.epoch, s.p_seq(u) >= 0, s.p_seq(u) <= s.last(s.p_epoch(u)))
        given = And(s.p_floor(u) >= 0, s.p_after(u) >= 0, s.p_asked(u) <= s.p_came(u), s.p_came(u) <= s.now)
        contacts = s.p_contact(u) <= s.made(s.page_of(u))
        came = Implies(s.at(u) != 1, s.began(s.p_epoch(u)) <= s.p_came(u))
        return Implies(s.at(u) != 0, And(position, given, contacts, came))

    return pages


@invariant
def page_has_seen_all(scope: Scope, s: State) -> Any:
    """What was appended by the time that a page was asked for, it stands for, or it is of a later log."""

    @scope.all(PAGE, EPOCH, SEQ)
    def records(u: Any, e: Any, m: Any) -> Any:
        return Implies(
            And(s.at(u) >= 2, exists(s, e, m), s.appended(e, m) <= s.p_asked(u)), not_beyond(e, m, s.p_epoch(u), s.p_seq(u))
        )

    @scope.all(PAGE, EPOCH)
    def epochs(u: Any, e: Any) -> Any:
        return Implies(And(s.at(u) >= 2, e >= 0, e <= s.epoch, s.began(e) <= s.p_asked(u)), e <= s.p_epoch(u))

    return And(records, epochs)


@invariant
def page_is_whole(scope: Scope, s: State) -> Any:
    """Above where it continues from, and above its floor, a page has each record, or a newer one of its pattern."""

    @scope.all(PAGE, SEQ)
    def records(u: Any, m: Any) -> Any:
        above = And(s.at(u) >= 2, s.p_after(u) < m, s.p_floor(u) < m, m >= 1, m <= s.p_seq(u))
        return Implies(above, s.p_record(u, s.pattern(s.p_epoch(u), m)) >= m)

    @scope.all(PAGE)
    def restarts(u: Any) -> Any:
        return Implies(And(s.at(u) >= 2, s.p_restart(u)), s.p_after(u) == 0)

    return And(records, restarts)


@invariant
def portion_is_whole(scope: Scope, s: State) -> Any:
    """What a page that is still being read lacks comes with a later portion; else the next portion begins anew."""

    @scope.all(PAGE, SEQ)
    def records(u: Any, m: Any) -> Any:
        within = And(s.at(u) == 1, s.p_after(u) < m, m >= 1, m <= s.p_seq(u))
        pattern = s.pattern(s.p_epoch(u), m)
        anew = Or(s.p_epoch(u) != s.epoch, s.floor > s.p_seq(u), s.whole > s.p_seq(u), And(s.lost, s.last(s.epoch) > s.p_seq(u)))
        return Implies(within, Or(s.p_record(u, pattern) >= m, anew, s.record(pattern) > s.p_seq(u)))

    return records


# -- the view


@invariant
def view_positions(scope: Scope, s: State) -> Any:
    """A view stands where a log stood, never behind what it has published."""

    @scope.all(PROCESS)
    def views(q: Any) -> Any:
        state = And(s.v_epoch(q) >= 0, s.v_epoch(q) <= s.epoch, s.v_seq(q) >= 0, s.v_seq(q) <= s.last(s.v_epoch(q)))
        published = not_beyond(s.g_epoch(q), s.g_seq(q), s.v_epoch(q), s.v_seq(q))
        same = Implies(s.generation(q) == s.revision(q), And(s.g_epoch(q) == s.v_epoch(q), s.g_seq(q) == s.v_seq(q)))
        return And(
            state, published, same, s.generation(q) <= s.revision(q), s.g_epoch(q) >= 0, s.g_seq(q) >= 0, s.v_floor(q) >= 0
        )

    return views


@invariant
def view_is_whole(scope: Scope, s: State) -> Any:
    """Above its floor a view knows each record up to its seq, or a newer one of the same pattern."""

    @scope.all(PROCESS, SEQ)
    def records(q: Any, m: Any) -> Any:
        known = And(s.v_floor(q) < m, m >= 1, m <= s.v_seq(q))
        return Implies(known, s.v_record(q, s.pattern(s.v_epoch(q), m)) >= m)

    return records


@invariant
def view_is_later_than_its_log(scope: Scope, s: State) -> Any:
    """The answer that took the view to its log came after that log began: what is asked for later is of no former log."""

    @scope.all(PROCESS)
    def views(q: Any) -> Any:
        return And(s.began(s.v_epoch(q)) <= s.v_answered(q), s.v_answered(q) <= s.now)

    return views


@invariant
def confirmed_is_published(scope: Scope, s: State) -> Any:
    """What was appended by the moment of confirmation is known in the state whose generation is published."""

    @scope.all(PROCESS, EPOCH, SEQ)
    def records(q: Any, e: Any, m: Any) -> Any:
        return Implies(And(exists(s, e, m), s.appended(e, m) <= s.confirmed(q)), not_beyond(e, m, s.g_epoch(q), s.g_seq(q)))

    @scope.all(PROCESS)
    def past(q: Any) -> Any:
        return s.confirmed(q) <= s.now

    return And(records, past)


@invariant
def one_writer(scope: Scope, s: State) -> Any:
    """One thread at a time is between two steps of a publication; what it publishes last is in what it published first."""

    @scope.all(PAGE)
    def writers(u: Any) -> Any:
        q = s.page_of(u)
        writes = And(
            s.locked(q),
            not_beyond(s.p_epoch(u), s.p_seq(u), s.v_epoch(q), s.v_seq(q)),
            Implies(s.at(u) == 4, s.generation(q) == s.revision(q)),
        )
        return Implies(Or(s.at(u) == 3, s.at(u) == 4), writes)

    @scope.all(PAGE, PAGE)
    def alone(u: Any, w: Any) -> Any:
        both = And(Or(s.at(u) == 3, s.at(u) == 4), Or(s.at(w) == 3, s.at(w) == 4), s.page_of(u) == s.page_of(w))
        return Implies(both, u == w)

    @scope.all(PAGE)
    def published(u: Any) -> Any:
        q = s.page_of(u)
        return Implies(s.at(u) == 5, not_beyond(s.p_epoch(u), s.p_seq(u), s.g_epoch(q), s.g_seq(q)))

    return And(writers, alone, published)
