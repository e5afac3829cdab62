"""The promises of docs/coherence.md, each of every step that serves a value."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

from z3 import And, Implies

from model.proof.invariants import exists, fresh_at
from model.proof.logic import EPOCH, KEY, SEQ, Scope, State, not_beyond

FROM_L1: Final = ("hit", "judge_slot")
FROM_L2: Final = ("serve_from_l2", "serve_l1_after_l2", "hit_after_l2")


def served(s: State, step: str, chosen: dict[str, Any]) -> tuple[Any, Any]:
    """The read, and the entry that it serves."""
    read = chosen["read"]
    return read, chosen.get("entry", s.entry(read))


def p1(scope: Scope, s: State, r: Any, x: Any) -> Any:
    """P1 (and P3): each source in a value from L2 was read after each invalidation was called that had returned as the read
    began."""

    @scope.all(EPOCH, SEQ, KEY)
    def records(e: Any, m: Any, k: Any) -> Any:
        returned = And(exists(s, e, m), s.done(e, m), s.returned(e, m) < s.begun(r))
        return Implies(returned, fresh_at(s, x, k, e, m))

    return records


def p1_at_once(scope: Scope, s: State, r: Any, x: Any) -> Any:
    """P1, more sharply: each invalidation that was appended before the server gave the entry counts, if its log stood then. Not
    of a slot that is served by its generation: a state with more may be on its way there."""

    @scope.all(EPOCH, SEQ, KEY)
    def records(e: Any, m: Any, k: Any) -> Any:
        appended = And(s.stood(r), exists(s, e, m), s.appended(e, m) <= s.got_at(r))
        return Implies(appended, fresh_at(s, x, k, e, m))

    return records


def p2(scope: Scope, s: State, r: Any, x: Any) -> Any:
    """P2 (and P3): of a value from L1 it holds for each that had returned more than the bound before the read began."""

    @scope.all(EPOCH, SEQ, KEY)
    def records(e: Any, m: Any, k: Any) -> Any:
        returned = And(exists(s, e, m), s.done(e, m), s.returned(e, m) < s.begun(r) - s.bound)
        return Implies(returned, fresh_at(s, x, k, e, m))

    return records


def applied(scope: Scope, s: State, r: Any, x: Any) -> Any:
    """What the node's bus had when the read looked at it is served no more."""

    @scope.all(EPOCH, SEQ, KEY)
    def records(e: Any, m: Any, k: Any) -> Any:
        had = And(exists(s, e, m), s.b_epoch(r) >= 0, not_beyond(e, m, s.b_epoch(r), s.b_seq(r)))
        return Implies(had, fresh_at(s, x, k, e, m))

    return records


PROMISES: Final[dict[str, tuple[tuple[str, ...], Callable[..., Any]]]] = {
    "P1": (FROM_L2, p1),
    "P1 at once": (FROM_L2[:2], p1_at_once),
    "P2": (FROM_L1, p2),
    "applied": (FROM_L1, applied),
}
