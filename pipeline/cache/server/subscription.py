"""One channel of the server, heard on a connection of its own."""

from __future__ import annotations

from typing import Final

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.server.link import Link, ReplyError

SILENT_S: Final = 15
"""After so long without a message the kernel asks whether the server's machine is there: no command is spent on that."""


class Subscription:
    """What is published to a channel, from its making to its end. At most once: nothing tells of a loss.

    For one thread, `hang_up` excepted. Only the process that made it may hang up; a forked child closes its copy.
    """

    def __init__(self, link: Link, channel: bytes) -> None:
        """Takes the connection, and closes it if it fails. Raises OSError or ReplyError."""
        self._link = link
        self._channel = channel
        try:
            link.keep_alive(SILENT_S)
            link.subscribe(channel)
        except BaseException:
            link.close()
            raise

    def fileno(self) -> int:
        """For a loop that waits until there is something to read."""
        return self._link.fileno()

    def receive(self, wait_s: float) -> bytes | None:
        """The next message; None if there is none within that time (0: if none is here). Raises SharedTierUnavailableError when
        the connection is lost: then it must be closed."""
        try:
            pushed = self._link.pushed(wait_s)
        except OSError as error:
            raise SharedTierUnavailableError(f"Redis: the subscription was lost: {type(error).__name__}") from error
        if isinstance(pushed, ReplyError):
            raise SharedTierUnavailableError(f"Redis refused: {pushed.code}")
        match pushed:
            case [b"message", self._channel, bytes(message)]:
                return message
        return None

    def hang_up(self) -> None:
        """End it, from any thread: `receive` raises at once."""
        self._link.hang_up()

    def close(self) -> None:
        self._link.close()
