"""The processor time of other processes: what work costs, whatever else the machine does meanwhile."""

from __future__ import annotations

import time
from contextlib import suppress

from benchmarks.kit.listening import children_of

_SCHED = 2
"""Linux's number of the clock of a process, below its id: see clock_getcpuclockid(3)."""


def cpu_s_of(pid: int) -> float:
    """Seconds of processor time of a process and of all its living descendants, in user and system. 0 of none."""
    return sum(_cpu_s(each) for each in (pid, *children_of(pid)))


def _cpu_s(pid: int) -> float:
    with suppress(OSError):
        return time.clock_gettime((~pid << 3) | _SCHED)
    return 0.0
