"""Replies of the broker that are longer than any message that is read: they are not read, whatever they are.

The reader of the Redis client that is written in C takes a reply whole before anybody can ask how long it is. On the connections
on which what others have sent comes unasked, another one reads, that knows the length first.
"""

from __future__ import annotations

from typing import Any, Final

import redis.connection
from redis._parsers import _RESP2Parser, _RESP3Parser
from redis._parsers.socket import SocketBuffer
from redis.exceptions import ConnectionError as RedisConnectionError

from workers.node.guard.bounds import HEAD_BYTES, MAX_BYTES, TAIL_BYTES, short

_PIECE: Final = 65_536


class ReplyTooLongError(RedisConnectionError):
    """The rest of the reply is on its way: the connection is of no use any more. Its text says how long the reply was."""


class _RefusingBuffer(SocketBuffer):
    def read(self, length: int, *args: Any, **options: Any) -> bytes:
        if length > MAX_BYTES:
            raise ReplyTooLongError(f"has {length} bytes; allowed are up to {MAX_BYTES}")
        return super().read(length, *args, **options)


class _SkimmingBuffer(SocketBuffer):
    def read(self, length: int, *args: Any, **options: Any) -> bytes:
        if length <= MAX_BYTES:
            return super().read(length, *args, **options)
        head, tail, left = self._take(HEAD_BYTES), b"", length - HEAD_BYTES
        while left:
            piece = self._take(min(left, _PIECE))
            left -= len(piece)
            tail = (tail + piece)[-TAIL_BYTES:]
        self._take(2)  # the end of the line
        return short(head, tail, length)

    def _take(self, length: int) -> bytes:
        data: bytes = self._buffer.read(length)
        while len(data) < length:
            self.purge()  # what was read is of no more use: else all of it would be kept until the end
            self._read_from_socket()
            data += self._buffer.read(length - len(data))
        return data


def _refusing(base: type[Any]) -> type[Any]:
    return type("RefusingParser", (_Bounded, base), {"buffer": _RefusingBuffer})


def _skimming(base: type[Any]) -> type[Any]:
    return type("SkimmingParser", (_Bounded, base), {"buffer": _SkimmingBuffer})


class _Bounded:
    buffer: type[SocketBuffer]

    def on_connect(self, connection: Any) -> None:
        super().on_connect(connection)  # type: ignore[misc]
        self._buffer = self.buffer(self._sock, self.socket_read_size, connection.socket_timeout)  # type: ignore[attr-defined]


_REFUSING: Final = {2: _refusing(_RESP2Parser), 3: _refusing(_RESP3Parser)}
_SKIMMING: Final = {2: _skimming(_RESP2Parser), 3: _skimming(_RESP3Parser)}


def refusing(options: dict[str, Any]) -> type[Any]:
    """A parser for connections with these options, that raises ReplyTooLongError for a text longer than MAX_BYTES."""
    return _REFUSING[_protocol(options)]


def skimming(options: dict[str, Any]) -> type[Any]:
    """A parser for connections with these options, that gives the short form of a text longer than MAX_BYTES, after it has read
    and forgotten the rest."""
    return _SKIMMING[_protocol(options)]


def _protocol(options: dict[str, Any]) -> int:
    return 3 if str(options.get("protocol") or getattr(redis.connection, "DEFAULT_RESP_VERSION", 2)) == "3" else 2
