"""What a channel waits for besides kombu's own: for the next item of each of its lists, and for the bell."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import suppress
from typing import Any, Final

from workers.node.fetch.bell import Bell
from workers.node.fetch.waiter import BLOCK_S, Waiter
from workers.node.guard.replies import refusing
from workers.node.poison import BROKEN

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
        self._waiters[source] = Waiter(source, claims, self._connect, claiming=claiming)

    def _connect(self) -> Any:
        """A connection that the pool does not count: it has a limit, and a node may have many queues."""
        pool = self._channel.async_pool
        options = pool.connection_kwargs
        # What is claimed need not be read: see `Fetch._rung`.
        return pool.connection_class(**{**options, "parser_class": refusing(options)})

    def ask(self, source: str, now_s: float) -> None:
        """Wait for its next item, unless that goes on already. Connects if need be."""
        waiter = self._waiters[source]
        if waiter.asked_at_s is not None:
            return
        try:
            self._ask(waiter, now_s)
        except BROKEN:  # while it lay idle
            self.break_off(waiter)
            self._ask(waiter, now_s)

    def _ask(self, waiter: Waiter, now_s: float) -> None:
        poller = self._channel.connection.cycle
        waiter.open()
        if waiter.connection._sock is None or (self._channel, waiter, waiter.type) not in poller._chan_to_sock:
            self._channel.handlers[waiter.type] = lambda: self._rung(waiter)
            poller._register(self._channel, waiter, waiter.type)
        waiter.ask(now_s)

    def break_off_overdue(self, now_s: float) -> bool:
        """End waits whose reply does not come: their connections are half open. Whether there was one."""
        overdue = [
            waiter
            for waiter in self._waiters.values()
            if waiter.asked_at_s is not None and now_s - waiter.asked_at_s > BLOCK_S + OVERDUE_S
        ]
        for waiter in overdue:
            self.break_off(waiter)
        return bool(overdue)

    def break_off(self, waiter: Waiter) -> None:
        """End its connection; it waits anew, on another one, when it is asked to. What the server had claimed for it meanwhile is
        a stray."""
        poller = self._channel.connection.cycle
        poller._chan_to_sock.pop((self._channel, waiter, waiter.type), None)
        for fileno, known in list(poller._fd_to_chan.items()):
            if known == (self._channel, waiter.type):
                self._forget(fileno)
        waiter.close()

    def end(self, source: str) -> None:
        """Wait for it no longer."""
        waiter = self._waiters.pop(source)
        self.break_off(waiter)
        self._channel.handlers.pop(waiter.type, None)

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
