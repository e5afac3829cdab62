"""Real servers for tests: each of its own, on loopback, gone with the test process whatever happens to it."""

from __future__ import annotations

import os
import random
import shutil
import signal
import socket
import tempfile
import time
from collections import Counter
from contextlib import closing
from itertools import cycle, islice
from pathlib import Path
from types import TracebackType
from typing import Any, Self

import redis

from workers.stack.processes import ChildProcess
from workers.stack.servers.valkey_server import HOST, answers, server_command, server_config, server_url

START_TIMEOUT_S = 10.0
_WORKER = int(os.environ.get("PYTEST_XDIST_WORKER", "gw0").removeprefix("gw")) % 8
_SHARE = range(12_000 + 2500 * _WORKER, 12_000 + 2500 * (_WORKER + 1))
"""Below the ports that a system gives by itself (from 32,768 on)."""
_PORTS = islice(cycle(_SHARE), random.SystemRandom().randrange(len(_SHARE)), None)
NO_STACK = "/no/stack/of/the/tests"
"""The value of PERSONA_STACK_DIR for a test that must not find a stack that runs beside the sources."""


def free_port() -> int:
    """A TCP port of the loopback interface without a listener now, which no other worker of the test run is given, nor anyone who
    asks the system for any."""
    for port in _PORTS:
        with closing(socket.socket()) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((HOST, port))
            except OSError:
                continue
            return port
    raise AssertionError("no port is free")


def calls(client: redis.Redis) -> Counter[str]:
    """How often the client's server has run each command, those within scripts included; INFO, by which it is asked, is left
    out."""
    stats: dict[str, Any] = client.info("commandstats")
    return Counter({name.removeprefix("cmdstat_"): int(each["calls"]) for name, each in stats.items() if name != "cmdstat_info"})


class ValkeyServer:
    """A server with faults on a switch. `with ValkeyServer() as server: redis.Redis.from_url(server.url)`.

    It listens on a free port of 127.0.0.1, or on a unix socket. `keep_on_disk=True`: what it holds survives `stop` and
    `start` (and, but for the last second, `kill`); else each start is empty. Any thread may use it, one at a time.
    """

    def __init__(
        self,
        *,
        password: str | None = None,
        unix_socket: bool = False,
        keep_on_disk: bool = False,
        maxmemory: str = "0",
        maxmemory_policy: str = "noeviction",
        port: int | None = None,
    ) -> None:
        # Not pytest's tmp_path: its long names do not fit into the 107 bytes of a unix socket's path.
        self.directory = Path(tempfile.mkdtemp(prefix="valkey-"))
        self.password = password
        self.unix_socket = self.directory / "socket" if unix_socket else None
        self.port = 0 if unix_socket else port or free_port()
        self._config = server_config(
            directory=self.directory,
            port=self.port,
            unix_socket=self.unix_socket,
            password=password,
            keep_on_disk=keep_on_disk,
            maxmemory=maxmemory,
            maxmemory_policy=maxmemory_policy,
        )
        self._child: ChildProcess | None = None

    @property
    def url(self) -> str:
        """Database 0, with the password."""
        return self.url_of(0)

    def url_of(self, database: int) -> str:
        return server_url(port=self.port, unix_socket=self.unix_socket, password=self.password, database=database)

    @property
    def pid(self) -> int:
        assert self._child is not None, "the server is not started"
        return self._child.pid

    @property
    def running(self) -> bool:
        return self._child is not None and self._child.exit_code is None

    def client(self, **options: object) -> redis.Redis:
        """A new client with the strings as bytes, as redis-py gives them; the caller closes it."""
        return redis.Redis.from_url(self.url, **options)

    def start(self) -> Self:
        """Start it, on the same port as before, and return when it answers. Nothing happens if it runs."""
        if self.running:
            return self
        self._child = ChildProcess(server_command(), log=self.directory / "log", directory=self.directory, stdin=self._config)
        deadline = time.monotonic() + START_TIMEOUT_S
        while not answers(self.url):
            if self._child.exit_code is not None or time.monotonic() > deadline:
                self._child.kill()
                raise AssertionError(f"the server did not start:\n{self.log()}")
            time.sleep(0.01)
        return self

    def stop(self) -> None:
        """In order (TERM), also when frozen. Nothing happens if it does not run."""
        if self._child is not None:
            self._child.send_signal(signal.SIGCONT)
            self._child.stop(grace_s=5.0)
            self._child = None

    def kill(self) -> None:
        """At once (KILL), as a crash does. `start` brings it back."""
        if self._child is not None:
            self._child.kill()
            self._child = None

    def freeze(self) -> None:
        """Connections stay open and take bytes, but nothing is answered until `thaw`."""
        assert self._child is not None, "the server is not started"
        self._child.send_signal(signal.SIGSTOP)

    def thaw(self) -> None:
        assert self._child is not None, "the server is not started"
        self._child.send_signal(signal.SIGCONT)

    def log(self) -> str:
        path = self.directory / "log"
        return path.read_text(encoding="utf-8", errors="replace") if path.exists() else ""

    def close(self) -> None:
        """Stop it for good and remove its directory."""
        self.stop()
        shutil.rmtree(self.directory, ignore_errors=True)

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
