"""Tables and plots of a benchmark's figures, on the terminal and on the page. Pure: figures in, words out."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple


class Table(NamedTuple):
    """Cells as text. The first column names the subject of the row; the others are numbers and stand to the right."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    title: str = ""


class Curve(NamedTuple):
    """Points (x, y) with a rising x. `dashed`: compared with, not measured."""

    label: str
    points: tuple[tuple[float, float], ...]
    dashed: bool = False


class CurvePlot(NamedTuple):
    """`name` is the file's, without its suffix, and unique within the benchmark."""

    name: str
    title: str
    x_label: str
    y_label: str
    curves: tuple[Curve, ...]
    log_x: bool = False
    log_y: bool = False


class BarPlot(NamedTuple):
    """For each label, one bar of each series."""

    name: str
    title: str
    y_label: str
    labels: tuple[str, ...]
    series: Mapping[str, tuple[float, ...]]
    log_y: bool = False


Plot = CurvePlot | BarPlot


class View(NamedTuple):
    """One benchmark's figures for a reader. `text`: how they were measured, and what they do not say; in Markdown."""

    text: str = ""
    tables: tuple[Table, ...] = ()
    plots: tuple[Plot, ...] = ()


def shown_number(number: float) -> str:
    """`500`, `0.312`, `2.31`, `5512`: three digits that count, and whole numbers as they are."""
    if number == int(number):
        return str(int(number))
    return f"{number:.0f}" if abs(number) >= 999.5 else f"{number:.3g}"


def shown(figures: Mapping[str, float], *names: str) -> tuple[str, ...]:
    """A row's cells: those figures, and a dash for a missing one."""
    return tuple(shown_number(figures[name]) if name in figures else "-" for name in names)


def shown_ratio(figures: Mapping[str, float], name: str) -> str:
    """`0.94x (0.91-0.97)`: a ratio with its spread, as `Ratio.figures` names the three; a dash if there is none."""
    if name not in figures:
        return "-"
    return f"{figures[name]:.2f}x ({figures[f'{name}_low']:.2f}-{figures[f'{name}_high']:.2f})"


def as_list(figures: Mapping[str, float]) -> Table:
    """Every figure by its name."""
    return Table(("figure", "value"), tuple((name, shown_number(number)) for name, number in figures.items()))


def curve(label: str, figures: Mapping[str, float], pattern: str, sizes: Sequence[int]) -> Curve:
    """The figures that `pattern`, such as `workers{}_per_s`, names for these sizes, where they exist."""
    names = [(size, pattern.format(size)) for size in sizes]
    return Curve(label, tuple((float(size), figures[name]) for size, name in names if name in figures))
