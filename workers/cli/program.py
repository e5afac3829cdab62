"""All the commands together. Each imports its heavy modules when it runs: `persona --help` loads none of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Annotated, Final

import typer

from workers import cli
from workers.cli import here
from workers.cli.terminal.help import Group, dress

_OTHERS: Final = ("program", "terminal", "here")
"""The rest of this folder: every other module is a command of its name, with - for _, which its `register` adds. So is every
module of the room `here`."""


def _commands() -> dict[str, str]:
    """The module of each command, by its name."""
    rooms = (cli, here)
    modules = ((room.__name__, each.name) for room in rooms for each in pkgutil.iter_modules(room.__path__))
    return {name.replace("_", "-"): f"{room}.{name}" for room, name in sorted(modules) if name not in _OTHERS and name[0] != "_"}


def program_for(command: str | None) -> typer.Typer:
    """The program with that command alone: the modules of the others are not imported. With all of them if it is none."""
    program = typer.Typer(
        name="persona",
        cls=Group,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback(
        invoke_without_command=True,
        epilog="Example: persona up -d, then persona ask 'Why?' --key calm-burst-learning",
    )(_persona)
    commands = _commands()
    for name in [command] if command in commands else sorted(commands):
        import_module(commands[name]).register(program)
    dress(program)
    return program


def _show_version(wanted: bool) -> None:
    if wanted:
        from importlib.metadata import version

        typer.echo(f"persona {version('persona-worker')}")
        raise typer.Exit


def _persona(
    context: typer.Context,
    version: Annotated[  # noqa: ARG001 - its callback does it
        bool, typer.Option("--version", help="Show the version.", callback=_show_version, is_eager=True)
    ] = False,
) -> None:
    """Ask personas through a task queue and a two-tier cache.

    Commands find the stack that runs here (persona up); PERSONA_BROKER_URL and PERSONA_CACHE_URL name other servers.
    Exit codes: 0, 1 (failed), 2 (bad usage), 128 + the number of the signal that ended it.
    """
    if context.invoked_subcommand is None:
        typer.echo(context.get_help())
        raise typer.Exit(2)
