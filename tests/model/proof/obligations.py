"""What has to be shown, and Z3's answer to each."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, NamedTuple

import z3

from model.proof import compute_steps, invariants_reads, log_steps, read_steps, view_steps
from model.proof.invariants import INVARIANTS, exists
from model.proof.logic import EPOCH, KEY, NUMBERS, SEQ, Scope, State
from model.proof.promises import PROMISES, served
from model.proof.state import any_state, first_state
from model.proof.steps import RULES, Taken, take

MODULES: Final = (log_steps, view_steps, read_steps, compute_steps, invariants_reads)
"""Those that enter the rules, and the rest of the invariants."""
TIMEOUT_MS: Final = 60_000
"""For one query. Longer means that it is not proved."""


class Answer(NamedTuple):
    """`outcome`: proved, refuted, or unknown, which is no success. `claim`: the invariant or promise, of that step."""

    step: str
    claim: str
    outcome: str
    seconds: float


class Inductive:
    """States in which all invariants hold, and questions about a step from them."""

    def __init__(self, *, finite: bool) -> None:
        self.scope = Scope.few() if finite else Scope(finite=False)
        self.before = any_state(self.scope)
        self._solver = z3.SimpleSolver()
        self._solver.set(timeout=TIMEOUT_MS)
        self._solver.add(*(holds(self.scope, self.before) for holds in INVARIANTS.values()))

    @classmethod
    @functools.cache
    def any_number(cls) -> Inductive:
        """Of processes, keys and all else."""
        return cls(finite=False)

    @classmethod
    @functools.cache
    def few(cls) -> Inductive:
        """A few members of each sort."""
        return cls(finite=True)

    def ask(self, *conditions: Any) -> tuple[Any, Any]:
        """Z3's answer whether there is such a state in which these hold as well; and one, if so."""
        self._solver.push()
        try:
            self._solver.add(*conditions)
            answer = self._solver.check()
            return answer, self._solver.model() if answer == z3.sat else None
        finally:
            self._solver.pop()

    def prove(self, step: str, claim: str, condition: Any, holds: Any) -> Answer:
        began_s = time.perf_counter()
        answer, _ = self.ask(condition, z3.Not(holds))
        outcome = "proved" if answer == z3.unsat else "refuted" if answer == z3.sat else "unknown"
        return Answer(step, claim, outcome, time.perf_counter() - began_s)


def first_holds() -> Iterator[Answer]:
    """Each invariant holds at first."""
    scope = Scope(finite=False)
    start = first_state(scope)
    for claim, holds in INVARIANTS.items():
        began_s = time.perf_counter()
        solver = z3.SimpleSolver()
        solver.set(timeout=TIMEOUT_MS)
        solver.add(start.bound > 0, z3.Not(holds(scope, start)))
        outcome = "proved" if solver.check() == z3.unsat else "unknown"
        yield Answer("at first", claim, outcome, time.perf_counter() - began_s)


def each_step_keeps(name: str) -> Iterator[Answer]:
    """Each invariant holds after this step from any state in which all hold: whatever the number of processes, keys and
    records."""
    states = Inductive.any_number()
    taken = take(states.scope, states.before, RULES[name])
    for claim, holds in INVARIANTS.items():
        yield states.prove(name, claim, taken.condition, holds(states.scope, taken.after))


def promises_follow() -> Iterator[Answer]:
    """A step that serves a value, from any state in which the invariants hold, keeps its promise."""
    states = Inductive.any_number()
    for claim, (steps, promise) in PROMISES.items():
        for name in steps:
            taken = take(states.scope, states.before, RULES[name])
            read, entry = served(states.before, name, taken.chosen)
            yield states.prove(name, claim, taken.condition, promise(states.scope, states.before, read, entry))


# -- in a few members of each sort


class Broken(NamedTuple):
    """A state in which all invariants hold, a step from it, and what does not hold after it; a promise, of what it serves."""

    step: str
    claim: str
    before: State
    taken: Taken
    model: Any


class Small:
    """The finite reading: states of a few members, which Z3 finds or says that there are none."""

    def __init__(self, changed: Mapping[str, Callable[..., Any]] | None = None) -> None:
        """`changed`: rules, or parts of rules, that are others than the protocol's."""
        self._states = Inductive.few()
        self._changed = changed or {}

    def take(self, name: str) -> Taken:
        parts = {part: it for part, it in self._changed.items() if part not in RULES}
        return take(self._states.scope, self._states.before, self._changed.get(name, RULES[name]), parts)

    def broken(self, name: str, claim: str) -> Broken | None:
        """A state from which that step breaks this invariant, or promise, if there is one."""
        scope, before, taken = self._states.scope, self._states.before, self.take(name)
        if claim in PROMISES:
            holds = PROMISES[claim][1](scope, before, *served(before, name, taken.chosen))
        else:
            holds = INVARIANTS[claim](scope, taken.after)
        _, model = self._states.ask(taken.condition, self._within(before), self._within(taken.after), z3.Not(holds))
        return None if model is None else Broken(name, claim, before, taken, model)

    def can_happen(self, name: str) -> bool:
        """Whether there is a state from which this step can be taken. One that serves a value serves one against which there is
        an invalidation that has returned, so that the promises say something of it."""
        taken, s = self.take(name), self._states.before
        conditions = [taken.condition, self._within(s), self._within(taken.after)]
        if any(name in steps for steps, _ in PROMISES.values()):
            scope = self._states.scope
            read, entry = served(s, name, taken.chosen)
            e, m, k = scope.constant(EPOCH, "e"), scope.constant(SEQ, "m"), scope.constant(KEY, "k")
            returned = z3.And(exists(s, e, m), s.done(e, m), s.returned(e, m) < s.begun(read) - s.bound)
            conditions += [returned, s.of(entry, k), s.means(s.pattern(e, m), k), e == s.epoch]
        return bool(self._states.ask(*conditions)[0] == z3.sat)

    def _within(self, s: State) -> Any:
        return z3.And(s.epoch <= NUMBERS[EPOCH], *(s.last(e) <= NUMBERS[SEQ] for e in self._states.scope.members[EPOCH]))
