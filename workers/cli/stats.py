"""`persona stats`: the figures of the whole fleet."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, begin

if TYPE_CHECKING:
    from pipeline.cache.server.connection import RedisConnection
    from pipeline.figures import FleetFigures
    from pipeline.settings import Settings
    from workers.cli.terminal.screen import Screen

READ_TIMEOUT_S = 2.0


def register(program: typer.Typer) -> None:
    program.command("stats", rich_help_panel=FLEET, epilog="Example: persona stats --watch")(stats)


def stats(
    context: typer.Context,
    watch: Annotated[bool, typer.Option("--watch", help="Show it live, until Ctrl-C.")] = False,
    window_s: Annotated[
        float, typer.Option("--window", metavar="SECONDS", min=5, max=86_400, help="The last seconds to show, 5 to 86400.")
    ] = 900,
    every_s: Annotated[float, typer.Option("--every", metavar="SECONDS", min=0.2, max=60, help="How often --watch looks.")] = 1,
    as_json: JsonFlag = False,
) -> None:
    """Show the figures that all processes of the fleet have counted.

    They are requests by source of the answer, times, invalidations, nodes, and what is asked for most.

    Requests that a program answered from its own cache, and that never became a task, count too. A process reports once
    a second. Exit 1 if the cache server is out of reach.
    """
    screen = begin(context, as_json)
    if watch and as_json:
        raise CommandError("usage", "--watch", "does not go with --json, which prints one document", exit_code=BAD_USAGE)
    from contextlib import closing

    from pipeline.cache.server.connection import RedisConnection
    from pipeline.settings import discover_settings

    settings = discover_settings()
    if not settings.cache_url:
        raise CommandError(
            "no_shared_cache",
            "PERSONA_CACHE_URL",
            "not set, so there is nowhere to look. Start a stack here with `persona up`, or name your cache server.",
        )
    with closing(RedisConnection(settings.cache_url, timeout_s=READ_TIMEOUT_S, retry_pause_s=0)) as connection:
        figures = _read(connection, settings, window_s)
        if screen.as_json:
            screen.document(_document(figures))
        elif not watch:
            _show(screen, figures)
        else:
            _watch(screen, figures, lambda: _try_read(connection, settings, window_s), every_s)


def _try_read(connection: RedisConnection, settings: Settings, window_s: float) -> FleetFigures:
    from pipeline.figures import FigureKeys, read_figures

    return read_figures(connection, FigureKeys(settings.cache_namespace), window_s)


def _read(connection: RedisConnection, settings: Settings, window_s: float) -> FleetFigures:
    from pipeline.settings import without_password
    from workers.queue.tls.refusals import refusal_of

    figures = _try_read(connection, settings, window_s)
    if not figures.available:
        server = without_password(settings.cache_url)
        if figures.refused:
            why = f"refuses ({figures.refused}): see its login and rights"
        elif (refusal := refusal_of(settings.cache_url)) is not None:
            why = f"is out of reach: {refusal}, in PERSONA_CACHE_URL"
        else:
            why = "is out of reach: is it running?"
        raise CommandError("cache_unavailable", "cache", f"{server} {why}")
    return figures


def _document(figures: FleetFigures) -> dict[str, Any]:
    """All of it; of the slots, those in which something happened. Each says when it was: in what is not there nothing did."""
    import msgspec

    document: dict[str, Any] = msgspec.to_builtins(figures)
    document["slots"] = [
        slot
        for slot in document["slots"]
        if any(slot["requests"].values()) or any(slot["queued"].values()) or slot["times"] or slot["invalidations"]
    ]
    return document


def _show(screen: Screen, figures: FleetFigures) -> None:
    from workers.cli.terminal.fleet_view import view_of

    screen.out.print(view_of(figures, screen.out.width))


def _watch(screen: Screen, figures: FleetFigures, read: Any, every_s: float) -> None:
    """Until Ctrl-C, which ends it like any command. Without a terminal, one view after another is printed."""
    from workers.cli.terminal.fleet_view import view_of

    if not screen.out.is_terminal:
        while True:
            _show(screen, figures)
            time.sleep(every_s)
            figures = read()
    from rich.live import Live

    # `Live` puts the cursor back, however the block ends.
    with Live(view_of(figures, screen.out.width), console=screen.out, auto_refresh=False) as live:
        while True:
            live.update(view_of(figures, screen.out.width), refresh=True)
            time.sleep(every_s)
            figures = read()
