"""Which nodes there are, and which of them have applied an invalidation. Kept in Redis, beside the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from pipeline.cache.commands import Commands, several, text, texts
from pipeline.cache.connection import RedisConnection
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.scripts import run_script

ALIVE_MS: Final = 10_000
"""A node that has been silent for so long is no longer waited for."""
ACKNOWLEDGEMENT_TTL_S: Final = 60
_BLOCK_S: Final = 0.1  # below the client's own time-out


class NodeRegistry:
    """Nodes by name: one for each worker's main process. Its calls raise SharedTierUnavailableError."""

    def __init__(self, connection: RedisConnection, keys: KeySpace, *, clock: Callable[[], float] = time.monotonic) -> None:
        self._connection = connection
        self._keys = keys
        self._clock = clock

    def beat(self, node: str) -> bytes | None:
        """Note that the node is alive; the log's tail."""
        tail, _ = self._beat(node)
        return tail or None

    def alive(self) -> list[str]:
        """The nodes that were heard of within the last 10 s, by name."""
        _, nodes = self._beat("")
        return sorted(name.decode() for name in nodes)

    def acknowledge(self, invalidation_id: str, node: str) -> None:
        """Tell whoever waits that this node serves nothing that the invalidation means from now on."""
        name = self._keys.acknowledgements(invalidation_id)

        def command(client: Commands) -> None:
            with client.pipeline() as pipe:
                pipe.rpush(name, node)
                pipe.expire(name, ACKNOWLEDGEMENT_TTL_S)
                pipe.execute()

        self._connection.call(command)

    def wait(self, invalidation_id: str, expected: list[str], wait_s: float) -> tuple[list[str], list[str]]:
        """The nodes that acknowledged within `wait_s`, and those expected that did not."""
        name = self._keys.acknowledgements(invalidation_id)
        applied: list[str] = []
        deadline_s = self._clock() + wait_s
        while not set(expected) <= set(applied):
            remaining_s = deadline_s - self._clock()
            if remaining_s <= 0:
                break
            try:
                popped = self._connection.call(lambda client: client.blpop([name], timeout=_BLOCK_S))
            except SharedTierUnavailableError:
                break
            if popped is not None:
                applied.append(popped[1].decode(errors="replace"))
        return sorted(applied), sorted(set(expected) - set(applied))

    def _beat(self, node: str) -> tuple[bytes, list[bytes]]:
        keys = [self._keys.nodes, self._keys.tail]
        return self._connection.call(lambda client: run_script(client, "beat", keys, [node, ALIVE_MS], _beaten))


def _beaten(reply: Any) -> tuple[bytes, list[bytes]]:
    """What beat.lua returns."""
    tail, names = several(2)(reply)
    return text(tail) or b"", texts(names)
