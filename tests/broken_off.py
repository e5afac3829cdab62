"""A change that is broken off, or interrupted by something else, between any two of its steps, as a signal can: a task's time
limit raises out of one, and a handler or finalizer may do whatever it likes."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any

from pipeline.cache.locks import interrupted

UNBROKEN = ("with ", "try:", "finally:")
"""Before these no signal is delivered. Leaving a `with` is its line once more, and the lock's release comes before the next look
for signals; `try` and `finally` do nothing by themselves."""


class BrokenOffError(Exception):
    """The exception that the signal raises."""


def broken_off_at(step: int, call: Callable[[], object], *files: str) -> bool:
    """Run `call` and raise at the `step`th line that it reaches in these files. Returns whether it reached that many, also where
    what is raised goes no further, as in a finalizer that the collector happened to run."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        file = frame.f_code.co_filename
        if not file.endswith(files):
            return None
        if event == "line" and _is_a_step(frame):
            lines += 1
            if lines == step:
                raise BrokenOffError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except BrokenOffError:
        pass
    finally:
        sys.settrace(before)
    return lines >= step


def _is_a_step(frame: FrameType) -> bool:
    return not linecache.getline(frame.f_code.co_filename, frame.f_lineno).lstrip().startswith(UNBROKEN)


def interrupted_at(step: int, call: Callable[[], object], interruption: Callable[[], object]) -> bool:
    """Run `call` and have this very thread do something else in the middle: before the `step`th line that it reaches inside a
    critical section of the cache. Returns whether it reached that many."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        if "/pipeline/" not in frame.f_code.co_filename:
            return None
        if event == "line" and interrupted() and _is_a_step(frame):
            lines += 1
            if lines == step:
                interruption()
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    finally:
        sys.settrace(before)
    return lines >= step
