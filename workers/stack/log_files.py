"""The logs of a stack's processes: each has a most that it may grow to."""

from __future__ import annotations

from pathlib import Path
from typing import Final

MOST_BYTES: Final = 16 << 20
KEPT_BYTES: Final = 1 << 20


def bound(path: Path, most_bytes: int = MOST_BYTES, kept_bytes: int = KEPT_BYTES) -> bool:
    """Cut a log that has grown beyond `most_bytes` to its last whole lines. Returns whether it was cut.

    Its process goes on writing at the end of it, as it has it open for appending. A line that it writes at that moment may be
    lost, which is cheaper than a second file and a process that must be told.
    """
    try:
        with path.open("r+b") as file:
            size = file.seek(0, 2)
            if size <= most_bytes:
                return False
            file.seek(size - kept_bytes)
            kept = file.read(kept_bytes).partition(b"\n")[2]
            file.truncate(0)
        with path.open("ab") as file:
            file.write(kept)
    except OSError:  # it went with its stack, or the disk is full: then the next look cuts it
        return False
    return True
