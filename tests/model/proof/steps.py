"""What a step is. Each takes a state and the time at which it happens, and gives a condition and the state after it.

Nothing says when or whether a step comes: a process that is frozen takes none for any time, one that is killed none ever.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final, NamedTuple

import z3

from model.proof.logic import TIME, Scope, State

Rule = Callable[["Moment", State], tuple[Any, State]]
RULES: Final[dict[str, Rule]] = {}
PARTS_OF_RULES: Final[dict[str, Callable[..., Any]]] = {}


def rule(function: Rule) -> Rule:
    """Enter a step under its own name."""
    RULES[function.__name__] = function
    return function


def part(function: Callable[..., Any]) -> Callable[..., Any]:
    """Enter what several steps have in common. They ask their moment for it, so that a mutant can change it."""
    PARTS_OF_RULES[function.__name__] = function
    return function


class Moment:
    """The state before a step, the time at which it happens, and what it may choose."""

    def __init__(self, scope: Scope, before: State, changed: Mapping[str, Callable[..., Any]]) -> None:
        self.scope = scope
        self.before = before
        self.chosen: dict[str, Any] = {}
        self.parts: set[str] = set()
        self._parts = PARTS_OF_RULES | dict(changed)
        self.time = self.any(TIME, "time")

    def any(self, sort: str, name: str) -> Any:
        """Some member of the sort. In a counterexample it stands under this name."""
        self.chosen[name] = self.scope.constant(sort, name)
        return self.chosen[name]

    def part(self, name: str, *given: Any) -> Any:
        self.parts.add(name)
        return self._parts[name](self, *given)


class Taken(NamedTuple):
    """A step: under which condition, what there is after it, what was chosen, and which parts of rules it has."""

    condition: Any
    after: State
    chosen: dict[str, Any]
    parts: set[str]


def take(scope: Scope, before: State, step: Rule, changed: Mapping[str, Callable[..., Any]] | None = None) -> Taken:
    """The step, from that state, at any later time. `changed`: parts of rules that a mutant has."""
    moment = Moment(scope, before, changed or {})
    condition, after = step(moment, before)
    return Taken(z3.And(moment.time > before.now, condition), after.but(now=moment.time), moment.chosen, moment.parts)
