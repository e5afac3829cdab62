"""Whether this worker is told to end: then a task whose outcome cannot be stored holds it up for a moment only."""

from __future__ import annotations

import mmap

_told: mmap.mmap | None = None


def share() -> None:
    """In a main process, before its children are forked: have them learn what it is told."""
    global _told  # noqa: PLW0603 - one a worker, made here
    _told = mmap.mmap(-1, 1)


def hurry() -> None:
    """Tell all processes of this worker. A signal handler may call it."""
    if _told is not None:
        _told[0] = 1


def is_asked_for() -> bool:
    return _told is not None and _told[0] == 1
