"""Rows as lines of a table."""

from __future__ import annotations

from typing import Any, Final

from reliability.result import Result, Row

COLUMNS: Final = ("row", "trials", "tasks", "lost", "wrong", "twice", "back after s at most", "further")


def heading() -> str:
    return f"| {' | '.join(COLUMNS)} |"


def line(row: Row, result: Result) -> str:
    back = f"{result.longest_back_s:.1f}" if result.longest_back_s is not None else "-"
    more = ", ".join(f"{name} {value:.4g}" for name, value in result.more.items())
    cells = (row.name, result.trials, result.tasks, result.lost, result.wrong, result.twice, back, more)
    return f"| {' | '.join(map(str, cells))} |"


def figures(result: Result) -> dict[str, Any]:
    return {**vars(result), "more": dict(result.more), "right": result.right}
