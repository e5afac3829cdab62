"""How much of its memory a Redis server uses, so that something can be done before it refuses."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any, Final

from redis.exceptions import ResponseError

KNOWN_S: Final = 1.0
"""How long what was seen is taken to be so."""
SHORT_S: Final = 60
"""How long results are kept at most by a server that is half as full as producers are refused at: long enough for each that
waits for its own."""
SHORTEST_S: Final = 10
"""The same of one at which they are refused."""


class Room:
    """Asks a server for its memory, once in KNOWN_S at most. Thread-safe: of two threads that ask at once, either will do."""

    def __init__(
        self, connected: Callable[[], AbstractContextManager[Any]], *, clock: Callable[[], float] = time.monotonic
    ) -> None:
        """`connected` lends a client of redis-py, or None where the server is no Redis."""
        self._connected = connected
        self._clock = clock
        self._used, self._until_s = 0.0, -math.inf

    def used(self, *, anew: bool = False) -> float:
        """The share of the server's limit that is used: above 1 it refuses all that takes memory. 0 where that is not known:
        it has no limit, is no Redis, or does not tell this user. `anew`: as it is now. Raises RedisError, OSError, and what
        `connected` raises."""
        now_s = self._clock()
        if anew or now_s >= self._until_s:
            self._until_s = now_s + KNOWN_S
            self._used = 0.0  # of a server that does not answer nothing is known
            with self._connected() as client:
                self._used = 0.0 if client is None else _used(client)
        return self._used


def kept_s(ttl_s: int, used: float, full_at: float) -> int:
    """How long to keep a result of a server that is so full, so that results do not take the room of tasks. 0: without end, which
    only a server with room is asked for."""
    if used < full_at / 2:
        return ttl_s
    shorter_s = SHORT_S if used < full_at else SHORTEST_S
    return min(ttl_s or shorter_s, shorter_s)


def _used(client: Any) -> float:
    try:
        memory = client.info("memory")
    except ResponseError:  # its rights do not include it; or it is loading, and will say so to what follows
        return 0.0
    limit = memory.get("maxmemory") or 0
    # What replicas and the file are still to be sent does not count for the limit.
    return float((memory["used_memory"] - memory.get("mem_not_counted_for_evict", 0)) / limit) if limit else 0.0
