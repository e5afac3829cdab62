"""Clocks that are wrong, tasks that take long, and beats that die."""

from __future__ import annotations

import shutil
import tempfile
from collections import Counter
from contextlib import ExitStack
from pathlib import Path
from typing import Final

from beats import INTERVAL_S, LATE_S, LOCK_S, LOOP_S, OFTEN, SOONEST_S, Beat, gaps, more_runs, runs
from fleet import ROOT, Fleet
from noted_tasks import RUNS
from polling import until
from sender import Sender

from reliability.bench import Bench
from reliability.result import Result, Row, Say

HOUR_S: Final = 3600
LONG_S: Final = 15.0
"""A node that is silent for 10 s is taken for dead."""
_SKEWED: Final = """
import os, time
_right, _skew_s = time.time, float(os.environ["SKEW_S"])
time.time = lambda: _right() + _skew_s
"""


def clocks(trials: int, say: Say) -> Result:
    """One node is an hour ahead, one an hour behind, one is right; connections break, so that messages are given back."""
    folder = Path(tempfile.mkdtemp(prefix="clock-"))
    (folder / "sitecustomize.py").write_text(_SKEWED)
    path = f"{folder}:{ROOT}:{ROOT / 'tests'}"
    each = [{"PYTHONPATH": path, "SKEW_S": str(skew_s)} for skew_s in (HOUR_S, -HOUR_S, 0)]

    def break_off(bench: Bench) -> None:
        for client in bench.fleet.queue.client_list():
            if client["name"] == "persona-worker":
                bench.fleet.queue.client_kill_filter(_id=client["id"])

    try:
        with Bench(say, nodes=3, each=each) as bench:
            return bench.befall("clocks", trials, break_off)
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def long_tasks(trials: int, say: Say) -> Result:
    """Each runs once, though it takes longer than a node may be silent."""
    with Fleet(app="fetch_tasks", pool="threads", concurrency=trials, nodes=2) as fleet, Sender.of(fleet) as sender:
        ids = [sender.send("test.nap", f"{trial}", LONG_S) for trial in range(trials)]
        say(f"long tasks: {trials} at once, {LONG_S:g} s each")
        sender.wait(ids, bound_s=LONG_S * 4)
        until(lambda: fleet.claimed() == 0, "all are acknowledged")
        counts = Counter(fleet.queue.lrange(RUNS, 0, -1))
        again = sum(count > 1 for count in counts.values())
        problems = (f"{again} ran twice",) if again else ()
        return Result(trials, trials, lost=trials - sender.done(ids), twice=again, problems=problems)


def beats(trials: int, say: Say) -> Result:
    """Three beats: one leads, and is killed, or stands still until another one leads."""
    with Fleet(concurrency=1, environ=OFTEN) as fleet, ExitStack() as stack:
        there = [stack.enter_context(Beat(fleet, quiet=True)) for _ in range(3)]
        more_runs(fleet, 2)
        for trial in range(1, trials + 1):
            if trial % 5 == 1 or trial == trials:
                say(f"beats: {trial} of {trials}")
            until(lambda: any(beat.leads for beat in there), "one leads", bound_s=60)
            more_runs(fleet, 1)
            leader = next(beat for beat in there if beat.leads)
            there.remove(leader)
            leader.process.kill()
            there.append(stack.enter_context(Beat(fleet, quiet=True)))
        until(lambda: any(beat.leads for beat in there), "one leads", bound_s=60)
        more_runs(fleet, 2)
        between = gaps(fleet)
        slots = len(runs(fleet))
        most_s = LOCK_S + LOOP_S + INTERVAL_S + LATE_S
        twice = sum(gap < SOONEST_S * INTERVAL_S for gap in between)
        missed = sum(gap > most_s for gap in between)
        problems = (f"{missed} gaps of more than {most_s:g} s, {max(between):.1f} s at most",) if missed else ()
        return Result(trials, slots, twice=twice, more={"gap_max_s": max(between)}, problems=problems)


ROWS: Final = (
    Row(
        "clocks",
        (12,),
        "clocks an hour ahead and behind; connections break",
        clocks,
        stock="runs it again",
    ),
    Row(
        "long-tasks",
        (12,),
        f"tasks of {LONG_S:g} s on nodes that may be silent for 10 s",
        long_tasks,
        stock="runs it again after its time-out",
    ),
    Row("beats", (28,), "the leading beat is killed", beats, stock="two beats send each slot twice"),
)
