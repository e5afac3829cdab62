"""What holds in every state. Each step keeps all of it, by itself; together they imply the promises."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from z3 import And, Implies, Not, Or

from model.proof.logic import ENTRY, EPOCH, KEY, NODE, PAGE, PATTERN, PROCESS, READ, SEQ, Scope, State, larger, not_beyond

Invariant = Callable[[Scope, State], Any]
INVARIANTS: Final[dict[str, Invariant]] = {}


def invariant(function: Invariant) -> Invariant:
    """Enter it under its own name. Its docstring says it in words."""
    INVARIANTS[function.__name__] = function
    return function


def exists(s: State, epoch: Any, seq: Any) -> Any:
    """Whether there was such a record."""
    return And(0 <= epoch, epoch <= s.epoch, 1 <= seq, seq <= s.last(epoch))


def seen_all(scope: Scope, s: State, epoch: Any, seq: Any, asked: Any) -> Any:
    """Whether a log of that epoch and seq has all that was appended by that moment, or is later than what has."""

    @scope.all(EPOCH, SEQ)
    def records(e: Any, m: Any) -> Any:
        return Implies(And(exists(s, e, m), s.appended(e, m) <= asked), not_beyond(e, m, epoch, seq))

    @scope.all(EPOCH)
    def epochs(e: Any) -> Any:
        return Implies(And(0 <= e, e <= s.epoch, s.began(e) <= asked), e <= epoch)

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
        return Implies(And(0 <= e, e <= s.epoch), s.last(e) >= 0)

    @scope.all(PATTERN)
    def records(p: Any) -> Any:
        return And(0 <= s.record(p), s.record(p) <= s.last(s.epoch))

    here = And(s.epoch >= 0, Implies(s.stands, s.epoch >= 1), s.last(0) == 0, s.bound > 0, s.now >= 0, s.began(0) <= 0)
    tail = And(0 <= s.floor, s.floor <= s.whole, s.whole <= s.last(s.epoch))
    old = And(0 <= s.old_epoch, s.old_epoch <= s.epoch, 0 <= s.old_seq)
    return And(here, tail, old, s.contact >= 1, lasts, records)


@invariant
def times(scope: Scope, s: State) -> Any:
    """An invalidation is called, then appended, then returns."""

    @scope.all(EPOCH, SEQ)
    def records(e: Any, m: Any) -> Any:
        order = And(s.called(e, m) <= s.appended(e, m), 0 <= s.appended(e, m), s.appended(e, m) <= s.now)
        return Implies(exists(s, e, m), And(order, Implies(s.done(e, m), s.appended(e, m) <= s.returned(e, m))))

    @scope.all(EPOCH)
    def epochs(e: Any) -> Any:
        return Implies(And(0 <= e, e <= s.epoch), And(s.began(e) >= 0, s.began(e) <= s.now))

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
        position = And(0 <= s.p_epoch(u), s.p_epoch(u) <= s.epoch, 0 <= s.p_seq(u), s.p_seq(u) <= s.last(s.p_epoch(u)))
        given = And(0 <= s.p_floor(u), 0 <= s.p_after(u), s.p_asked(u) <= s.p_came(u), s.p_came(u) <= s.now)
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
        return Implies(And(s.at(u) >= 2, 0 <= e, e <= s.epoch, s.began(e) <= s.p_asked(u)), e <= s.p_epoch(u))

    return And(records, epochs)


@invariant
def page_is_whole(scope: Scope, s: State) -> Any:
    """Above where it continues from, and above its floor, a page has each record, or a newer one of its pattern."""

    @scope.all(PAGE, SEQ)
    def records(u: Any, m: Any) -> Any:
        above = And(s.at(u) >= 2, s.p_after(u) < m, s.p_floor(u) < m, 1 <= m, m <= s.p_seq(u))
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
        within = And(s.at(u) == 1, s.p_after(u) < m, 1 <= m, m <= s.p_seq(u))
        pattern = s.pattern(s.p_epoch(u), m)
        anew = Or(
            s.p_epoch(u) != s.epoch, s.floor > s.p_seq(u), s.whole > s.p_seq(u), And(s.lost, s.last(s.epoch) > s.p_seq(u))
        )
        return Implies(within, Or(s.p_record(u, pattern) >= m, anew, s.record(pattern) > s.p_seq(u)))

    return records


# -- the view


@invariant
def view_positions(scope: Scope, s: State) -> Any:
    """A view stands where a log stood, never behind what it has published."""

    @scope.all(PROCESS)
    def views(q: Any) -> Any:
        state = And(0 <= s.v_epoch(q), s.v_epoch(q) <= s.epoch, 0 <= s.v_seq(q), s.v_seq(q) <= s.last(s.v_epoch(q)))
        published = not_beyond(s.g_epoch(q), s.g_seq(q), s.v_epoch(q), s.v_seq(q))
        same = Implies(s.generation(q) == s.revision(q), And(s.g_epoch(q) == s.v_epoch(q), s.g_seq(q) == s.v_seq(q)))
        return And(state, published, same, s.generation(q) <= s.revision(q), s.g_epoch(q) >= 0, s.g_seq(q) >= 0, s.v_floor(q) >= 0)

    return views


@invariant
def view_is_whole(scope: Scope, s: State) -> Any:
    """Above its floor a view knows each record up to its seq, or a newer one of the same pattern."""

    @scope.all(PROCESS, SEQ)
    def records(q: Any, m: Any) -> Any:
        known = And(s.v_floor(q) < m, 1 <= m, m <= s.v_seq(q))
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


# -- connections


@invariant
def contacts_have_met(scope: Scope, s: State) -> Any:
    """Where the log was read on a connection to the server that is there now, that server has no tail of another log."""

    @scope.all(PROCESS)
    def processes(q: Any) -> Any:
        met = Implies(s.contacts(q) == s.contact, Or(s.stands, s.bare))
        return And(0 <= s.made(q), s.made(q) <= s.contact, s.contacts(q) <= s.contact, met)

    @scope.all(PAGE)
    def pages(u: Any) -> Any:
        return Implies(And(s.at(u) >= 2, s.p_contact(u) == s.contact), Or(s.stands, s.bare))

    return And(processes, pages)


@invariant
def former_tails(scope: Scope, s: State) -> Any:
    """A read that got the tail of a log that does not stand is behind each page that came on a connection so new, or newer."""

    @scope.all(READ)
    def reads(r: Any) -> Any:
        former = And(s.step(r) == 5, Not(s.stood(r)), Not(s.no_tail(r)))
        latest = And(s.t_epoch(r) <= s.t_latest(r), s.t_latest(r) <= s.epoch, Implies(s.t_latest(r) == s.epoch, Not(s.stands)))
        return Implies(former, latest)

    @scope.all(READ, PAGE)
    def pages(r: Any, u: Any) -> Any:
        former = And(s.step(r) == 5, Not(s.stood(r)), Not(s.no_tail(r)))
        return Implies(And(former, s.at(u) >= 2, s.p_contact(u) >= s.r_contact(r)), s.p_epoch(u) > s.t_latest(r))

    @scope.all(READ)
    def views(r: Any) -> Any:
        former = And(s.step(r) == 5, Not(s.stood(r)), Not(s.no_tail(r)))
        return Implies(And(former, s.contacts(s.reader(r)) >= s.r_contact(r)), s.g_epoch(s.reader(r)) > s.t_latest(r))

    @scope.all(READ)
    def made(r: Any) -> Any:
        return Implies(Or(s.step(r) == 4, s.step(r) == 5), And(1 <= s.r_contact(r), s.r_contact(r) <= s.made(s.reader(r))))

    return And(reads, pages, views, made)


# -- entries


@invariant
def entries(scope: Scope, s: State) -> Any:
    """An entry's as_of is a position that there was, its names are all that it was computed from, and L2 and L1 have what is whole."""

    @scope.all(ENTRY)
    def positions(x: Any) -> Any:
        position = And(0 <= s.as_epoch(x), s.as_epoch(x) <= s.epoch, 0 <= s.as_seq(x), s.as_seq(x) <= s.last(s.as_epoch(x)))
        begun = And(0 <= s.stage(x), s.stage(x) <= 2, Implies(s.stage(x) >= 1, position))
        return And(begun, Implies(s.stored(x), s.stage(x) == 2))

    @scope.all(PROCESS, ENTRY)
    def slots(q: Any, x: Any) -> Any:
        return Implies(s.slot(q, x), And(s.stage(x) == 2, s.judged(q, x) <= s.revision(q)))

    @scope.all(ENTRY, KEY)
    def names(x: Any, k: Any) -> Any:
        return Implies(And(s.stage(x) >= 1, s.of(x, k)), And(s.names(x, k), s.read_at(x, k) <= s.now))

    return And(positions, slots, names)


