"""`persona dead-letters`: the messages that no worker could take."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

import typer

from workers.cli.terminal.help import FLEET
from workers.cli.terminal.letters import (
    AllFlag,
    Ids,
    NewerOption,
    OlderOption,
    OneId,
    TaskOption,
    WhyOption,
    YesFlag,
    broker_app,
    chosen,
    selected,
    show_list,
    show_one,
    tell,
    tell_queued,
)
from workers.cli.terminal.screen import JsonFlag, begin

if TYPE_CHECKING:
    from workers.queue.dead_letters.box import DeadLetters


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
        show_list(screen, "letters", box.all())


def show(context: typer.Context, letter_id: OneId, as_json: JsonFlag = False) -> None:
    """Show one with its text.

    That is what a user wrote: mind who sees your screen.
    """
    screen = begin(context, as_json)
    with _box() as box:
        (one,) = chosen(box.all(), [letter_id])
    show_one(screen, one)


def requeue(
    context: typer.Context,
    ids: Ids = None,
    everything: AllFlag = False,
    task: TaskOption = None,
    why: WhyOption = None,
    older_than_s: OlderOption = None,
    newer_than_s: NewerOption = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Put them back at the end of their queues.

    Their callers have been told of the failure; a success replaces it. One that was not kept whole cannot be queued anew. Exit 1
    if there was one.
    """
    screen = begin(context, as_json)
    from workers.queue.dead_letters.choice import Choice

    with _box() as box:
        choice = Choice(task, why, older_than_s, newer_than_s)
        letters = selected(screen, box.all(), ids, everything, choice, yes, "queue anew")
        tell_queued(screen, box.requeue_all(letters))


def drop(
    context: typer.Context,
    ids: Ids = None,
    everything: AllFlag = False,
    task: TaskOption = None,
    why: WhyOption = None,
    older_than_s: OlderOption = None,
    newer_than_s: NewerOption = None,
    yes: YesFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Forget them."""
    screen = begin(context, as_json)
    from workers.queue.dead_letters.choice import Choice

    with _box() as box:
        letters = selected(screen, box.all(), ids, everything, Choice(task, why, older_than_s, newer_than_s), yes, "drop")
        dropped = sum(box.drop(one) for one in letters)
    tell(screen, {"dropped": dropped, "gone": len(letters) - dropped})


def count(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Say how many there are, and how many there have ever been."""
    screen = begin(context, as_json)
    with _box() as box:
        tell(screen, {"kept": len(box.all()), "ever": box.ever()})


@contextmanager
def _box() -> Iterator[DeadLetters]:
    from workers.queue.dead_letters.box import DeadLetters

    with broker_app() as app:
        yield DeadLetters(app)
