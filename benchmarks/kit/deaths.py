"""What the events of `deaths` come to: when tasks were back, and what is not as it must be."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, NamedTuple

from benchmarks.kit.callers import Asked, Callers, Tally
from benchmarks.kit.contract import Figures
from benchmarks.kit.outages import OUTAGES

MOST_RETURNED_S: Final = 15.0
MOST_BACK_S: Final = 6.0
"""From a restarted broker's first answer to the answer of the first task that was sent after it."""
_PHASES: Final = ("frozen", "broken", "restart", *OUTAGES)


class Death(NamedTuple):
    """A node that was killed or frozen, and the tasks that lay in its claims right after that."""

    at_s: float
    task_ids: tuple[str, ...]


def returned(asked: dict[str, Asked], deaths: Sequence[Death]) -> tuple[list[float], int]:
    """For each task that lay in a dead node's claims and was not answered yet: how long from the death to its answer; if it was
    with several, from the last of them. And how often one was with another node that died before."""
    last_s: dict[str, float] = {}
    again = 0
    for death in deaths:
        for task_id in death.task_ids:
            answered_s = asked[task_id].answered_s if task_id in asked else 0.0
            if answered_s > death.at_s:
                again += task_id in last_s
                last_s[task_id] = death.at_s
    return [asked[task_id].answered_s - at_s for task_id, at_s in last_s.items()], again


def stock_figures(callers: Callers, deaths: Sequence[Death]) -> Figures:
    """The stock way does not say which node has a message: a task's time counts from the first kill while it was unanswered."""
    tally = callers.tally("stock")
    longest_s = 0.0
    for asked in callers.asked.values():
        if asked.phase == "stock" and asked.sent_s and asked.answered_s:
            met_s = [death.at_s for death in deaths if asked.sent_s <= death.at_s < asked.answered_s]
            longest_s = max([longest_s, *(asked.answered_s - at_s for at_s in met_s[:1])])
    return {
        "stock_kills": len(deaths),
        "stock_sent": tally.sent,
        "stock_lost": tally.lost,
        "stock_wrong": tally.wrong,
        "stock_failed": tally.failed,
        "stock_committed_twice": tally.twice,
        "stock_returned_max_s": longest_s,
    }


def judge(figures: Figures) -> list[str]:
    """What is not as it must be, as sentences."""
    problems = []
    for what, names in {
        "tasks were lost": ("lost", *(f"{phase}_lost" for phase in _PHASES)),
        "answers were wrong": ("wrong", *(f"{phase}_wrong" for phase in _PHASES)),
        "tasks had a second outcome": ("committed_twice", *(f"{phase}_committed_twice" for phase in _PHASES)),
        "tasks failed": tuple(f"{phase}_failed" for phase in _PHASES),
        "nodes ended by themselves": tuple(f"{phase}_exits" for phase in _PHASES),
    }.items():
        problems += [f"{name}: {figures[name]:g} {what}" for name in names if figures.get(name)]
    if figures.get("failed", 0) > figures.get("buried", 0):
        problems.append(f"failed: {figures['failed'] - figures['buried']:g} tasks failed that were not with three dead nodes")
    backs = {"restart_back_max_s": MOST_BACK_S} | {f"{name}_back_max_s": MOST_RETURNED_S for name in OUTAGES}
    for name, bound_s in backs.items():
        if figures.get(name, 0.0) > bound_s:
            problems.append(f"{name}: {figures[name]:.1f} s until a task was answered; the bound is {bound_s:g} s")
    for name in ("returned_max_s", "frozen_returned_max_s"):
        if figures.get(name, 0.0) > MOST_RETURNED_S:
            problems.append(f"{name}: {figures[name]:.1f} s from a death to an answer; the bound is {MOST_RETURNED_S:g} s")
    return problems


def counts(prefix: str, tally: Tally) -> Figures:
    return {
        f"{prefix}_sent": tally.sent,
        f"{prefix}_lost": tally.lost,
        f"{prefix}_failed": tally.failed,
        f"{prefix}_wrong": tally.wrong,
        f"{prefix}_committed_twice": tally.twice,
    }
