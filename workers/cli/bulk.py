"""`persona bulk`: a file of requests, a file of answers."""

from __future__ import annotations

import os
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final

import typer

from workers.cli.terminal.failures import BAD_USAGE, CommandError
from workers.cli.terminal.help import ASK
from workers.cli.terminal.screen import JsonFlag, Screen, begin

if TYPE_CHECKING:
    from workers.client import Progress
    from workers.client.answers import AnswersFile, Tally

SHOWN_FAILURES: Final = 20
ADVANCE_EVERY_S: Final = 0.1
MAX_IN_FLIGHT: Final = 1000


def register(program: typer.Typer) -> None:
    program.command("bulk", rich_help_panel=ASK, epilog="Example: persona bulk requests.jsonl -o answers.jsonl")(bulk)


def bulk(
    context: typer.Context,
    requests: Annotated[Path, typer.Argument(metavar="FILE", help="One request a line, as JSON.", show_default=False)],
    output: Annotated[
        Path | None, typer.Option("-o", "--output", metavar="FILE", help="The answers; else FILE.answers.jsonl.")
    ] = None,
    in_flight: Annotated[
        int, typer.Option("--in-flight", metavar="N", min=1, max=MAX_IN_FLIGHT, help="Requests on their way at once.")
    ] = 16,
    timeout: Annotated[
        float, typer.Option("--timeout", metavar="SECONDS", min=0.1, max=86_400, help="How long to wait for each.")
    ] = 300,
    keep_failed: Annotated[
        bool, typer.Option("--keep-failed", help="Do not ask again the requests that failed in an earlier run.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Answer a file of requests.

    They are sent in the file's order, through a queue of their own, so that other callers do not wait for them.

    A line holds the request of `persona.process`: user_input, resonance_key, and context, use_cache, max_age_s if wanted. The
    answers' file holds a line for each: "line", its number, and "answer", or "error" and "message".

    Run it again, also after Ctrl-C or a crash: answered lines are not asked again, failed and edited ones are.
    Exit 0: all are answered; 1: some failed, each is named.
    """
    screen = begin(context, as_json)
    source, target = _checked(requests, output)
    from workers.client.answers import AnswersError, AnswersFile, AnswersInUseError
    from workers.client.bulk import count_lines

    began_s = time.monotonic()
    lines = count_lines(source)
    with ExitStack() as resources:
        try:
            answers = resources.enter_context(AnswersFile(target, lines))
        except AnswersInUseError as error:
            raise CommandError("output_in_use", str(error.path), error.problem) from None
        except AnswersError as error:
            raise CommandError("usage", str(error.path), error.problem, exit_code=BAD_USAGE) from None
        except OSError as error:
            raise CommandError("usage", str(target), f"cannot be used: {error.strerror}", exit_code=BAD_USAGE) from None
        document, tally = _run(screen, source, answers, lines, in_flight, timeout, not keep_failed)
    document |= {"output": str(target), "elapsed_s": time.monotonic() - began_s}
    _conclude(screen, source, document, tally)


def _run(
    screen: Screen, source: Path, answers: AnswersFile, lines: int, in_flight: int, timeout_s: float, retry_failed: bool
) -> tuple[dict[str, Any], Tally]:
    from workers.cli.terminal.advance import shown_map
    from workers.client import BULK_QUEUE, PersonaClient
    from workers.client.bulk import ask_all, read_lines

    with PersonaClient() as client, _told_if_it_ends_early(screen, answers):
        with shown_map(screen, lines, bar=not screen.as_json) as advance:
            already = ask_all(
                read_lines(source, lines),
                answers,
                lambda asked: client.map(  # type: ignore[arg-type,return-value]  # a generator
                    asked, concurrency=in_flight, timeout_s=timeout_s, queue=BULK_QUEUE, ordered=False
                ),
                total=lines,
                retry_failed=retry_failed,
                on_progress=_now_and_then(advance),
            )
        tally = answers.conclude(read_lines(source, lines))
    return {"lines": lines, "answered": tally.answered, "already_answered": already}, tally


@contextmanager
def _told_if_it_ends_early(screen: Screen, answers: AnswersFile) -> Iterator[None]:
    try:
        yield
    except BaseException:
        screen.note(f"ended early; {answers.kept} outcomes are kept, the same command goes on from there")
        raise


def _now_and_then(advance: Callable[[Progress], None]) -> Callable[[Progress], None]:
    """Report progress at intervals: a million lines that are already answered pass in seconds."""
    told_at_s = 0.0

    def on_progress(progress: Progress) -> None:
        nonlocal told_at_s
        now_s = time.monotonic()
        if now_s - told_at_s >= ADVANCE_EVERY_S or progress.done == progress.total:
            told_at_s = now_s
            advance(progress)

    return on_progress


def _conclude(screen: Screen, source: Path, document: dict[str, Any], tally: Tally) -> None:
    """Show the outcome. Raises CommandError if a line has no answer."""
    document |= {
        "failed_lines": tally.failed,
        "failed": [{"line": each.line, "error": each.error, "message": each.message} for each in tally.failures],
    }
    for each in tally.failures[:SHOWN_FAILURES]:
        screen.note(f"{source.name}:{each.line}: {each.message}")
    if tally.failed > SHOWN_FAILURES:
        screen.note(f'and {tally.failed - SHOWN_FAILURES} more: the lines of {document["output"]} with an "error"')
    if not screen.as_json:
        facts = f"{tally.answered} answered, {document['already_answered']} of them by earlier runs; {tally.failed} failed"
        screen.out.print(f"{facts} ({document['elapsed_s']:.1f} s): {document['output']}", markup=False, soft_wrap=True)
    if tally.failed:
        answerable = tally.answered + tally.failed
        raise CommandError("bulk_failed", None, f"{tally.failed} of {answerable} requests failed", document=document)
    if screen.as_json:
        screen.document(document)


def _checked(requests: Path, output: Path | None) -> tuple[Path, Path]:
    """Both files, checked without touching them. Raises CommandError."""

    def refused(path: Path, problem: str) -> CommandError:
        return CommandError("usage", str(path), problem, exit_code=BAD_USAGE)

    if not requests.exists():
        raise refused(requests, "no such file")
    if not requests.is_file():
        raise refused(requests, "is not a regular file; it is read more than once")
    if not os.access(requests, os.R_OK):
        raise refused(requests, "may not be read")
    target = requests.with_name(f"{requests.stem}.answers.jsonl") if output is None else output
    if target.exists() and not target.is_file():
        raise refused(target, "is not a regular file")
    if not target.parent.is_dir():
        raise refused(target, "its folder does not exist")
    if not os.access(target.parent, os.W_OK) or (target.exists() and not os.access(target, os.W_OK)):
        raise refused(target, "may not be written")
    whole = target.resolve()
    for written in (whole, *(whole.with_name(whole.name + suffix) for suffix in (".partial", ".new"))):
        if written.exists() and written.samefile(requests):
            raise refused(target, f"is written by way of {written.name}, which is the file of requests; name another one")
    return requests, target
