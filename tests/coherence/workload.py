"""A workload: several real processes, a server, and what goes wrong with them."""

from __future__ import annotations

import os
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from coherence.checker import Report, check
from coherence.faults import HARSH, Faults
from coherence.history import read_history
from coherence.network import Network
from coherence.settings import ProcessSettings, encode_settings
from coherence.source import Source
from coherence.succession import Succession

from pipeline.cache.coherence.node import QUIET_S
from workers.stack.processes import ChildProcess

START_TIMEOUT_S: Final = 30.0
AUDITOR: Final = "auditor"
"""Among the rules that end a run: the auditor has reported a stale serve."""
_LOOK_EVERY_S: Final = 0.4
_TESTS: Final = Path(__file__).parent.parent


@dataclass(frozen=True)
class Shape:
    """A program: its kind, how many workers it has, how many records the log keeps when it appends, how many entries its L1."""

    kind: str
    workers: int
    max_records: int = 100_000
    l1_size: int = 100
    far: bool = False
    loose: bool = False
    listens: bool = False
    pauses_s: tuple[float, ...] = (0.004,)
    weights: Mapping[str, int] = field(default_factory=dict)


SHAPES: Final = {
    "prefork": Shape("prefork", 2, max_records=24, far=True),
    "threads": Shape("threads", 4),
    "far": Shape("lone", 1, far=True),
    "small": Shape("lone", 4, max_records=24, l1_size=6),
    "loose": Shape("lone", 3, loose=True, weights={"ahead": 12, "another": 12, "respond": 8}),
    "newcomer": Shape("newcomer", 1, weights={"invalidate": 60, "flood": 20}),
}


