"""`persona status`: whether a stack runs here, and how each part of it is."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import typer

from workers.cli.terminal.failures import CommandError
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, Screen, begin

if TYPE_CHECKING:
    from workers.stack.running.health import Part
    from workers.stack.running.place import Place

STATES: Final = {
    "ready": ("ready", "green"),
    "silent": ("does not answer", "red"),
    "gone": ("ended", "red"),
    "elsewhere": ("not asked", "dim"),
}


def register(program: typer.Typer) -> None:
    program.command("status", rich_help_panel=HERE, epilog="Example: persona status && persona bulk requests.jsonl")(status)


def status(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Say whether a stack runs here, and whether each part of it answers.

    Exit 0: it runs, and every part answers. Exit 1: none runs, or a part does not answer.
    """
    screen = begin(context, as_json)
    from workers.stack.running.health import parts_of
    from workers.stack.running.place import find_place

    place = find_place()
    if place is None or place.info is None:
        raise _no_stack(place)
    parts = parts_of(place.info)
    wrong = [part.name for part in parts if part.state in ("silent", "gone")]
    document = _document(place, parts)
    if not screen.as_json:
        _show(screen, place, parts)
    if wrong:
        problem = f"{_listed(wrong)} not ready; `persona logs {wrong[0]}` may say why"
        raise CommandError("not_ready", wrong[0], problem, document=document)
    if screen.as_json:
        screen.document(document)


def no_stack_here() -> CommandError:
    """There is nothing to ask."""
    from workers.stack.running.place import where_sought

    return CommandError(
        "no_stack",
        "PERSONA_STACK_DIR",
        f"no stack runs {where_sought()}. Start one with `persona up`, or say here where the other one is.",
    )


def _no_stack(place: Place | None) -> CommandError:
    if place is None:
        return no_stack_here()
    document = {"folder": str(place.directory), "pid": place.owner}
    if place.owner is not None:
        problem = f"process {place.owner} is starting a stack here, or stopping it; ask again"
        return CommandError("not_ready", "stack", problem, document=document)
    words = place.last_words
    ended = f"it ended by itself: {words}" if words else "it was killed, or the machine was started anew"
    problem = f"no stack runs in {place.directory}. Of the last one, files are left: {ended}. `persona up` starts another"
    return CommandError("stack_gone", "stack", problem, document=document)


def _document(place: Place, parts: Sequence[Part]) -> dict[str, Any]:
    info = place.info
    assert info is not None  # noqa: S101 - for the type checker
    login = info.flower
    return {
        "folder": str(place.directory),
        "pid": info.pid,
        "started_at": info.started_at,
        "services": [part._asdict() for part in parts],
        "flower": None if login is None else {"url": login.url, "user": login.user, "password": login.password},
    }


def _show(screen: Screen, place: Place, parts: Sequence[Part]) -> None:
    from rich.table import Table
    from rich.text import Text

    info = place.info
    assert info is not None  # noqa: S101 - for the type checker
    table = Table.grid(padding=(0, 2))
    for part in parts:
        said, style = STATES[part.state]
        pid = f"process {part.pid}" if part.pid is not None else "not started here"
        table.add_row(
            Text(part.name, style="bold"), Text(said, style=style), Text(part.where, overflow="fold"), Text(pid, style="dim")
        )
    screen.out.print(
        f"A stack runs in {place.directory}, {_age(info.started_at)}, process {info.pid}.", markup=False, soft_wrap=True
    )
    screen.out.print(table)
    if info.flower is not None:
        screen.out.print(
            f"Flower's user is {info.flower.user}, its password {info.flower.password}", markup=False, soft_wrap=True
        )


def _listed(names: Sequence[str]) -> str:
    return f"{names[0]} is" if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]} are"


def _age(started_at: str) -> str:
    seconds = max(0, int((datetime.now(UTC) - datetime.fromisoformat(started_at)).total_seconds()))
    for unit, size in (("days", 86_400), ("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"for {seconds // size} {unit}"
    return f"for {seconds} s"
