"""Real beats over a real fleet: killed, frozen and two at a time, each slot of the schedule runs once."""

from __future__ import annotations

import signal
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest
from beats import INTERVAL_S, LATE_S, LOCK_S, LOOP_S, OFTEN, SOONEST_S, Beat, gaps, more_runs, runs
from fleet import Fleet
from polling import until

from pipeline.settings import load_settings
from workers.queue.celery_settings import celery_settings

CELERY = celery_settings(load_settings({}))


@pytest.fixture
def fleet() -> Iterator[Fleet]:
    with Fleet(concurrency=1, environ=OFTEN) as fleet:
        yield fleet


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
