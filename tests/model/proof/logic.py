"""First-order logic as the proof uses it: sorts, quantifiers, states as functions, and steps from one state to another.

A quantifier is read in one of two ways. *Unbounded*: it is Z3's own, over sorts of any size; this proves. *Finite*: the sorts
have two or three members and the numbers a few values, so that each quantifier is written out; Z3 then always finds a state or
says that there is none. A state of the finite reading is a state of the unbounded one too, since every quantified number is
bounded by what there is.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Final

import z3

EPOCH: Final = "Epoch"
SEQ: Final = "Seq"
PROCESS: Final = "Process"
NODE: Final = "Node"
PAGE: Final = "Page"
READ: Final = "Read"
ENTRY: Final = "Entry"
KEY: Final = "Key"
PATTERN: Final = "Pattern"
INT: Final = "Int"
TIME: Final = "Time"
BOOL: Final = "Bool"

NUMBERS: Final = {EPOCH: 2, SEQ: 3}
"""Epochs and seqs are numbers; in the finite reading from 0 to these."""
MEMBERS: Final = {PROCESS: 2, NODE: 1, PAGE: 2, READ: 2, ENTRY: 2, KEY: 2, PATTERN: 2}
"""The members of each sort in the finite reading."""


class Scope:
    """How quantifiers are read."""

    def __init__(self, *, finite: bool) -> None:
        self.finite = finite
        self.members: dict[str, Sequence[Any]] = {name: range(most + 1) for name, most in NUMBERS.items()}
        self.sorts: dict[str, Any] = {
            EPOCH: z3.IntSort(),
            SEQ: z3.IntSort(),
            INT: z3.IntSort(),
            TIME: z3.IntSort(),
            BOOL: z3.BoolSort(),
        }
        for name, count in MEMBERS.items():
            if finite:
                self.sorts[name], self.members[name] = z3.EnumSort(name, [f"{name.lower()} {n + 1}" for n in range(count)])
            else:
                self.sorts[name] = z3.DeclareSort(name)
        self._count = itertools.count()

    @classmethod
    @functools.cache
    def few(cls) -> Scope:
        """The finite reading. Z3 knows its sorts by their names, so that there is one only."""
        return cls(finite=True)

    def all(self, *sorts: str) -> Callable[[Callable[..., Any]], Any]:
        """`@scope.all(PROCESS, SEQ)` above a function of a process and a seq: whether it holds for all."""

        def quantified(body: Callable[..., Any]) -> Any:
            if self.finite:
                return z3.And([body(*each) for each in itertools.product(*(self.members[sort] for sort in sorts))])
            bound = [self.constant(sort, "v") for sort in sorts]
            return z3.ForAll(bound, body(*bound))

        return quantified

    def constant(self, sort: str, name: str) -> Any:
        return z3.Const(f"{name}!{next(self._count)}", self.sorts[sort])

    def function(self, name: str, sorts: Sequence[str], result: str) -> Any:
        """A function of these, or a constant where there are none."""
        if not sorts:
            return z3.Const(name, self.sorts[result])
        return z3.Function(name, *(self.sorts[sort] for sort in sorts), self.sorts[result])


class State:
    """One moment: a function or a constant for each name. Never changed; `but` makes another one."""

    def __init__(self, parts: Mapping[str, Any]) -> None:
        self._parts = dict(parts)

    def __getattr__(self, name: str) -> Any:
        try:
            return self._parts[name]
        except KeyError:
            raise AttributeError(name) from None

    def but(self, **changed: Any) -> State:
        assert changed.keys() <= self._parts.keys(), changed.keys() - self._parts.keys()
        return State(self._parts | changed)


def put(function: Callable[..., Any], *given: Any) -> Callable[..., Any]:
    """The function, but for one place: `put(f, q, p, value)`."""
    *place, value = given

    def changed(*at: Any) -> Any:
        return z3.If(z3.And([here == there for here, there in zip(at, place, strict=True)]), value, function(*at))

    return changed


def larger(one: Any, other: Any) -> Any:
    return z3.If(one >= other, one, other)


def not_beyond(epoch: Any, seq: Any, at_epoch: Any, at_seq: Any) -> Any:
    """Whether a position is another one or before it."""
    return z3.Or(epoch < at_epoch, z3.And(epoch == at_epoch, seq <= at_seq))
