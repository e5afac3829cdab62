"""A server that keeps its data on disk, and may be stopped and started on the same port."""

from __future__ import annotations

import shutil
import signal
import tempfile
import time
from pathlib import Path
from types import TracebackType
from typing import Final, Self

import redis

from benchmarks.kit.errors import BenchmarkFailedError
from workers.stack.processes import ChildProcess
from workers.stack.servers.ports import choose_ports
from workers.stack.servers.valkey_server import answers, server_command, server_config, server_url

START_TIMEOUT_S: Final = 20.0
STOP_S: Final = 10.0
POLL_S: Final = 0.01


class DiskServer:
    """`with DiskServer() as server:` on 127.0.0.1, as the stack's broker is set up. It ends with this process."""

    def __init__(self) -> None:
        self._folder = Path(tempfile.mkdtemp(prefix="persona-bench-"))
        port = choose_ports({"broker": None})["broker"]
        self.url = server_url(port=port)
        self._config = server_config(directory=self._folder, port=port, keep_on_disk=True)
        self._process: ChildProcess | None = None

    def start(self) -> None:
        """Return when it answers. Raises BenchmarkFailedError when it does not."""
        self._process = ChildProcess(server_command(), log=self._folder / "log", directory=self._folder, stdin=self._config)
        deadline_s = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            if self._process.exit_code is not None or time.monotonic() > deadline_s:
                raise BenchmarkFailedError(["the broker's server did not start"])
            time.sleep(POLL_S)

    def stop(self) -> None:
        """In order (TERM), as an administrator restarts a server."""
        if self._process is not None:
            self._process.stop(STOP_S)
            self._process = None

    def kill(self) -> None:
        """At once, as a crash does."""
        if self._process is not None:
            self._process.kill()
            self._process = None

    def freeze(self) -> None:
        """Connections stay open and take bytes, but nothing is answered until `thaw`."""
        if self._process is not None:
            self._process.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        if self._process is not None:
            self._process.send_signal(signal.SIGCONT)

    def command(self, *words: str) -> None:
        with redis.Redis.from_url(self.url) as client:
            client.execute_command(*words)

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self._close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._close()

    def _close(self) -> None:
        if self._process is not None:
            self._process.kill()
        shutil.rmtree(self._folder, ignore_errors=True)
