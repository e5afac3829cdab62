"""The end of a stack from beside it, and of what a stack that is gone has left."""

from __future__ import annotations

import os
import signal
import time
from contextlib import suppress
from pathlib import Path
from typing import Final

from pipeline.discovery import lock_owner
from workers.stack.folder import StackFolder

POLL_S: Final = 0.05


def stop(directory: Path, owner: int, timeout_s: float) -> bool:
    """Tell the stack's process to end, and wait until its folder is free. Returns whether it was within that time.

    The second time that it is told so, it ends its services at once.
    """
    with suppress(ProcessLookupError):
        os.kill(owner, signal.SIGTERM)
    deadline = time.monotonic() + timeout_s
    while lock_owner(directory) == owner:
        if time.monotonic() > deadline:
            return False
        time.sleep(POLL_S)
    return True


def clean(directory: Path) -> None:
    """Remove what a stack that is gone has left. Raises StackRunningError if one runs there meanwhile."""
    folder = StackFolder(directory)
    folder.acquire()
    folder.release()
