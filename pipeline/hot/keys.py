"""Every name that the hot set and its preload have in Redis. No other module builds one.

None begins as an entry of the cache does, so that clearing or sweeping the cache leaves them alone.
"""

from __future__ import annotations

from typing import Final

from pipeline.cache.keys import root_of

HOT_VERSION: Final = 1


class HotKeys:
    """The names under one namespace, that of the cache (`PERSONA_CACHE_NAMESPACE`)."""

    def __init__(self, namespace: str) -> None:
        self.namespace = namespace
        root = f"{{{root_of(namespace)}:{HOT_VERSION}:hot}}"
        self.scores = f"{root}:scores".encode()
        """sorted set: key -> how much it is asked for"""
        self.decayed = f"{root}:decayed".encode()
        """string: server time (ms) at which the scores last decayed"""
        self._request = f"{root}:request:"
        self._round = f"{root}:round:"
        self._due = f"{root}:due:"
        self._slot = f"{root}:slot:"

    def request(self, key: str) -> bytes:
        """string: a request whose answer bears that key, as JSON"""
        return f"{self._request}{key}".encode()

    def round(self, round_id: str) -> bytes:
        """hash: how far a preload has come"""
        return f"{self._round}{round_id}".encode()

    def due(self, round_id: str) -> bytes:
        """list: the keys that a preload has still to renew, the next one first"""
        return f"{self._due}{round_id}".encode()

    def slot(self, task: str) -> bytes:
        """string: the process that has taken the slot of a periodic task"""
        return f"{self._slot}{task}".encode()
