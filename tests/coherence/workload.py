"""A workload: several real processes, a server, and what goes wrong with them."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from coherence.checker import Report, check
from coherence.history import Fault, Journal, now_ns, read_history
from coherence.settings import ProcessSettings, encode_settings
from coherence.source import Source
from servers import ValkeyServer

from pipeline.cache.keys import KeySpace
from workers.stack.processes import ChildProcess

START_TIMEOUT_S: Final = 30.0
_TESTS: Final = Path(__file__).parent.parent
_NAMESPACE: Final = "coherence"


@dataclass(frozen=True)
class Workload:
    """`steps` each of its seven workers takes (two children that follow each other count as one), and goes on for `seconds`
    at least. `pause_s`: between faults, on average; 0 for none. `gentle`: only faults that leave the log as it is."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    bound_s: float = 0.3
    pause_s: float = 0.15
    gentle: bool = False
    mutant: str = ""

    def run(self, keep: Path | None = None) -> Report:
        """What its history shows. `keep`: where the history is to stay, for who wants to look into it."""
        directory = Path(tempfile.mkdtemp(prefix="coherence-"))  # short: a socket's path has 107 bytes
        try:
            with ValkeyServer(keep_on_disk=True) as server:
                self._run(server, directory)
            if keep is not None:
                shutil.copytree(directory, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.socket"))
            return check(read_history(directory), self.bound_s)
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _run(self, server: ValkeyServer, directory: Path) -> None:
        (directory / "pids").mkdir()
        Source.create(directory / "versions")
        programs = self._programs(server, directory)
        with _running(programs) as processes:
            _wait_until(lambda: len(list((directory / "pids").iterdir())) == 6, processes)
            (directory / "go").touch()
            faults = Faults(self, server, directory)
            try:
                while any(process.exit_code is None for process in processes):
                    faults.turn()
                    _raise_for_ended(processes)
            finally:
                faults.close()

    def _programs(self, server: ValkeyServer, directory: Path) -> list[ProcessSettings]:
        nodes = {"prefork": directory / "prefork.socket", "threads": directory / "threads.socket"}
        # Kind, workers, records of the log that it keeps when it appends, entries of L1.
        shapes = {
            "prefork": ("prefork", 2, 24, 100),
            "threads": ("threads", 2, 1000, 100),
            "lone": ("lone", 1, 1000, 100),
            "small": ("lone", 2, 24, 6),
        }
        return [
            ProcessSettings(
                name=name,
                kind=kind,
                workers=workers,
                seed=self.seed * 10_000 + 1_000 * number,
                directory=directory,
                redis_url=server.url,
                namespace=_NAMESPACE,
                nodes=nodes,
                steps=self.steps,
                seconds=self.seconds,
                bound_s=self.bound_s,
                max_records=1000 if self.gentle else max_records,
                l1_size=l1_size,
                mutant=self.mutant,
            )
            for number, (name, (kind, workers, max_records, l1_size)) in enumerate(shapes.items())
        ]


class Faults:
    """What goes wrong, in an order that the seed decides. Not thread-safe."""

    def __init__(self, workload: Workload, server: ValkeyServer, directory: Path) -> None:
        self._rng = random.Random(workload.seed)
        self._pause_s = workload.pause_s
        self._bound_s = workload.bound_s
        self._server = server
        self._pids = directory / "pids"
        self._journal = Journal(directory, "faults")
        self._keys = KeySpace(_NAMESPACE)
        self._client = server.client(socket_timeout=2.0)
        self._frozen: dict[int, float] = {}
        self._faults: dict[Callable[[], None], int] = {self._freeze: 8, self._freeze_server: 1}
        if not workload.gentle:
            self._faults |= {
                self._evict_records: 2,
                self._evict_tail: 1,
                self._evict_entries: 2,
                self._trim: 2,
                self._flush: 2,
                self._restart_with_all: 1,
                self._restart_empty: 1,
            }

    def turn(self) -> None:
        """Wait a while, thaw who is due, and let the next thing go wrong."""
        time.sleep(self._rng.uniform(0, 2 * self._pause_s) if self._pause_s else 0.05)
        now_s = time.monotonic()
        for pid in [pid for pid, until_s in self._frozen.items() if until_s <= now_s]:
            self._thaw(pid)
        if self._pause_s:
            fault = self._rng.choices(list(self._faults), list(self._faults.values()))[0]
            self._journal.note(Fault(fault.__name__.lstrip("_"), now_ns()))
            fault()

    def close(self) -> None:
        for pid in list(self._frozen):
            self._thaw(pid)
        self._client.close()
        self._journal.flush()

    def _freeze(self) -> None:
        """One process, any: a child, a main process, a lone one; from a moment to four times the staleness bound."""
        pids = sorted(int(path.name) for path in self._pids.iterdir())
        awake = [pid for pid in pids if pid not in self._frozen]
        if awake and len(self._frozen) < 2:
            pid = self._rng.choice(awake)
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGSTOP)
                self._frozen[pid] = time.monotonic() + self._rng.uniform(0.1, 4.0) * self._bound_s

    def _thaw(self, pid: int) -> None:
        del self._frozen[pid]
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)

    def _freeze_server(self) -> None:
        """Beyond the time-out of a call."""
        self._server.freeze()
        time.sleep(0.35)
        self._server.thaw()

    def _evict_records(self) -> None:
        self._client.delete(self._keys.records)

    def _evict_tail(self) -> None:
        self._client.delete(self._keys.tail)

    def _evict_entries(self) -> None:
        for name in list(self._client.scan_iter(match=self._keys.entries_matching("*"), count=1000)):
            if self._rng.random() < 0.5:
                self._client.delete(name)

    def _trim(self) -> None:
        """As if all that the log holds now were older than the longest TTL: the next append cuts it off."""
        tail = self._client.get(self._keys.tail)
        if isinstance(tail, bytes):
            self._client.zadd(self._keys.marks, {tail.split(b":")[1]: 1})

    def _flush(self) -> None:
        self._client.flushall()

    def _restart_with_all(self) -> None:
        self._server.stop()
        self._server.start()

    def _restart_empty(self) -> None:
        self._server.stop()
        shutil.rmtree(self._server.directory / "appendonlydir")
        self._server.start()


@contextmanager
def _running(programs: list[ProcessSettings]) -> Iterator[list[ChildProcess]]:
    environ = dict(os.environ) | {"PYTHONPATH": str(_TESTS)}
    processes: list[ChildProcess] = []
    try:
        for program in programs:
            command = [sys.executable, "-m", "coherence.process"]
            log = program.directory / f"{program.name}.log"
            told = encode_settings(program)
            processes.append(ChildProcess(command, log=log, environ=environ, directory=_TESTS, stdin=told))
        yield processes
    finally:
        for process in processes:
            process.kill()


def _wait_until(ready: Callable[[], bool], processes: list[ChildProcess]) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not ready():
        _raise_for_ended(processes)
        if time.monotonic() > deadline_s:
            raise AssertionError(f"the workload did not start within {START_TIMEOUT_S:g} s")
        time.sleep(0.01)


def _raise_for_ended(processes: list[ChildProcess]) -> None:
    for process in processes:
        if process.exit_code:
            raise AssertionError(f"a process ended with {process.exit_code}:\n{process.log.read_text()[-4000:]}")
