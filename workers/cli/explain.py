"""`persona explain`: what is known of a key, of a request's answer, or of a task, as lines or as a document.

Reads only: computes, keeps and counts nothing. Never shows what a user wrote or was answered.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, Screen, begin, printable

if TYPE_CHECKING:
    from pipeline.settings import Settings

NOT_KEPT: Final = "not kept"


def register(program: typer.Typer) -> None:
    program.command(
        "explain", rich_help_panel=FLEET, epilog="Example: persona explain 'What is a generator?' --key curious-medium-learning"
    )(explain)


def explain(
    context: typer.Context,
    subject: Annotated[
        str, typer.Argument(metavar="KEY|TASK|TEXT", help="A cache key, a task's id; a request's text with --key.")
    ],
    key: Annotated[
        str | None, typer.Option("--key", metavar="KEY", help="How the text sounds: tone-pace-intent.", show_default=False)
    ] = None,
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="With --key: the user who asks.", show_default=False)
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Say what is known of a cached answer, or of a task; nothing is computed, kept or counted.

    Of a key, or of the request with that text: the tier that would serve it now and until when, what it was computed from, by
    which model, which record of the log ended it and by which process, and the task that computes it now. Of a task: where it is.
    Exit 1 if nothing is known of it.
    """
    screen = begin(context, as_json)
    if user is not None and key is None:
        raise CommandError("usage", "--user", "goes with --key", exit_code=BAD_USAGE)
    from pipeline.settings import discover_settings

    settings = discover_settings()
    from workers.explain.unknown import NothingKnownError

    try:
        if key is None and ":" not in subject:
            from workers.cli.terminal.letters import broker_app
            from workers.explain.task import account_of_task

            with broker_app() as app:
                document = account_of_task(app, subject)
        else:
            document = _account_of_key(settings, subject, key, user)
    except NothingKnownError as error:
        see = "; see `persona stats`" if error.kind == "key" else ""
        raise CommandError(f"unknown_{error.kind}", error.kind.upper(), f"{error}{see}") from None
    _show(screen, document)


def _account_of_key(settings: Settings, subject: str, resonance: str | None, user: str | None) -> dict[str, Any]:
    from pipeline.assembly import build_optimized_pipeline
    from pipeline.cache.errors import SharedTierUnavailableError
    from pipeline.cache.keys import check_key
    from pipeline.models import PersonaRequest
    from pipeline.persona_pipeline import PersonaPipeline
    from pipeline.personas import catalog_from
    from pipeline.responders import responder_from
    from workers.explain.key import account_of_key

    if not settings.cache_url:
        raise CommandError("no_shared_cache", "PERSONA_CACHE_URL", "not set, so there is no shared cache to ask")
    computed_by = PersonaPipeline(catalog_from(settings), responder_from(settings))
    pipeline = build_optimized_pipeline(settings.model_copy(update={"figures": False}), computed_by)
    try:
        if resonance is None:
            place, deps = check_key(subject), pipeline.deps_of(subject)
        else:
            place, deps = pipeline.place_of(
                PersonaRequest.create(subject, resonance, None if user is None else {"user_id": user})
            )
        return account_of_key(settings, place, deps, must_be_known=resonance is None)
    except SharedTierUnavailableError:
        from pipeline.settings import without_password

        raise CommandError("cache_unavailable", "cache", f"{without_password(settings.cache_url)} is out of reach") from None
    finally:
        pipeline.close()


def _show(screen: Screen, document: Mapping[str, Any]) -> None:
    if screen.as_json:
        screen.document(document)
        return
    for name, value in document.items():
        if name != "notes":
            screen.out.print(f"{name.replace('_', ' ')}: {_said(name, value)}", markup=False, soft_wrap=True)
    for note in document.get("notes", ()):
        screen.notes.print(f"note: {note}", markup=False, soft_wrap=True)


def _said(name: str, value: Any) -> str:
    if value is None:
        return "none" if name in ("ended_by", "computed_by") else NOT_KEPT
    if isinstance(value, Mapping):
        return "; ".join(f"{each} {_said(each, inner)}" for each, inner in value.items() if inner is not None)
    if isinstance(value, list | tuple):
        return ", ".join(_said("", each) for each in value) or "nothing"
    if isinstance(value, float):
        if name.endswith(("at", "until")):
            return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(value)) + f" ({_distance(value - time.time())})"
        return f"{value:.3f}"
    return printable(str(value))


def _distance(seconds: float) -> str:
    return f"in {seconds:.0f} s" if seconds >= 0 else f"{-seconds:.0f} s ago"
