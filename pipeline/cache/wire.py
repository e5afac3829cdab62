"""One encoded command for one answer, with nothing in between that need not be: what a read from L2 goes through."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

import redis


class _Connection(Protocol):
    """Of redis-py's connections, what is used here."""

    def send_packed_command(self, command: Sequence[bytes]) -> None:
        """Connects first, if it is not."""

    def read_response(self, *, disable_decoding: bool) -> Any: ...

    def disconnect(self) -> None: ...


class Wire:
    """Exchanges commands with a server on connections of its own. Thread-safe: a connection serves one exchange at a time.

    They are the client's connections, made as its pool makes them, without the pool and the client around each command: these
    take more than half of a short one's time (docs/local-cache.md). What they do that matters is done here. A connection that
    turns out to be closed, as after a server's restart, costs one more try, at once. And an exchange that was broken off, by
    whatever, leaves no connection on which the next one would read its answer.
    """

    def __init__(self, client: redis.Redis) -> None:
        self._pool = client.connection_pool
        self._idle: list[_Connection] = []  # a list's pop and append are one step each: no lock

    def ask(self, command: bytes) -> Any:
        """The answer to one encoded command, which must bear being sent twice. Raises what a client's commands raise."""
        try:
            connection = self._idle.pop()
        except IndexError:
            connection = self._new()
        try:
            try:
                connection.send_packed_command([command])
                answer = connection.read_response(disable_decoding=True)
            except redis.ConnectionError:
                connection.disconnect()
                connection.send_packed_command([command])
                answer = connection.read_response(disable_decoding=True)
        except redis.ResponseError:
            self._idle.append(connection)  # an answer, too
            raise
        except BaseException:
            connection.disconnect()
            raise
        self._idle.append(connection)
        return answer

    def close(self) -> None:
        """Close what is idle. Later exchanges connect anew."""
        idle, self._idle = self._idle, []
        for connection in idle:
            connection.disconnect()

    def _new(self) -> _Connection:
        # Not out of the pool, which counts what it hands out: one that a signal made us lose would be missing for ever.
        connection: _Connection = self._pool.connection_class(**self._pool.connection_kwargs)
        return connection


def encode(*words: bytes) -> bytes:
    """A command as the server reads it (RESP: an array of byte strings)."""
    return b"*%d\r\n%b" % (len(words), b"".join([b"$%d\r\n%b\r\n" % (len(word), word) for word in words]))