@invariant
def as_of_is_older(scope: Scope, s: State) -> Any:
    """Each invalidation that an entry's as_of covers was called before its sources were read."""

    @scope.all(ENTRY, EPOCH, SEQ, KEY)
    def covered(x: Any, e: Any, m: Any, k: Any) -> Any:
        within = And(s.stage(x) >= 1, not_beyond(e, m, s.as_epoch(x), s.as_seq(x)))
        return Implies(within, fresh_at(s, x, k, e, m))

    return covered


@invariant
def inputs_are_judged_by_more(scope: Scope, s: State) -> Any:
    """While a value is computed, its process judges by at least its as_of."""

    @scope.all(ENTRY)
    def computing(x: Any) -> Any:
        q = s.maker(x)
        return Implies(s.stage(x) == 1, not_beyond(s.as_epoch(x), s.as_seq(x), s.g_epoch(q), s.g_seq(q)))

    return computing


@invariant
def slots_are_judged(scope: Scope, s: State) -> Any:
    """A slot of the published generation is fresh by all that this generation knows; so is one of the state before its publication."""

    @scope.all(PROCESS, ENTRY, EPOCH, SEQ, KEY)
    def published(q: Any, x: Any, e: Any, m: Any, k: Any) -> Any:
        known = And(s.slot(q, x), s.judged(q, x) == s.generation(q), not_beyond(e, m, s.g_epoch(q), s.g_seq(q)))
        return Implies(known, fresh_at(s, x, k, e, m))

    @scope.all(PROCESS, ENTRY, EPOCH, SEQ, KEY)
    def unpublished(q: Any, x: Any, e: Any, m: Any, k: Any) -> Any:
        known = And(s.slot(q, x), s.judged(q, x) == s.revision(q), not_beyond(e, m, s.v_epoch(q), s.v_seq(q)))
        return Implies(known, fresh_at(s, x, k, e, m))

    return And(published, unpublished)


# -- reads


@invariant
def reads(scope: Scope, s: State) -> Any:
    """What a read has in hand: a lease that its view still vouches for, an entry that is whole, generations that there were."""

    @scope.all(READ)
    def each(r: Any) -> Any:
        q, step = s.reader(r), s.step(r)
        leased = Implies(Or(step == 2, step == 7, step == 8), And(s.lease(r) <= s.confirmed(q), s.begun(r) < s.lease(r) + s.bound))
        asked = Implies(And(3 <= step, step <= 6), And(s.begun(r) <= s.asked(r), s.asked(r) <= s.now))
        entry = Implies(And(4 <= step, step <= 6, s.found(r)), s.stored(s.entry(r)))
        tail = And(0 <= s.t_epoch(r), s.t_epoch(r) <= s.epoch, 0 <= s.t_seq(r))
        generations = Implies(step >= 7, And(s.r_generation(r) <= s.generation(q), s.stage(s.entry(r)) == 2))
        begun = s.begun(r) <= s.now
        tail = Implies(step == 5, And(tail, Implies(s.stood(r), Not(s.no_tail(r)))))
        return And(begun, leased, asked, entry, tail, generations, Implies(step == 6, s.asked(r) <= s.confirmed(q)))

    return each


@invariant
def tails_have_seen_all(scope: Scope, s: State) -> Any:
    """The tail of a log that stands knows all that was appended before the entry was read."""

    @scope.all(READ, EPOCH, SEQ)
    def records(r: Any, e: Any, m: Any) -> Any:
        asked = And(s.step(r) == 5, s.stood(r), exists(s, e, m), s.appended(e, m) <= s.got_at(r))
        return Implies(asked, not_beyond(e, m, s.t_epoch(r), s.t_seq(r)))

    @scope.all(READ)
    def order(r: Any) -> Any:
        return Implies(And(4 <= s.step(r), s.step(r) <= 6), And(s.asked(r) <= s.got_at(r), s.got_at(r) <= s.now))

    @scope.all(READ, EPOCH, SEQ)
    def caught_up(r: Any, e: Any, m: Any) -> Any:
        q = s.reader(r)
        asked = And(s.step(r) == 6, s.stood(r), exists(s, e, m), s.appended(e, m) <= s.got_at(r))
        return Implies(asked, not_beyond(e, m, s.v_epoch(q), s.v_seq(q)))

    return And(records, order, caught_up)


@invariant
def judgements(scope: Scope, s: State) -> Any:
    """A slot that a thread is about to mark is fresh by what was known at the generation that it read before it judged."""

    @scope.all(READ, EPOCH, SEQ, KEY)
    def published(r: Any, e: Any, m: Any, k: Any) -> Any:
        q = s.reader(r)
        known = And(Or(s.step(r) == 8, s.step(r) == 10), s.r_generation(r) == s.generation(q), not_beyond(e, m, s.g_epoch(q), s.g_seq(q)))
        return Implies(known, fresh_at(s, s.entry(r), k, e, m))

    @scope.all(READ, EPOCH, SEQ, KEY)
    def unpublished(r: Any, e: Any, m: Any, k: Any) -> Any:
        q = s.reader(r)
        known = And(Or(s.step(r) == 8, s.step(r) == 10), s.r_generation(r) == s.revision(q), not_beyond(e, m, s.v_epoch(q), s.v_seq(q)))
        return Implies(known, fresh_at(s, s.entry(r), k, e, m))

    return And(published, unpublished)


# -- the bus


@invariant
def bus_positions(scope: Scope, s: State) -> Any:
    """A bus stands where a log stood, or is of no log."""

    @scope.all(NODE)
    def buses(b: Any) -> Any:
        position = And(s.n_epoch(b) <= s.epoch, 0 <= s.n_seq(b), s.n_seq(b) <= s.last(s.n_epoch(b)))
        return And(s.n_epoch(b) >= -1, Implies(s.n_epoch(b) >= 0, position), 0 <= s.n_floor(b), 0 <= s.n_base(b), s.n_confirmed(b) <= s.now)

    return buses


@invariant
def bus_is_whole(scope: Scope, s: State) -> Any:
    """Above its base and floor a bus has each record, or a newer one of its pattern."""

    @scope.all(NODE, SEQ)
    def records(b: Any, m: Any) -> Any:
        above = And(s.n_epoch(b) >= 0, s.n_base(b) < m, s.n_floor(b) < m, 1 <= m, m <= s.n_seq(b))
        return Implies(above, s.n_record(b, s.pattern(s.n_epoch(b), m)) >= m)

    return records


@invariant
def bus_has_seen_all(scope: Scope, s: State) -> Any:
    """What was appended by the bus's moment of confirmation, the bus stands for, or is of a later log."""

    @scope.all(NODE, EPOCH, SEQ)
    def records(b: Any, e: Any, m: Any) -> Any:
        vouched = And(s.n_epoch(b) >= 0, exists(s, e, m), s.appended(e, m) <= s.n_confirmed(b))
        return Implies(vouched, not_beyond(e, m, s.n_epoch(b), s.n_seq(b)))

    @scope.all(NODE, EPOCH)
    def epochs(b: Any, e: Any) -> Any:
        return Implies(And(s.n_epoch(b) >= 0, 0 <= e, e <= s.epoch, s.began(e) <= s.n_confirmed(b)), e <= s.n_epoch(b))

    return And(records, epochs)


@invariant
def bus_is_followed(scope: Scope, s: State) -> Any:
    """A process that has followed the bus's version knows what the bus has; so does a page that was read from that version."""

    @scope.all(PAGE)
    def pages(u: Any) -> Any:
        b = s.home(s.page_of(u))
        of_now = And(s.at(u) >= 2, s.p_version(u) >= 0, s.p_version(u) == s.n_version(b), s.n_epoch(b) >= 0)
        ended = And(Implies(s.at(u) >= 2, s.p_version(u) <= s.n_version(b)), Implies(s.at(u) == 1, s.p_version(u) < 0))
        return And(Implies(of_now, And(s.p_epoch(u) == s.n_epoch(b), s.p_seq(u) == s.n_seq(b))), ended)

    @scope.all(PROCESS)
    def processes(q: Any) -> Any:
        b = s.home(q)
        follows = And(s.followed(q) == s.n_version(b), s.n_epoch(b) >= 0)
        known = not_beyond(s.n_epoch(b), s.n_seq(b), s.g_epoch(q), s.g_seq(q))
        return And(Implies(follows, known), s.followed(q) <= s.n_version(b), s.n_version(b) >= 0)

    @scope.all(READ)
    def leased(r: Any) -> Any:
        q = s.reader(r)
        granted = And(Or(s.step(r) == 2, s.step(r) == 7), s.b_epoch(r) >= 0)
        return Implies(granted, not_beyond(s.b_epoch(r), s.b_seq(r), s.g_epoch(q), s.g_seq(q)))

    return And(pages, processes, leased)
