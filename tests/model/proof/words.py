"""A state and a step in words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import z3

from model.proof.invariants import INVARIANTS
from model.proof.logic import ENTRY, KEY, NODE, PAGE, PATTERN, PROCESS, READ, SEQ, Scope, State
from model.proof.obligations import Broken
from model.proof.promises import PROMISES
from model.proof.steps import RULES

PAGES: Final = {
    1: "is being read",
    2: "is in hand",
    3: "its state is published",
    4: "its generation is published",
    5: "is confirmed",
}
READS: Final = {
    1: "has begun",
    2: "has the lease",
    3: "asks L2",
    4: "has what L2 gave",
    5: "has the tail",
    6: "has caught up",
    7: "has read the generation",
    8: "has judged",
    9: "has read the generation, to keep an entry",
    10: "has judged, to keep it",
}


def told(broken: Broken, changed: bool) -> list[str]:
    """The counterexample, line by line: what there is, what happens, what is different then, and what does not hold."""
    before, after = _State(broken.before, broken.model), _State(broken.taken.after, broken.model)
    chosen = {name: broken.model.eval(value, model_completion=True) for name, value in broken.taken.chosen.items()}
    rule = " ".join((RULES[broken.step].__doc__ or "").split())
    first, then = list(before.lines()), list(after.lines())
    lines = ["  before:", *(f"    {line}" for line in first)]
    lines.append(f"  step {broken.step}{' (changed)' if changed else ''}: {rule}")
    lines.append("    with " + ", ".join(f"{name} {value}" for name, value in chosen.items()))
    lines += ["  after it, new or other:", *(f"    {line}" for line in then if line not in first)]
    about = INVARIANTS[broken.claim] if broken.claim in INVARIANTS else PROMISES[broken.claim][1]
    lines.append(f"  does not hold: {broken.claim}: {' '.join((about.__doc__ or '').split())}")
    return lines


class _State:
    """One state as the model has it."""

    def __init__(self, state: State, model: Any) -> None:
        self._state, self._model = state, model
        self._members = Scope.few().members

    def lines(self) -> Iterator[str]:
        yield from self._log()
        for name, describe in (
            (PROCESS, self._view),
            (NODE, self._bus),
            (PAGE, self._page),
            (ENTRY, self._entry),
            (READ, self._read),
        ):
            for each in self._members[name]:
                line = describe(each)
                if line:
                    yield f"{each} {line}"

    def _of(self, name: str, *at: Any) -> Any:
        """The value there: a number, a truth, or a member."""
        part = getattr(self._state, name)
        value = self._model.eval(part(*at) if at else part, model_completion=True)
        if z3.is_int_value(value):
            return value.as_long()
        return z3.is_true(value) if z3.is_bool(value) else value

    def _log(self) -> Iterator[str]:
        epoch = self._of("epoch")
        stands = "stands" if self._of("stands") else "does not stand" + ("" if self._of("bare") else ", a former tail is there")
        whole = "its records were evicted" if self._of("lost") else f"whole since {self._of('whole')}"
        yield f"log {epoch} {stands}: seq {self._of('last', epoch)}, floor {self._of('floor')}, {whole}; time {self._of('now')}"
        for e in range(epoch + 1):
            for m in range(1, min(self._of("last", z3.IntVal(e)), self._members[SEQ][-1]) + 1):
                at = (z3.IntVal(e), z3.IntVal(m))
                pattern = self._of("pattern", *at)
                keys = self._keys(lambda k, pattern=pattern: self._of("means", pattern, k))
                returned = f", returned at {self._of('returned', *at)}" if self._of("done", *at) else ""
                yield (
                    f"record {m} of log {e}: {pattern}, which means {keys}; called at {self._of('called', *at)}, "
                    f"appended at {self._of('appended', *at)}{returned}"
                )

    def _keys(self, holds: Any) -> str:
        return " and ".join(str(k) for k in self._members[KEY] if holds(k)) or "no key"

    def _records(self, part: str, owner: Any) -> str:
        known = [(p, self._of(part, owner, p)) for p in self._members[PATTERN]]
        return ", ".join(f"{p} at {seq}" for p, seq in known if seq > 0) or "no records"

    def _view(self, q: Any) -> str:
        position = f"stands at {self._of('v_seq', q)} of log {self._of('v_epoch', q)}, floor {self._of('v_floor', q)}"
        published = (self._of("generation", q), self._of("revision", q))
        ahead = "" if published[0] == published[1] else f"; published is {self._of('g_seq', q)} of log {self._of('g_epoch', q)}"
        slots = [f"{x} judged at {self._of('judged', q, x)}" for x in self._members[ENTRY] if self._of("slot", q, x)]
        l1 = f"; L1 has {', '.join(slots)}" if slots else ""
        judges = f"generation {published[0]}, confirmed at {self._of('confirmed', q)}{ahead}"
        return f"{position}, {self._records('v_record', q)}; {judges}{l1}"

    def _bus(self, b: Any) -> str:
        if self._of("n_epoch", b) < 0:
            return ""
        position = f"bus stands at {self._of('n_seq', b)} of log {self._of('n_epoch', b)}, floor {self._of('n_floor', b)}"
        return (
            f"{position}, base {self._of('n_base', b)}, {self._records('n_record', b)}, confirmed at {self._of('n_confirmed', b)}"
        )

    def _page(self, u: Any) -> str:
        at = self._of("at", u)
        if at not in PAGES:
            return ""
        kind = "the whole log" if self._of("p_restart", u) else f"what is after {self._of('p_after', u)}"
        position = f"up to {self._of('p_seq', u)} of log {self._of('p_epoch', u)}, floor {self._of('p_floor', u)}"
        asked = f"asked for at {self._of('p_asked', u)}, there at {self._of('p_came', u)}"
        return f"of {self._of('page_of', u)} {PAGES[at]}: {kind}, {position}, {self._records('p_record', u)}; {asked}"

    def _entry(self, x: Any) -> str:
        stage = self._of("stage", x)
        if stage not in (1, 2):
            return ""
        sources = [f"{k} as of {self._of('read_at', x, k)}" for k in self._members[KEY] if self._of("of", x, k)]
        names = self._keys(lambda k: self._of("names", x, k))
        l2 = ", in L2" if self._of("stored", x) else ""
        state = "is being computed" if stage == 1 else "was computed"
        as_of = f"as_of {self._of('as_seq', x)} of log {self._of('as_epoch', x)}"
        return (
            f"for {self._of('key', x)} {state} by {self._of('maker', x)} from {' and '.join(sources)}; {as_of}, names {names}{l2}"
        )

    def _read(self, r: Any) -> str:
        step = self._of("step", r)
        if step not in READS:
            return ""
        parts = [f"by {self._of('reader', r)} {READS[step]}", f"begun at {self._of('begun', r)}"]
        if step in (2, 7, 8):
            parts.append(f"lease by the confirmation at {self._of('lease', r)}")
        if 3 <= step <= 6:
            parts.append(f"asked at {self._of('asked', r)}")
        if (4 <= step <= 6 and self._of("found", r)) or step >= 7:
            parts.append(str(self._of("entry", r)))
        if step in (5, 6):
            tail = "no tail" if self._of("no_tail", r) else f"tail {self._of('t_seq', r)} of log {self._of('t_epoch', r)}"
            parts.append(tail)
        return ", ".join(parts)
