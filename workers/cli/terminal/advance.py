"""The progress of a `PersonaClient.map`: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from workers.cli.terminal.screen import Screen
from workers.client import Progress

LINE_EVERY_S: Final = 5.0


@contextmanager
def shown_progress(screen: Screen, total: int, *, bar: bool = True) -> Iterator[Callable[[Progress], None]]:
    """A function to pass as `on_progress`. Without `bar`: a line every few seconds also on a terminal."""
    if bar and screen.notes.is_terminal:
        with _bar(screen, total) as advance:
            yield advance
    else:
        yield _lines(screen, total)


@contextmanager
def _bar(screen: Screen, total: int) -> Iterator[Callable[[Progress], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    columns = (
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[cached]} cached"),
        TextColumn("{task.fields[failed]} failed"),
        TimeElapsedColumn(),
    )
    with Bar(*columns, console=screen.notes, expand=True) as bar:
        task = bar.add_task("requests", total=total, cached=0, failed=0)
        yield lambda progress: bar.update(task, completed=progress.done, cached=progress.cached, failed=progress.failed)


def _lines(screen: Screen, total: int, clock: Callable[[], float] = time.monotonic) -> Callable[[Progress], None]:
    started = told_at = clock()

    def advance(progress: Progress) -> None:
        nonlocal told_at
        now = clock()
        if now - told_at >= LINE_EVERY_S or progress.done == total:
            told_at = now
            counts = f"{progress.done}/{total} done, {progress.cached} cached, {progress.failed} failed"
            screen.note(f"{counts}, {now - started:.0f} s")

    return advance