@dataclass(frozen=True)
class Workload:
    """`steps`: of all workers together, at least; it goes on for `seconds` at least. `pause_s`: between faults, on average; 0 for
    none. `faults`: how often each happens. `latency_s`: one way, at most, of those programs that are far from the server.
    `long_log`: it is not trimmed. `mutant_in`: the one program that is the mutant; empty: all are. `program`: the module that is
    run as its processes. For the rest see ProcessSettings."""

    seed: int
    steps: int = 0
    seconds: float = 0.0
    bound_s: float = 0.3
    pause_s: float = 0.15
    faults: Mapping[str, int] = field(default_factory=lambda: HARSH)
    latency_s: float = 0.0
    switch_s: float = 0.0
    retry_s: float = 0.05
    quiet_s: float = QUIET_S
    flood: int = 0
    long_log: bool = False
    break_off_s: float = 0.0
    chains: bool = False
    lost_excused: bool = False
    weights: Mapping[str, int] = field(default_factory=dict)
    shapes: Mapping[str, Shape] = field(default_factory=lambda: SHAPES)
    freezes: frozenset[str] = frozenset()
    mutant: str = ""
    mutant_in: str = ""
    audit_per_s: float = 0.0
    audit_every_s: float = 0.25
    burst: int = 0
    program: str = "coherence.process"
    awaits: str = ""

    def run(self, keep: Path | None = None, *, until: frozenset[str] = frozenset()) -> Report:
        """Run a workload. Returns the counts of its history. `keep`: a place to keep the history for a look into it. `until`: the
        run ends as soon as one of these rules is broken."""
        directory = Path(tempfile.mkdtemp(prefix="coherence-"))  # short: a socket's path has 107 bytes
        try:
            with Succession() as servers, Network(servers.port, self.seed) as network:
                whole = self._run(servers, network, directory, until)
            if keep is not None:
                shutil.copytree(directory, keep, dirs_exist_ok=True, ignore=shutil.ignore_patterns("*.socket"))
            report = self._report(directory)
            if not whole:  # the records made by then are not all written down
                report.violations = [violation for violation in report.violations if violation.rule != "value"]
            return report
        finally:
            shutil.rmtree(directory, ignore_errors=True)

    def _report(self, directory: Path) -> Report:
        return check(read_history(directory), self.bound_s, lost_excused=self.lost_excused)

    @property
    def _freezable(self) -> int:
        """How many processes there are, each with a file in `pids`: a node's main process and its children, one of the others."""
        counts = {"prefork": 1, "threads": 1, "lone": 1, "newcomer": 0}
        return sum(counts[shape.kind] + shape.workers * (shape.kind == "prefork") for shape in self.shapes.values())

    def _run(self, servers: Succession, network: Network, directory: Path, until: frozenset[str]) -> bool:
        """Whether it went on to its end."""
        (directory / "pids").mkdir()
        Source.create(directory / "versions")
        programs = self._programs(servers, network, directory)
        environ = dict(os.environ) | {"PYTHONPATH": os.pathsep.join((str(_TESTS.parent), str(_TESTS)))}  # the tree under test
        processes = ChildProcess(
            [sys.executable, "-m", self.program],
            log=directory / "log",
            environ=environ,
            directory=_TESTS,
            stdin=encode_settings(programs),
        )
        try:
            _wait_until(lambda: len(list((directory / "pids").iterdir())) == self._freezable, processes)
            programs[0].go.touch()
            faults = Faults(
                self.faults,
                seed=self.seed,
                pause_s=self.pause_s,
                bound_s=self.bound_s,
                servers=servers,
                network=network,
                directory=directory,
                freezes=self.freezes,
            )
            look_at_s = time.monotonic() + _LOOK_EVERY_S
            try:
                while list((directory / "pids").iterdir()):
                    faults.turn()
                    _raise_for_ended(processes)
                    if until and time.monotonic() >= look_at_s:
                        report = self._report(directory)
                        if until & report.rules or (AUDITOR in until and report.audits.stale):
                            return False
                        look_at_s = time.monotonic() + _LOOK_EVERY_S
            finally:
                faults.close()
            programs[0].go.unlink()
            if not processes.wait(START_TIMEOUT_S):
                raise AssertionError(f"the newcomer does not end:\n{processes.log.read_text()[-12000:]}")
            _raise_for_ended(processes)
            return True
        finally:
            processes.kill()

    def _programs(self, servers: Succession, network: Network, directory: Path) -> list[ProcessSettings]:
        near = servers.server.url
        far = near.replace(f":{servers.port}/", f":{network.way(self.latency_s)}/")
        nodes = {
            name: directory / f"{name}.socket" for name, shape in self.shapes.items() if shape.kind in ("prefork", "threads")
        }
        workers = sum(shape.workers for shape in self.shapes.values() if shape.kind != "newcomer")
        return [
            ProcessSettings(
                name=name,
                kind=shape.kind,
                workers=shape.workers,
                seed=self.seed * 10_000 + 1_000 * number,
                directory=directory,
                redis_url=far if shape.far else near,
                nodes=nodes,
                steps=-(-self.steps // workers),
                seconds=self.seconds,
                bound_s=self.bound_s,
                max_records=100_000 if self.long_log else shape.max_records,
                l1_size=shape.l1_size,
                loose=shape.loose,
                listens=shape.listens,
                switch_s=self.switch_s,
                retry_s=self.retry_s,
                quiet_s=self.quiet_s,
                flood=self.flood,
                break_off_s=self.break_off_s,
                chains=self.chains,
                pauses_s=shape.pauses_s,
                weights=dict(self.weights) | dict(shape.weights),
                mutant=self.mutant if self.mutant_in in ("", name) else "",
                audit_per_s=self.audit_per_s,
                audit_every_s=self.audit_every_s,
                burst=self.burst,
                awaits=self.awaits,
            )
            for number, (name, shape) in enumerate(self.shapes.items())
        ]


def _wait_until(ready: Callable[[], bool], processes: ChildProcess) -> None:
    deadline_s = time.monotonic() + START_TIMEOUT_S
    while not ready():
        _raise_for_ended(processes)
        if time.monotonic() > deadline_s:
            raise AssertionError(f"the workload did not start within {START_TIMEOUT_S:g} s")
        time.sleep(0.01)


def _raise_for_ended(processes: ChildProcess) -> None:
    if processes.exit_code:
        raise AssertionError(f"a process ended with {processes.exit_code}:\n{processes.log.read_text()[-12000:]}")
