"""`persona doctor`: what would lose data or serve stale, and what mends it."""

from __future__ import annotations

import time
from typing import Annotated, Literal

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, begin, printable


def register(program: typer.Typer) -> None:
    program.command("doctor", rich_help_panel=FLEET, epilog="Example: persona doctor --flower http://127.0.0.1:5555")(doctor)


def doctor(
    context: typer.Context,
    timeout_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, max=120, help="How long to wait for all parts together.")
    ] = 10,
    flower: Annotated[
        str, typer.Option("--flower", metavar="URL", help="Where Flower is. Else: that of the stack that runs here.")
    ] = "",
    fail_on: Annotated[
        Literal["error", "warning"], typer.Option("--fail-on", help="From which severity on the command exits with 1.")
    ] = "error",
    as_json: JsonFlag = False,
) -> None:
    """Ask every part what would lose data or serve stale, and name what mends it.

    Servers, queues, nodes, log, beat, Flower, model, settings and clocks are
    asked at once. It reads, and changes nothing. A part that is away is a
    finding, and the others are asked all the same.

    Exit 1 if there is an error; warnings alone are exit 0.
    """
    screen = begin(context, as_json)
    if flower and not flower.startswith(("http://", "https://")):
        raise CommandError("usage", "--flower", f"{flower!r}; expected http://HOST:PORT", exit_code=BAD_USAGE)
    from pipeline.settings import discover_settings
    from workers.doctor.judging import judge
    from workers.doctor.observing import observe
    from workers.doctor.report import lines_of, report_of
    from workers.stack.state import find_stack

    settings = discover_settings()
    stack = None if flower else find_stack()
    if stack is not None and stack.flower is not None and stack.environment.get("PERSONA_BROKER_URL") == settings.broker_url:
        flower = stack.flower.url
    began_s = time.monotonic()
    seen = observe(settings, timeout_s, flower)
    report = report_of(seen, judge(seen), time.monotonic() - began_s)
    if screen.as_json:
        import msgspec

        screen.document(msgspec.to_builtins(report))
    else:
        for line, style in lines_of(report, screen.out.width):
            screen.out.print(printable(line), style=style or None, markup=False, soft_wrap=True)
    if report.errors or (fail_on == "warning" and report.warnings):
        raise typer.Exit(1)
