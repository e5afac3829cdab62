"""Child processes that never outlive the process that started them."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from functools import lru_cache
from pathlib import Path
from typing import Final

LAUNCHER: Final = Path(__file__).with_name("launch.py")


class ChildProcess:
    """A running child in a session of its own: the terminal's Ctrl-C does not reach it.

    On Linux the kernel kills it when this process dies, however that happens. Its output goes to the file `log`.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        log: Path,
        environ: Mapping[str, str] | None = None,
        directory: Path | None = None,
        stdin: str = "",
    ) -> None:
        self.log = log
        self._popen = _in_lasting_thread(lambda: _popen(command, log, environ, directory, bool(stdin)))
        if self._popen.stdin is not None:
            with suppress(BrokenPipeError), self._popen.stdin as pipe:  # it died at once: `exit_code` tells
                pipe.write(stdin.encode())

    @property
    def pid(self) -> int:
        return self._popen.pid

    @property
    def exit_code(self) -> int | None:
        """None while it runs; negative: the signal that ended it."""
        return self._popen.poll()

    def send_signal(self, number: signal.Signals) -> None:
        """Signals the child alone, not its children. Nothing happens if it has ended."""
        self._popen.send_signal(number)

    def wait(self, timeout_s: float) -> bool:
        """Wait for its end. Returns whether it ended within that time."""
        try:
            self._popen.wait(timeout_s)
        except subprocess.TimeoutExpired:
            return False
        return True

    def kill(self) -> None:
        """End it and every process that it started in its session. Returns when all are gone; may be called again."""
        with suppress(ProcessLookupError, PermissionError):  # the group is empty, or (macOS) holds only zombies
            os.killpg(self.pid, signal.SIGKILL)
        self._popen.wait()

    def stop(self, grace_s: float) -> bool:
        """TERM, then KILL after `grace_s`. Returns whether it ended by itself."""
        self.send_signal(signal.SIGTERM)
        ended = self.wait(grace_s)
        self.kill()  # even if it ended: it may have left children of its own
        return ended


def _popen(
    command: Sequence[str], log: Path, environ: Mapping[str, str] | None, directory: Path | None, with_stdin: bool
) -> subprocess.Popen[bytes]:
    launch = [sys.executable, "-I", "-S", str(LAUNCHER), str(os.getpid()), *command]
    descriptor = os.open(log, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o600)
    try:
        return subprocess.Popen(  # noqa: S603 - the commands are this package's own
            launch,
            stdin=subprocess.PIPE if with_stdin else subprocess.DEVNULL,
            stdout=descriptor,
            stderr=descriptor,
            cwd=directory,
            env=environ,
            start_new_session=True,
        )
    finally:
        os.close(descriptor)


def _in_lasting_thread(start: Callable[[], subprocess.Popen[bytes]]) -> subprocess.Popen[bytes]:
    """Linux ties a child to the *thread* that started it: take one that lasts as long as the process."""
    if threading.current_thread() is threading.main_thread():
        return start()
    return _spawner(os.getpid()).submit(start).result()


@lru_cache(maxsize=1)
def _spawner(_pid: int) -> ThreadPoolExecutor:
    """One for each process: a forked child inherits the object but not its thread."""
    return ThreadPoolExecutor(max_workers=1, thread_name_prefix="spawner")
