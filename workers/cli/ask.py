"""`persona ask`: one request, one answer."""

from __future__ import annotations

import math
import sys
import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import ASK
from workers.cli.terminal.screen import JsonFlag, Screen, begin, printable, shown_ms

if TYPE_CHECKING:
    from pipeline.models import PersonaResponse

MAX_TIMEOUT_S = 3600.0
MAX_STDIN_BYTES = 1 << 20  # far above the limit of an input, which counts characters and has its own message

KEY_WORDS = """\
A key is tone-pace-intent.

tone: frustrated, playful, anxious, analytical, calm, curious, urgent, confused, collaborative

pace: burst, flowing, contemplative, medium

intent: seek_advice, problem_solving, learning, validation, planning, reflection

Example: persona ask 'I feel stuck.' --key frustrated-burst-seek_advice"""


def register(program: typer.Typer) -> None:
    program.command("ask", rich_help_panel=ASK, epilog=KEY_WORDS)(ask)


def ask(
    context: typer.Context,
    text: Annotated[str, typer.Argument(metavar="TEXT", help="The text; - reads standard input.", show_default=False)],
    key: Annotated[str, typer.Option("--key", metavar="KEY", help="How it sounds: tone-pace-intent.", show_default=False)],
    user: Annotated[
        str | None, typer.Option("--user", metavar="ID", help="The user; the answer is cached for this user alone.")
    ] = None,
    name: Annotated[str | None, typer.Option("--name", metavar="NAME", help="The user's name.")] = None,
    language: Annotated[
        str | None, typer.Option("--language", metavar="en|ko", help="The answer's language, if not the text's.")
    ] = None,
    no_cache: Annotated[bool, typer.Option("--no-cache", help="Compute the answer; read and keep nothing.")] = False,
    timeout: Annotated[float, typer.Option("--timeout", metavar="SECONDS", help="How long to wait.")] = 60,
    as_json: JsonFlag = False,
) -> None:
    """Send one request to the workers and print the answer.

    Below it: the persona, its confidence, the source (l1, l2: a cache tier; joined: another caller's computation; stale: past its
    time to live; no: computed), and the times.
    """
    screen = begin(context, as_json)
    if not (math.isfinite(timeout) and 0 < timeout <= MAX_TIMEOUT_S):
        raise CommandError("usage", "--timeout", f"{timeout:g}; allowed is more than 0, up to 3600 s", exit_code=BAD_USAGE)
    from pipeline.models import PersonaRequest

    fields: dict[str, Any] = {"user_id": user, "user_name": name, "language": language}
    given = {field: value for field, value in fields.items() if value is not None}
    request = PersonaRequest.create(_read(text), key, given or None, not no_cache)

    from workers.client import PersonaClient

    with PersonaClient() as client:
        started = time.perf_counter()
        response = client.submit_request(request).result(timeout)
        total_ms = (time.perf_counter() - started) * 1000
    if screen.as_json:
        screen.document({**response.to_wire(), "total_ms": total_ms})
    else:
        _show(screen, response, total_ms)


def _show(screen: Screen, response: PersonaResponse, total_ms: float) -> None:
    from rich.text import Text

    facts = [
        response.persona,
        f"confidence {response.confidence:.2f}",
        f"cached: {response.source}",
        f"answer {shown_ms(response.execution_time_ms)}",
        f"total {shown_ms(total_ms)}",
    ]
    if response.degraded:
        facts.append("degraded: the cache server is out of reach")
    if response.model == "prompt":
        facts.append("no model: this is the composed prompt")
    whole_lines = not screen.out.is_terminal
    screen.out.print(Text(printable(response.content)), soft_wrap=whole_lines)
    screen.out.print(Text(printable(" · ".join(facts)), style="dim"), soft_wrap=whole_lines)


def _read(text: str) -> str:
    if text != "-":
        return text
    content = sys.stdin.buffer.read(MAX_STDIN_BYTES + 1) if sys.stdin else b""  # no stream at all: closed by the shell
    if len(content) > MAX_STDIN_BYTES:
        raise CommandError("invalid_request", "user_input", "standard input holds more than 1 MiB", exit_code=BAD_USAGE)
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        problem = f"standard input is not UTF-8 at byte {error.start}"
        raise CommandError("invalid_request", "user_input", problem, exit_code=BAD_USAGE) from None
