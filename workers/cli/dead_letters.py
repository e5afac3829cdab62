"""`persona dead-letters`: the messages that no worker could take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workers.cli.terminal.kept import Box, Kind, register_kind

if TYPE_CHECKING:
    import typer

    from workers.queue.factory import PersonaApp

HELP: Final = """Look at the messages that no worker could take, queue them anew, or drop them.

The broker keeps the last 1,000 for a day, up to 16,384 characters of each. A list shows nothing of what users wrote."""
REQUEUE: Final = """Put them back at the end of their queues.

Their callers have been told of the failure; a success replaces it. One that was not kept whole cannot be queued anew. Exit 1 if
there was one."""


def register(program: typer.Typer) -> None:
    register_kind(
        program,
        Kind(
            name="dead-letters",
            listed="letters",
            help=HELP,
            again="requeue",
            again_help=REQUEUE,
            asked="queue anew",
            example="persona dead-letters requeue --all --task persona.process",
            open=_open,
        ),
    )


def _open(app: PersonaApp) -> Box:
    from workers.queue.dead_letters.box import DeadLetters

    return DeadLetters(app)
