"""The fleet's figures on a terminal."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Final, Literal

from rich.console import Group, RenderableType
from rich.table import Table
from rich.text import Text

from pipeline.figures import FleetFigures
from pipeline.figures.fields import SPREADS
from pipeline.figures.fleet import Audit, MadeInvalidation, Node, Process, Source, Spread, nines
from workers.cli.demo.report import NAMES, STYLES
from workers.cli.terminal.figures import bar
from workers.cli.terminal.screen import printable, shown_ms

BAR_WIDTH: Final = 24
SHOWN_INVALIDATIONS: Final = 5
SHOWN_PROCESSES: Final = 8
COLUMNS: Final = "▁▂▃▄▅▆▇█"


def view_of(figures: FleetFigures, width: int) -> RenderableType:
    """The whole view. `width`: the characters of a line."""
    if not figures.available and figures.refused:
        return Text(f"The cache server refuses ({figures.refused}): no figures. See its login and rights.", style="yellow")
    if not figures.available:
        return Text("The cache server is out of reach: no figures. This view comes back with it.", style="yellow")
    parts: list[RenderableType] = []
    if figures.refused:
        parts.append(Text(f"The cache server refuses ({figures.refused}): answers are not kept there.", style="yellow"))
    parts += [_heading(figures), _throughput(figures, width), Text(), *_distribution(figures), Text()]
    parts += [_facts(figures), Text(), *_invalidations(figures), *_nodes(figures), *_hot(figures)]
    return Group(*parts)


def _heading(figures: FleetFigures) -> Text:
    at = datetime.fromtimestamp(figures.at, UTC).strftime("%H:%M:%S UTC")
    return Text(f"The fleet, last {_span(figures.window_s)}", style="bold").append(f"  {at}", style="not bold dim")


def _throughput(figures: FleetFigures, width: int) -> Text:
    """The rate now, and a chart with a column for one or several slots; the highest fills its line."""
    rates = [slot.requests.total / figures.slot_s for slot in figures.slots[:-1]] or [0.0]
    text = Text(f"{figures.requests_per_s:.1f} requests/s now, {max(rates):.1f} at most  ")
    return text.append(columns(rates, max(10, width - len(text) - 1)), style="cyan")


def columns(values: Sequence[float], width: int) -> str:
    """A small chart, at most `width` characters wide: each column is the largest of the values that it stands for."""
    together = max(1, -(-len(values) // width))
    first = len(values) % together
    groups = [values[:first]] if first else []
    groups += [values[at : at + together] for at in range(first, len(values), together)]
    highest = max(values, default=0.0)
    chart = ""
    for group in groups:
        share = max(group) / highest if highest else 0.0
        chart += COLUMNS[round(share * (len(COLUMNS) - 1))] if share else " "
    return chart


def _distribution(figures: FleetFigures) -> list[Text]:
    lines = [Text("Where answers came from, and how long that took", style="bold")]
    for number, source in enumerate(figures.sources, start=1):
        last = number == len(figures.sources)
        lines.append(Text("└─ " if last else "├─ ").append(NAMES[source.source]).append(_times(source), style="dim"))
        share = Text("   " if last else "│  ").append("└─ ").append(bar(source.share, BAR_WIDTH), style=STYLES[source.source])
        lines.append(share.append(f" {source.share:.1%}"))
    return lines


def _times(source: Source) -> str:
    if not source.count:
        return " (0)"
    return f" ({source.count}): p50 {shown_ms(source.p50_ms)}, p99 {shown_ms(source.p99_ms)}"


def _facts(figures: FleetFigures) -> Table:
    requests = figures.requests
    failed = f", {requests.failed} failed" if requests.failed else ""
    grid = Table.grid(padding=(0, 2))
    for name, fact in (
        ("requests", f"{requests.total}{failed}"),
        ("hit rate", f"{figures.hit_rate:.1%}"),
        ("model calls", f"{requests.no} made, {figures.saved} saved"),
        *((series.label, _spread(figures.spreads[series.name])) for series in SPREADS),
        ("invalidations", str(figures.invalidation_count)),
        ("fresh", _fresh(figures.ever.audit)),
    ):
        grid.add_row(Text(name), Text(fact))
    return grid


def _fresh(audit: Audit) -> str:
    """What the auditor has found since the figures began."""
    if audit.least_fresh is None:
        return f"not checked yet{f', {audit.undecided} undecided' if audit.undecided else ''}"
    stale = f", {audit.stale} stale" if audit.stale else ""
    checks = _number(audit.checks, "check")
    return f"{nines(audit.least_fresh)} at least, 95 % sure, by {checks}{stale}, {audit.undecided:,} undecided"


def _spread(spread: Spread) -> str:
    if not spread.count:
        return "none measured"
    return f"p50 {shown_ms(spread.p50_ms)}, p99 {shown_ms(spread.p99_ms)}, at most {shown_ms(spread.max_ms)}"


def _invalidations(figures: FleetFigures) -> list[RenderableType]:
    if not figures.invalidations:
        return []
    table = _one_line_a_row("shown", "cut", "shown", "cut")
    for made in figures.invalidations[:SHOWN_INVALIDATIONS]:
        ago = f"{_span(max(0, figures.at - made.at))} ago"
        table.add_row(Text(ago, style="dim"), _cut(_patterns(made)), Text(_reach(made)), _cut(made.by))
    return [Text("The last invalidations", style="bold"), table, Text()]


def _patterns(made: MadeInvalidation) -> str:
    more = made.pattern_count - len(made.patterns)
    return printable(" ".join(made.patterns)) + (f" and {more} more" if more else "")


def _reach(made: MadeInvalidation) -> str:
    if not made.durable:
        return "not durable when it was made"
    slowest = f" within {shown_ms(max(applied.delay_ms for applied in made.reach))}" if made.reach else ""
    return f"{len(made.reach)} of {made.alive} nodes{slowest}"


def _nodes(figures: FleetFigures) -> list[RenderableType]:
    if not figures.nodes:
        return [Text("No process has reported within 45 s.", style="dim")]
    parts: list[RenderableType] = [Text(f"Processes: {_counted(figures.nodes)}", style="bold")]
    for node in figures.nodes:
        # Not in the table: its first column would be as wide as the longest name.
        parts.append(_cut(printable(node.name), style="bold").append("" if node.alive else "  no worker", style="not bold dim"))
        shown = [process for process in node.processes if process.role != "main"]
        table = _one_line_a_row("shown", "shown", "cut", "shown")
        for process in shown[:SHOWN_PROCESSES]:
            table.add_row(*_process(process))
        parts.append(table)
        if len(shown) > SHOWN_PROCESSES:
            parts.append(Text(f"  and {len(shown) - SHOWN_PROCESSES} more", style="dim"))
    return parts


def _one_line_a_row(*columns: Literal["shown", "cut"]) -> Table:
    """A table that cuts what may be cut where a row is too long, rather than break it."""
    table = Table.grid(padding=(0, 2))
    for column in columns:
        table.add_column(no_wrap=column == "shown")
    return table


def _cut(text: str, style: str = "") -> Text:
    return Text(text, style=style, no_wrap=True, overflow="ellipsis")


def _process(process: Process) -> tuple[Text, ...]:
    requests = process.requests
    looked = process.look_ups
    entries = "" if process.l1_entries is None else f"{process.l1_entries} in L1"
    found = f"found {requests.saved / looked:.1%} of {_number(looked, 'look-up')}" if looked else ""
    return (
        Text(f"  {process.role} {process.pid}"),
        Text(_number(requests.total, "request"), justify="right"),
        _cut(found),
        Text(entries, justify="right"),
    )


def _counted(nodes: Sequence[Node]) -> str:
    workers = sum(process.role == "worker" for node in nodes for process in node.processes)
    producers = sum(process.role == "producer" for node in nodes for process in node.processes)
    counted = ((sum(node.alive for node in nodes), "node", "s"), (workers, "worker process", "es"), (producers, "producer", "s"))
    return ", ".join(f"{number} {name}{'' if number == 1 else plural}" for number, name, plural in counted)


def _number(number: int, name: str) -> str:
    return f"{number:,} {name}{'' if number == 1 else 's'}"


def _hot(figures: FleetFigures) -> list[RenderableType]:
    if not figures.hot:
        return []
    table = _one_line_a_row("shown", "cut")
    for hot in figures.hot[:SHOWN_INVALIDATIONS]:
        table.add_row(Text(f"  {hot.score:.1f}", justify="right"), _cut(printable(hot.key)))
    return [Text(), Text("Asked for most", style="bold"), table]


def _span(seconds: float) -> str:
    """`45 s`, `15 min`, `24 h`."""
    if seconds < 120:
        return f"{seconds:.0f} s"
    return f"{seconds / 60:.0f} min" if seconds < 7200 else f"{seconds / 3600:.0f} h"
