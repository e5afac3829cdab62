"""`persona failures`: the tasks that have failed."""

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
    from workers.queue.failures.box import Failures


def register(program: typer.Typer) -> None:
    group = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
    group.callback(invoke_without_command=True, epilog="Example: persona failures retry --all --why TransientModelError")(
        failures
    )
    group.command("list")(list_letters)
    group.command("show")(show)
    group.command("retry")(retry)
    group.command("drop")(drop)
    group.command("count")(count)
    program.add_typer(group, name="failures", rich_help_panel=FLEET)


def failures(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Look at the tasks that have failed, try them again, or drop them.

    The broker keeps the last 2,000 for a day, up to 16,384 characters of each. A list shows nothing of what users wrote. Requests
    that were refused as wrong are not among them: another try would end the same.
    """
    if context.invoked_subcommand is None:
        list_letters(context, as_json)


def list_letters(context: typer.Context, as_json: JsonFlag = False) -> None:
    """List them, the latest first."""
    screen = begin(context, as_json)
    with _box() as box:
        show_list(screen, "failures", box.all())


def show(context: typer.Context, letter_id: OneId, as_json: JsonFlag = False) -> None:
    """Show one with its text. That is what a user wrote: mind who sees your screen."""
    screen = begin(context, as_json)
    with _box() as box:
        (one,) = chosen(box.all(), [letter_id])
    show_one(screen, one)


def retry(
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
    """Try them again, each once, under its own id: an answer takes the place of the failure that its caller was told.

    One that was not kept whole cannot be tried again. Exit 1 if there was one.
    """
    screen = begin(context, as_json)
    from workers.queue.dead_letters.choice import Choice

    with _box() as box:
        choice = Choice(task, why, older_than_s, newer_than_s)
        letters = selected(screen, box.all(), ids, everything, choice, yes, "retry")
        tell_queued(screen, box.retry(letters))


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
        dropped = box.drop(letters)
    tell(screen, {"dropped": dropped, "gone": len(letters) - dropped})


def count(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Say how many there are, and how many there have ever been."""
    screen = begin(context, as_json)
    with _box() as box:
        tell(screen, {"kept": box.count(), "ever": box.ever()})


@contextmanager
def _box() -> Iterator[Failures]:
    from workers.queue.failures.box import Failures

    with broker_app() as app:
        yield Failures(app)
