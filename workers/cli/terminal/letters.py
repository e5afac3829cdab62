"""What the commands that show kept messages have in common: which ones are meant, and what is shown of them."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.screen import Screen, printable

if TYPE_CHECKING:
    from workers.queue.dead_letters.choice import Choice
    from workers.queue.dead_letters.letter import Found
    from workers.queue.factory import PersonaApp

Ids = Annotated[list[str] | None, typer.Argument(metavar="ID...", help="As `list` shows them.", show_default=False)]
OneId = Annotated[str, typer.Argument(metavar="ID", help="As `list` shows it.")]
AllFlag = Annotated[bool, typer.Option("--all", help="All of them, or all that the options below name.")]
TaskOption = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="With --all: those of this task alone.", show_default=False)
]
WhyOption = Annotated[
    str | None, typer.Option("--why", metavar="TEXT", help="With --all: those whose reason has this in it.", show_default=False)
]
OlderOption = Annotated[
    float | None,
    typer.Option("--older-than", metavar="SECONDS", min=0, help="With --all: those of that age or more.", show_default=False),
]
NewerOption = Annotated[
    float | None,
    typer.Option("--newer-than", metavar="SECONDS", min=0, help="With --all: those of that age or less.", show_default=False),
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


@contextmanager
def broker_app() -> Iterator[PersonaApp]:
    """An app at the broker of the settings, with waits that end."""
    from pipeline.settings import discover_settings
    from workers.queue.errors import NoRedisError
    from workers.queue.factory import make_app
    from workers.queue.reach import bound_waits

    with closing(make_app(discover_settings())) as app:
        bound_waits(app)
        try:
            yield app
        except NoRedisError:
            raise CommandError(
                "no_dead_letters", "PERSONA_BROKER_URL", "not Redis: RabbitMQ keeps what is refused by its queues' own policy"
            ) from None


def selected(
    screen: Screen, letters: Sequence[Found], ids: Sequence[str] | None, everything: bool, choice: Choice, yes: bool, what: str
) -> list[Found]:
    """Those that the command names. The operator is asked once before many."""
    if bool(ids) == everything:
        raise CommandError("usage", "ID", "expected some, or --all", exit_code=BAD_USAGE)
    if ids:
        given = next((name for name, value in choice._asdict().items() if value is not None), None)
        if given is not None:
            option = "--" + given.removesuffix("_s").replace("_", "-")
            raise CommandError("usage", option, "goes with --all", exit_code=BAD_USAGE)
        return chosen(letters, ids)
    meant = choice.of(letters)
    if meant and not yes:
        if screen.as_json or not sys.stdin.isatty():
            raise CommandError("usage", "--yes", f"needed to {what} {len(meant)} without being asked", exit_code=BAD_USAGE)
        if not typer.confirm(f"{what} {len(meant)}?", err=True):
            raise CommandError("refused", None, "nothing was done")
    return meant


def chosen(letters: Sequence[Found], ids: Sequence[str]) -> list[Found]:
    known = {one.id: one for one in letters}
    unknown = [each for each in ids if each not in known]
    if unknown:
        raise CommandError("unknown_letter", "ID", f"{unknown[0]}: no such letter; it may be dropped, queued anew or old")
    return [known[each] for each in dict.fromkeys(ids)]


def show_list(screen: Screen, name: str, letters: Sequence[Found]) -> None:
    """Them as a table, or as the document's list of that name. Nothing that a user wrote."""
    if screen.as_json:
        screen.document({name: [row(one) for one in letters]})
        return
    if not letters:
        screen.out.print("none")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for column, options in (("id", {"no_wrap": True}), ("age", {"no_wrap": True}), ("queue", {}), ("task", {}), ("why", {})):
        table.add_column(column, **options)  # type: ignore[arg-type]  # rich takes both
    for one in letters:
        letter = one.letter
        cut = "" if letter.whole else " (cut)"
        table.add_row(*map(_plain, (one.id, _age(letter.at), letter.queue, letter.task, letter.why + cut)))
    screen.out.print(table)


def show_one(screen: Screen, one: Found) -> None:
    """One with its text, and a warning of it."""
    screen.notes.print("warning: below is what a user wrote", markup=False)
    if screen.as_json:
        screen.document({**row(one), "item": one.letter.item})
        return
    for name, value in row(one).items():
        screen.out.print(f"{name}: {_plain(value)}", markup=False, soft_wrap=True)
    screen.out.print(printable(one.letter.item), markup=False, soft_wrap=True)


def tell_queued(screen: Screen, counts: dict[str, int]) -> None:
    """What became of those that were to be queued. Raises CommandError if not all could be."""
    if counts["cut"]:
        raise CommandError(
            "cut",
            "ID",
            f"queued {counts['queued']}; {counts['cut']} not kept whole, or no message: their senders have to send them again",
            document=counts,
        )
    tell(screen, counts)


def tell(screen: Screen, counts: dict[str, int]) -> None:
    if screen.as_json:
        screen.document(counts)
    else:
        screen.out.print(", ".join(f"{name}: {number}" for name, number in counts.items()))


def row(one: Found) -> dict[str, Any]:
    """All of it but its text."""
    letter = one.letter
    return {
        "id": one.id,
        "at": letter.at,
        "queue": letter.queue,
        "task": letter.task,
        "task_id": letter.task_id,
        "why": letter.why,
        "size": letter.size,
        "whole": letter.whole,
    }


def _plain(value: object) -> str:
    from rich.markup import escape

    return escape(printable(str(value)))


def _age(at: float) -> str:
    seconds = max(0, int(time.time() - at))
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"
