"""The invalidation log: the one order of all invalidations, kept in Redis (or, without Redis, in this process).

Protocol and proof: docs/coherence.md.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from typing import Any, Final, Protocol

import redis

from pipeline.cache.connection import RedisConnection
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.locks import UninterruptedLock
from pipeline.cache.scripts import run_script
from pipeline.cache.tail import Page, Tail

MAX_RECORDS: Final = 100_000


class InvalidationLog(Protocol):
    """What a cache needs of a log. Every method may raise SharedTierUnavailableError."""

    def append(self, patterns: Sequence[str]) -> Tail:
        """Add the patterns, in order, one seq each. They hold from the moment at which this returns."""
        ...

    def read_since(self, known: Tail | None) -> Page:
        """What is new since `known` (None: nothing is known)."""
        ...


class RedisInvalidationLog:
    """The log that all processes share. An equal pattern replaces its older record: the log is as long as the distinct
    patterns within `retention_s`, and never longer than `max_records`."""

    def __init__(
        self, connection: RedisConnection, keys: KeySpace, *, retention_s: float, max_records: int = MAX_RECORDS
    ) -> None:
        self._connection = connection
        self._keys = [keys.tail, keys.records, keys.marks]
        self._retention_ms = int(retention_s * 1000)
        self._max_records = max_records

    def append(self, patterns: Sequence[str]) -> Tail:
        arguments = [_new_epoch(), self._retention_ms, self._max_records, *patterns]
        raw = self._connection.call(lambda client: run_script(client, "append", self._keys, arguments))
        return _tail(raw)

    def read_since(self, known: Tail | None) -> Page:
        tail, records = self._read(known.seq if known else 0)
        if tail is None:
            tail = self._renew(b"")
            return Page(tail, bytes(tail), 0, [], restart=True)
        if known is not None and tail.epoch == known.epoch:
            if tail.seq < known.seq:
                # The server lost its newest writes (an old snapshot, a failover). What was invalidated in between is
                # unknown, so that every older entry must go: a new epoch says that to everybody.
                fresh = self._renew(bytes(tail))
                return Page(fresh, bytes(fresh), 0, [], restart=True)
            if known.seq >= tail.floor:
                return _page(tail, known.seq, records, restart=False)
        elif known is not None and known.seq:
            tail, records = self._read(0)
            if tail is None:
                raise SharedTierUnavailableError("the invalidation log went away while it was read")
        return _page(tail, 0, records, restart=True)

    def _read(self, after: int) -> tuple[Tail | None, list[tuple[str, int]]]:
        """The tail and the records newer than `after`, of one moment."""

        def command(client: redis.Redis) -> list[Any]:
            with client.pipeline(transaction=True) as pipe:
                pipe.get(self._keys[0])
                pipe.zrangebyscore(self._keys[1], f"({after}", "+inf", withscores=True)
                answers: list[Any] = pipe.execute()
            return answers

        raw, pairs = self._connection.call(command)
        tail = Tail.parse(raw) if raw else None
        if tail is None and raw:
            tail = self._renew(raw)
            return tail, []
        # Nothing of ours writes what is not text or has no finite seq; a view takes the first for "everything".
        return tail, [(member.decode(errors="replace"), int(score)) for member, score in pairs if math.isfinite(score)]

    def _renew(self, seen: bytes) -> Tail:
        raw = self._connection.call(lambda client: run_script(client, "renew", self._keys, [seen, _new_epoch()]))
        return _tail(raw)


class LocalInvalidationLog:
    """The log of a process without Redis: the same rules, nobody to share them with. Thread-safe."""

    def __init__(self, *, max_records: int = MAX_RECORDS) -> None:
        self._lock = UninterruptedLock()
        self._tail = Tail(_new_epoch(), 0, 0)
        self._records: dict[str, int] = {}
        self._max_records = max_records

    def append(self, patterns: Sequence[str]) -> Tail:
        with self._lock:
            epoch, seq, floor = self._tail
            for pattern in patterns:
                seq += 1
                self._records.pop(pattern, None)  # so that the dict's order is that of the seqs
                self._records[pattern] = seq
            while len(self._records) > self._max_records:
                floor = self._records.pop(next(iter(self._records)))
            self._tail = Tail(epoch, seq, floor)
            return self._tail

    def read_since(self, known: Tail | None) -> Page:
        with self._lock:
            restart = known is None or known.epoch != self._tail.epoch or known.seq < self._tail.floor
            after = 0 if restart or known is None else known.seq
            records = [item for item in self._records.items() if item[1] > after]
            return Page(self._tail, bytes(self._tail), after, records, restart)


def _page(tail: Tail, after: int, records: list[tuple[str, int]], *, restart: bool) -> Page:
    """The page, with its floor raised when records are missing: a server that is full may have evicted them.

    The latest pattern always holds the tail's own seq. Where nothing does, records were lost, and only entries that are as
    new as the tail can be trusted.
    """
    seen = bytes(tail)
    if tail.seq > max(after, tail.floor) and all(seq != tail.seq for _, seq in reversed(records)):
        return Page(tail._replace(floor=tail.seq), seen, after, [], restart)
    return Page(tail, seen, after, records, restart)


def _new_epoch() -> str:
    return secrets.token_hex(8)


def _tail(raw: Any) -> Tail:
    tail = Tail.parse(raw)
    if tail is None:
        raise SharedTierUnavailableError("the invalidation log's tail is not one; another program uses its key")
    return tail
