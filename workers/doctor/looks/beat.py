"""Beat: its lock and its schedule at the broker. (Beats that know no lock: see `looks.host`.)"""

from __future__ import annotations

import time
from typing import Any, Final

import msgspec
from redis.exceptions import NoPermissionError

from pipeline.cache.encoding.decoders import ready
from workers.doctor.seen import Beat, Entry

PREFIX: Final = "persona:redbeat:"
LOCK: Final = f"{PREFIX}:lock"
SCHEDULE: Final = f"{PREFIX}:schedule"
MOST: Final = 50


@ready
class _Definition(msgspec.Struct):
    task: str = ""


def beat_at(client: Any) -> Beat:
    """Raises RedisError but for a right that is missing."""
    try:
        locked = bool(client.exists(LOCK))
        entries = [_entry(client, key, float(due_s)) for key, due_s in client.zrange(SCHEDULE, 0, MOST - 1, withscores=True)]
    except NoPermissionError:
        return Beat(known=False)
    return Beat(locked=locked, entries=tuple(entries))


def _entry(client: Any, key: bytes, due_s: float) -> Entry:
    try:
        task = msgspec.json.decode(client.hget(key, "definition") or b"{}", type=_Definition).task
    except (msgspec.DecodeError, UnicodeError):
        task = ""
    return Entry(name=key.decode(errors="replace").removeprefix(PREFIX), task=task, overdue_s=time.time() - due_s)
