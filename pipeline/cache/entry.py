"""An entry: a value with what is needed to judge it. Its bytes are the same in every tier, process and language.

On the wire it is a JSON array: `[epoch, seq, deps, created_ms, ttl_ms, value]`. The version stands in the Redis key.
"""

from __future__ import annotations

import msgspec


class AsOf(msgspec.Struct, frozen=True):
    """What a process knew of the log at a moment. Take it before the first input of a computation is read.

    `generation` counts the changes of this process's knowledge. It means nothing elsewhere and is never stored.
    """

    epoch: str
    seq: int
    generation: int = 0


class Entry(msgspec.Struct, frozen=True, array_like=True):
    """`epoch` and `seq` are the log's position before the first input was read; `deps` the keys it was computed from.

    `created_ms` is the writer's wall clock. It only shortens how long a first tier keeps a promoted entry; Redis alone
    decides when the entry ends.
    """

    epoch: str
    seq: int
    deps: tuple[str, ...]
    created_ms: int
    ttl_ms: int
    value: msgspec.Raw

    def remaining_s(self, wall_s: float) -> float:
        """How long the entry has left by this clock, never more than its whole TTL: a clock that is behind gains nothing."""
        age_ms = max(0.0, wall_s * 1000 - self.created_ms)
        return (self.ttl_ms - age_ms) / 1000


encode_entry = msgspec.json.Encoder().encode
decode_entry = msgspec.json.Decoder(Entry).decode
