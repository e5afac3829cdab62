"""The demonstration's outcome on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.padding import Padding
from rich.table import Table
from rich.text import Text

from workers.cli.demo.scenario import Exchange, Recomputation
from workers.cli.terminal.figures import Figures, bar
from workers.cli.terminal.screen import printable, shown_ms
from workers.stack.servers.model import MODEL_ID

BAR_WIDTH: Final = 24
SHOWN_CHARS: Final = 220
MODEL_NOTES: Final = {
    MODEL_ID: "The local model is very small: its answers show the way they take, not the quality of a good model.",
    "prompt": "No model is configured: the answers are the composed prompts.",
}
NAMES: Final = {"l1": "L1", "l2": "L2", "joined": "joined", "stale": "stale", "no": "computed"}
STYLES: Final = {"l1": "green", "l2": "cyan", "joined": "blue", "stale": "yellow", "no": "magenta"}


def show_examples(out: Console, examples: Sequence[Exchange], model: str | None) -> None:
    _heading(out, "Some answers")
    if model in MODEL_NOTES:
        out.print(Text(f"  {MODEL_NOTES[model]}", style="dim"))
    for request, response in ((each.request, each.response) for each in examples):
        out.print(Padding(Text(_short(request.user_input), style="italic"), (0, 0, 0, 2), expand=False))
        facts = f"{response.persona} · confidence {response.confidence:.2f} · "
        line = Text("  ").append(facts).append(NAMES[response.cached], style=STYLES[response.cached])
        out.print(line.append(f" · {shown_ms(response.execution_time_ms)}"))
        out.print(Padding(Text(_short(response.content), style="dim"), (0, 0, 1, 4), expand=False))


def show_figures(out: Console, figures: Figures, model: str | None) -> None:
    _heading(out, "This run, by where answers came from (their own time)")
    table = Table(box=None, padding=(0, 1), pad_edge=False)
    table.add_column("")
    table.add_column("")
    for title in ("count", "share", "p50", "p99"):
        table.add_column(title, justify="right")
    for tier in figures.tiers:
        table.add_row(
            Text("  " + NAMES[tier.source]),
            Text(bar(tier.share, BAR_WIDTH), style=STYLES[tier.source]),
            str(tier.count),
            f"{tier.share:.1%}",
            shown_ms(tier.p50_ms),
            shown_ms(tier.p99_ms),
        )
    out.print(table)
    out.print()
    calls = "computations (no model)" if model == "prompt" else "model calls"
    failed = f", {figures.failed} failed" if figures.failed else ""
    estimate = f"{figures.saved} x {shown_ms(figures.mean_computed_ms)}, the mean computed answer"
    rows = (
        ("requests", f"{figures.requests}{failed} in {figures.elapsed_s:.1f} s, {figures.throughput_per_s:.1f}/s"),
        ("hit rate", f"{figures.hit_rate:.1%}"),
        (calls, f"{figures.computed} made, {figures.saved} saved"),
        ("time saved", f"about {figures.estimated_saved_s:.0f} s (an estimate: {estimate})"),
    )
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text("  " + name), Text(value))
    out.print(grid)
    out.print()


def show_recomputation(out: Console, again: Recomputation) -> None:
    _heading(out, f"Invalidated {again.pattern} in {shown_ms(again.invalidate_ms)}")
    out.print(Padding(Text(_short(again.request.user_input), style="italic"), (0, 0, 0, 2), expand=False))
    _asked(out, "before", again.before.cached, again.before.execution_time_ms)
    if again.after is not None:
        _asked(out, "after", again.after.cached, again.after.execution_time_ms)
    if again.fresh_after_ms is not None:
        bound = f"the bound is {again.bound_ms:.0f} ms"
        out.print(f"  computed again after {again.fresh_after_ms:.0f} ms ({bound}), {again.old_answers} old answers until then")
    out.print()


def _asked(out: Console, when: str, cached: str, ms: float) -> None:
    out.print(Text(f"  {when:<7}cached: {cached:<4}").append(shown_ms(ms), style=STYLES[cached]))


def _heading(out: Console, title: str) -> None:
    out.print(Text(title, style="bold"))


def _short(text: str) -> str:
    line = " ".join(printable(text).split())
    return line if len(line) <= SHOWN_CHARS else line[:SHOWN_CHARS].rstrip() + " ..."
