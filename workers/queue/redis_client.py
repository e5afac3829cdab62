"""Guards against two faults of the Redis client that Celery uses. The cache uses none of it: see docs/connections.md.

*Numbers.* `hiredis.pack_command` (3.5 and before) asks the interpreter for a number's text. On the way that runs signal
handlers, one of which may raise: a task's time limit, Ctrl-C. It then returns NULL, which is used unchecked, and the process ends
by SIGSEGV. Texts and bytes are packed without going back to the interpreter; so numbers are made texts before.

*Replies.* A command that is broken off after it was sent and before its reply was read gives its connection back to the pool, and
the next command reads that reply (redis-py #2624). A connection that is given back while an error is on its way is closed here.
"""

from __future__ import annotations

import sys
from typing import Any

import redis.connection
from redis.exceptions import ResponseError

_MARK = "guarded"


def guard_redis_client() -> None:
    """Guard every connection of redis-py in this process, including those of kombu, Celery's results and RedBeat. Harmless twice,
    and where hiredis is not installed."""
    serializer = getattr(redis.connection, "HiredisRespSerializer", None)
    if serializer is not None:
        _wrap(serializer, "pack", _packing_texts)
    for pool in (redis.connection.ConnectionPool, redis.connection.BlockingConnectionPool):
        _wrap(pool, "release", _closing_what_was_broken_off)


def _wrap(owner: Any, name: str, make: Any) -> None:
    method = owner.__dict__.get(name)
    if method is not None and not hasattr(method, _MARK):
        guarded = make(method)
        setattr(guarded, _MARK, True)
        setattr(owner, name, guarded)


def _packing_texts(pack: Any) -> Any:
    def pack_texts(self: Any, *args: Any) -> Any:
        return pack(self, *[repr(word) if type(word) in (int, float) else word for word in args])

    return pack_texts


def _closing_what_was_broken_off(release: Any) -> Any:
    def release_clean(self: Any, connection: Any) -> None:
        # The client gives back in a `finally`: an error on its way there has ended the exchange. A refusal is a reply.
        error = sys.exc_info()[1]
        if error is not None and not isinstance(error, ResponseError):
            connection.disconnect()
        release(self, connection)

    return release_clean
