"""The invalidation log: the one order of all invalidations, kept in Redis (or, without Redis, in this process).

Protocol and proof: docs/coherence.md.
"""

from __future__ import annotations

import math
import secrets
from collections.abc import Sequence
from itertools import takewhile
from typing import Any, Final, Protocol

import msgspec

from pipeline.cache.coherence.tail import MAX_RECORDS, Page, Tail, page_of
from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.keys import KeySpace
from pipeline.cache.locks import UninterruptedLock
from pipeline.cache.server.commands import Word, integer, several, text
from pipeline.cache.server.connection import RedisConnection
from pipeline.cache.server.scripts import run_script
from pipeline.cache.server.subscription import Subscription

APPENDED_AT_ONCE: Final = 1_000
"""Patterns appended in one call of Redis, of those that could not be appended when they were made."""
RECORDS_A_CALL: Final = 5_000
_MAX_CALLS: Final = 1_000
_decode: Final = msgspec.json.Decoder(list[str]).decode


class InvalidationLog(Protocol):
    """The part of a log that a cache needs. Every method may raise SharedTierUnavailableError."""

    @property
    def contacts(self) -> int:
        """Another number after each new connection to the log's server: it may be another server since."""
        ...

    def append(self, patterns: Sequence[str]) -> Tail:
        """Add the patterns, in order, one seq each. Returns the tail after that. They hold from the moment this returns."""
        ...

    def read_since(self, known: Tail | None) -> Page:
        """The records that are new since `known` (None: nothing is known)."""
        ...


class RedisInvalidationLog:
    """The log that all processes share. An equal pattern replaces its older record: the log is as long as the distinct
    patterns within `retention_s`, and never longer than `max_records`.

    Each call is one script, so that no other caller can come between its steps. A log that is missing, or of another history,
    begins within the call (lua/history.lua).
    """

    def __init__(
        self,
        connection: RedisConnection,
        keys: KeySpace,
        *,
        retention_s: float,
        max_records: int = MAX_RECORDS,
        records_a_call: int = RECORDS_A_CALL,
    ) -> None:
        self._connection = connection
        self._keys = [keys.tail, keys.records, keys.marks, keys.moments]
        self._channel = keys.notices(connection.database)
        self._retention_ms = int(retention_s * 1000)
        self._max_records = max_records
        self._records_a_call = records_a_call

    @property
    def contacts(self) -> int:
        return self._connection.made

    def append(self, patterns: Sequence[str]) -> Tail:
        arguments: list[Word] = [_new_epoch(8), self._retention_ms, self._max_records, self._channel, *patterns]
        raw = self._connection.call(lambda client: run_script(client, "append", self._keys, arguments, text))
        return _tail(raw)

    def subscribe(self) -> Subscription:
        """What is appended from now on, as `published.heard_in` reads it. Raises SharedTierUnavailableError."""
        return self._connection.subscribe(self._channel)

    def read_since(self, known: Tail | None) -> Page:
        # In portions: meanwhile the server serves no other caller, and a call has a time-out. A pattern that is invalidated again
        # between two portions moves behind the part that was read, and comes with a later one.
        restart = known is None
        start = known.seq if known is not None else 0
        epoch, after = (known.epoch, known.seq) if known is not None else ("", 0)
        records: list[tuple[str, int]] = []
        for _ in range(_MAX_CALLS):
            tail, whole, portion = self._read(epoch, after)
            if whole >= 0:
                restart, start, records = True, whole, []
            records += portion
            if len(portion) < self._records_a_call:
                return page_of(tail, records, after=start, restart=restart)
            epoch, after = tail.epoch, portion[-1][1]
        raise SharedTierUnavailableError("the invalidation log grows faster than it can be read")

    def _read(self, epoch: str, after: int) -> tuple[Tail, int, list[tuple[str, int]]]:
        """The tail, `whole` of lua/read.lua, and the records."""
        arguments: list[Word] = [epoch, after, _new_epoch(8), self._records_a_call]
        raw, whole, packed = self._connection.call(lambda client: run_script(client, "read", self._keys, arguments, _read))
        return _tail(raw), whole, _unpacked(packed)


class LocalInvalidationLog:
    """The log of a process without Redis: the same rules, shared with no other process. Thread-safe."""

    def __init__(self, *, max_records: int = MAX_RECORDS) -> None:
        self._lock = UninterruptedLock()
        self._tail = Tail(_new_epoch(16), 0, 0)
        self._records: dict[str, int] = {}
        self._max_records = max_records

    @property
    def contacts(self) -> int:
        return 0

    def append(self, patterns: Sequence[str]) -> Tail:
        with self._lock:
            epoch, seq, floor = self._tail
            for pattern in patterns:
                seq += 1
                self._records.pop(pattern, None)  # keeps the dict in the order of the seqs
                self._records[pattern] = seq
            for _ in range(len(self._records) - self._max_records):
                floor = self._records.pop(next(iter(self._records)))
            self._tail = Tail(epoch, seq, floor)
            return self._tail

    def read_since(self, known: Tail | None) -> Page:
        with self._lock:
            restart = known is None or known.epoch != self._tail.epoch or known.seq < self._tail.floor
            after = 0 if restart or known is None else known.seq
            newer = takewhile(lambda record: record[1] > after, reversed(self._records.items()))
            records = list(newer)[::-1]
            return page_of(self._tail, records, after=after, restart=restart)


def _read(reply: Any) -> tuple[bytes | None, int, bytes]:
    """The reply of read.lua, checked."""
    tail, whole, records = several(3)(reply)
    return text(tail), integer(whole), text(records) or b""


def _unpacked(packed: bytes) -> list[tuple[str, int]]:
    """Patterns and seqs. Only foreign programs write records that are not text, or lack a whole seq; a view takes a malformed
    pattern for "everything"."""
    if not packed:
        return []
    try:
        flat = _decode(packed)
    except (msgspec.DecodeError, UnicodeDecodeError):
        flat = _decode(packed.decode(errors="replace"))
    try:
        return list(zip(flat[::2], map(int, flat[1::2]), strict=True))
    except ValueError:
        pairs = zip(flat[::2], map(float, flat[1::2]), strict=True)
        return [(pattern, int(seq)) for pattern, seq in pairs if math.isfinite(seq)]


def _new_epoch(characters: int) -> str:
    return secrets.token_hex(characters // 2)


def _tail(raw: bytes | None) -> Tail:
    tail = Tail.parse(raw or b"")
    if tail is None:
        raise SharedTierUnavailableError("the invalidation log's tail is malformed; another program uses its key")
    return tail
