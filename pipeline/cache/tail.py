"""Where the invalidation log stands."""

from __future__ import annotations

import re
from typing import Final, NamedTuple, Self

# As append.lua reads it.
_TAIL: Final = re.compile(rb"([!-9;-~]{1,16}):([0-9]{1,15}):([0-9]{1,15})")


class Tail(NamedTuple):
    """The log's head. `seq` grows by one a pattern; records up to `floor` are gone; another `epoch` is another log."""

    epoch: str
    seq: int
    floor: int

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The tail that Redis holds, or None for bytes that are none."""
        match = _TAIL.fullmatch(raw)
        return cls(match[1].decode(), int(match[2]), int(match[3])) if match else None

    def __bytes__(self) -> bytes:
        return f"{self.epoch}:{self.seq}:{self.floor}".encode()


class Page(NamedTuple):
    """What a reader has to apply: every record newer than where it was, and the tail that they lead to.

    The records are all that is newer than `after` (a pattern that came again only once, under its newer seq): a reader that
    stands below must not take them, or it would miss what lies between. `seen` are the tail's bytes as the log holds them;
    `tail` may have a higher floor, where records were lost. `restart` says that the records are the whole log, and that what
    the reader knew before is void: it is another epoch, or the reader was behind a gap.
    """

    tail: Tail
    seen: bytes
    after: int
    records: list[tuple[str, int]]
    restart: bool
