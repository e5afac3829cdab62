"""A wait at the server for the next item of one list."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

BLOCK_S: Final = 6
"""The longest wait of one command. What a broken connection had asked for is over by then."""


class Waiter:
    """One blocking command on a connection of its own. The poller knows it as it knows kombu's clients: by its `connection`.

    A waiter of a shared list claims nothing: it moves the oldest item to where it lies already, which tells that there is one.
    """

    def __init__(self, source: str, claims: str, connect: Callable[[], Any], *, claiming: bool = True) -> None:
        self.source = source
        self.type = f"WAIT {source}"
        self.connection: Any = None
        self.asked_at_s: float | None = None
        self._connect = connect
        self._words = (source, claims, "RIGHT", "LEFT") if claiming else (source, source, "RIGHT", "RIGHT")

    def open(self) -> None:
        if self.connection is None:
            self.connection = self._connect()

    def ask(self, now_s: float) -> None:
        """Send the command. Its reply makes the connection readable."""
        self.connection.send_command("BLMOVE", *self._words, BLOCK_S)
        self.asked_at_s = now_s

    def read(self) -> bytes | None:
        """The reply; None if the wait was in vain. Raises RedisError."""
        self.asked_at_s = None
        item: bytes | None = self.connection.read_response()
        return item

    def close(self) -> None:
        """End the wait; the server hears of it when the connection is closed."""
        self.asked_at_s = None
        connection, self.connection = self.connection, None
        if connection is not None:
            connection.disconnect()
