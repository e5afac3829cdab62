"""What holds in every state, of connections, entries, reads and buses: as `invariants`, which it adds to."""

from __future__ import annotations

from typing import Any

from z3 import And, Implies, Not, Or

from model.proof.invariants import exists, fresh_at, invariant
from model.proof.logic import ENTRY, EPOCH, KEY, NODE, PAGE, PROCESS, READ, SEQ, Scope, State, not_beyond

# -- connections


@invariant
def contacts_have_met(scope: Scope, s: State) -> Any:
    """Where the log was read on a connection to the server that is there now, that server has no tail of another log."""

    @scope.all(PROCESS)
    def processes(q: Any) -> Any:
        met = Implies(s.contacts(q) == s.contact, Or(s.stands, s.bare))
        return And(s.made(q) >= 0, s.made(q) <= s.contact, s.contacts(q) <= s.contact, met)

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
        return Implies(Or(s.step(r) == 4, s.step(r) == 5), And(s.r_contact(r) >= 1, s.r_contact(r) <= s.made(s.reader(r))))

    return And(reads, pages, views, made)


# -- entries


@invariant
def entries(scope: Scope, s: State) -> Any:
    """An entry's as_of is a position that there was, its names are all that it was computed from, and L2 and L1 have what is
    whole."""

    @scope.all(ENTRY)
    def positions(x: Any) -> Any:
        position = And(s.as_epoch(x) >= 0, s.as_epoch(x) <= s.epoch, s.as_seq(x) >= 0, s.as_seq(x) <= s.last(s.as_epoch(x)))
        begun = And(s.stage(x) >= 0, s.stage(x) <= 2, Implies(s.stage(x) >= 1, position))
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
    """A slot of the published generation is fresh by all that this generation knows; so is one of the state before its
    publication."""

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
        leased = Implies(
            Or(step == 2, step == 7, step == 8), And(s.lease(r) <= s.confirmed(q), s.begun(r) < s.lease(r) + s.bound)
        )
        asked = Implies(And(step >= 3, step <= 6), And(s.begun(r) <= s.asked(r), s.asked(r) <= s.now))
        entry = Implies(And(step >= 4, step <= 6, s.found(r)), s.stage(s.entry(r)) == 2)
        tail = And(s.t_epoch(r) >= 0, s.t_epoch(r) <= s.epoch, s.t_seq(r) >= 0)
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
        return Implies(And(s.step(r) >= 4, s.step(r) <= 6), And(s.asked(r) <= s.got_at(r), s.got_at(r) <= s.now))

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
        known = And(
            Or(s.step(r) == 8, s.step(r) == 10), s.r_generation(r) == s.generation(q), not_beyond(e, m, s.g_epoch(q), s.g_seq(q))
        )
        return Implies(known, fresh_at(s, s.entry(r), k, e, m))

    @scope.all(READ, EPOCH, SEQ, KEY)
    def unpublished(r: Any, e: Any, m: Any, k: Any) -> Any:
        q = s.reader(r)
        known = And(
            Or(s.step(r) == 8, s.step(r) == 10), s.r_generation(r) == s.revision(q), not_beyond(e, m, s.v_epoch(q), s.v_seq(q))
        )
        return Implies(known, fresh_at(s, s.entry(r), k, e, m))

    return And(published, unpublished)


# -- the bus


@invariant
def bus_positions(scope: Scope, s: State) -> Any:
    """A bus stands where a log stood, or is of no log."""

    @scope.all(NODE)
    def buses(b: Any) -> Any:
        position = And(s.n_epoch(b) <= s.epoch, s.n_seq(b) >= 0, s.n_seq(b) <= s.last(s.n_epoch(b)))
        return And(
            s.n_epoch(b) >= -1,
            Implies(s.n_epoch(b) >= 0, position),
            s.n_floor(b) >= 0,
            s.n_base(b) >= 0,
            s.n_confirmed(b) <= s.now,
        )

    return buses


@invariant
def bus_is_whole(scope: Scope, s: State) -> Any:
    """Above its base and floor a bus has each record, or a newer one of its pattern."""

    @scope.all(NODE, SEQ)
    def records(b: Any, m: Any) -> Any:
        above = And(s.n_epoch(b) >= 0, s.n_base(b) < m, s.n_floor(b) < m, m >= 1, m <= s.n_seq(b))
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
        return Implies(And(s.n_epoch(b) >= 0, e >= 0, e <= s.epoch, s.began(e) <= s.n_confirmed(b)), e <= s.n_epoch(b))

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
