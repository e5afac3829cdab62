"""One dead letter: what is kept of a refused message."""

from __future__ import annotations

import hashlib
import json
import time
from typing import Final, NamedTuple

import msgspec

from pipeline.cache.encoding.decoders import ready
from workers.queue.names import DELIVERIES_HEADER, RETURNS_HEADER, UNKNOWN_SINCE_HEADER

DEAD_LETTERS: Final = "persona.dead"
"""A list at the broker, the latest first. It holds what users wrote: hence the short TTL."""
DEAD_LETTERS_COUNT: Final = "persona.dead.count"
"""How many there have ever been."""
MAX_DEAD_LETTERS: Final = 1000
DEAD_LETTERS_TTL_S: Final = 86_400
MAX_ITEM_CHARS: Final = 16_384
_ID_CHARS: Final = 12


@ready
class Letter(msgspec.Struct, frozen=True):
    """`at`: when it was refused, in seconds since 1970 by that worker's clock. `why` quotes nothing of it. `item`: its beginning,
    or all of it as it was queued if it is `whole`. `size`: its bytes. `task`, `task_id`: as its headers say, or ""."""

    at: float
    queue: str
    why: str
    item: str
    whole: bool = False
    size: int = 0
    task: str = ""
    task_id: str = ""


class Found(NamedTuple):
    """A letter in its list. `raw` is how it lies there, `id` is made of that."""

    id: str
    letter: Letter
    raw: bytes


def written(
    queue: str, item: bytes, why: str, *, whole: bool, task: str = "", task_id: str = "", size: int | None = None
) -> bytes:
    """A letter as it is kept. `whole`: the item is what was queued, and not another form of it, of which `size` may tell how long
    it was."""
    text = item[: 4 * MAX_ITEM_CHARS].decode(errors="replace")[:MAX_ITEM_CHARS]
    whole = whole and text.encode(errors="replace") == item
    return msgspec.json.encode(Letter(time.time(), queue, why, text, whole, len(item) if size is None else size, task, task_id))


def found(raw: bytes) -> Found | None:
    """None for what is no letter."""
    try:
        letter = msgspec.json.decode(raw, type=Letter)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        return None
    return Found(hashlib.blake2b(raw, digest_size=_ID_CHARS // 2).hexdigest(), letter, raw)


def to_queue(letter: Letter) -> bytes | None:
    """The item to queue anew, without the counts that have made it a letter. None if it is not whole, or no message."""
    if not letter.whole:
        return None
    try:
        envelope = json.loads(letter.item)
        for header in (DELIVERIES_HEADER, RETURNS_HEADER, UNKNOWN_SINCE_HEADER):
            envelope["headers"].pop(header, None)
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        return None
    return json.dumps(envelope).encode()
