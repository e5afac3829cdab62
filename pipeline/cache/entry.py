"""An entry: a value with all that is needed to judge it. Its bytes are the same in every tier, process and language.

On the wire it is a JSON array: `[key, epoch, seq, deps, created_ms, ttl_ms, value, grace_ms]`, the last of which may be missing.
The version stands in the Redis key. The cache key stands in both, so that an entry read under another name is recognised: a miss.
"""

from __future__ import annotations

import enum
from typing import Final, Literal

import msgspec


class Miss(enum.Enum):
    """The type of `MISS`, which a read returns when it finds nothing (`None` is a value like any other), and of `OUTDATED`: what
    L1 had is invalid, and nobody has looked into L2. They are false, so that `if not value` works."""

    MISS = "MISS"
    OUTDATED = "OUTDATED"

    def __bool__(self) -> bool:
        return False

    def __repr__(self) -> str:
        return self.value


MISS: Final = Miss.MISS
OUTDATED: Final = Miss.OUTDATED
MissType = Literal[Miss.MISS]


class AsOf(msgspec.Struct, frozen=True):
    """Where the log stood, as far as a process knew. Take it before the first input of a computation is read.

    `generation` counts the changes of this process's knowledge. It means nothing in another process and is never stored.
    """

    epoch: str
    seq: int
    generation: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`key` names the value's owner. `epoch` and `seq` are the log's position before the first input was read; `deps` are the
    keys that the value was computed from.

    `created_ms` is the writer's wall clock. Without a grace it only shortens how long L1 keeps an entry that came from L2: Redis
    alone decides when the entry ends. With a grace Redis keeps the entry that much longer, and the reader's clock decides when
    its TTL is over.
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
        """The time since the entry was computed, by this clock; never negative."""
        return max(0.0, wall_s - self.created_ms / 1000)

    def remaining_s(self, wall_s: float) -> float:
        """The rest of the TTL by this clock. Never more than the whole TTL: a clock that is behind gains nothing."""
        return self.ttl_ms / 1000 - self.age_s(wall_s)


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode


def entry_begins(key: str, epoch: str) -> bytes:
    """How the bytes of an entry of that key and epoch begin; its seq follows, as a number in text."""
    return b"[%b,%b," % (_encode_text(key), _encode_text(epoch))


_encode_text = msgspec.json.Encoder().encode
