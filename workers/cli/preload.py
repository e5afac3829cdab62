"""`persona preload`: warm the caches before the traffic comes."""

from __future__ import annotations

import time
from contextlib import closing
from typing import TYPE_CHECKING, Annotated, Final

import typer

from workers.cli.terminal.advance import Advance, shown_progress
from workers.cli.terminal.failures import CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, Screen, begin, shown_ms

if TYPE_CHECKING:
    from pipeline.preload.rounds import Progress
    from workers.client.preload import FleetPreload

LOOK_EVERY_S: Final = 0.1
LONGEST_S: Final = 120.0
"""Above the longest time that a task may take."""
WAITING: Final = Advance(0, None, {"failed": 0}, "waiting for a worker")


def register(program: typer.Typer) -> None:
    program.command("preload", rich_help_panel=FLEET, epilog="Example: persona preload --budget 20")(preload)


def preload(
    context: typer.Context,
    budget: Annotated[
        int | None,
        typer.Option("--budget", metavar="N", min=0, max=10_000, help="Compute at most N answers; else as the workers are set."),
    ] = None,
    wait_s: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=1, max=600, help="How long a worker may take to begin.")
    ] = 30,
    as_json: JsonFlag = False,
) -> None:
    """Have the workers warm the caches.

    That is personas, routes, prompt templates, and the answers that are asked for most. Answers are computed anew if they
    are near their end or not there, the hottest first. Beat has this done every few minutes. Exit 1 if it stopped early, such
    as for a model that fails.
    """
    screen = begin(context, as_json)
    from pipeline.settings import discover_settings
    from workers.client.preload import FleetPreload

    settings = discover_settings()
    if not settings.cache_url:
        raise CommandError(
            "no_shared_cache",
            "PERSONA_CACHE_URL",
            "not set, so there is no shared cache to warm. Start a stack here with `persona up`, or name your cache server.",
        )
    from pipeline.cache.errors import SharedTierUnavailableError
    from pipeline.settings import without_password

    started = time.perf_counter()
    with closing(FleetPreload(settings)) as fleet:
        try:
            fleet.progress()  # fails early, before a worker is asked
            fleet.ask(budget, wait_s)
            report = _follow(screen, fleet, wait_s)
        except SharedTierUnavailableError:
            server = without_password(settings.cache_url)
            raise CommandError("cache_unavailable", "cache", f"{server} is out of reach: is it running?") from None
        except BaseException:
            fleet.stop("the command that asked for it has ended")
            raise
    _tell(screen, report, (time.perf_counter() - started) * 1000)


def _follow(screen: Screen, fleet: FleetPreload, wait_s: float) -> Progress:
    began_s = time.monotonic()
    with shown_progress(screen, WAITING, unit="answers", vanishes=True) as show:
        while not (progress := fleet.progress()).ended:
            show(_advance(progress))
            waited_s = time.monotonic() - began_s
            if not progress.routes and waited_s > wait_s:
                raise CommandError("no_worker", "worker", f"no worker has begun within {wait_s:g} s: is one running?")
            if waited_s > wait_s + LONGEST_S:
                raise CommandError("no_report", "worker", "the worker that began has not ended it; its log may say why")
            time.sleep(LOOK_EVERY_S)
        return progress


def _advance(progress: Progress) -> Advance:
    if not progress.routes:
        return WAITING
    return Advance(progress.handled, progress.due or None, {"failed": progress.failed}, "answers")


def _tell(screen: Screen, report: Progress, time_ms: float) -> None:
    from pipeline.preload.rounds import report_of

    document = {**report_of(report), "time_ms": time_ms}
    if not screen.as_json:
        out = screen.out
        out.print(f"warm: {report.personas} personas, {report.routes} routes, {report.templates} prompt templates")
        out.print(f"answers: {report.hot_considered} hot, {report.due} of them due, {report.renewed} computed anew")
        out.print(f"failed: {report.failed} · {shown_ms(time_ms)}", style="dim")
    if report.stopped_because is not None:
        raise CommandError("preload_stopped", None, f"stopped early: {report.stopped_because}", document=document)
    if screen.as_json:
        screen.document(document)
