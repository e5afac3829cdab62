"""What has to be shown, and Z3's answer to each."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import z3

from model.proof import compute_steps, log_steps, read_steps, view_steps
from model.proof.invariants import INVARIANTS, exists
from model.proof.logic import EPOCH, KEY, NUMBERS, SEQ, Scope, State
from model.proof.promises import PROMISES, served
from model.proof.state import any_state, first_state
from model.proof.steps import RULES, Rule, Taken, take

MODULES: Final = (log_steps, view_steps, read_steps, compute_steps)
TIMEOUT_MS: Final = 60_000
"""For one query. Longer means that it is not proved."""


class Answer(NamedTuple):
    """`outcome`: proved, refuted, or unknown, which is no success. `claim`: the invariant or promise, of that step."""

    step: str
    claim: str
    outcome: str
    seconds: float


def first_holds() -> Iterator[Answer]:
    """Each invariant holds at first."""
    scope = Scope(finite=False)
    start = first_state(scope)
    for claim, holds in INVARIANTS.items():
        yield _answer("at first", claim, [start.bound > 0], z3.Not(holds(scope, start)))


def each_step_keeps(name: str) -> Iterator[Answer]:
    """Each invariant holds after this step from any state in which all hold: whatever the number of processes, keys and records."""
    scope = Scope(finite=False)
    before = any_state(scope)
    all_hold = [holds(scope, before) for holds in INVARIANTS.values()]
    taken = take(scope, before, RULES[name])
    for claim, holds in INVARIANTS.items():
        yield _answer(name, claim, [*all_hold, taken.condition], z3.Not(holds(scope, taken.after)))


def promises_follow() -> Iterator[Answer]:
    """A step that serves a value, from any state in which the invariants hold, keeps its promise."""
    scope = Scope(finite=False)
    before = any_state(scope)
    all_hold = [holds(scope, before) for holds in INVARIANTS.values()]
    for claim, (steps, promise) in PROMISES.items():
        for name in steps:
            taken = take(scope, before, RULES[name])
            read, entry = served(before, name, taken.chosen)
            yield _answer(name, claim, [*all_hold, taken.condition], z3.Not(promise(scope, before, read, entry)))


def _answer(step: str, claim: str, given: list[Any], denied: Any) -> Answer:
    solver = z3.SimpleSolver()
    solver.set(timeout=TIMEOUT_MS)
    solver.add(*given, denied)
    began_s = time.perf_counter()
    answer = solver.check()
    outcome = "proved" if answer == z3.unsat else "refuted" if answer == z3.sat else "unknown"
    return Answer(step, claim, outcome, time.perf_counter() - began_s)


# -- in a few members of each sort


class Broken(NamedTuple):
    """A state in which all invariants hold, a step from it, and what does not hold after it; the promises, of what it serves."""

    step: str
    claims: list[str]
    before: State
    taken: Taken
    model: Any


class Small:
    """The finite reading: states of a few members, which Z3 finds or says that there are none."""

    def __init__(self, changed: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """`changed`: rules, or parts of rules, that are others than the protocol's."""
        self.scope = Scope.few()
        self.before = any_state(self.scope)
        self._changed = changed or {}
        self._all_hold = [holds(self.scope, self.before) for holds in INVARIANTS.values()]

    def take(self, name: str) -> Taken:
        parts = {part: it for part, it in self._changed.items() if part not in RULES}
        return take(self.scope, self.before, self._changed.get(name, RULES[name]), parts)

    def solver(self, taken: Taken) -> Any:
        """Of the states before that step in which all invariants hold."""
        solver = z3.SimpleSolver()
        solver.set(timeout=TIMEOUT_MS)
        solver.add(*self._all_hold, taken.condition, self._within(self.before), self._within(taken.after))
        return solver

    def broken(self) -> Broken | None:
        """What the changed rules break, if anything: a promise, if one can be broken at once; else an invariant."""
        touched = {name: taken for name in RULES if (taken := self.take(name)) and self._is_changed(name, taken)}
        for name, taken in touched.items():
            claims = {claim: promise for claim, (steps, promise) in PROMISES.items() if name in steps}
            if claims:
                read, entry = served(self.before, name, taken.chosen)
                found = self._found(name, taken, {c: holds(self.scope, self.before, read, entry) for c, holds in claims.items()})
                if found is not None:
                    return found
        for name, taken in touched.items():
            found = self._found(name, taken, {claim: holds(self.scope, taken.after) for claim, holds in INVARIANTS.items()})
            if found is not None:
                return found
        return None

    def _is_changed(self, name: str, taken: Taken) -> bool:
        return name in self._changed or not taken.parts.isdisjoint(self._changed)

    def _found(self, name: str, taken: Taken, claims: dict[str, Any]) -> Broken | None:
        solver = self.solver(taken)
        solver.add(z3.Not(z3.And(list(claims.values()))))
        if solver.check() != z3.sat:
            return None
        model = solver.model()
        broken = [claim for claim, holds in claims.items() if z3.is_false(model.eval(holds, model_completion=True))]
        return Broken(name, broken, self.before, taken, model)

    def can_happen(self, name: str) -> bool:
        """Whether there is a state from which this step can be taken. One that serves a value serves one against which there is an
        invalidation that has returned, so that the promises say something of it."""
        taken = self.take(name)
        solver = self.solver(taken)
        if any(name in steps for steps, _ in PROMISES.values()):
            read, entry = served(self.before, name, taken.chosen)
            e, m, k = self.scope.constant(EPOCH, "e"), self.scope.constant(SEQ, "m"), self.scope.constant(KEY, "k")
            s = self.before
            returned = z3.And(exists(s, e, m), s.done(e, m), s.returned(e, m) < s.begun(read) - s.bound)
            solver.add(returned, s.of(entry, k), s.means(s.pattern(e, m), k), e == s.epoch)
        return bool(solver.check() == z3.sat)

    def _within(self, s: State) -> Any:
        return z3.And(s.epoch <= NUMBERS[EPOCH], *(s.last(e) <= NUMBERS[SEQ] for e in self.scope.members[EPOCH]))
