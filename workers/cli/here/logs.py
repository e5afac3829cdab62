"""`persona logs`: what the processes of the stack that runs here have written."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING, Annotated, Final

import typer

from workers.cli.here.status import no_stack_here
from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, begin, printable

if TYPE_CHECKING:
    from pathlib import Path

    from workers.stack.running.place import Place

SERVICES: Final = ("broker", "cache", "model", "worker", "beat", "flower", "stack")
"""`stack`: what runs the others, if it is in the background. Written out here, so that help need not load the stack."""


def _completed(incomplete: str) -> list[str]:
    return [name for name in SERVICES if name.startswith(incomplete)]


def register(program: typer.Typer) -> None:
    program.command("logs", rich_help_panel=HERE, epilog="Example: persona logs -f worker")(logs)


def logs(
    context: typer.Context,
    service: Annotated[
        str | None,
        typer.Argument(
            metavar="SERVICE", help=f"Of: {', '.join(SERVICES)}; else all.", show_default=False, autocompletion=_completed
        ),
    ] = None,
    follow: Annotated[
        bool, typer.Option("--follow", "-f", help="Go on with what comes, until the stack ends or Ctrl-C.")
    ] = False,
    lines: Annotated[
        int, typer.Option("--lines", "-n", metavar="N", min=0, max=100_000, help="How many of the last lines.")
    ] = 50,
    as_json: JsonFlag = False,
) -> None:
    """Show the logs of the stack that runs here.

    Of several, each line has its service's name in front. The logs go with the stack. Exit 1 if none runs.
    """
    screen = begin(context, as_json)
    if follow and as_json:
        raise CommandError("usage", "--follow", "does not go with --json, which prints one document", exit_code=BAD_USAGE)
    if service is not None and service not in SERVICES:
        raise CommandError("usage", "SERVICE", f"{service!r}; allowed are {', '.join(SERVICES)}", exit_code=BAD_USAGE)
    from workers.stack.running.logs import follow as followed
    from workers.stack.running.logs import last_lines
    from workers.stack.running.place import find_place

    place = find_place()
    if place is None or place.owner is None:
        raise no_stack_here()
    paths = _paths(place, service)
    if screen.as_json:
        screen.document({"logs": {name: last_lines(path, lines) for name, path in paths.items()}})
        return
    width = 0 if service is not None else max(map(len, paths), default=0)
    for name, line in followed(paths, lines, lambda: follow and _runs(place)):
        sys.stdout.write(f"{name:{width}}  {printable(line)}\n" if width else f"{printable(line)}\n")
        sys.stdout.flush()
    if follow:
        screen.note("the stack has ended")


def _paths(place: Place, service: str | None) -> dict[str, Path]:
    from workers.stack.running.logs import logs_in

    found = logs_in(place.directory)
    if service is None:
        return found
    if service not in found:
        raise CommandError("no_log", service, f"this stack has none; it has {', '.join(found) or 'no log yet'}")
    return {service: found[service]}


def _runs(place: Place) -> bool:
    from pipeline.discovery import lock_owner

    return lock_owner(place.directory) == place.owner
