"""Every name that figures have in Redis. No other module builds one.

They share a hash tag, one slot of a cluster: a report is one script. None begins as an entry of the cache does, so that
clearing or sweeping the cache leaves the figures alone.
"""

from __future__ import annotations

from typing import Final

from pipeline.cache.keys import root_of
from pipeline.figures.records import SLOT_S

FIGURES_VERSION: Final = 1


class FigureKeys:
    """The names under one namespace, that of the cache (`PERSONA_CACHE_NAMESPACE`)."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        root = f"{{{root_of(namespace)}:{FIGURES_VERSION}:figures}}"
        self.ever = f"{root}:ever".encode()
        """hash: field -> sum since the first report"""
        self.processes = f"{root}:processes".encode()
        """sorted set: process -> server time (ms) of its last report"""
        self.invalidations = f"{root}:invalidations".encode()
        """list: the last invalidations, newest first"""
        self.heard = f"{root}:heard".encode()
        """sorted set: node's id -> server time (ms) at which its main process last told that it lives"""
        self.versions = f"{root}:versions".encode()
        """sorted set: version of workers -> server time (ms) at which one last told it"""
        self.marks = f"{root}:marks".encode()
        """list: the last marks, as JSON, newest first"""
        self.watch = f"{root}:watch".encode()
        """hash: `last`, server time (ms) at which anybody last looked which nodes live; `since`, from when on without a gap"""
        self._root = root
        self._row = f"{root}:row:"
        self._applied = f"{root}:applied:"
        self._reach = f"{root}:reach:"

    def slot(self, number: int, slot_s: int = SLOT_S) -> bytes:
        """hash: field -> sum of one slot, which began at `number` times its length, by the server's clock. Those of five seconds
        do not tell their length: older releases know no others."""
        return f"{self._root}:slot{'' if slot_s == SLOT_S else f'-{slot_s}'}:{number}".encode()

    def row(self, process: str) -> bytes:
        """string: what a process says of itself, as JSON"""
        return f"{self._row}{process}".encode()

    def applied(self, process: str) -> bytes:
        """string: the number of the last report of a process that was added"""
        return f"{self._applied}{process}".encode()

    def reach(self, invalidation: str) -> bytes:
        """hash: node -> how long after the publication it had applied the invalidation, in ms"""
        return f"{self._reach}{invalidation}".encode()
