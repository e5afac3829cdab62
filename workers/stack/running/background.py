"""A stack in the background: `start_in_background`, and the process that then runs it, which is this module as a program.

That process tells what it does on a pipe, a JSON object a line, until the stack is up; from then on in the stack's own log.
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NoReturn

from pipeline.discovery import STACK_DIR
from workers.stack.errors import StackError, StackRunningError
from workers.stack.folder import StackFolder
from workers.stack.options import StackOptions
from workers.stack.plan import read_settings, stack_directory
from workers.stack.state import StackInfo, find_stack
from workers.stack.supervisor import STACK_LOG, Stack

PROGRAM: Final = f"""
from persona_worker import put_ours_first
put_ours_first()
from {__name__} import run
run()
"""
"""Not `-m`: a `workers` of another project, on PYTHONPATH, would be taken for ours."""
INTERRUPTED_S: Final = 60.0
"""For the services that have come up, when the start is broken off."""


def start_in_background(options: StackOptions, on_progress: Callable[[str], None]) -> StackInfo:
    """Start a stack that outlives this process, and return when each of its services works.

    Raises what `Stack.start` raises; then, and when this process is told to end meanwhile, nothing of the stack is left.
    """
    read_settings(options.environ)  # in this process, whose error names the variables
    directory = stack_directory(options).absolute()
    with _supervisor(options, directory) as process:
        strange: list[str] = []
        assert process.stdout is not None  # noqa: S101 - for the type checker
        for line in process.stdout:
            told = _decoded(line)
            if told is None:
                strange.append(line.rstrip())
            elif "note" in told:
                on_progress(told["note"])
            elif "running" in told:
                raise StackRunningError(directory, told["running"])
            elif "error" in told:
                raise StackError(told["error"])
            elif (info := _stack_in(directory)) is not None:
                # It is ours to collect, should it end before this process does.
                threading.Thread(target=process.wait, name="background-stack", daemon=True).start()
                return info
        code = process.wait(INTERRUPTED_S)
    last = "\n".join(f"  {line}" for line in strange[-15:]) or "  (nothing)"
    raise StackError(f"the process that runs the stack ended (exit code {code}). It said:\n{last}")


@contextmanager
def _supervisor(options: StackOptions, directory: Path) -> Iterator[subprocess.Popen[str]]:
    """The process. If its stack is not up at the end of the block, it is ended, and awaited."""
    process = subprocess.Popen(  # noqa: S603 - our own program
        [sys.executable, "-P", "-c", PROGRAM],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        env=dict(options.environ),
        start_new_session=True,
    )
    assert process.stdin is not None  # noqa: S101 - for the type checker, as below
    assert process.stdout is not None  # noqa: S101
    try:
        with suppress(BrokenPipeError), process.stdin as pipe:
            pipe.write(_encoded(options, directory))
        yield process
    except BaseException:
        process.terminate()
        with suppress(subprocess.TimeoutExpired):
            process.wait(INTERRUPTED_S)
        raise
    finally:
        process.stdout.close()


def _stack_in(directory: Path) -> StackInfo | None:
    return find_stack(environ={STACK_DIR: str(directory)})


def _encoded(options: StackOptions, directory: Path) -> str:
    """The options, but for the environment, which the process has."""
    chosen = {each.name: getattr(options, each.name) for each in fields(options) if each.name != "environ"}
    return json.dumps({**chosen, "directory": str(directory)})


def _decoded(line: str) -> Mapping[str, Any] | None:
    try:
        told = json.loads(line)
    except ValueError:
        return None
    return told if isinstance(told, dict) else None


# -- the process that runs the stack


def run() -> NoReturn:
    """This module as a program."""
    signal.signal(signal.SIGHUP, signal.SIG_IGN)  # the terminal that it was started in may go
    sys.exit(main())


def main() -> int:
    """Run the stack that standard input describes, until it is told to end. Returns the exit code."""
    chosen = json.load(sys.stdin)
    directory = Path(chosen["directory"])
    teller = _Teller()
    stack = Stack(StackOptions(**{**chosen, "directory": directory, "services": tuple(chosen["services"])}), teller.note)
    try:
        stack.start()
        teller.up(StackFolder(directory).log(STACK_LOG))
        return 128 + stack.wait()
    except StackRunningError as error:
        teller.say(running=error.pid)
    except StackError as error:
        if teller.is_up:
            # The logs go with the folder: without this, nobody could learn why the stack is gone.
            StackFolder(directory).leave_word(f"{_now()} {error}")
        else:
            teller.say(error=str(error))
    finally:
        stack.stop()
    return 1


class _Teller:
    """What this process tells: on the pipe to the one that asked for the stack, then in its log."""

    def __init__(self) -> None:
        self.is_up = False
        self._notes: list[str] = []

    def note(self, note: str) -> None:
        if self.is_up:
            print(f"{_now()} {note}", flush=True)  # noqa: T201 - the program's own log
        else:
            self._notes.append(f"{_now()} {note}")
            self.say(note=note)

    def say(self, **told: object) -> None:
        """Raises BrokenPipeError if the process that asked for the stack is gone."""
        sys.stdout.write(json.dumps(told) + "\n")
        sys.stdout.flush()

    def up(self, log: Path) -> None:
        """Say that the stack is up; raises BrokenPipeError if nobody wants it any more. From now on tell it to the log."""
        self.say(ready=True)
        _write_to(log)
        self.is_up = True
        sys.stdout.writelines(f"{note}\n" for note in self._notes)
        sys.stdout.flush()


def _write_to(log: Path) -> None:
    """From now on, what this process prints goes there, and the pipe is closed."""
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    nowhere = os.open(os.devnull, os.O_RDONLY)
    for number, source in ((0, nowhere), (1, descriptor), (2, descriptor)):
        os.dup2(source, number)
    os.close(descriptor)
    os.close(nowhere)


def _now() -> str:
    return datetime.now(UTC).strftime("%Y-%m-%d %H:%M:%S UTC")
