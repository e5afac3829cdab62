"""All the commands together. Each imports its heavy modules when it runs: `persona --help` loads none of them."""

from __future__ import annotations

import pkgutil
from importlib import import_module
from typing import Annotated, Final

import typer

from workers import cli

_OTHERS: Final = ("program", "terminal")
"""The rest of this folder: every other module is a command of its name, with - for _, which its `register` adds."""


def _commands() -> list[str]:
    modules = (each.name for each in pkgutil.iter_modules(cli.__path__))
    return sorted(name.replace("_", "-") for name in modules if name not in _OTHERS and name[0] != "_")


def program_for(command: str | None) -> typer.Typer:
    """The program with that command alone: the modules of the others are not imported. With all of them if it is none."""
    program = typer.Typer(
        name="persona",
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="rich",
        context_settings={"help_option_names": ["-h", "--help"]},
    )
    program.callback(
        invoke_without_command=True,
        epilog="Example: persona up (in one terminal), then persona ask 'What is a generator?' --key curious-medium-learning",
    )(_persona)
    commands = _commands()
    for name in [command] if command in commands else commands:
        import_module(f"{cli.__name__}.{name.replace('-', '_')}").register(program)
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
