"""The command line `persona`: a module for each command.

Imports a command's needs when it runs, and starts no process that outlives it, `persona up` excepted.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import typer

INTERRUPTED = 130


def main(arguments: Sequence[str] | None = None) -> int:
    """The command `persona`; see `run`."""
    given = sys.argv[1:] if arguments is None else arguments
    return run("persona", lambda: _load(given[0] if given else None), arguments)


def run(name: str, load: Callable[[], typer.Typer], arguments: Sequence[str] | None = None) -> int:
    """Run one command of a program. Returns its exit code: 0, 1 (failed), 2 (bad usage), 128 + the number of the signal that
    ended it.

    Every error is a sentence on standard error, and under `--json` the document on standard output.
    """
    if arguments is None:
        sys.unraisablehook = _unraisable
    _open_closed_streams()
    try:
        code = _run(name, load, sys.argv[1:] if arguments is None else list(arguments))
        sys.stdout.flush()
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        _forget_broken_streams()
        return 1
    except OSError as error:  # every other error is handled within: this one concerns the output itself
        _forget_broken_streams()
        sys.stderr.write(f"error: standard output: {error.strerror}\n")
        return 1
    return code


def _load(command: str | None) -> typer.Typer:
    from workers.cli.program import program_for

    return program_for(command)


def _run(name: str, load: Callable[[], typer.Typer], arguments: list[str]) -> int:
    from workers.cli.terminal.failures import CommandError, failure_of
    from workers.cli.terminal.screen import Screen

    # For errors from before the command is parsed, or if it cannot be: the user's likely intent.
    screen = Screen(as_json="--json" in arguments)
    try:
        code = _exit_code(load()(arguments, prog_name=name, standalone_mode=False, obj=screen))
    except SystemExit as ending:
        code = _exit_code(ending.code)
    except BrokenPipeError:
        raise  # not an error to report: the reader has gone
    except Exception as error:  # noqa: BLE001 - the outermost frame: an untranslated error is shown as a bug
        failure = failure_of(error)
        screen.fail(failure)
        return failure.exit_code
    if code > 128:
        screen.fail(CommandError("interrupted", None, "ended by a signal", exit_code=code), quietly=True)
    return code


def _exit_code(result: object) -> int:
    if isinstance(result, int):
        return result
    return 0 if result is None else 1


def _unraisable(error: sys.UnraisableHookArgs) -> None:
    # Celery's results unsubscribe when they are collected, even from a server whose loss was just reported in one sentence.
    if getattr(error.object, "__qualname__", "") != "AsyncResult.__del__":
        sys.__unraisablehook__(error)


def _open_closed_streams() -> None:
    """A shell's `>&-` leaves no stream at all: later output is discarded."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:
            setattr(sys, name, Path(os.devnull).open("w", encoding="utf-8"))  # noqa: SIM115 - open as long as the process


def _forget_broken_streams() -> None:
    """The reader of our output has gone: buffered output is discarded, or the interpreter would complain."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    for stream in (sys.stdout, sys.stderr):
        try:
            stream.flush()
        except (OSError, ValueError):
            os.dup2(nowhere, stream.fileno())
    os.close(nowhere)
