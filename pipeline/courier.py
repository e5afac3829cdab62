"""How a process tells the cache's server what it has to tell: one thread and one connection, about once a second."""

from __future__ import annotations

import atexit
import os
import threading
import weakref
from collections.abc import Callable
from typing import Final, Literal

from pipeline.cache.errors import SharedTierUnavailableError
from pipeline.cache.locks import Lock, interrupted
from pipeline.cache.server.connection import RedisConnection
from pipeline.settings import Settings

EVERY_S: Final = 1.0
AWAY_PAUSE_S: Final = 5.0
"""How often a process without a thread for it tries a server that is away, when nothing else goes on there."""
CLOSE_S: Final = 2.0
"""How long `close` waits for a delivery that is under way."""

Occasion = Literal["due", "now", "last"]
"""`due`: the second is over. `now`: tell all there is. `last`: the same, and the process will not be heard of until the courier
is started again."""
Passenger = Callable[[RedisConnection, Occasion], None]
"""Tells its part. Called by one thread at a time. Raises SharedTierUnavailableError, and nothing else."""


class Courier:
    """One process's way to tell. Carries any number of passengers, of equal right: none waits for another's failure. Thread-safe.

    What a caller may rely on: nothing here raises, and nothing waits for Redis but `deliver` and `close`, the latter for some
    2 s at most. A forked child has a courier that was not started yet, with the same passengers and a connection of its own.
    """

    def __init__(self, connect: Callable[[], RedisConnection] | None = None, *, threaded: bool = True) -> None:
        """`connect` makes a connection of the courier's own: the cache and the courier do not wait for each other's breaker.
        Without it nothing is told. Not `threaded`: the owner calls `deliver` about every second, in a process that forks others
        and had better have no threads."""
        self._connect = connect
        self._threaded = threaded
        self._passengers: list[Passenger] = []
        self._begin()
        _living.add(self)

    def _begin(self) -> None:
        self._connection = self._connect() if self._connect is not None else None
        self._lock = Lock()  # of what follows, for moments
        self._wanted = False
        self._thread: threading.Thread | None = None
        self._stopping = threading.Event()
        self._way = Lock()  # to Redis, for as long as that takes

    @property
    def connects(self) -> bool:
        """Whether there is a server to tell."""
        return self._connect is not None

    def carry(self, passenger: Passenger) -> None:
        """Call the passenger on each occasion from now on."""
        self._passengers.append(passenger)

    def start(self) -> None:
        """Begin to tell, if it has not begun."""
        if self._connection is None or self._thread is not None:
            return
        with self._lock:
            if self._thread is not None:
                return
            self._wanted = True
            if not self._threaded:
                return
            thread = threading.Thread(target=self._run, args=(self._stopping,), name="courier", daemon=True)
            if self._thread is not None:  # a signal handler was here meanwhile
                return
            self._thread = thread
            try:
                thread.start()
            except RuntimeError:  # the interpreter is ending, or there can be no more threads: `close` tells what is left
                self._thread = None
                return
            except BaseException:
                self._thread = None  # it may run or not: a second one does no harm
                raise
        atexit.register(self.close)

    def _run(self, stopping: threading.Event) -> None:
        while not stopping.wait(EVERY_S):
            self.deliver("due")

    def deliver(self, occasion: Occasion = "now") -> bool:
        """Have every passenger tell its part; whether Redis has all of it.

        A signal handler that interrupted its thread inside the cache or the figures tells nothing.
        """
        if self._connection is None or interrupted():
            return False
        told = True
        with self._way:
            for passenger in self._passengers:
                try:
                    passenger(self._connection, occasion)
                except SharedTierUnavailableError:
                    told = False
        return told

    def close(self) -> None:
        """Tell what is left, for the last time until the courier is started again. A signal handler that interrupted its thread
        inside the cache or the figures leaves that to the process's end."""
        if self._connection is None or interrupted():
            return
        with self._lock:
            thread, self._thread = self._thread, None
            wanted, self._wanted = self._wanted, False
            self._stopping.set()
            self._stopping = threading.Event()
        atexit.unregister(self.close)
        if thread is not None:
            thread.join(CLOSE_S)
        if wanted:
            self.deliver("last")
        self._connection.close()

    def forget(self) -> None:
        """In a child that was just forked: the thread is not here, the connection is the parent's, and the locks may be held."""
        self._begin()
        atexit.unregister(self.close)


def build_courier(settings: Settings, *, threaded: bool = True) -> Courier:
    """As the settings have it: one that tells nothing without a shared tier. Connects when it first tells something."""
    if not settings.cache_url:
        return Courier()
    pause_s = EVERY_S if threaded else AWAY_PAUSE_S

    def connect() -> RedisConnection:
        return RedisConnection(settings.cache_url, timeout_s=settings.cache_timeout_s, retry_pause_s=pause_s, purpose="figures")

    return Courier(connect, threaded=threaded)


_living: Final[weakref.WeakSet[Courier]] = weakref.WeakSet()


def _forget_in_child() -> None:
    for courier in list(_living):
        courier.forget()


os.register_at_fork(after_in_child=_forget_in_child)
