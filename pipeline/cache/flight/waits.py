"""Which threads of this process wait for which, in any of its caches: a circle of waits would never end."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, Final

from pipeline.cache.coherence.process import Coherence
from pipeline.cache.entry import AsOf
from pipeline.cache.errors import CyclicComputationError
from pipeline.cache.locks import Lock, begins_anew_in_children

_NOTHING: Final = AsOf("", 0)


class Flight:
    """A computation that runs in this process, led by the thread that created this object.

    Its leader sets `outcome` or `failure`, if it gets that far, and calls `end` in every case. No thread holds a lock while it
    waits: a signal handler may do anything in the middle of a wait.
    """

    def __init__(self, key: str, deps: tuple[str, ...], as_of: AsOf | None) -> None:
        """`as_of`: the log's known position before the computation's first input was read; None: it has read none."""
        self.key = key
        self.deps = deps
        self.as_of = _NOTHING if as_of is None else as_of
        self._has_begun = as_of is not None
        self.thread = threading.get_ident()
        self.outcome: Any = None
        self.failure: Exception | None = None
        self.ended = False
        self._bells: list[threading.Lock] = []

    def learn(self, coherence: Coherence) -> AsOf:
        """The knowledge that it computes by: until it begins, all that is known now."""
        if not self._has_begun:
            self.as_of = coherence.as_of()
        return self.as_of

    def end(self) -> None:
        """Wake all waiting threads. A second call does nothing."""
        self.ended = True
        while self._bells:
            self._bells.pop().release()

    def wait(self, timeout_s: float) -> bool:
        """Wait until the flight has ended. Returns whether it did within that time."""
        bell = threading.Lock()
        bell.acquire()
        self._bells.append(bell)
        # In this order, the reverse of `end`: a thread that comes too late to be woken sees that the flight has ended.
        return self.ended or bell.acquire(timeout=timeout_s)


class Waits:
    """The flights that each thread of a process waits for: several where a signal handler interrupted the thread's wait."""

    def __init__(self) -> None:
        self._lock = Lock()
        self._flights: dict[int, tuple[Flight, ...]] = {}
        begins_anew_in_children(self)

    def begin_anew(self) -> None:
        self._flights = {}

    @contextmanager
    def waiting(self, flight: Flight) -> Iterator[None]:
        """Within the block this thread waits for that flight. Raises CyclicComputationError if the flight's leader waits,
        directly or through others, for a flight of this thread."""
        me = threading.get_ident()
        with self._lock:
            circle = self._way_back(flight, me)
            if circle is None:
                self._flights[me] = (*self._flights.get(me, ()), flight)
        if circle is not None:
            keys = " -> ".join(repr(each.key) for each in (circle[-1], *circle))
            raise CyclicComputationError(f"computations that need each other, each in a thread of its own: {keys}")
        try:
            yield
        finally:
            with self._lock:
                left = tuple(each for each in self._flights.get(me, ()) if each is not flight)
                if left:
                    self._flights[me] = left
                else:
                    self._flights.pop(me, None)

    def _way_back(self, flight: Flight, me: int) -> tuple[Flight, ...] | None:
        """The way from that flight, over the flights that each leader waits for, to one that this thread leads; None if there is
        none."""
        ways: list[tuple[Flight, ...]] = [(flight,)]
        seen = {flight.thread}
        while ways:
            way = ways.pop()
            if way[-1].ended:
                continue  # threads that still wait for it are being woken
            if way[-1].thread == me:
                return way
            for following in self._flights.get(way[-1].thread, ()):
                if following.thread not in seen:
                    seen.add(following.thread)
                    ways.append((*way, following))
        return None


WAITS: Final = Waits()
"""One for the process: a circle may lead through several caches."""
