"""`persona dead-letters`: the messages that no worker could take."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import FLEET
from workers.cli.terminal.screen import JsonFlag, Screen, begin, printable

if TYPE_CHECKING:
    from workers.queue.dead_letters.box import DeadLetters
    from workers.queue.dead_letters.letter import Found

Ids = Annotated[
    list[str] | None, typer.Argument(metavar="ID...", help="As `persona dead-letters list` shows them.", show_default=False)
]
AllFlag = Annotated[bool, typer.Option("--all", help="All of them, or all that the options below name.")]
TaskOption = Annotated[
    str | None, typer.Option("--task", metavar="NAME", help="With --all: those of this task alone.", show_default=False)
]
WhyOption = Annotated[
    str | None, typer.Option("--why", metavar="TEXT", help="With --all: those whose reason has this in it.", show_default=False)
]
YesFlag = Annotated[bool, typer.Option("--yes", "-y", help="Do not ask.")]


def register(program: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
    group.callback(invoke_without_command=True, epilog="Example: persona dead-letters requeue --all --task persona.process")(
        dead_letters
    )
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("requeue")(requeue)
    group.command("drop")(drop)
    group.command("count")(count)
    program.add_typer(group, name="dead-letters", rich_help_panel=FLEET)


def dead_letters(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Look at the messages that no worker could take, queue them anew, or drop them.

    The broker keeps the last 1,000 for a day, up to 16,384 characters of each. A list shows nothing of what users wrote.
    """
    if context.invoked_subcommand is None:
        list_letters(context, as_json)


def list_letters(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List them, the latest first."""
    screen = begin(context, as_json)
    with _box() as box:
        letters = box.all()
    if screen.as_json:
        screen.document({"letters": [_row(one) for one in letters]})
        return
    if not letters:
        screen.out.print("none")
        return
    from rich.table import Table

    table = Table(box=None, pad_edge=False)
    for name, options in (("id", {"no_wrap": True}), ("age", {"no_wrap": True}), ("queue", {}), ("task", {}), ("why", {})):
        table.add_column(name, **options)  # type: ignore[arg-type]  # rich takes both
    for one in letters:
        letter = one.letter
        table.add_row(*map(_plain, (one.id, _age(letter.at), letter.queue, letter.task, letter.why + _cut(one))))
    screen.out.print(table)


def show(
    context: typer.Context,
    letter_id: Annotated[str, typer.Argument(metavar="ID", help="As `persona dead-letters list` shows it.")],
    as_json: JsonFlag = False,
) -> None:
    """Show one with its text.

    That is what a user wrote: mind who sees your screen.
    """
    screen = begin(context, as_json)
    with _box() as box:
        (one,) = _chosen(box.all(), [letter_id])
    screen.notes.print("warning: below is what a user wrote", markup=False)
    if screen.as_json:
        screen.document({**_row(one), "item": one.letter.item})
        return
    for name, value in _row(one).items():
        screen.out.print(f"{name}: {_plain(value)}", markup=False, soft_wrap=True)
    screen.out.print(printable(one.letter.item), markup=False, soft_wrap=True)


def requeue(
    context: typer.Context,
    ids: Ids = None,
    everything: AllFlag = False,
    task: TaskOption = None,
    why: WhyOption = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Put them back at the end of their queues.

    Their callers have been told of the failure; a success replaces it. One that was not kept whole cannot be queued anew. Exit 1
    if there was one.
    """
    screen = begin(context, as_json)
    with _box() as box:
        letters = _selected(screen, box, ids, everything, task, why, yes, "queue anew")
        outcomes = {one.id: box.requeue(one) for one in letters}
    counts = {outcome: sum(each == outcome for each in outcomes.values()) for outcome in ("queued", "gone", "cut")}
    if counts["cut"]:
        raise CommandError(
            "cut",
            "ID",
            f"queued {counts['queued']}; {counts['cut']} not kept whole, or no message: their senders have to send them again",
            document=counts,
        )
    _tell(screen, counts)


def drop(
    context: typer.Context,
    ids: Ids = None,
    everything: AllFlag = False,
    task: TaskOption = None,
    why: WhyOption = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget them."""
    screen = begin(context, as_json)
    with _box() as box:
        letters = _selected(screen, box, ids, everything, task, why, yes, "drop")
        dropped = sum(box.drop(one) for one in letters)
    _tell(screen, {"dropped": dropped, "gone": len(letters) - dropped})


def count(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Say how many there are, and how many there have ever been."""
    screen = begin(context, as_json)
    with _box() as box:
        _tell(screen, {"kept": len(box.all()), "ever": box.ever()})


@contextmanager
def _box() -> Iterator[DeadLetters]:
    from pipeline.settings import discover_settings
    from workers.queue.dead_letters.box import DeadLetters, NoDeadLettersError
    from workers.queue.factory import make_app
    from workers.queue.reach import bound_waits

    with closing(make_app(discover_settings())) as app:
        bound_waits(app)
        try:
            yield DeadLetters(app)
        except NoDeadLettersError:
            raise CommandError(
                "no_dead_letters", "PERSONA_BROKER_URL", "not Redis: RabbitMQ keeps what is refused by its queues' own policy"
            ) from None


def _selected(
    screen: Screen,
    box: DeadLetters,
    ids: Sequence[str] | None,
    everything: bool,
    task: str | None,
    why: str | None,
    yes: bool,
    what: str,
) -> list[Found]:
    """Those that the command names. The operator is asked once before many."""
    if bool(ids) == everything:
        raise CommandError("usage", "ID", "expected some, or --all", exit_code=BAD_USAGE)
    if ids:
        if task is not None or why is not None:
            raise CommandError("usage", "--task" if why is None else "--why", "goes with --all", exit_code=BAD_USAGE)
        return _chosen(box.all(), ids)
    letters = [one for one in box.all() if task in (None, one.letter.task) and (why or "") in one.letter.why]
    if letters and not yes:
        if screen.as_json or not sys.stdin.isatty():
            raise CommandError("usage", "--yes", f"needed to {what} {len(letters)} without being asked", exit_code=BAD_USAGE)
        if not typer.confirm(f"{what} {len(letters)}?", err=True):
            raise CommandError("refused", None, "nothing was done")
    return letters


def _chosen(letters: Sequence[Found], ids: Sequence[str]) -> list[Found]:
    known = {one.id: one for one in letters}
    unknown = [each for each in ids if each not in known]
    if unknown:
        raise CommandError("unknown_letter", "ID", f"{unknown[0]}: no such letter; it may be dropped, queued anew or old")
    return [known[each] for each in dict.fromkeys(ids)]


def _row(one: Found) -> dict[str, Any]:
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


def _cut(one: Found) -> str:
    return "" if one.letter.whole else " (cut)"


def _plain(value: object) -> str:
    from rich.markup import escape

    return escape(printable(str(value)))


def _age(at: float) -> str:
    seconds = max(0, int(time.time() - at))
    for unit, size in (("h", 3600), ("min", 60)):
        if seconds >= 2 * size:
            return f"{seconds // size} {unit}"
    return f"{seconds} s"


def _tell(screen: Screen, counts: dict[str, int]) -> None:
    if screen.as_json:
        screen.document(counts)
    else:
        screen.out.print(", ".join(f"{name}: {number}" for name, number in counts.items()))
