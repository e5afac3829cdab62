"""RESP2 as a server speaks it: commands from bytes, replies to bytes."""

from __future__ import annotations

from typing import Any

from schedules.server.lua import Status
from schedules.server.store import RefusalError


def commands(received: bytes) -> tuple[list[list[bytes]], bytes]:
    """The whole commands, each a list of words, and the bytes of one that has not come whole."""
    found, begun = [], 0
    try:
        while begun < len(received):
            end = received.index(b"\r\n", begun)
            count, at, words = int(received[begun + 1 : end]), end + 2, []
            for _ in range(count):
                end = received.index(b"\r\n", at)
                begin = end + 2
                stop = begin + int(received[at + 1 : end])
                if stop + 2 > len(received):
                    return found, received[begun:]
                words.append(received[begin:stop])
                at = stop + 2
            found.append(words)
            begun = at
    except ValueError:
        pass  # a length that has not come yet
    return found, received[begun:]


def encoded(reply: Any) -> bytes:
    """The bytes of a reply."""
    if reply is None:
        return b"$-1\r\n"
    if isinstance(reply, Status):
        return b"+%b\r\n" % bytes(reply)
    if isinstance(reply, bytes):
        return b"$%d\r\n%b\r\n" % (len(reply), reply)
    if isinstance(reply, int):
        return b":%d\r\n" % reply
    if isinstance(reply, RefusalError):
        return b"-%b\r\n" % str(reply).encode()
    return b"*%d\r\n%b" % (len(reply), b"".join(map(encoded, reply)))
