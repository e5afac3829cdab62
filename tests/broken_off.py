"""A change that is broken off between any two of its steps, as a signal can: a task's time limit raises out of one."""

from __future__ import annotations

import linecache
import sys
from collections.abc import Callable
from types import FrameType
from typing import Any


class BrokenOffError(Exception):
    """What the signal raises."""


def broken_off_at(step: int, call: Callable[[], object], *files: str) -> bool:
    """Run `call` and raise at the `step`th line that it reaches in these files; whether it had so many."""
    lines = 0

    def trace(frame: FrameType, event: str, _: object) -> Any:
        nonlocal lines
        file = frame.f_code.co_filename
        if not file.endswith(files):
            return None
        # Leaving a `with` is its line once more: between there and the lock's release no signal is delivered.
        if event == "line" and not linecache.getline(file, frame.f_lineno).lstrip().startswith("with "):
            lines += 1
            if lines == step:
                raise BrokenOffError
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        call()
    except BrokenOffError:
        return True
    finally:
        sys.settrace(before)
    return False
