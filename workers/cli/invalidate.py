"""`persona invalidate`: make cached entries misses, in every process."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, begin, shown_ms


def register(program: typer.Typer) -> None:
    program.command("invalidate", rich_help_panel=FLEET, epilog="Example: persona invalidate 'persona:lua:*' --user ann")(
        invalidate
    )


def invalidate(
    context: typer.Context,
    patterns: Annotated[
        list[str] | None,
        typer.Argument(metavar="PATTERN...", help="Keys, with *, ? and \\[abc] as wildcards; quote them.", show_default=False),
    ] = None,
    users: Annotated[
        list[str] | None, typer.Option("--user", metavar="ID", help="A user, whatever characters the id has.", show_default=False)
    ] = None,
    personas: Annotated[
        list[str] | None, typer.Option("--persona", metavar="NAME", help="Everything of a persona.", show_default=False)
    ] = None,
    wait_s: Annotated[
        float,
        typer.Option("--timeout", metavar="SECONDS", min=0, max=60, help="How long to wait for the nodes to acknowledge it."),
    ] = 0.5,
    as_json: JsonFlag = False,
) -> None:
    """Make every cached entry that matches, or was computed from a match, a miss.

    Keys: persona:<name>:<key>:<digest> (answers), persona:<name>:info, prompt:<name>:<key>, routing:<key>, user:<id>. Data (a
    user's id, a name) goes into its option, which writes it as keys do. A pattern that no key of the pipeline can match gets a
    warning.
    Exit 1 if it could not be made durable, because the cache server is out of reach.
    """
    screen = begin(context, as_json)
    from pipeline.keys import check_pattern, user_key_to_invalidate
    from pipeline.settings import without_password

    # Refused before any server is asked.
    given = [*map(check_pattern, patterns or ()), *map(user_key_to_invalidate, users or ())]
    if not given and not personas:
        raise CommandError("usage", "PATTERN", "missing, and neither --user nor --persona is given", exit_code=BAD_USAGE)

    from workers.client import PersonaClient

    with PersonaClient() as client:
        if not client.settings.cache_url:
            raise CommandError(
                "no_shared_cache",
                "PERSONA_CACHE_URL",
                "not set, so there is no shared cache to invalidate. Start one here with `persona up`, or name yours.",
            )
        given += map(client.pipeline.persona_pattern, personas or ())
        warnings = [unmatched.message for unmatched in map(client.pipeline.unmatched, given) if unmatched is not None]
        for warning in warnings:
            screen.notes.print(f"warning: {warning}", markup=False, soft_wrap=True)
        started = time.perf_counter()
        made = client.invalidate(*given, wait_s=wait_s)
        time_ms = (time.perf_counter() - started) * 1000
        document = {
            "patterns": list(made.patterns),
            "epoch": made.epoch,
            "seq": made.seq,
            "durable": made.durable,
            "announced": made.announced,
            "applied": list(made.applied),
            "silent": list(made.silent),
            "time_ms": time_ms,
            "warnings": warnings,
        }
        if not made.durable:
            server = without_password(client.settings.cache_url)
            raise CommandError(
                "not_durable",
                "cache",
                f"{server} is out of reach, so the invalidation is not durable. Repeat it when the server answers.",
                document=document,
            )
    if screen.as_json:
        screen.document(document)
    else:
        for pattern in made.patterns:
            screen.out.print(f"invalidated {pattern}", markup=False, soft_wrap=True)
        if made.applied:
            screen.out.print(f"applied by {', '.join(made.applied)}", markup=False, soft_wrap=True)
        if made.silent:
            screen.out.print(f"no word within {wait_s:g} s from {', '.join(made.silent)}", markup=False, soft_wrap=True)
        if not made.announced:
            screen.out.print("not announced, as the broker takes no message: the nodes learn of it from the log", soft_wrap=True)
        screen.out.print(f"durable: yes · {shown_ms(time_ms)}", style="dim")
