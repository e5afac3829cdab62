"""Beats for tests: `celery -A workers beat` beside a fleet, and when what they had done ran."""

from __future__ import annotations

import re
import shutil
import sys
import tempfile
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

from fleet import ROOT, Fleet
from polling import until

from benchmarks.kit.nodes import own_environment
from workers.stack.processes import ChildProcess

INTERVAL_S = 1.0
LOCK_S = 2
LOOP_S = LOCK_S / 6
LATE_S = 6.0
"""A busy machine's share."""
SOONEST_S = 0.5
"""Two runs that are nearer to each other than this are one slot's: the task lets none be nearer than 0.8."""
OFTEN = {"PERSONA_PRELOAD_INTERVAL_S": str(INTERVAL_S), "PERSONA_BEAT_LOCK_S": str(LOCK_S)}


class Beat:
    """One `celery -A workers beat`, gone with the block."""

    def __init__(self, fleet: Fleet, *arguments: str, quiet: bool = False) -> None:
        self._quiet = quiet
        self.directory = Path(tempfile.mkdtemp(prefix="beat-"))
        environ = own_environment()
        self.process = ChildProcess(
            [sys.executable, "-m", "celery", "-A", "workers", "beat", "--pidfile=", "--loglevel=INFO", *arguments],
            log=self.directory / "log",
            environ={**environ, **fleet.environ},
            directory=ROOT,
        )

    @property
    def log(self) -> str:
        return self.process.log.read_text(encoding="utf-8", errors="replace")

    @property
    def leads(self) -> bool:
        return "beat: Acquired lock" in self.log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.process.kill()
        self.said = self.log
        if not self._quiet:
            sys.stdout.write(self.said)  # shown when the test has failed
        shutil.rmtree(self.directory, ignore_errors=True)


def runs(fleet: Fleet) -> list[float]:
    """When the preloads that ran in a slot of their own began, in seconds."""
    found = re.findall(r"^\[(\S+ \S+): INFO/\S+ preload\.done .*took_s=(\S+)$", fleet.node.log(), re.MULTILINE)
    ended = "%Y-%m-%d %H:%M:%S,%f"
    return [datetime.strptime(at, ended).timestamp() - float(took_s) for at, took_s in found]  # noqa: DTZ007 - differences


def more_runs(fleet: Fleet, count: int = 3) -> None:
    enough = len(runs(fleet)) + count
    until(lambda: len(runs(fleet)) >= enough, f"{count} more runs")


def gaps(fleet: Fleet) -> list[float]:
    times = runs(fleet)
    return [later - earlier for earlier, later in pairwise(times)]
