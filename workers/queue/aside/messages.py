"""Where messages wait aside at the broker, and how those of a queue are removed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

from pipeline.cache.server.scripts import Script

ASIDE: Final = "persona.fetch.aside"
"""A sorted set: messages with their lists, by the time when they are due."""
PORTION: Final = 500

_PURGE: Final = Script.read(__file__, "purge")


def purge_aside(client: Any, lists: Iterable[str]) -> int:
    """Remove what waits aside for these lists; how many. In portions: others come to the server meanwhile. Raises RedisError."""
    names = list(lists)
    cursor, removed = b"0", 0
    while True:
        cursor, some = client.eval(_PURGE.source, 1, ASIDE, cursor, PORTION, *names)
        removed += int(some)
        if int(cursor) == 0:
            return removed
