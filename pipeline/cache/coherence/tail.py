"""The invalidation log's position."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

# As append.lua reads it.
_TAIL: Final = re.compile(rb"([!-9;-~]{1,16}):([0-9]{1,15}):([0-9]{1,15})")

MAX_RECORDS: Final = 100_000
"""The longest log, and the most patterns that are pending anywhere: beyond that everything is, which is one pattern."""


class Tail(NamedTuple):
    """The log's head. `seq` grows by one a pattern; records up to `floor` are gone; another `epoch` is another log."""

    epoch: str
    seq: int
    floor: int

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The tail that Redis holds, or None for bytes that are not one."""
        match = _TAIL.fullmatch(raw)
        return cls(match[1].decode(), int(match[2]), int(match[3])) if match else None

    @property
    def mark(self) -> bytes:
        """The beginning of the tail in Redis for as long as nothing is appended: the floor rises only with the seq."""
        return f"{self.epoch}:{self.seq}:".encode()

    def __bytes__(self) -> bytes:
        return f"{self.epoch}:{self.seq}:{self.floor}".encode()


class Page(NamedTuple):
    """The records that a reader has to apply: every one newer than where it was, and the tail that they lead to.

    The records, by rising seqs, are all that is newer than `after` (a repeated pattern only once, under its newer seq): a reader
    that stands below must not take them, or it would miss those in between. `tail` has a higher floor than the log's where
    records were lost. `restart` says that the records are the whole log, and that the reader's earlier knowledge is void: the log
    is of another epoch, or the reader was behind a gap. `page_of` makes a page of a tail.
    """

    tail: Tail
    after: int
    records: list[tuple[str, int]]
    restart: bool


def page_of(tail: Tail, records: list[tuple[str, int]], *, after: int, restart: bool) -> Page:
    """The page of these records, in the order of their seqs: all that the log at `tail` has after `after`. The only place where
    a tail becomes a page.

    For a restart they are the whole log, so that `after` is a floor: older entries cannot be judged. The latest pattern always
    holds the tail's own seq. If none does, records were lost, and only an entry as new as the tail can be judged.
    """
    floor = max(tail.floor, after) if restart else tail.floor
    if tail.seq > max(after, floor) and (not records or records[-1][1] != tail.seq):
        floor, records = tail.seq, []
    return Page(tail._replace(floor=floor), 0 if restart else after, records, restart)
