"""A socket leaves the event loop before it is closed.

The kernel's list of what a loop waits for holds open files, not numbers. A pool child that came after a connection has inherited
it: the main process closes its own, the file lives on in the child, and the list reports it for ever, by a number that the next
connection has. A node then reads what has nothing to say, and stands still.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from typing import Any


def leaving(connection_class: type[Any], unwatch: Callable[[int], None]) -> type[Any]:
    """A connection that tells `unwatch` the number of its socket before it closes it: once for each socket, and in the process
    alone that opened it."""

    class LeavingConnection(connection_class):
        def disconnect(self, *args: Any, **options: Any) -> None:
            if self._sock is not None and self.pid == os.getpid() and (fileno := self._sock.fileno()) >= 0:
                unwatch(fileno)
            super().disconnect(*args, **options)

    return LeavingConnection


def is_readable(fileno: int) -> bool:
    """Whether a read would not wait: data, an end, or an error."""
    poller = select.poll()
    poller.register(fileno, select.POLLIN)
    return bool(poller.poll(0))
