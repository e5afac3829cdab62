"""Computations: an entry from the moment at which its as_of is taken. `TwoTierCache.fetch`, `Filling.store`, `with_theirs`."""

from __future__ import annotations

from typing import Any

from z3 import And, BoolVal, If, IntVal, Or

from model.proof.logic import ENTRY, KEY, State, put
from model.proof.steps import Moment, part, rule


@rule
def begin_computing(n: Moment, s: State) -> tuple[Any, State]:
    """What is known is noted before the first input is read; and it is what L1 judges by from now on."""
    x = n.any(ENTRY, "entry")
    q = s.maker(x)
    after = s.but(
        stage=put(s.stage, x, IntVal(1)),
        as_epoch=put(s.as_epoch, x, s.v_epoch(q)),
        as_seq=put(s.as_seq, x, s.v_seq(q)),
        # It stands for its own key as that is now.
        of=lambda y, k: If(y == x, k == s.key(x), s.of(y, k)),
        names=lambda y, k: If(y == x, k == s.key(x), s.names(y, k)),
        read_at=lambda y, k: If(y == x, n.time, s.read_at(y, k)),
    )
    return And(s.stage(x) == 0, s.generation(q) == s.revision(q)), after


def with_input(s: State, x: Any, k: Any, read_at: Any) -> State:
    """Computed also from this source; of two readings of one source the older counts."""
    older = If(And(s.of(x, k), s.read_at(x, k) < read_at), s.read_at(x, k), read_at)
    return s.but(of=put(s.of, x, k, BoolVal(True)), read_at=put(s.read_at, x, k, older), names=put(s.names, x, k, BoolVal(True)))


@rule
def read_source(n: Moment, s: State) -> tuple[Any, State]:
    """An input comes from its source, and is named: as the entry's own key, or among its deps."""
    x, k = n.any(ENTRY, "entry"), n.any(KEY, "key")
    return s.stage(x) == 1, with_input(s, x, k, n.time)


@part
def carried(_: Moment, s: State, y: Any) -> Any:
    """Of each key whether what is computed from this entry names it, too: its own and its deps (`with_theirs`)."""
    return lambda k: s.names(y, k)


def with_entry(n: Moment, s: State, x: Any, y: Any) -> State:
    """Computed also from all that another entry was computed from; its names are named as well (`with_theirs`)."""

    def older(k: Any) -> Any:
        return If(And(s.of(x, k), s.read_at(x, k) < s.read_at(y, k)), s.read_at(x, k), s.read_at(y, k))

    carried = n.part("carried", s, y)
    return s.but(
        of=lambda z, k: Or(s.of(z, k), And(z == x, s.of(y, k))),
        names=lambda z, k: Or(s.names(z, k), And(z == x, carried(k))),
        read_at=lambda z, k: If(And(z == x, s.of(y, k)), older(k), s.read_at(z, k)),
    )


@rule
def use_hit(n: Moment, s: State) -> tuple[Any, State]:
    """An input comes from L1 by one comparison, whatever its age within the bound."""
    x, y = n.any(ENTRY, "entry"), n.any(ENTRY, "input")
    q = s.maker(x)
    return And(s.stage(x) == 1, x != y, s.slot(q, y), s.judged(q, y) == s.generation(q)), with_entry(n, s, x, y)


@rule
def use_judged(n: Moment, s: State) -> tuple[Any, State]:
    """An input comes from either tier, or from another thread's computation, and is judged by what is known now."""
    x, y = n.any(ENTRY, "entry"), n.any(ENTRY, "input")
    return And(s.stage(x) == 1, x != y, s.stage(y) == 2, n.part("valid", s, s.maker(x), y)), with_entry(n, s, x, y)


@rule
def end_computing(n: Moment, s: State) -> tuple[Any, State]:
    """The value is there. It is kept in L1 as any other, if it is valid by then."""
    x = n.any(ENTRY, "entry")
    return s.stage(x) == 1, s.but(stage=put(s.stage, x, IntVal(2)))


@rule
def store(n: Moment, s: State) -> tuple[Any, State]:
    """Into L2, without a look at the log: here even where L1 has refused it."""
    x = n.any(ENTRY, "entry")
    return s.stage(x) == 2, s.but(stored=put(s.stored, x, BoolVal(True)))
