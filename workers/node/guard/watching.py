"""A socket leaves the event loop before it is closed, and a transport when it is.

The kernel's list of what a loop waits for holds open files, not numbers. A pool child that came after a connection has inherited
it: the main process closes its own, the file lives on in the child, and the list reports it for ever, by a number that the next
connection has. A node then reads what has nothing to say, and stands still.

kombu keeps a transport's callback in the loop, by which a node that reconnects would hold every transport that it has had, and
call each at every turn.
"""

from __future__ import annotations

import os
import select
from collections.abc import Callable
from functools import partial
from typing import Any, Final

from kombu.transport import redis as redis_transport

REST_S: Final = 5.0
"""The rest of a broadcast that has begun to come is waited for so long."""


def leaving(connection_class: type[Any], unwatch: Callable[[int], None]) -> type[Any]:
    """A connection that tells `unwatch` the number of its socket before it closes it: once for each socket, and in the process
    alone that opened it."""

    class LeavingConnection(connection_class):
        def disconnect(self, *args: Any, **options: Any) -> None:
            if self._sock is not None and self.pid == os.getpid() and (fileno := self._sock.fileno()) >= 0:
                unwatch(fileno)
            super().disconnect(*args, **options)

    return LeavingConnection


class LeavingTransport(redis_transport.Transport):
    """kombu's Redis transport; the event loop lets go of it when its connection is closed."""

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self._leave: Callable[[], object] = lambda: None

    def register_with_event_loop(self, connection: Any, loop: Any) -> None:
        before = set(loop.on_tick)
        super().register_with_event_loop(connection, loop)
        self._leave = partial(loop.on_tick.difference_update, loop.on_tick - before)

    def close_connection(self, connection: Any) -> None:
        try:
            super().close_connection(connection)
        finally:
            self._leave()


def is_readable(fileno: int) -> bool:
    """Whether a read would not wait: data, an end, or an error."""
    poller = select.poll()
    poller.register(fileno, select.POLLIN)
    return bool(poller.poll(0))


class Patient:
    """A subscription whose reads end: redis-py waits without end for what comes next, or for the rest of it."""

    def __init__(self, subscription: Any) -> None:
        self._subscription = subscription

    def __getattr__(self, name: str) -> Any:
        return getattr(self._subscription, name)

    def parse_response(self) -> Any:
        """The next reply; None if none has begun to come. Raises TimeoutError of redis-py if its rest does not come."""
        return self._subscription.parse_response(block=False, timeout=REST_S)
