"""The protocol with one rule changed: some invariant, or a promise, must then fail, and Z3 finds a state that shows it.

What it finds is one step: a state in which all invariants hold, and one after it in which one does not. Whether that state can
be reached it does not say; `python -m model --mutants` shows ways there from the beginning, for its own mutants.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

from z3 import And, IntVal, Not

from model.proof import compute_steps, read_steps, view_steps
from model.proof.logic import SEQ, State, larger, put
from model.proof.steps import Moment

Changed = Mapping[str, Callable[..., Any]]


class Mutant(NamedTuple):
    """`changed`: rules, or parts of rules, by name. `step` and `claim`: which step then breaks which invariant, or promise."""

    about: str
    step: str
    claim: str
    changed: Changed


MUTANTS: Final[dict[str, Mutant]] = {}


def mutant(step: str, claim: str) -> Callable[[Callable[[], Changed]], None]:
    """Enter what the function returns under its own name and docstring."""

    def enter(function: Callable[[], Changed]) -> None:
        MUTANTS[function.__name__] = Mutant(" ".join((function.__doc__ or "").split()), step, claim, function())

    return enter


# -- computing and judging


@mutant("end_computing", "as_of_is_older")
def as_of_after_the_computation() -> Changed:
    """An entry counts as new as the moment at which its value was there."""

    def end_computing(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = compute_steps.end_computing(n, s)
        x = n.chosen["entry"]
        q = s.maker(x)
        return condition, after.but(as_epoch=put(s.as_epoch, x, s.v_epoch(q)), as_seq=put(s.as_seq, x, s.v_seq(q)))

    return {"end_computing": end_computing}


@mutant("begin_computing", "inputs_are_judged_by_more")
def as_of_ahead_of_l1() -> Changed:
    """An as_of is taken from a state whose generation is not published yet (hole m)."""

    def begin_computing(n: Moment, s: State) -> tuple[Any, State]:
        _, after = compute_steps.begin_computing(n, s)
        return s.stage(n.chosen["entry"]) == 0, after

    return {"begin_computing": begin_computing}


@mutant("serve_from_l2", "P1")
def epoch_ignored() -> Changed:
    """A log that begins anew is taken for the one before."""

    def valid(n: Moment, s: State, q: Any, x: Any) -> Any:
        return read_steps.valid(n, s.but(as_epoch=lambda _: s.v_epoch(q)), q, x)

    return {"valid": valid}


@mutant("serve_from_l2", "P1")
def floor_ignored() -> Changed:
    """An entry that is older than what the view remembers is judged by the records that remain."""

    def valid(n: Moment, s: State, q: Any, x: Any) -> Any:
        return read_steps.valid(n, s.but(v_floor=lambda _: IntVal(0)), q, x)

    return {"valid": valid}


@mutant("serve_from_l2", "P1")
def deps_not_judged() -> Changed:
    """An entry is judged by its own key alone."""
    return {"judges_by": lambda _, s, x, k: k == s.key(x)}


@mutant("use_hit", "entries")
def deps_not_carried() -> Changed:
    """What is computed from an entry names its key, and not what that was computed from."""
    return {"carried": lambda _, s, y: lambda k: k == s.key(y)}


@mutant("use_judged", "as_of_is_older")
def inputs_unjudged() -> Changed:
    """An input that another thread computed, or L2 had, is taken as it is."""

    def use_judged(n: Moment, s: State) -> tuple[Any, State]:
        _, after = compute_steps.use_judged(n, s)
        x, y = n.chosen["entry"], n.chosen["input"]
        return And(s.stage(x) == 1, x != y, s.stage(y) == 2), after

    return {"use_judged": use_judged}


# -- reading


@mutant("grant_lease", "reads")
def lease_not_checked() -> Changed:
    """L1 serves its entries until it hears of an invalidation."""

    def grant_lease(n: Moment, s: State) -> tuple[Any, State]:
        _, after = read_steps.grant_lease(n, s)
        r = n.chosen["read"]
        return And(s.step(r) == 1, s.followed(s.reader(r)) == s.n_version(s.home(s.reader(r)))), after

    return {"grant_lease": grant_lease}


@mutant("grant_lease", "bus_is_followed")
def bus_version_not_compared() -> Changed:
    """A child serves by its lease, and never looks whether the bus has something new."""

    def grant_lease(n: Moment, s: State) -> tuple[Any, State]:
        _, after = read_steps.grant_lease(n, s)
        r = n.chosen["read"]
        return And(s.step(r) == 1, s.begun(r) < s.confirmed(s.reader(r)) + s.bound), after

    return {"grant_lease": grant_lease}


@mutant("mark_slot", "slots_are_judged")
def generation_read_after_judging() -> Changed:
    """A slot is marked with the generation as it is when it has been judged."""

    def mark_slot(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = read_steps.mark_slot(n, s)
        q = s.reader(n.chosen["read"])
        return condition, after.but(judged=put(s.judged, q, s.entry(n.chosen["read"]), s.generation(q)))

    return {"mark_slot": mark_slot}


@mutant("get_tail", "tails_have_seen_all")
def tail_read_before_the_entry() -> Changed:
    """The tail is the one that was there when the read asked, not the one after the entry was given. P1 as of the beginning of
    the read would hold all the same; "P1 at once" would not."""

    def get_tail(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = read_steps.get_tail(n, s)
        r, seq = n.chosen["read"], n.any(SEQ, "seq of the earlier tail")
        earlier = And(seq >= 0, seq < s.last(s.epoch), s.appended(s.epoch, seq + 1) > s.asked(r))
        return And(condition, s.stands, earlier), after.but(t_seq=put(s.t_seq, r, seq))

    return {"get_tail": get_tail}


@mutant("confirm", "confirmed_is_published")
def new_connection_unnoticed() -> Changed:
    """After a connection to another server its tail is believed without asking the log."""

    def confirm(n: Moment, s: State) -> tuple[Any, State]:
        return read_steps.confirm(n, s.but(contacts=s.made))

    def restored(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = confirm(n, s)
        return condition, after.but(contacts=s.contacts)

    return {"confirm": restored}


@mutant("refuse_page", "former_tails")
def refused_page_counts_as_a_reading() -> Changed:
    """The connection on which the log was read counts as known, whether or not the view could take the page (hole o)."""

    def refuse_page(n: Moment, s: State) -> tuple[Any, State]:
        _, after = view_steps.refuse_page(n, s)
        u = n.chosen["page"]
        return And(s.at(u) == 2, s.p_contact(u) >= 0), after.but(contacts=put(s.contacts, s.page_of(u), s.p_contact(u)))

    return {"refuse_page": refuse_page}


# -- the view


@mutant("apply_restart", "view_positions")
def view_goes_back() -> Changed:
    """A page of another log is taken if it was asked for after the view was last confirmed (hole n)."""

    def apply_restart(n: Moment, s: State) -> tuple[Any, State]:
        return view_steps.apply_restart(n, s.but(v_answered=s.confirmed))

    def restored(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = apply_restart(n, s)
        q = s.page_of(n.chosen["page"])
        return condition, after.but(v_answered=put(s.v_answered, q, n.chosen["answered"]))

    return {"apply_restart": restored}


@mutant("publish_confirmed", "confirmed_is_published")
def confirmed_before_it_is_known() -> Changed:
    """The moment of confirmation is published before the records that it vouches for (hole b)."""

    def publish_confirmed(n: Moment, s: State) -> tuple[Any, State]:
        _, after = view_steps.publish_confirmed(n, s)
        u = n.chosen["page"]
        return And(s.at(u) == 2, Not(s.locked(s.page_of(u)))), after.but(at=s.at, locked=s.locked)

    return {"publish_confirmed": publish_confirmed}


@mutant("publish_confirmed", "confirmed_is_published")
def confirmed_before_its_generation() -> Changed:
    """The moment of confirmation is published before the generation: slots of the old one are served by it."""

    def publish_confirmed(n: Moment, s: State) -> tuple[Any, State]:
        _, after = view_steps.publish_confirmed(n, s)
        return s.at(n.chosen["page"]) == 3, after.but(at=s.at, locked=s.locked)

    return {"publish_confirmed": publish_confirmed}


@mutant("break_off", "confirmed_is_published")
def broken_off_and_confirmed() -> Changed:
    """A writer that is broken off between state and generation has confirmed nevertheless."""

    def break_off(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = view_steps.break_off(n, s)
        u = n.chosen["page"]
        q = s.page_of(u)
        return condition, after.but(confirmed=put(s.confirmed, q, larger(s.confirmed(q), s.p_asked(u))))

    return {"break_off": break_off}


@mutant("apply_next", "view_is_whole")
def page_taken_from_beyond() -> Changed:
    """A page that begins where the view has not come to is taken."""

    def apply_next(n: Moment, s: State) -> tuple[Any, State]:
        _, after = view_steps.apply_next(n, s)
        u = n.chosen["page"]
        return And(view_steps.writes(s, u), Not(s.p_restart(u)), s.p_epoch(u) == s.v_epoch(s.page_of(u))), after

    return {"apply_next": apply_next}


@mutant("stand_at_own_tail", "view_is_whole")
def own_tail_counts_as_the_log() -> Changed:
    """A process that has not read the log takes its own invalidation's answer for all that there is below it, too."""

    def stand_at_own_tail(n: Moment, s: State) -> tuple[Any, State]:
        condition, after = view_steps.stand_at_own_tail(n, s)
        return condition, after.but(v_floor=put(s.v_floor, s.page_of(n.chosen["page"]), IntVal(0)))

    return {"stand_at_own_tail": stand_at_own_tail}
