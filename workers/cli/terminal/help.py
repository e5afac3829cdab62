"""Help that reads well at 80 columns: paragraphs are wrapped by the terminal, and a type is shown where it says something."""

from __future__ import annotations

import inspect
from typing import Any, Final

import typer
from typer.core import TyperArgument, TyperCommand, TyperGroup, TyperOption

ASK: Final = "Ask"
HERE: Final = "A stack on this machine"
FLEET: Final = "The fleet"
"""The groups of the list of commands."""


class Command(TyperCommand):
    """A command of ours, as its help shows it."""

    def __init__(self, *arguments: Any, **options: Any) -> None:
        super().__init__(*arguments, **{**options, "help": unwrapped(options.get("help"))})

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


class Group(TyperGroup):
    """A program of ours, or a command with commands of its own."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{**options, "help": unwrapped(options.get("help"))})

    def get_params(self, ctx: Any) -> list[Any]:
        return _without_types(super().get_params(ctx))


def dress(program: typer.Typer) -> None:
    """From now on the help of this program's commands is as this module has it."""
    program.info.cls = Group
    for command in program.registered_commands:
        command.cls = Command
    for group in program.registered_groups:
        if group.typer_instance is not None:
            dress(group.typer_instance)


def unwrapped(text: str | None) -> str | None:
    """Each paragraph on one line: typer keeps the source's line ends, which are none of the terminal's."""
    if text is None:
        return None
    return "\n\n".join(" ".join(paragraph.split()) for paragraph in inspect.cleandoc(text).split("\n\n"))


def _without_types(parameters: list[Any]) -> list[Any]:
    """Without `<bool>` beside a flag, `<str>` beside an argument, and the library's notation of a range."""
    for each in parameters:
        if isinstance(each, TyperOption) and each.metavar is None:
            each.metavar = ""
        elif isinstance(each, TyperArgument):
            vars(each)["display_type_rich"] = _nothing
        vars(each)["_get_number_range_help_str"] = _nothing
    return parameters


def _nothing(**_: object) -> None:
    return None
