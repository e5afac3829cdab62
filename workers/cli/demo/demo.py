"""`persona demo`: the whole system once, as a demonstration and as a check."""

from __future__ import annotations

import os
import tempfile
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workers.cli.here.up import STOP_HINT, describe, make_options
from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import HERE
from workers.cli.terminal.screen import JsonFlag, Screen, begin

if TYPE_CHECKING:
    from pipeline.models import PersonaRequest
    from workers.cli.demo.scenario import Recomputation, Traffic
    from workers.stack import Stack, StackInfo

# The demonstration invalidates, and counts computations: neither belongs on shared servers.
NOT_TAKEN: Final = ("PERSONA_BROKER_URL", "PERSONA_RESULT_URL", "PERSONA_CACHE_URL")


def register(program: typer.Typer) -> None:
    program.command("demo", rich_help_panel=HERE, epilog="Example: persona demo --stay")(demo)


def demo(
    context: typer.Context,
    requests: Annotated[
        Path | None, typer.Option("--requests", metavar="FILE", help="JSON lines; else the package's sample.")
    ] = None,
    concurrency: Annotated[
        int | None, typer.Option("--concurrency", metavar="N", help="Pool children of the worker; else one a core, at least 2.")
    ] = None,
    in_flight: Annotated[int, typer.Option("--in-flight", metavar="N", help="Requests on their way at once.")] = 16,
    stay: Annotated[bool, typer.Option("--stay", help="Leave the stack up, in .persona, until Ctrl-C.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Start a stack of its own, send the sample requests, stop.

    It shows the figures of that run. Before the end it invalidates persona:lua:* and asks one of Lua's requests again. Exit 1
    if any request failed, if no cache hit occurred, or if the invalidated answer was not computed again within the staleness
    bound.

    A model that PERSONA_LLM_URL names is used, and asked first whether it is there; broker and cache are always the
    demonstration's own.
    """
    screen = begin(context, as_json)
    if in_flight < 1:
        raise CommandError("usage", "--in-flight", f"{in_flight}; allowed is 1 or more", exit_code=BAD_USAGE)
    from workers.cli.demo.samples import EXAMPLES, read_requests
    from workers.stack import Stack

    sample = read_requests(requests or EXAMPLES)
    with _folder(stay) as folder:
        environ = {name: value for name, value in os.environ.items() if name not in NOT_TAKEN}
        options = make_options(concurrency=concurrency, directory=folder, environ=environ)
        with Stack(options, screen.note) as stack:
            traffic, again = _run(screen, stack, sample, in_flight, environ)
            _conclude(screen, traffic, again, describe(stack.info, options) if stay else None)
            if stay:
                _show_login(screen, stack.info)
                raise typer.Exit(128 + stack.wait())


@contextmanager
def _folder(stay: bool) -> Iterator[Path | None]:
    """None: the folder of `persona up`, where the other commands find the stack. Else one that no command looks for."""
    if stay:
        yield None
        return
    with tempfile.TemporaryDirectory(prefix="persona-demo-", ignore_cleanup_errors=True) as folder:
        yield Path(folder) / "stack"


@contextmanager
def _frames_cleared() -> Iterator[None]:
    """An interruption's frames hold results that are awaited, each of which unsubscribes when it is collected. Let that happen
    while the broker is there, not when the frames go, long after the stack has stopped."""
    try:
        yield
    except BaseException as error:
        traceback.clear_frames(error.__traceback__)
        raise


def _run(
    screen: Screen, stack: Stack, sample: list[PersonaRequest], in_flight: int, environ: dict[str, str]
) -> tuple[Traffic, Recomputation | None]:
    from pipeline.settings import load_settings
    from workers.cli.demo.scenario import invalidate_and_ask_again, send, to_ask_again
    from workers.cli.terminal.advance import shown_map
    from workers.client import PersonaClient, Progress

    settings = load_settings({**environ, **stack.info.environment})
    with PersonaClient(settings) as client, _frames_cleared():
        with shown_map(screen, len(sample)) as advance:

            def on_progress(progress: Progress) -> None:
                stack.check()  # a request whose worker has died would otherwise be awaited until its time-out
                advance(progress)

            traffic = send(client, sample, in_flight=in_flight, on_progress=on_progress)
        chosen = to_ask_again(traffic.exchanges)
        return traffic, None if chosen is None else invalidate_and_ask_again(client, chosen)


def _conclude(screen: Screen, traffic: Traffic, again: Recomputation | None, stack: dict[str, Any] | None) -> None:
    """Show the outcome. Raises CommandError if it is not as it must be."""
    from workers.cli.demo.scenario import as_document, examples_of, problems_of

    model = traffic.exchanges[0].response.model if traffic.exchanges else None
    if not screen.as_json:
        from workers.cli.demo.report import show_examples, show_figures, show_recomputation

        screen.out.print()
        show_examples(screen.out, examples_of(traffic.exchanges), model)
        show_figures(screen.out, traffic.figures, model)
        if again is not None:
            show_recomputation(screen.out, again)
    document = {"model": model, **as_document(traffic, again), "stack": stack}
    if problems := problems_of(traffic, again):
        raise CommandError("demo_failed", None, "; ".join(problems), document=document)
    if screen.as_json:
        screen.document(document)


def _show_login(screen: Screen, info: StackInfo) -> None:
    if info.flower is not None and not screen.as_json:
        login = info.flower
        screen.out.print(f"Flower    {login.url}\nuser      {login.user}\npassword  {login.password}", markup=False)
    screen.note(STOP_HINT)
