"""The source of truth: a version for each key, in memory that all processes of a workload share and no cache stands before."""

from __future__ import annotations

import fcntl
import mmap
import os
import threading
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from coherence.universe import KEYS

_PLACES: Final = {key: place for place, key in enumerate(KEYS)}
_BUMP_BYTE: Final = 0
_ITEMS_BYTE: Final = 1


class Source:
    """Versions that only grow, from 1. For any number of processes and threads; not made across a fork with threads."""

    def __init__(self, path: Path) -> None:
        """Opens the file, which `create` has made."""
        self._descriptor = os.open(path, os.O_RDWR)
        self._memory = mmap.mmap(self._descriptor, 8 * len(KEYS))
        self._versions = memoryview(self._memory).cast("q")
        # A record lock knows processes only: threads of one need a lock of their own.
        self._bumping = threading.Lock()
        self._items = threading.Lock()

    @staticmethod
    def create(path: Path) -> None:
        path.write_bytes((1).to_bytes(8, "little") * len(KEYS))

    def version(self, key: str) -> int:
        return self._versions[_PLACES[key]]

    def bump(self, keys: Iterable[str]) -> dict[str, int]:
        """Give each key its next version."""
        with self._bumping:
            fcntl.lockf(self._descriptor, fcntl.LOCK_EX, 1, _BUMP_BYTE)
            try:
                bumped = {}
                for key in keys:
                    self._versions[_PLACES[key]] += 1
                    bumped[key] = self._versions[_PLACES[key]]
                return bumped
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _BUMP_BYTE)

    @contextmanager
    def writing_items(self) -> Iterator[bool]:
        """Whether this thread alone, of all processes, may write items for the length of the block.

        Two that bump and then set without agreeing on an order leave the older value by right: that is a race of theirs, which
        no cache can settle and no checker should report.
        """
        if not self._items.acquire(blocking=False):
            yield False
            return
        try:
            try:
                fcntl.lockf(self._descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB, 1, _ITEMS_BYTE)
            except OSError:
                yield False
                return
            try:
                yield True
            finally:
                fcntl.lockf(self._descriptor, fcntl.LOCK_UN, 1, _ITEMS_BYTE)
        finally:
            self._items.release()
