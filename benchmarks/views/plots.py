"""Plots as PNG and SVG, with matplotlib (extra `bench`). Equal figures give equal files."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from benchmarks.views.view import BarPlot, CurvePlot, Plot

if TYPE_CHECKING:
    from matplotlib.axes import Axes

HOW_TO_INSTALL: Final = "pip install 'persona-worker[bench]'"
SIZE_INCHES: Final = (7.0, 4.0)
DPI: Final = 110
SUFFIXES: Final = (".png", ".svg")
BAR_WIDTH: Final = 0.8  # the share of a label's room that its bars take together

_STYLE: Final[Any] = {  # typed by the library as one of hundreds of literals
    "svg.hashsalt": "persona",  # else ids within the file would differ with each run
    "svg.fonttype": "none",  # text stays text: small, and readable by search and screen readers
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.alpha": 0.3,
    "font.size": 10,
}
_METADATA: Final[dict[str, dict[str, Any]]] = {".png": {"Software": None}, ".svg": {"Date": None, "Creator": None}}


def plots_available() -> bool:
    return find_spec("matplotlib") is not None


def draw(plots: Iterable[Plot], folder: Path, prefix: str) -> list[str]:
    """Write each as `<prefix>-<name>.png` and `.svg` into the folder. Returns the names without suffix.

    Must only be called if `plots_available`. No display is needed. Not to be called by two threads at once.
    """
    import matplotlib as mpl
    from matplotlib.figure import Figure  # not pyplot: it keeps figures, and asks for a display

    names = []
    with mpl.rc_context(_STYLE):
        for plot in plots:
            figure = Figure(figsize=SIZE_INCHES, dpi=DPI, layout="constrained")
            axes = figure.subplots()
            if isinstance(plot, CurvePlot):
                _draw_curves(axes, plot)
            else:
                _draw_bars(axes, plot)
            axes.set_title(plot.title, fontsize=11)
            name = f"{prefix}-{plot.name}"
            for suffix in SUFFIXES:
                figure.savefig(folder / f"{name}{suffix}", metadata=_METADATA[suffix])
            names.append(name)
    return names


def _draw_curves(axes: Axes, plot: CurvePlot) -> None:
    for curve in plot.curves:
        if curve.points:
            xs, ys = zip(*curve.points, strict=True)
            axes.plot(xs, ys, label=curve.label, linestyle="--" if curve.dashed else "-", marker="" if curve.dashed else "o")
    if plot.log_x:
        axes.set_xscale("log", base=2)
        # As numbers of processes, not as powers.
        ticks = sorted({x for curve in plot.curves for x, _ in curve.points})
        axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
        axes.minorticks_off()
    if plot.log_y:
        axes.set_yscale("log")
    else:
        axes.set_ylim(bottom=0)
    axes.set_xlabel(plot.x_label)
    axes.set_ylabel(plot.y_label)
    if len(plot.curves) > 1:
        axes.legend(frameon=False)


def _draw_bars(axes: Axes, plot: BarPlot) -> None:
    width = BAR_WIDTH / len(plot.series)
    middles = range(len(plot.labels))
    for number, (label, values) in enumerate(plot.series.items()):
        offset = (number - (len(plot.series) - 1) / 2) * width
        axes.bar([middle + offset for middle in middles], values, width=width, label=label)
    axes.set_xticks(list(middles), plot.labels)
    if plot.log_y:
        axes.set_yscale("log")
    axes.grid(visible=False, axis="x")
    axes.set_ylabel(plot.y_label)
    if len(plot.series) > 1:
        axes.legend(frameon=False)
