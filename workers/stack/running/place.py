"""Where a stack runs, is about to, or was: its folder, and the process that holds it."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import NamedTuple

from pipeline.discovery import DEFAULT_NAME, LOCK_NAME, STACK_DIR, STATE_NAME, lock_owner
from workers.stack.folder import LAST_WORDS_NAME
from workers.stack.state import StackInfo, decode


class Place(NamedTuple):
    """A stack's folder as it was found. Both None: the stack that was there is gone, and did not clean up."""

    directory: Path
    owner: int | None
    """The process that holds the folder. Without `info` it starts its stack, or stops it."""
    info: StackInfo | None

    @property
    def last_words(self) -> str:
        """Why the last stack in the background ended by itself; empty if none did."""
        try:
            return (self.directory / LAST_WORDS_NAME).read_text(encoding="utf-8", errors="replace").strip()
        except OSError:
            return ""


def find_place(start: Path | None = None, environ: Mapping[str, str] | None = None) -> Place | None:
    """The stack that the other commands find (see `pipeline.discovery.find_state`); else the nearest folder that a process holds
    or that a stack has left behind. None if there is neither. Another user's folder is never taken."""
    environ = os.environ if environ is None else environ
    left: Place | None = None
    for directory in _candidates(start, environ):
        place = _look(directory)
        if place is None:
            continue
        if place.info is not None:
            return place
        left = left or place
    return left


def where_sought(environ: Mapping[str, str] | None = None) -> str:
    """Where `find_place` looks, in words."""
    named = (os.environ if environ is None else environ).get(STACK_DIR)
    return f"in {Path(named).absolute()}, which {STACK_DIR} names" if named else "in this directory or above it"


def _candidates(start: Path | None, environ: Mapping[str, str]) -> Iterator[Path]:
    if named := environ.get(STACK_DIR):
        yield Path(named).absolute()
        return
    try:
        here = (start or Path.cwd()).absolute()
    except OSError:  # the working directory was removed
        return
    for directory in (here, *here.parents):
        yield directory / DEFAULT_NAME


def _look(directory: Path) -> Place | None:
    try:
        if directory.stat().st_uid != os.geteuid():
            return None
    except OSError:
        return None
    owner = lock_owner(directory)
    info = _info(directory)
    if owner is not None:
        return Place(directory, owner, info if info is not None and info.pid == owner else None)
    left = any((directory / name).exists() for name in (LOCK_NAME, STATE_NAME, LAST_WORDS_NAME))
    return Place(directory, None, None) if left else None


def _info(directory: Path) -> StackInfo | None:
    try:
        return decode((directory / STATE_NAME).read_bytes())
    except OSError:
        return None
