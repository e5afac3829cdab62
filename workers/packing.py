"""A fault of hiredis (3.5 and before) kept from Celery's own connections: how it packs a number.

`hiredis.pack_command` asks the interpreter for a number's text. On the way the interpreter runs signal handlers, one of which may
raise: a task's time limit, Ctrl-C. What it returns then is NULL, which is used unchecked, and the process ends by SIGSEGV. Texts
and bytes are packed without going back to the interpreter; so numbers are made texts before.

The cache does not use hiredis: see docs/connections.md.
"""

from __future__ import annotations

from typing import Any

import redis.connection


def keep_numbers_from_hiredis() -> None:
    """For every connection of redis-py in this process, those of kombu, Celery's results and RedBeat included. Harmless twice,
    and where hiredis is not installed."""
    serializer: Any = getattr(redis.connection, "HiredisRespSerializer", None)
    if serializer is None or hasattr(serializer.pack, "packs_texts"):
        return
    pack = serializer.pack

    def pack_texts(self: Any, *args: Any) -> Any:
        return pack(
            self, *[repr(word) if isinstance(word, int | float) and not isinstance(word, bool) else word for word in args]
        )

    pack_texts.packs_texts = True  # type: ignore[attr-defined]  # a mark, so that it is put there once
    serializer.pack = pack_texts
