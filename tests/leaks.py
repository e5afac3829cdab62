"""What the tests of a module have left behind in their process: sockets and files that nobody closed, and threads.

Such a socket is closed, with a ResourceWarning, when Python comes to collect it, which may be in another module's test: that one
fails then, and says nothing of whose it was. `TEST_LEAKS=1` has every module collect at its end, and fail for its own.
"""

from __future__ import annotations

import gc
import threading
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

LEAKS: Final = "TEST_LEAKS"
_ENDING_S: Final = 10.0
"""So long threads may take to end: one that keeps leases goes on for some two seconds without any."""


def lost() -> list[str]:
    """What nobody refers to any more, and nobody has closed. It is gone after that."""
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("always")
        gc.collect()
        gc.collect()  # what the finalizers of the first have let go
    return [_text(each) for each in told if issubclass(each.category, ResourceWarning)]


def _text(told: warnings.WarningMessage) -> str:
    made = tracemalloc.get_object_traceback(told.source) if told.source is not None and tracemalloc.is_tracing() else None
    return str(told.message) + "".join(f"\n  {line}" for line in (made.format() if made else ()))


def sockets() -> set[str]:
    """This process's sockets, by their numbers."""
    found = set()
    for place in Path("/proc/self/fd").iterdir():
        try:
            target = str(place.readlink())
        except OSError:
            continue  # the folder's own
        if target.startswith("socket:"):
            found.add(target)
    return found


@contextmanager
def leaving_nothing() -> Iterator[list[str]]:
    """Within the block nothing may be lost, and no thread begun that goes on. After it, the list says what was."""
    lost()  # those of before
    left: list[str] = []
    threads, open_before = set(threading.enumerate()), sockets()
    yield left
    left += lost()
    ends_s = time.monotonic() + _ENDING_S
    while more := [thread for thread in threading.enumerate() if thread not in threads]:
        if time.monotonic() >= ends_s:
            left += [f"a thread goes on: {thread.name}" for thread in more]
            break
        more[0].join(0.05)
    if more := sockets() - open_before:
        left.append(f"{len(more)} sockets are open that were not before")
