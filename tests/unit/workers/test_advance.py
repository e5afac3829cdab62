"""How a command shows how far it has come: one bar, or lines."""

from __future__ import annotations

import io

import pytest
from faults import Clock
from rich.console import Console

from workers.cli.terminal.advance import LINE_EVERY_S, Advance, shown_map, shown_progress
from workers.cli.terminal.screen import Screen
from workers.client import Progress

ERASED = "\x1b[2K"


def screen_of(*, terminal: bool) -> tuple[Screen, io.StringIO]:
    """A screen whose notes go to a terminal of 80 columns, or to a pipe; and what is drawn on it."""
    drawn = io.StringIO()
    screen = Screen(as_json=False)
    screen.notes = Console(file=drawn, force_terminal=terminal, width=80, color_system=None, _environ={})
    return screen, drawn


def test_a_bar_of_a_map_tells_the_cached_and_the_failed_and_stays() -> None:
    """The last state is there when the result follows it. It has no label."""
    screen, drawn = screen_of(terminal=True)
    with shown_map(screen, 12) as show:
        show(Progress(done=12, failed=2, cached=3, total=12))
    shown = drawn.getvalue()
    assert f"{ERASED}━" in shown
    assert shown.index("0/12 0 cached 0 failed 0:00:00") < shown.rindex(ERASED) < shown.index("12/12 3 cached 2 failed 0:00:00")


def test_a_bar_learns_its_total_changes_its_label_and_vanishes() -> None:
    screen, drawn = screen_of(terminal=True)
    with shown_progress(screen, Advance(0, None, {"failed": 0}, "waiting for a worker"), vanishes=True) as show:
        show(Advance(3, 7, {"failed": 1}, "answers"))
    shown = drawn.getvalue()
    at = [shown.index(text) for text in ("waiting for a worker", "0/? 0 failed", "answers", "3/7 1 failed")]
    assert at == sorted(at)
    assert "cached" not in shown
    assert shown.endswith(ERASED)


def test_a_map_tells_a_line_every_few_seconds_and_one_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    screen, drawn = screen_of(terminal=True)
    with shown_map(screen, 3, bar=False) as show:
        show(Progress(done=1, failed=0, cached=0, total=3))
        show(Progress(done=3, failed=1, cached=2, total=3))
    assert capsys.readouterr().err == "3/3 done, 2 cached, 1 failed, 0 s\n"
    assert drawn.getvalue() == ""


def test_what_vanishes_tells_no_line_at_its_end(capsys: pytest.CaptureFixture[str]) -> None:
    """Of an unknown total it says none; it is told at intervals alone."""
    clock = Clock()
    screen, _ = screen_of(terminal=False)
    at_first = Advance(0, None, {"failed": 0}, "waiting for a worker")
    with shown_progress(screen, at_first, unit="answers", vanishes=True, clock=clock) as show:
        show(at_first)
        clock.tick(LINE_EVERY_S)
        show(at_first)
        clock.tick(LINE_EVERY_S - 0.1)
        show(Advance(6, 7, {"failed": 1}, "answers"))
        clock.tick(0.1)
        show(Advance(6, 7, {"failed": 1}, "answers"))
        show(Advance(7, 7, {"failed": 1}, "answers"))
    assert capsys.readouterr().err == "0/0 answers, 0 failed, 5 s\n6/7 answers, 1 failed, 10 s\n"
