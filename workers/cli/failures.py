"""`persona failures`: the tasks that have failed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

from workers.cli.terminal.kept import Box, Kind, register_kind

if TYPE_CHECKING:
    import typer

    from workers.queue.factory import PersonaApp

HELP: Final = """Look at the tasks that have failed, try them again, or drop them.

The broker keeps the last 2,000 for a day, up to 16,384 characters of each. A list shows nothing of what users wrote. Requests
that were refused as wrong are not among them: another try would end the same."""
RETRY: Final = """Try them again, each once, under its own id.

An answer takes the place of the failure that its caller was told. One that was not kept whole cannot be tried again. Exit 1 if
there was one."""


def register(program: typer.Typer) -> None:
    register_kind(
        program,
        Kind(
            name="failures",
            listed="failures",
            help=HELP,
            again="retry",
            again_help=RETRY,
            asked="retry",
            example="persona failures retry --all --why TransientModelError",
            open=_open,
        ),
    )


def _open(app: PersonaApp) -> Box:
    from workers.queue.failures.box import Failures

    return Failures(app)
