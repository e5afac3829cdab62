"""What a step is. Each takes a state and the time at which it happens, and gives a condition and the state after it.

Nothing says when or whether a step comes: a process that is frozen takes none for any time, one that is killed none ever.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

import z3

from model.proof.logic import Scope, State


class Moment:
    """The state before a step, the time at which it happens, and what it may choose."""

    def __init__(self, scope: Scope, before: State) -> None:
        self.scope = scope
        self.before = before
        self.chosen: dict[str, Any] = {}
        self.time = self.any("Time", "time")

    def any(self, sort: str, name: str) -> Any:
        """Some member of the sort. In a counterexample it stands under this name."""
        self.chosen[name] = self.scope.constant(sort, name)
        return self.chosen[name]

    def any_function(self, name: str, sorts: tuple[str, ...], result: str) -> Any:
        return self.scope.function(f"{name}!any", sorts, result)


class Taken(NamedTuple):
    """A step: under which condition, and what there is after it."""

    condition: Any
    after: State


Rule = Callable[[Moment, State], tuple[Any, State]]
RULES: Final[dict[str, Rule]] = {}


def rule(function: Rule) -> Rule:
    """Enter it under its own name."""
    RULES[function.__name__] = function
    return function


def take(scope: Scope, before: State, step: Rule) -> tuple[Taken, Moment]:
    """The step, from any state, at any later time."""
    moment = Moment(scope, before)
    condition, after = step(moment, before)
    return Taken(z3.And(moment.time > before.now, condition), after.but(now=moment.time)), moment
