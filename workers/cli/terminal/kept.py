"""The commands on what the broker keeps of messages that came to nothing: one place for dead letters and for failed tasks."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, NamedTuple, Protocol

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
from workers.cli.terminal.screen import JsonFlag, Screen, begin

if TYPE_CHECKING:
    from workers.queue.dead_letters.letter import Found
    from workers.queue.factory import PersonaApp

LIST = "List them, the latest first."
SHOW = """Show one with its text.

That is what a user wrote: mind who sees your screen."""
DROP = "Forget them."
COUNT = "Say how many there are, and how many there have ever been."


class Box(Protocol):
    """Where they are kept. Methods raise QueueUnavailableError and NoRedisError."""

    def all(self) -> list[Found]: ...
    def count(self) -> int: ...
    def ever(self) -> int: ...
    def retry(self, letters: Sequence[Found]) -> dict[str, int]: ...
    def drop(self, letters: Sequence[Found]) -> int: ...


class Kind(NamedTuple):
    """One group of commands. `listed`: the list's name in the document. `again` is the command that queues them, and `asked` what
    the operator is asked about it. `help` and `again_help` are a line and, after an empty one, more. `open` makes the box of an
    app: it imports when it is called."""

    name: str
    listed: str
    help: str
    again: str
    again_help: str
    asked: str
    example: str
    open: Callable[[PersonaApp], Box]


def register_kind(program: typer.Typer, kind: Kind) -> None:
    """Add the group of commands of that kind."""

    def whole(context: typer.Context, as_json: JsonFlag = False) -> None:
        if context.invoked_subcommand is None:
            show_all(context, as_json)

    def show_all(context: typer.Context, as_json: JsonFlag = False) -> None:
        screen = begin(context, as_json)
        with _box(kind) as box:
            show_list(screen, kind.listed, box.all())

    def show(context: typer.Context, letter_id: OneId, as_json: JsonFlag = False) -> None:
        screen = begin(context, as_json)
        with _box(kind) as box:
            (one,) = chosen(box.all(), [letter_id])
        show_one(screen, one)

    def queue_again(screen: Screen, box: Box, letters: Sequence[Found]) -> None:
        tell_queued(screen, box.retry(letters))

    def forget(screen: Screen, box: Box, letters: Sequence[Found]) -> None:
        dropped = box.drop(letters)
        tell(screen, {"dropped": dropped, "gone": len(letters) - dropped})

    def count(context: typer.Context, as_json: JsonFlag = False) -> None:
        screen = begin(context, as_json)
        with _box(kind) as box:
            tell(screen, {"kept": box.count(), "ever": box.ever()})

    group = typer.Typer(rich_markup_mode="rich", context_settings={"help_option_names": ["-h", "--help"]})
    group.callback(invoke_without_command=True, help=kind.help, epilog=f"Example: {kind.example}")(whole)
    for name, words, command in (
        ("list", LIST, show_all),
        ("show", SHOW, show),
        (kind.again, kind.again_help, _on_selected(kind, kind.asked, queue_again)),
        ("drop", DROP, _on_selected(kind, "drop", forget)),
        ("count", COUNT, count),
    ):
        group.command(name, help=words)(command)
    program.add_typer(group, name=kind.name, rich_help_panel=FLEET)


def _on_selected(kind: Kind, asked: str, act: Callable[[Screen, Box, Sequence[Found]], None]) -> Callable[..., None]:
    """A command that does this to those that its options select, once the operator has said yes to `asked`."""

    def command(
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
        screen = begin(context, as_json)
        from workers.queue.dead_letters.choice import Choice

        with _box(kind) as box:
            choice = Choice(task, why, older_than_s, newer_than_s)
            act(screen, box, selected(screen, box.all(), ids, everything, choice, yes, asked))

    return command


@contextmanager
def _box(kind: Kind) -> Iterator[Box]:
    with broker_app() as app:
        yield kind.open(app)
