"""The nodes that are alive, and which of them have applied an invalidation. Kept in Redis, beside the log."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any, Final

from pipeline.cache.coherence.identity import shown_nodes
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.server.commands import Commands, integer, several, text, texts
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import run_script

ALIVE_MS: Final = 10_000
"""A node that has been silent for this long is no longer waited for."""
ACKNOWLEDGEMENT_TTL_S: Final = 60
_FIRST_PAUSE_S: Final = 0.001
_LONGEST_PAUSE_S: Final = 0.02
_PAUSE_GROWTH: Final = 1.5


IDLE_BEAT_S: Final = ALIVE_MS / 1000 / 3
"""How often a node beats whose processes do not read: so that it is known to be alive."""
MISSED_BY_REPLICA_S: Final = IDLE_BEAT_S + 0.5
"""How long a replica that took over may lack a node that came last."""


def beat_every_s(bound_s: float) -> float:
    """How often a node is to beat that keeps this staleness bound, while its processes read."""
    return min(bound_s / 2, IDLE_BEAT_S)


def settle_s(bound_s: float) -> float:
    """From this age on a list of nodes has every node that keeps this bound and is alive: also the idle ones, which look every
    `beat_every_s` whether a beat is due, and those whose beat was a moment late."""
    return IDLE_BEAT_S + beat_every_s(bound_s)


class NodeRegistry:
    """Nodes by id (see `identity`): one for each worker's main process. Its calls raise SharedTierUnavailableError, `wait`
    excepted."""

    def __init__(
        self,
        connection: RedisConnection,
        keys: KeySpace,
        *,
        clock: Callable[[], float] = time.monotonic,
        sleep: Callable[[float], None] = time.sleep,
    ) -> None:
        self._connection = connection
        self._keys = keys
        self._clock = clock
        self._sleep = sleep
        self._heard_of: dict[str, float] = {}

    def beat(self, node: str) -> bytes | None:
        """Record that the node is alive. Returns the log's tail, or None when there is no log, or one that must begin anew."""
        tail, _, _ = self._beat(node)
        return tail or None

    def leave(self, node: str, bound_s: float) -> None:
        """Record that the node's main process ends. The node is waited for as long as its children may serve by what that one
        has told them: a staleness bound."""
        self._beat(node, ago_s=max(0.0, ALIVE_MS / 1000 - bound_s + 0.001))

    def alive(self) -> list[str]:
        """The ids of the nodes that were heard of within the last 10 s, sorted."""
        return sorted(self._alive()[0])

    def acknowledge(self, invalidation_id: str, node: str) -> None:
        """Tell the waiting caller that from now on this node serves nothing that the invalidation matches."""
        name = self._keys.acknowledgements(invalidation_id)

        def command(client: Commands) -> None:
            with client.pipeline() as pipe:
                pipe.rpush(name, node)
                pipe.expire(name, ACKNOWLEDGEMENT_TTL_S)
                pipe.execute()

        self._connection.call(command)

    def wait(self, invalidation_id: str, wait_s: float, *, settle_s: float) -> tuple[list[str], list[str]]:
        """The nodes that acknowledged within `wait_s`, and those alive that did not: as people are told of them, sorted.

        Each node writes its id anew at every beat. A list of nodes that is missing, or began less than `settle_s` ago (the
        server lost it, or there are no nodes), is read again until it is that old: by then every node that is alive is on it.
        """
        name = self._keys.acknowledgements(invalidation_id)
        expected: set[str] = set()
        applied: set[str] = set()
        began_s = self._clock()
        pause_s = _FIRST_PAUSE_S
        settled = False
        while True:
            now_s = self._clock()
            try:
                if not settled:
                    expected, age_s = self._alive()
                    settled = age_s >= settle_s or (age_s < 0 and now_s >= began_s + settle_s)
                applied = self._acknowledged(name)
            except SharedTierUnavailableError:
                break
            remaining_s = began_s + wait_s - now_s
            if (settled and expected <= applied) or remaining_s <= 0:
                break
            self._sleep(min(pause_s, remaining_s))
            pause_s = min(_LONGEST_PAUSE_S, pause_s * _PAUSE_GROWTH)
        shown = shown_nodes(expected | applied)
        return sorted(shown[node] for node in applied), sorted(shown[node] for node in expected - applied)

    def _acknowledged(self, name: bytes) -> set[str]:
        return {node.decode(errors="replace") for node in self._connection.call(lambda client: client.lrange(name, 0, -1))}

    def _alive(self) -> tuple[set[str], float]:
        """The nodes, including those that this process knew less than 10 s ago and the server has forgotten; and the age of the
        server's list: -1 if there is none. A list that is as old as that has forgotten none: a node that is not on it has left.
        A few seconds are left to a replica that took over, where the last to come may be missing until its next beat."""
        _, age_ms, names = self._beat("")
        now_s = self._clock()
        remembered_s = ALIVE_MS / 1000 if age_ms < ALIVE_MS else MISSED_BY_REPLICA_S
        self._heard_of = {node: at_s for node, at_s in self._heard_of.items() if now_s - at_s < remembered_s}
        self._heard_of |= {name.decode(errors="replace"): now_s for name in names}
        return set(self._heard_of), age_ms / 1000 if age_ms >= 0 else -1.0

    def _beat(self, node: str, *, ago_s: float = 0.0) -> tuple[bytes, int, list[bytes]]:
        keys = [self._keys.nodes, self._keys.tail, self._keys.records]
        return self._connection.call(
            lambda client: run_script(client, "beat", keys, [node, ALIVE_MS, round(ago_s * 1000)], _beaten)
        )


def _beaten(reply: Any) -> tuple[bytes, int, list[bytes]]:
    """The reply of beat.lua, checked."""
    tail, age_ms, names = several(3)(reply)
    return text(tail) or b"", integer(age_ms), texts(names)
