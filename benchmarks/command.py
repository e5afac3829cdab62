"""`python -m benchmarks`: measure, on servers and nodes of its own."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

import typer

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.page import Report
from benchmarks.registry import all_benchmarks, run_benchmark
from benchmarks.views.view import Table, as_list
from workers.cli import run
from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import dress
from workers.cli.terminal.screen import JsonFlag, Screen, begin

QUICK_NOTE = "--quick tests the benchmark itself: its figures come from too few measurements to be quoted."


program = typer.Typer(
    add_completion=False, pretty_exceptions_enable=False, context_settings={"help_option_names": ["-h", "--help"]}
)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command. Returns its exit code."""
    dress(program)
    return run("python -m benchmarks", lambda: program, arguments)


@program.command(epilog="Example: python -m benchmarks coherence --json > coherence.json")
def bench(
    context: typer.Context,
    names: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="[NAME]...", help=f"Of: {', '.join(all_benchmarks())}; else all but the long ones.", show_default=False
        ),
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few measurements: a test of the benchmark itself.")] = False,
    out: Annotated[
        Path | None,
        typer.Option(
            metavar="DIR",
            help="Also write DIR/benchmarks.md, and JSON and plots into DIR/benchmarks.",
            file_okay=False,
            show_default=False,
        ),
    ] = None,
    rows: Annotated[
        str, typer.Option(metavar="ROW,...", help="Of one NAME that has rows (deaths), these only.", show_default=False)
    ] = "",
    as_json: JsonFlag = False,
) -> None:
    """Measure, check the answers, and print the figures with the machine and the versions.

    Each benchmark starts its own servers and nodes on 127.0.0.1 and ends them. Exit 1 if an answer was not as it must be: then
    the figures are not to be used. With --json: one document, or a list of them unless there is one NAME. With --out, the page
    is made from this run's records and those that DIR holds of the other benchmarks.
    """
    screen = begin(context, as_json)
    for name in names or ():
        if name not in all_benchmarks():
            raise CommandError(
                "usage", "NAME", f"unknown benchmark {name!r}; allowed are {', '.join(all_benchmarks())}", exit_code=BAD_USAGE
            )
    chosen = _rows(names or [], rows, out)
    report = None if out is None else Report(out)
    documents: list[dict[str, Any]] = []
    problems: list[str] = []
    for name in dict.fromkeys(names or _usual(screen)):
        found: tuple[str, ...] = ()
        try:
            document = run_benchmark(all_benchmarks()[name], screen.note, quick=quick, rows=chosen)
        except BenchmarkFailedError as failure:  # the others are measured all the same
            document, found = failure.document, failure.problems
            problems += [f"{name}: {problem}" for problem in found]
        documents.append(document)
        if report is not None:
            report.record(document, quick=quick, problems=found)
        if not screen.as_json:
            _show(screen, document)
    if quick:
        screen.note(QUICK_NOTE)
    if report is not None:
        for note in report.write_page():
            screen.note(note)
        screen.note(f"written: {report.page}")
    alone = documents[0] if names is not None and len(names) == 1 else None
    if problems:
        raise CommandError("bench_failed", None, "\n".join(problems), document=alone or {"benches": documents})
    if screen.as_json:
        screen.document(alone or documents)  # type: ignore[arg-type]  # all of them: a list is JSON, too


def _rows(names: list[str], rows: str, out: Path | None) -> tuple[str, ...]:
    chosen = tuple(row for row in rows.split(",") if row)
    known = all_benchmarks()[names[0]].rows if len(names) == 1 else ()
    if unknown := [row for row in chosen if row not in known]:
        allowed = ", ".join(known) or "none, but with one NAME that has rows"
        raise CommandError("usage", "--rows", f"unknown row {unknown[0]!r}; allowed are {allowed}", exit_code=BAD_USAGE)
    if chosen and out is not None:
        raise CommandError("usage", "--rows", "not with --out: a record has all rows", exit_code=BAD_USAGE)
    return chosen


def _usual(screen: Screen) -> list[str]:
    """All but the long ones, which are told of."""
    if long := [name for name, benchmark in all_benchmarks().items() if benchmark.long]:
        screen.note(f"left out, as they take many minutes (run them by name): {', '.join(long)}")
    return [name for name in all_benchmarks() if name not in long]


def _show(screen: Screen, document: dict[str, Any]) -> None:
    from rich.text import Text

    name, figures = document["bench"], document["figures"]
    screen.out.print(Text(f"\n{name}", style="bold"))
    view = all_benchmarks()[name].view
    complete = view is not None and figures and not document.get("problems")
    for table in view(figures).tables if view is not None and complete else (as_list(figures),):
        _show_table(screen, table, bare=not complete)
    for note in document.get("notes", ()):
        screen.out.print(Text(f"  note: {note}", style="dim"))
    for what in ("machine", "versions"):
        facts = ", ".join(f"{key} {fact}" for key, fact in document[what].items())
        screen.out.print(Text(f"  {what}: {facts}", style="dim"))


def _show_table(screen: Screen, table: Table, *, bare: bool) -> None:
    from rich.table import Table as Grid
    from rich.text import Text

    if table.title:
        screen.out.print(Text(f"  {table.title}", style="italic"))
    grid = Grid(box=None, padding=(0, 2), pad_edge=False, show_header=not bare, header_style="dim")
    for number, title in enumerate(table.header):
        grid.add_column(f"  {title}" if number == 0 else title, justify="left" if number == 0 else "right")
    for first, *others in table.rows:
        grid.add_row(Text(f"  {first}"), *map(Text, others))
    screen.out.print(grid)
