"""`persona up`: the embedded stack, in the foreground or in the background."""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, Screen, begin

if TYPE_CHECKING:
    from workers.stack import StackInfo, StackOptions

STOP_HINT = "Ctrl-C stops everything."
DETACHED_HINT = "persona down stops everything."


def register(program: typer.Typer) -> None:
    program.command("up", rich_help_panel=HERE, epilog="Example: persona up --detach --flower-port 5555")(up)


def up(
    context: typer.Context,
    detach: Annotated[
        bool, typer.Option("--detach", "-d", help="Run in the background: return when all is up; `persona down` stops it.")
    ] = False,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", help="Pool children of the worker; else one a core, at least 2.")
    ] = None,
    broker_port: Annotated[
        int | None, typer.Option("--broker-port", metavar="PORT", help="Of the broker; else a free one.")
    ] = None,
    cache_port: Annotated[
        int | None, typer.Option("--cache-port", metavar="PORT", help="Of the cache server; else a free one.")
    ] = None,
    model_port: Annotated[
        int | None, typer.Option("--model-port", metavar="PORT", help="Of the local model; else a free one.")
    ] = None,
    flower_port: Annotated[int | None, typer.Option("--flower-port", metavar="PORT", help="Of Flower; else a free one.")] = None,
    cache_memory: Annotated[
        str | None, typer.Option("--cache-memory", metavar="SIZE", help="Memory of the cache server; else 256mb.")
    ] = None,
    no_model: Annotated[bool, typer.Option("--no-model", help="Start no local model.")] = False,
    no_flower: Annotated[bool, typer.Option("--no-flower", help="Start no dashboard.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start broker, cache, a local model, worker, beat and Flower.

    They run until Ctrl-C, or in the background until `persona down`: all on 127.0.0.1, with random ports and passwords; files
    lie in .persona (or PERSONA_STACK_DIR) and go at the end.

    Servers that PERSONA_BROKER_URL, PERSONA_CACHE_URL and PERSONA_LLM_URL name are used, and not started: they are asked first,
    the model's endpoint for one second, and one that is dead is an error. Without any model, answers are the composed prompts.
    """
    screen = begin(context, as_json)
    from workers.stack import SERVICES, Stack

    if cache_memory is not None and not re.fullmatch(r"\d+([kmg]b?)?", cache_memory, re.IGNORECASE):
        raise CommandError("usage", "--cache-memory", f"{cache_memory!r}; expected a size, such as 256mb", exit_code=BAD_USAGE)
    left_out = {"model": no_model, "flower": no_flower}
    options = make_options(
        services=tuple(service for service in SERVICES if not left_out.get(service)),
        concurrency=concurrency,
        broker_port=broker_port,
        cache_port=cache_port,
        model_port=model_port,
        flower_port=flower_port,
        cache_memory=cache_memory,
    )
    if detach:
        from workers.stack.running.background import start_in_background

        _tell(screen, describe(start_in_background(options, screen.note), options), DETACHED_HINT)
        return
    with Stack(options, screen.note) as stack:
        _tell(screen, describe(stack.info, options), STOP_HINT)
        ending = stack.wait()
    raise typer.Exit(128 + ending)


def _tell(screen: Screen, facts: dict[str, Any], how_to_stop: str) -> None:
    if screen.as_json:
        screen.document(facts)
    else:
        show(screen, facts, how_to_stop)


def make_options(**choices: Any) -> StackOptions:
    """The stack's options; None stands for the default. Raises CommandError (bad usage) naming the command line's option."""
    from workers.stack import StackError, StackOptions

    chosen = {name: value for name, value in choices.items() if value is not None}
    chosen.setdefault("concurrency", max(2, os.cpu_count() or 1))  # the stack's own default, set here to be shown
    try:
        return StackOptions(**chosen)
    except StackError as error:
        name, _, problem = str(error).partition(": ")
        raise CommandError("usage", f"--{name.replace('_', '-')}", problem, exit_code=BAD_USAGE) from None


def describe(info: StackInfo, options: StackOptions) -> dict[str, Any]:
    """The services and their addresses, for JSON. Servers' passwords are left out; Flower's login is for the user."""
    from pipeline.settings import without_password
    from workers.stack.plan import stack_directory

    def address(variable: str) -> str | None:
        return without_password(info.environment.get(variable, "")) or None

    started = {service.name: {"pid": service.pid, "log": service.log} for service in info.services}
    facts: dict[str, Any] = {
        "folder": str(Path(stack_directory(options)).absolute()),
        "pid": info.pid,
        "started_at": info.started_at,
        "broker": {"url": address("PERSONA_BROKER_URL")},
        "cache": {"url": address("PERSONA_CACHE_URL")},
        "model": {"url": address("PERSONA_LLM_URL"), "name": info.environment.get("PERSONA_LLM_MODEL")},
        "worker": {"concurrency": options.concurrency},
        "beat": {},
        "flower": None,
    }
    if info.flower is not None:
        facts["flower"] = {"url": info.flower.url, "user": info.flower.user, "password": info.flower.password}
    for name, process in started.items():
        facts[name].update(process)
    return facts


def show(screen: Screen, facts: dict[str, Any], how_to_stop: str) -> None:
    from rich.panel import Panel
    from rich.table import Table
    from rich.text import Text

    rows = [(name, facts[name]["url"] or "none") for name in ("broker", "cache")]
    model = facts["model"]
    rows.append(("model", f"{model['name']} at {model['url']}" if model["url"] else "none: answers are the prompts"))
    children = facts["worker"]["concurrency"]
    rows.append(("worker", f"{children} pool {'child' if children == 1 else 'children'}"))
    if flower := facts["flower"]:
        rows += [("Flower", flower["url"]), ("  user", flower["user"]), ("  password", flower["password"])]
    rows.append(("folder", facts["folder"]))
    grid = Table.grid(padding=(0, 2))
    for name, value in rows:
        grid.add_row(Text(name, style="bold"), Text(value, overflow="fold"))
    screen.out.print(Panel(grid, title="persona is up", title_align="left", subtitle=how_to_stop, subtitle_align="left"))
    screen.out.print(
        ("Try" if how_to_stop == DETACHED_HINT else "From another terminal")
        + ":\npersona ask 'I feel stuck.' --key frustrated-burst-seek_advice",
        style="dim",
        soft_wrap=True,
    )
