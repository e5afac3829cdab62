"""Where the invalidation log stands."""

from __future__ import annotations

from typing import NamedTuple, Self


class Tail(NamedTuple):
    """The log's head. `seq` grows by one a pattern; records up to `floor` are gone; another `epoch` is another log."""

    epoch: str
    seq: int
    floor: int

    @classmethod
    def parse(cls, raw: bytes) -> Self | None:
        """The tail that Redis holds, or None for bytes that are none."""
        try:
            epoch, seq, floor = raw.decode("ascii").split(":")
            return cls(epoch, int(seq), int(floor))
        except ValueError:
            return None

    def __bytes__(self) -> bytes:
        return f"{self.epoch}:{self.seq}:{self.floor}".encode()


class Page(NamedTuple):
    """What a reader has to apply: every record newer than where it was, and the tail that they lead to.

    `seen` are the tail's bytes as the log holds them; `tail` may have a higher floor, where records were lost. `restart` says
    that the records are the whole log, and that what the reader knew before is void: it is another epoch, or the reader was
    behind a gap.
    """

    tail: Tail
    seen: bytes
    records: list[tuple[str, int]]
    restart: bool
