"""The figures of `deaths` as tables."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from benchmarks.views.view import Table, View, shown

_TEXT: Final = """
120 hits and 3 new questions a second (the model takes 500 ms) by `send_task` of a Celery app that knows nothing of this project,
on 3 nodes of 2 pool children. *Killed*: SIGKILL to a node and its children at random moments, some seconds apart; a new node
takes its place. *Frozen*: SIGSTOP to them, and SIGCONT later. *Broken*: the server closes every connection of the workers.
*Restarted*: the broker, which holds the results too, is stopped and started with its file, half of the times idle. *Read-only*,
*full*: it refuses for 5 s. A server that keeps the results alone is killed and started with its file 5 s later, stands still, or
is full for as long. *Stock*: the same nodes with `PERSONA_FETCH=pop` and `PERSONA_DOOR=false`.

*Lost*: a task that was sent and has no outcome. *Failed*: with a FAILURE; those that were with three nodes that died are meant to
have one. *Twice*: a second outcome was published on the task's channel, or another one is stored than was published first.
*Back after*: from the kill to the answer, of what lay in the dead node's claims right after it; of the stock way, of what was
unanswered at the kill; else, from the server's first answer, or the end of the fault, to the answer of the first task sent after
it. *Exits*: nodes that ended by themselves.
"""


def view_deaths(figures: Mapping[str, float]) -> View:
    def row(title: str, times: str, prefix: str, back: str) -> tuple[str, ...]:
        names = (f"{prefix}{name}" for name in ("sent", "lost", "failed", "wrong", "committed_twice", "exits"))
        return (title, *shown(figures, times, *names, back))

    def outage(title: str, name: str) -> tuple[str, ...]:
        return row(title, f"{name}_times", f"{name}_", f"{name}_back_max_s")

    return View(
        text=_TEXT,
        tables=(
            Table(
                ("", "times", "tasks", "lost", "failed", "wrong", "twice", "exits", "back after s at most"),
                (
                    row("a node is killed", "kills", "", "returned_max_s"),
                    row("the same, stock", "stock_kills", "stock_", "stock_returned_max_s"),
                    row("a node is frozen", "freezes", "frozen_", "frozen_returned_max_s"),
                    row("connections are broken", "breaks", "broken_", "-"),
                    row("the broker is restarted", "restarts", "restart_", "restart_back_max_s"),
                    outage("the broker is read-only", "read_only"),
                    outage("the broker is full", "full"),
                    outage("the result server is killed", "results_killed"),
                    outage("the result server stands still", "results_frozen"),
                    outage("the result server is full", "results_full"),
                ),
            ),
        ),
    )
