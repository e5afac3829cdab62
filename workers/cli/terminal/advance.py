"""How far something has come: a bar on a terminal, elsewhere a line every few seconds."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import TYPE_CHECKING, Final, NamedTuple

from workers.cli.terminal.screen import Screen

if TYPE_CHECKING:
    from workers.client import Progress

LINE_EVERY_S: Final = 5.0


class Advance(NamedTuple):
    """`total` is None while it is unknown. `counts`: more numbers, each by the word that follows it. `label`: before the bar."""

    done: int
    total: int | None
    counts: Mapping[str, int]
    label: str = ""


@contextmanager
def shown_map(screen: Screen, total: int, *, bar: bool = True) -> Iterator[Callable[[Progress], None]]:
    """Of a `PersonaClient.map`: a function to pass as `on_progress`. Without `bar`: lines also on a terminal."""
    at_first = Advance(0, total, {"cached": 0, "failed": 0})
    with shown_progress(screen, at_first, bar=bar) as show:
        yield lambda at: show(Advance(at.done, total, {"cached": at.cached, "failed": at.failed}))


@contextmanager
def shown_progress(
    screen: Screen,
    at_first: Advance,
    *,
    unit: str = "done",
    bar: bool = True,
    vanishes: bool = False,
    clock: Callable[[], float] = time.monotonic,
) -> Iterator[Callable[[Advance], None]]:
    """A function that shows how far it has come. A bar has no labels if it has none at first; lines say `unit` in their place.

    `vanishes`: what comes after says all, so that the bar goes when it ends, and no line is told because of the end.
    """
    if bar and screen.notes.is_terminal:
        with _bar(screen, at_first, vanishes) as show:
            yield show
    else:
        yield _lines(screen, unit, vanishes, clock)


@contextmanager
def _bar(screen: Screen, at_first: Advance, vanishes: bool) -> Iterator[Callable[[Advance], None]]:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeElapsedColumn
    from rich.progress import Progress as Bar

    label = (TextColumn("{task.description}"),) if at_first.label else ()
    columns = (*label, BarColumn(bar_width=None), MofNCompleteColumn(), TextColumn("{task.fields[counts]}"), TimeElapsedColumn())
    with Bar(*columns, console=screen.notes, expand=True, transient=vanishes) as bar:
        task = bar.add_task(at_first.label, total=at_first.total, counts=_counts(at_first, " "))

        def show(at: Advance) -> None:
            bar.update(task, description=at.label, total=at.total, completed=at.done, counts=_counts(at, " "))

        yield show


def _lines(screen: Screen, unit: str, vanishes: bool, clock: Callable[[], float]) -> Callable[[Advance], None]:
    started_s = told_at_s = clock()

    def show(at: Advance) -> None:
        nonlocal told_at_s
        now_s = clock()
        if now_s - told_at_s >= LINE_EVERY_S or (at.done == at.total and not vanishes):
            told_at_s = now_s
            screen.note(f"{at.done}/{at.total or 0} {unit}, {_counts(at, ', ')}, {now_s - started_s:.0f} s")

    return show


def _counts(at: Advance, between: str) -> str:
    return between.join(f"{number} {word}" for word, number in at.counts.items())
