"""The app of nodes whose main process writes down the longest pause of its loop to the file `PACE_IN`: in ms, and in ms of its
own work, which a busy machine does not lengthen. It begins anew when that file is removed."""

from __future__ import annotations

import os
import time
from pathlib import Path
from typing import Any, Final

from celery import bootsteps

from workers.app import app

EVERY_S: Final = 0.002


class Pace(bootsteps.StartStopStep):
    """A timer of the loop: what holds the loop up is late by as much."""

    requires = ("celery.worker.consumer.events:Events",)

    def start(self, c: Any) -> None:
        path = Path(os.environ["PACE_IN"])
        last = (time.perf_counter(), time.thread_time())
        longest = [0.0, 0.0]

        def tick() -> None:
            nonlocal last, longest
            now = (time.perf_counter(), time.thread_time())
            pause = [(at_s - before_s) * 1000 for at_s, before_s in zip(now, last, strict=True)]
            last = now
            found = [max(known, new) for known, new in zip(longest, pause, strict=True)]
            if not path.exists():
                longest = [0.0, 0.0]
                path.write_text("0 0")
            elif found != longest:
                longest = found
                path.write_text(" ".join(f"{each:.1f}" for each in found))

        c.timer.call_repeatedly(EVERY_S, tick)


app.steps["consumer"].add(Pace)

__all__ = ["app"]
