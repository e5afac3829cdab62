"""A stack in a process of its own, and what its processes are up to."""

from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from polling import until

from workers.stack import StackInfo
from workers.stack.state import find_stack

SUPERVISOR = """
import sys
from pathlib import Path
from workers.stack import Stack, StackError, StackOptions

options = StackOptions(services=tuple(sys.argv[2].split(",")), directory=Path(sys.argv[1]))
try:
    with Stack(options, lambda message: print(message, flush=True)) as stack:
        stack.wait()
except StackError as error:
    sys.exit(f"failed: {error}")
"""


def alive(pid: int) -> bool:
    """Whether the process runs; a zombie that was not collected does not."""
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return not Path("/proc/self").exists()


def found(directory: Path) -> StackInfo | None:
    return find_stack(environ={"PERSONA_STACK_DIR": str(directory)})


def published(directory: Path) -> StackInfo:
    info = found(directory)
    assert info is not None
    return info


@contextmanager
def supervisor(directory: Path, services: tuple[str, ...]) -> Iterator[tuple[subprocess.Popen[str], StackInfo]]:
    """A process of its own that runs a stack, as in a terminal: the leader of its foreground group."""
    with subprocess.Popen(
        [sys.executable, "-c", SUPERVISOR, str(directory), ",".join(services)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as process:
        try:
            until(lambda: process.poll() is not None or found(directory) is not None, "the stack is up")
            assert process.poll() is None, process.communicate()
            yield process, published(directory)
        finally:
            process.kill()
