"""Every name that figures have in Redis. No other module builds one.

They share a hash tag, one slot of a cluster: a report is one script. None begins as an entry of the cache does, so that
clearing or sweeping the cache leaves the figures alone.
"""

from __future__ import annotations

from typing import Final

from pipeline.cache.keys import root_of

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
        self._slot = f"{root}:slot:"
        self._row = f"{root}:row:"
        self._applied = f"{root}:applied:"
        self._reach = f"{root}:reach:"

    def slot(self, number: int) -> bytes:
        """hash: field -> sum of one slot, which began at `number` times its length, by the server's clock"""
        return f"{self._slot}{number}".encode()

    def row(self, process: str) -> bytes:
        """string: what a process says of itself, as JSON"""
        return f"{self._row}{process}".encode()

    def applied(self, process: str) -> bytes:
        """string: the number of the last report of a process that was added"""
        return f"{self._applied}{process}".encode()

    def reach(self, invalidation: str) -> bytes:
        """hash: node -> how long after the publication it had applied the invalidation, in ms"""
        return f"{self._reach}{invalidation}".encode()
