"""A fleet to be measured: servers and nodes of its own, on loopback, as children of this process."""

from __future__ import annotations

import itertools
import os
import shutil
import socket
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from types import TracebackType
from typing import Final, Literal, Self

from benchmarks.kit.errors import BenchmarkFailedError
from benchmarks.kit.nodes import node_command, own_environment
from pipeline.discovery import STACK_DIR
from pipeline.settings import PREFIX, Settings, load_settings
from workers.stack import Stack, StackOptions
from workers.stack.processes import ChildProcess
from workers.stack.readiness import worker_is_ready

Pool = Literal["prefork", "threads"]

APP: Final = "benchmarks.kit.fleet_app"
READY_TIMEOUT_S: Final = 60.0
CACHE_MEMORY: Final = "1gb"  # a million small entries take some 160 MB: none may be evicted
LOG_TAIL_LINES: Final = 15
POLL_S: Final = 0.02


class Fleet:
    """`with Fleet(...) as fleet:` starts a broker, a cache's server and the nodes; on the way out all are ended.

    The user's own settings do not count, nor does a stack that runs here. In between, stop signals raise as in `Stack`.
    On Linux no process outlives this one, however it ends.
    """

    def __init__(
        self,
        progress: Callable[[str], None],
        *,
        nodes: int,
        children: int,
        pool: Pool = "prefork",
        app: str = APP,
        environ: Mapping[str, str] | None = None,
        broker_url: str = "",
    ) -> None:
        """`children`: processes or threads of a node's pool. `app`: the app of its nodes. `environ`: further variables of the
        nodes, such as a model's; `settings` has them, too. `broker_url`: a server of the caller's, in the place of one of the
        fleet's own."""
        self.nodes, self.children_per_node = nodes, children
        self._broker_url = broker_url
        self._numbers = itertools.count(1)
        self._progress = progress
        self._pool, self._app, self._extra = pool, app, dict(environ or {})
        self._resources = ExitStack()
        self._processes: dict[str, ChildProcess] = {}

    @property
    def children(self) -> int:
        """The pool children of all nodes together."""
        return self.nodes * self.children_per_node

    @property
    def pids(self) -> list[int]:
        """The main processes of the nodes."""
        return [process.pid for process in self._processes.values()]

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._resources.close()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._resources.close()

    def stop_nodes(self) -> None:
        """End the nodes at once and keep the servers. May be called again."""
        for process in self._processes.values():
            process.kill()
        self._processes.clear()

    def kill_node(self, name: str) -> int:
        """End a node at once with its children, as the machine's end does, and forget it. Returns its main process's id."""
        process = self._processes.pop(name)
        self.nodes -= 1
        process.kill()
        return process.pid

    def start_node(self) -> str:
        """Start one more node. Returns its name at once: it works some seconds later."""
        name = self._start_node()
        self.nodes += 1
        return name

    def pid_of(self, name: str) -> int:
        """The id of a node's main process, and of the process group of its children."""
        return self._processes[name].pid

    def ended(self) -> list[str]:
        """The nodes that have ended by themselves, and are not forgotten."""
        return [name for name, process in self._processes.items() if process.exit_code is not None]

    def await_(self, condition: Callable[[], bool], what: str, *, timeout_s: float) -> None:
        """Poll until the condition holds. Raises BenchmarkFailedError when it does not in time, or when a node has ended."""
        deadline_s = time.monotonic() + timeout_s
        while not condition():
            self.check()
            if time.monotonic() > deadline_s:
                raise BenchmarkFailedError([f"not within {timeout_s:g} s: {what}"])
            time.sleep(POLL_S)

    def check(self) -> None:
        """Raise BenchmarkFailedError if a node has ended."""
        for name, process in self._processes.items():
            if process.exit_code is not None:
                raise BenchmarkFailedError(
                    [f"{name} ended with {process.exit_code}; the end of its log:", *self.last_words(name)]
                )

    def last_words(self, name: str) -> list[str]:
        """The last lines of a node's log."""
        return self._processes[name].log.read_text(encoding="utf-8", errors="replace").splitlines()[-LOG_TAIL_LINES:]

    def _start(self) -> None:
        folder = Path(tempfile.mkdtemp(prefix="persona-bench-"))
        self._resources.callback(shutil.rmtree, folder, ignore_errors=True)
        environ = own_environment()
        given = {**environ, "PERSONA_BROKER_URL": self._broker_url} if self._broker_url else environ
        options = StackOptions(services=("broker", "cache"), directory=folder / "stack", environ=given, cache_memory=CACHE_MEMORY)
        stack = self._resources.enter_context(Stack(options, self._progress))
        self._resources.callback(self.stop_nodes)
        self.servers = {service.name: service.pid for service in stack.info.services}
        self.environment = {**stack.info.environment, STACK_DIR: str(folder / "stack"), **self._extra}
        self.settings: Settings = load_settings(
            {name: value for name, value in self.environment.items() if name.startswith(PREFIX)}
        )
        self.folder = folder
        self._memory = _memory_folder(folder, self._resources)
        # The temporary files of a killed node go with this folder.
        self._of_nodes = {**environ, **self.environment, "TMPDIR": str(folder)}
        planned, self.nodes = self.nodes, 0
        if planned:
            self.add_nodes(planned)

    def add_nodes(self, count: int) -> None:
        """Start `count` more nodes; return when they work. Raises BenchmarkFailedError if one does not."""
        names = [self._start_node() for _ in range(count)]
        for name in names:
            self.await_(
                lambda: worker_is_ready(self.settings.broker_url, name),  # noqa: B023 - called before `name` changes
                f"{name} answers",
                timeout_s=READY_TIMEOUT_S,
            )
        self.nodes += count
        self._progress(f"fleet: {self.nodes} nodes with {self.children_per_node} pool children each are ready")

    def start(self, name: str, command: Sequence[str]) -> ChildProcess:
        """A further program, with the nodes' variables. It ends with the fleet at the latest."""
        process = self._spawn(name, command)
        self._resources.callback(process.kill)
        return process

    def new_file(self, name: str) -> Path:
        """A path for memory that processes share: in a file system without a disk to wait for, where there is one."""
        return self._memory / name

    def _start_node(self) -> str:
        name = f"bench{next(self._numbers)}@{socket.gethostname()}"
        command = node_command(name, pool=self._pool, concurrency=self.children_per_node, app=self._app)
        self._processes[name] = self._spawn(name, command)  # `stop_nodes` ends it
        return name

    def _spawn(self, name: str, command: Sequence[str]) -> ChildProcess:
        return ChildProcess(
            command,
            log=self.folder / f"{name}.log",
            environ=self._of_nodes,
            directory=self.folder,  # no file of the user's directory is imported
        )


def _memory_folder(folder: Path, resources: ExitStack) -> Path:
    shared_memory = Path("/dev/shm")  # noqa: S108 - a directory of our own is made in it, with a name that cannot be guessed
    if not os.access(shared_memory, os.W_OK):
        return folder
    made = Path(tempfile.mkdtemp(prefix=f"{folder.name}-", dir=shared_memory))  # whose it is can be told
    resources.callback(shutil.rmtree, made, ignore_errors=True)
    return made
