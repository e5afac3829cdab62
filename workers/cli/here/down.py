"""`persona down`: the stack that runs here, stopped."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from workers.cli.terminal.failures import CommandError
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, begin


def register(program: typer.Typer) -> None:
    program.command("down", rich_help_panel=HERE, epilog="Example: persona down")(down)


def down(
    context: typer.Context,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=3600, help="How long to wait for its end.")
    ] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Stop the stack that runs here.

    It may run in the background or in another terminal. Tasks that run are finished first.

    A stack that was killed leaves files, which this removes. Where none runs there is nothing to do: that is said, and is no
    failure. Exit 1 if it has not ended in time; run it again then, and the stack ends at once.
    """
    screen = begin(context, as_json)
    from workers.stack.running.place import find_place, where_sought
    from workers.stack.running.stopping import clean, stop

    place = find_place()
    document = {"folder": None if place is None else str(place.directory), "stopped": False, "cleaned": False}
    if place is None:
        sentence = f"no stack runs {where_sought()}"
    elif place.owner is None:
        words = place.last_words
        clean(place.directory)
        document["cleaned"] = True
        ended = f"It had ended by itself: {words}" if words else "It was killed, or the machine was started anew."
        sentence = f"no stack runs in {place.directory}; what the last one left is removed. {ended}"
    else:
        started = time.monotonic()
        if not stop(place.directory, place.owner, timeout):
            problem = f"process {place.owner} has not ended within {timeout:g} s; `persona down` again ends it at once"
            raise CommandError("still_running", "--timeout", problem, document=document)
        document["stopped"] = True
        sentence = f"stopped the stack in {place.directory} ({time.monotonic() - started:.1f} s)"
    if screen.as_json:
        screen.document(document)
    else:
        screen.out.print(sentence, markup=False, soft_wrap=True)
