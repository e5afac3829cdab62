"""What a channel waits for besides kombu's own: for the next item of each of its lists, and for the bell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from workers.node.fetch.bell import Bell
from workers.node.fetch.waiter import BLOCK_S, Waiter

OVERDUE_S: Final = 5.0
"""A reply that is so late does not come."""
BELL: Final = "BELL"


class Waits:
    """The waiters of a channel, by their lists, and its bell. It knows how kombu's poller is told of them."""

    def __init__(self, channel: Any, rung: Callable[[Waiter], None]) -> None:
        """`rung` is called when a waiter's reply has come."""
        self._channel = channel
        self._rung = rung
        self._waiters: dict[str, Waiter] = {}
        self._bell = Bell()
        self.ring = self._bell.ring
        """Have the loop take another turn at once."""
        channel.handlers[BELL] = self._bell.hush
        poller = channel.connection.cycle
        poller._fd_to_chan[self._bell.fileno()] = (channel, BELL)
        poller.poller.register(self._bell.fileno(), poller.eventflags)

    def __iter__(self) -> Iterator[str]:
        return iter(self._waiters)

    def add(self, source: str, claims: str, *, claiming: bool) -> None:
        self._waiters[source] = Waiter(source, claims, self._channel.async_pool.get_connection, claiming=claiming)

    def ask(self, source: str, now_s: float) -> None:
        """Wait for its next item, unless that goes on already. Connects if need be."""
        waiter = self._waiters[source]
        if waiter.asked_at_s is not None:
            return
        poller = self._channel.connection.cycle
        waiter.open()
        if waiter.connection._sock is None or (self._channel, waiter, waiter.type) not in poller._chan_to_sock:
            self._channel.handlers[waiter.type] = lambda: self._rung(waiter)
            poller._register(self._channel, waiter, waiter.type)
        waiter.ask(now_s)

    def look_for_overdue(self, now_s: float) -> None:
        """Raise ConnectionError when a reply does not come: the connection is half open."""
        for waiter in self._waiters.values():
            if waiter.asked_at_s is not None and now_s - waiter.asked_at_s > BLOCK_S + OVERDUE_S:
                waiter.connection.disconnect()
                raise ConnectionError(f"no reply for {now_s - waiter.asked_at_s:.0f} s")

    def end(self, source: str) -> None:
        """Wait for it no longer."""
        waiter = self._waiters.pop(source)
        sock = self._channel.connection.cycle._chan_to_sock.pop((self._channel, waiter, waiter.type), None)
        if sock is not None and sock.fileno() >= 0:
            self._forget(sock.fileno())
        self._channel.handlers.pop(waiter.type, None)
        waiter.close()

    def close(self) -> None:
        for source in list(self._waiters):
            self.end(source)
        self._forget(self._bell.fileno())
        self._bell.close()

    def _forget(self, fileno: int) -> None:
        poller = self._channel.connection.cycle
        poller._fd_to_chan.pop(fileno, None)
        with suppress(KeyError, ValueError, OSError):  # the poller may not have begun with it
            poller._unregister_from_poll(fileno)
