"""An entry: a value with what is needed to judge it. Its bytes are the same in every tier, process and language.

On the wire it is a JSON array: `[key, epoch, seq, deps, created_ms, ttl_ms, value, grace_ms]`, the last of which may be missing.
The version stands in the Redis key. The key stands in both: what is read under one name and says another is nobody's value.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

import msgspec


class Miss(enum.Enum):
    """The type of `MISS`, which a read returns when there is nothing (`None` is a value like any other). It is false, so that
    `if not value` reads as one expects."""

    MISS = "MISS"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return "MISS"


MISS: Final = Miss.MISS
MissType = Literal[Miss.MISS]


class AsOf(msgspec.Struct, frozen=True):
    """What a process knew of the log at a moment. Take it before the first input of a computation is read.

    `generation` counts the changes of this process's knowledge. It means nothing elsewhere and is never stored.
    """

    epoch: str
    seq: int
    generation: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`key` is whose value it is. `epoch` and `seq` are the log's position before the first input was read; `deps` the keys it
    was computed from.

    `created_ms` is the writer's wall clock. Of an entry without a grace it only shortens how long a first tier keeps what it
    promoted: Redis alone decides when the entry ends. With a grace Redis keeps it that much longer, and it is past its time
    to live by the reader's clock.
    """

    key: str
    epoch: str
    seq: int
    deps: tuple[str, ...]
    created_ms: int
    ttl_ms: int
    value: msgspec.Raw
    grace_ms: int = 0

    def age_s(self, wall_s: float) -> float:
        """How long ago it was computed by this clock, never less than nothing."""
        return max(0.0, wall_s - self.created_ms / 1000)

    def remaining_s(self, wall_s: float) -> float:
        """How long the entry has left by this clock, never more than its whole TTL: a clock that is behind gains nothing."""
        return self.ttl_ms / 1000 - self.age_s(wall_s)


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode
