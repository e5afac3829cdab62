"""What makes an event loop take another turn at once."""

from __future__ import annotations

import socket
from contextlib import suppress


class Bell:
    """A readable descriptor while it rings."""

    def __init__(self) -> None:
        self._in, self._out = socket.socketpair()
        self._in.setblocking(False)
        self._out.setblocking(False)

    def fileno(self) -> int:
        return self._in.fileno()

    def ring(self) -> None:
        with suppress(BlockingIOError):  # it rings
            self._out.send(b"\0")

    def hush(self) -> None:
        with suppress(BlockingIOError):
            self._in.recv(4096)

    def close(self) -> None:
        self._in.close()
        self._out.close()
