"""`persona env`: the variables by which a program elsewhere reaches the stack that runs here."""

from __future__ import annotations

import shlex
import sys

import typer

from workers.cli.here.status import no_stack_here
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, begin


def register(program: typer.Typer) -> None:
    program.command("env", rich_help_panel=HERE, epilog='Example: persona env, as in eval "$(persona env)"')(env)


def env(context: typer.Context, as_json: JsonFlag = False) -> None:
    """Print what programs elsewhere need to reach the stack.

    It is the variables of the stack that runs here (persona up), passwords included, as lines for a shell. Programs in its
    directory or below find it by themselves. Exit 1 if none runs.
    """
    screen = begin(context, as_json)
    from workers.stack.state import find_stack

    stack = find_stack()
    if stack is None:
        raise no_stack_here()
    variables = dict(sorted(stack.environment.items()))
    if screen.as_json:
        screen.document({"environment": variables})
    else:
        sys.stdout.writelines(f"export {name}={shlex.quote(value)}\n" for name, value in variables.items())
