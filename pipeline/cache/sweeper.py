"""Removes the bytes of invalidated entries, a little at a time."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from typing import Final, NamedTuple

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.server.commands import integer
from pipeline.cache.server.scripts import run_script
from pipeline.cache.server.shared import RedisCache

BATCH: Final = 200
"""Keys of the database looked at in one call."""
REMEMBER_S: Final = 86_400


class Swept(NamedTuple):
    """How many entries were looked at, and how many of them removed. `done`: no entry is left that was invalid when the pass
    began."""

    looked_at: int
    removed: int
    done: bool


class Sweeper:
    """Walks L2 in passes. A pass may take several calls, in any processes; none begins unless something was invalidated since the
    last one began.

    Entries are judged by the log as it stands. Removing an invalid entry costs nothing: it was a miss before. An entry that was
    written between judging and removing stays.
    """

    def __init__(self, l2: RedisCache, coherence: Coherence, *, clock: Callable[[], float]) -> None:
        """`clock`: the cache's own, since what is read here confirms its view."""
        self._l2 = l2
        self._coherence = coherence
        self._clock = clock

    def sweep(self, limit_s: float) -> Swept:
        """Go on where the last call ended, for about `limit_s`. Raises SharedTierUnavailableError."""
        ends_at_s = self._clock() + limit_s
        cursor, since, tail = self._where()
        if cursor == 0:
            if since == tail:
                return Swept(0, 0, done=True)
            since = tail
        looked_at = removed = 0
        while True:
            cursor, names = self._next(cursor)
            if names:
                removed += self._sweep(names)
                looked_at += len(names)
            if cursor == 0 or self._clock() >= ends_at_s:
                break
        self._remember(cursor, since)
        return Swept(looked_at, removed, done=cursor == 0)

    def _sweep(self, names: list[bytes]) -> int:
        keys = [self._l2.keys.key_of(name) for name in names]
        self._coherence.append_pending()
        generation = self._coherence.view.generation_of_reads
        asked_at_s = self._clock()
        raws, tail = self._l2.read_many(keys)
        if not self._coherence.catch_up(tail, asked_at_s):
            return 0  # which entries are valid cannot be told now: the next pass will
        doomed = {}
        for name, key, raw in zip(names, keys, raws, strict=True):
            entry = self._l2.decode(key, raw)
            # Without an epoch the entry belongs to no log: a RedisCache that was used by itself has written it.
            if raw is None or entry is None or not entry.epoch:
                continue
            if not self._coherence.view.valid(AsOf(entry.epoch, entry.seq, generation), key, entry.deps):
                doomed[name] = hashlib.sha1(raw, usedforsecurity=False).hexdigest()
        if not doomed:
            return 0
        return self._l2.connection.call(lambda client: run_script(client, "sweep", list(doomed), list(doomed.values()), integer))

    def _next(self, cursor: int) -> tuple[int, list[bytes]]:
        match = self._l2.keys.entries_matching("*")
        return self._l2.connection.call(lambda client: client.scan(cursor, match=match, count=BATCH))

    def _where(self) -> tuple[int, bytes, bytes]:
        """The cursor (0 between passes), the tail at which the pass began, and the tail now."""
        names = [self._l2.keys.sweep, self._l2.keys.tail]
        raw, tail = self._l2.connection.call(lambda client: client.mget(names))
        cursor, _, since = (raw or b"").partition(b" ")
        return (int(cursor) if cursor.isdigit() else 0), since, tail or b""

    def _remember(self, cursor: int, since: bytes) -> None:
        state = b"%d %b" % (cursor, since)
        self._l2.connection.call(lambda client: client.set(self._l2.keys.sweep, state, ex=REMEMBER_S))
