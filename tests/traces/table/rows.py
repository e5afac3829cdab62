"""What a row of the table is, and what all rows use."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final, NamedTuple

from traces.standing import Process, View

CLOCK_NS: Final = 2_000
"""How exactly a float of seconds and a number of nanoseconds can be compared."""


class Row(NamedTuple):
    name: str
    rules: tuple[str, ...]
    about: str
    allows: Callable[..., str]


ROWS: Final[dict[str, Row]] = {}


def row(name: str, *rules: str) -> Callable[[Callable[..., str]], Callable[..., str]]:
    def enter(condition: Callable[..., str]) -> Callable[..., str]:
        about = " ".join((condition.__doc__ or "").split())
        ROWS[name] = Row(name, rules, about, condition)
        return condition

    return enter


def ns(moment_s: float) -> float:
    return moment_s * 1e9


def told_entry(entry: Any) -> str:
    deps = f" with deps {', '.join(entry.deps)}" if entry.deps else ""
    return f"{entry.key!r}{deps}, as of {entry.epoch}:{entry.seq}"


def told_states(at: Process, view: View, event: Any) -> str:
    told = []
    for state in list(view.between(event.since, event.until))[:3]:
        names = (event.key, *event.deps)
        newest = max((at.truth.newest(state.epoch, name, state.seq), name) for name in names)
        pending = ", something pending" if state.era is not None else ""
        told.append(f"{state.epoch}:{state.seq}:{state.floor}, where {newest[0]} is the newest for {newest[1]!r}{pending}")
    return "; ".join(told) or "any state"
