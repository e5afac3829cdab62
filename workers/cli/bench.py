"""`persona bench`: measure, on servers and nodes of its own."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from workers.bench import BENCHMARKS
from workers.cli.failures import BAD_USAGE, CommandError
from workers.cli.screen import JsonFlag, Screen, begin

QUICK_NOTE = "--quick tests the benchmark itself: its figures come from too few measurements to be quoted."


def register(program: typer.Typer) -> None:
    program.command("bench", epilog="Example: persona bench coherence --json > coherence.json")(bench)


def bench(
    context: typer.Context,
    name: Annotated[
        str | None, typer.Argument(metavar="[NAME]", help=f"One of: {', '.join(BENCHMARKS)}; else all.", show_default=False)
    ] = None,
    quick: Annotated[bool, typer.Option("--quick", help="Few measurements: a test of the benchmark itself.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure, check the answers, and print the figures with the machine and the versions.

    Each benchmark starts its own servers and nodes on 127.0.0.1 and ends them. Exit 1 if an answer was not as it must be: then
    the figures are not to be used. With --json: one document, or without NAME a list of them.
    """
    screen = begin(context, as_json)
    if name is not None and name not in BENCHMARKS:
        raise CommandError(
            "usage", "NAME", f"unknown benchmark {name!r}; allowed are {', '.join(BENCHMARKS)}", exit_code=BAD_USAGE
        )
    from workers.bench import BenchmarkFailedError, run_benchmark

    documents: list[dict[str, Any]] = []
    problems: list[str] = []
    for each in BENCHMARKS if name is None else (name,):
        try:
            documents.append(run_benchmark(each, screen.note, quick=quick))
        except BenchmarkFailedError as failure:  # the others are measured all the same
            documents.append(failure.document)
            problems += [f"{each}: {problem}" for problem in failure.problems]
        if not screen.as_json:
            _show(screen, documents[-1])
    if quick:
        screen.note(QUICK_NOTE)
    if problems:
        document = documents[0] if name is not None else {"benches": documents}
        raise CommandError("bench_failed", None, "\n".join(problems), document=document)
    if screen.as_json:
        screen.document(documents[0] if name is not None else documents)  # type: ignore[arg-type]  # all of them: a list is JSON, too


def _show(screen: Screen, document: dict[str, Any]) -> None:
    from rich.table import Table
    from rich.text import Text

    screen.out.print(Text(f"\n{document['bench']}", style="bold"))
    table = Table(box=None, padding=(0, 2), pad_edge=False, show_header=False)
    table.add_column()
    table.add_column(justify="right")
    for figure, number in document["figures"].items():
        table.add_row(Text(f"  {figure}"), shown_number(number))
    screen.out.print(table)
    for what in ("machine", "versions"):
        facts = ", ".join(f"{key} {fact}" for key, fact in document[what].items())
        screen.out.print(Text(f"  {what}: {facts}", style="dim"))


def shown_number(number: float) -> str:
    """`500`, `0.312`, `2.31`, `5512`: three digits that count, and whole numbers as they are."""
    if number == int(number):
        return str(int(number))
    return f"{number:.0f}" if abs(number) >= 1000 else f"{number:.3g}"
