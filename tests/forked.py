"""Programs of Celery for tests that run side by side, begun at once: forked from a process that has imported their libraries.

What a node imports takes it a second of processor time, and the suite starts some hundreds. Each is a process of its own all the
same, runs the module `celery` by the same command line and environment, and is tied to the test's process as `ChildProcess` ties
its own. Where tests do not run side by side, as in `make test-long`, each is begun by its command, as a user begins it.
"""

from __future__ import annotations

import atexit
import ctypes
import multiprocessing
import os
import runpy
import signal
import sys
from collections.abc import Mapping, Sequence
from contextlib import suppress
from multiprocessing.context import ForkServerContext
from pathlib import Path
from typing import Final

from workers.stack.launch import PR_SET_PDEATHSIG
from workers.stack.processes import ChildProcess

PARALLEL: Final = "PYTEST_XDIST_WORKER"
LIBRARIES: Final = ("celery.bin.celery", "celery.worker", "celery.concurrency.prefork", "flower.app", "httpx", "redbeat")


def fresh_processes() -> ForkServerContext:
    """Where to begin processes that inherit nothing of the test's: no connection, no lock, no changed class."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([*LIBRARIES, "pipeline.cache"])
    return context


def start_celery(command: Sequence[str], *, log: Path, environ: Mapping[str, str], directory: Path) -> Program:
    """Start `python -m celery ...`."""
    # gevent patches what is imported after it.
    if PARALLEL not in os.environ or "--pool=gevent" in command or list(command[1:3]) != ["-m", "celery"]:
        return ChildProcess(command, log=log, environ=environ, directory=directory)
    return ForkedProcess(command[3:], log=log, environ=environ, directory=directory)


class ForkedProcess:
    """What `ChildProcess` is, by the same names."""

    def __init__(self, arguments: Sequence[str], *, log: Path, environ: Mapping[str, str], directory: Path) -> None:
        self.log = log
        self._process = fresh_processes().Process(
            target=_become_celery, args=(list(arguments), str(log), dict(environ), str(directory)), daemon=True
        )
        self._process.start()

    @property
    def pid(self) -> int:
        pid = self._process.pid
        assert pid is not None
        return pid

    @property
    def exit_code(self) -> int | None:
        return self._process.exitcode

    def send_signal(self, number: signal.Signals) -> None:
        if self.exit_code is None:
            with suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def wait(self, timeout_s: float) -> bool:
        self._process.join(timeout_s)
        return self.exit_code is not None

    def kill(self) -> None:
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(self.pid, signal.SIGKILL)
        self.send_signal(signal.SIGKILL)  # before it has a session of its own
        self._process.join()

    def stop(self, grace_s: float) -> bool:
        self.send_signal(signal.SIGTERM)
        ended = self.wait(grace_s)
        self.kill()
        return ended


Program = ChildProcess | ForkedProcess


def _become_celery(arguments: list[str], log: str, environ: dict[str, str], directory: str) -> None:
    os.setsid()
    multiprocessing.current_process().name = "MainProcess"  # as logs name it
    ctypes.CDLL(None, use_errno=True).prctl(PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    for standard in (1, 2):
        os.dup2(descriptor, standard)
    os.close(descriptor)
    os.chdir(directory)
    os.environ.clear()
    os.environ.update(environ)
    installed = [path for path in sys.path if Path(path).is_relative_to(sys.prefix) or Path(path).is_relative_to(sys.base_prefix)]
    sys.path[:] = [directory, *filter(None, environ.get("PYTHONPATH", "").split(os.pathsep)), *installed]
    sys.argv = ["celery", *arguments]
    for name in [name for name in sys.modules if name.partition(".")[0] == "workers"]:  # it came with this module
        del sys.modules[name]
    try:
        runpy.run_module("celery", run_name="__main__", alter_sys=True)
    finally:
        atexit._run_exitfuncs()
