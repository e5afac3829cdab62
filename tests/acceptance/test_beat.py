"""Real beats over a real fleet: killed, frozen and two at a time, each slot of the schedule runs once."""

from __future__ import annotations

import re
import shutil
import signal
import sys
import tempfile
from collections.abc import Iterator
from datetime import datetime
from itertools import pairwise
from pathlib import Path
from types import TracebackType
from typing import Self

import pytest
from fleet import ROOT, Fleet
from polling import until

from benchmarks.kit.nodes import own_environment
from pipeline.settings import load_settings
from workers.queue.celery_settings import celery_settings
from workers.stack.processes import ChildProcess

CELERY = celery_settings(load_settings({}))

INTERVAL_S = 1.0
LOCK_S = 2
LOOP_S = LOCK_S / 6
LATE_S = 6.0
"""A busy machine's share."""
SOONEST_S = 0.5
"""Two runs that are nearer to each other than this are one slot's: the task lets none be nearer than 0.8."""


class Beat:
    """One `celery -A workers beat`, gone with the block."""

    def __init__(self, fleet: Fleet, *arguments: str) -> None:
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
        sys.stdout.write(self.said)  # shown when the test has failed
        shutil.rmtree(self.directory, ignore_errors=True)


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    settings = {"PERSONA_PRELOAD_INTERVAL_S": str(INTERVAL_S), "PERSONA_BEAT_LOCK_S": str(LOCK_S)}
    with Fleet(concurrency=1, environ=settings) as fleet:
        yield fleet


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


def test_each_slot_runs_once_while_beats_are_killed_and_frozen(fleet: Fleet) -> None:
    """One leads, one is a spare. Whatever happens to the leader, a spare goes on within lock and loop, and no slot runs twice."""
    with Beat(fleet) as first, Beat(fleet) as second:
        more_runs(fleet, 2)
        until(lambda: first.leads or second.leads, "one leads")
        leader, spare = (first, second) if first.leads else (second, first)
        assert not spare.leads
        leader.process.send_signal(signal.SIGKILL)
        until(lambda: spare.leads, "the spare leads")
        more_runs(fleet, 2)
        with Beat(fleet) as third:
            spare.process.send_signal(signal.SIGSTOP)
            until(lambda: third.leads, "the third one leads")
            more_runs(fleet, 1)
            spare.process.send_signal(signal.SIGCONT)
            assert spare.process.wait(10), "one that has lost the lock ends: its supervisor starts it as a spare"
            more_runs(fleet, 2)
    assert min(gaps(fleet)) >= SOONEST_S * INTERVAL_S, gaps(fleet)
    assert max(gaps(fleet)) <= LOCK_S + LOOP_S + INTERVAL_S + LATE_S, gaps(fleet)


def test_each_slot_runs_once_with_two_beats_that_know_nothing_of_each_other(fleet: Fleet) -> None:
    """As Celery's own scheduler has it, which RabbitMQ as broker leaves: the task itself sees that the slot is taken."""

    def own_schedule(folder: Path, name: str) -> tuple[str, ...]:
        return "--scheduler=celery.beat.PersistentScheduler", f"--schedule={folder / name}"

    with tempfile.TemporaryDirectory() as folder:
        with Beat(fleet, *own_schedule(Path(folder), "one")) as one, Beat(fleet, *own_schedule(Path(folder), "two")) as two:
            more_runs(fleet, 4)
        sent = sum(beat_log.count("Sending due task cache.preload") for beat_log in (one.said, two.said))
    assert sent > len(runs(fleet))
    assert min(gaps(fleet)) >= SOONEST_S * INTERVAL_S, gaps(fleet)


def test_the_schedule_has_both_tasks_and_no_run_waits_for_longer_than_its_slot() -> None:
    """A worker that was away does not begin with a pile of preloads."""
    assert set(CELERY["beat_schedule"]) == {"cache.preload", "cache.maintain"}
    for name, entry in CELERY["beat_schedule"].items():
        assert entry["task"] == name
        assert entry["options"]["expires"] <= entry["schedule"] == entry["kwargs"]["every_s"]
        assert CELERY["task_routes"][name] == {"queue": "maintenance"}
